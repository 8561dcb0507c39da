"""The contract of features: records of one modality become vectors that measures can compare.

`fit` settles on the reference what has to be settled (a size, scales, a small classifier), `__call__` gives vectors. Two
numbers may be compared only where name and hash of their features are equal: the hash covers all that the vectors follow from.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from ..config import NoSettings
from ..spaces import Records

__all__ = ["Features", "hash_of"]


class Features(ABC):
    """Records -> (N, D) float64. modalities: of records that it reads: "image" (a column "image" of uint8 arrays (H, W, C)),
    "table" (Arrow columns), "text" (a column "text" of str), "audio", "video"."""

    Config: ClassVar[type] = NoSettings
    modalities: ClassVar[tuple[str, ...]]
    supervised: ClassVar[bool] = False  #: whether `fit` needs classes
    resize: str = ""  #: the rule by which pictures come to one size; known after fit

    def __init__(self, config: Any = None):
        self.config = self.Config() if config is None else config

    @abstractmethod
    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Features":
        """Settles on the reference records, labels (N,) of classes, -1 where unknown; returns itself."""

    @abstractmethod
    def __call__(self, records: Records) -> np.ndarray:
        """Vectors (N, D) float64, a record each; batches inside, so that memory is bounded by these and the result."""

    @property
    @abstractmethod
    def hash(self) -> str:
        """16 hex digits of all that the vectors follow from: settings, weights, sizes, scales."""


def hash_of(*parts: Any) -> str:
    """16 hex digits of a sha256 over values: arrays by their bytes, other things by their repr."""
    out = hashlib.sha256()
    for part in _flat(parts):
        if isinstance(part, np.ndarray):
            out.update(f"{part.shape}{part.dtype}".encode())
            out.update(np.ascontiguousarray(part).tobytes())
        else:
            out.update(repr(part).encode())
    return out.hexdigest()[:16]


def _flat(parts: Iterable[Any]) -> Iterable[Any]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        else:
            yield part
