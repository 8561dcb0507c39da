"""The contract of features: records of one modality become vectors that measures can compare.

`fit` settles on the reference what has to be settled (a size, scales, a small classifier), `__call__` gives vectors. Two
numbers may be compared only where name and hash of their features are equal: the hash covers all that the vectors follow from.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..config import NoSettings
from ..errors import BadData, Incompatible
from ..spaces import Records

__all__ = ["Features", "blocks", "choose", "hash_of", "modality_of", "texts_of"]

FEWEST = 200  # records for a classifier of its own to be the default


class Features(ABC):
    """Records -> (N, D) float64. modalities: of records that it reads: "image" (a column "image" of uint8 arrays (H, W, C)),
    "table" (Arrow columns), "text" (a column "text" of str), "audio", "video"."""

    Config: ClassVar[type] = NoSettings
    modalities: ClassVar[tuple[str, ...]]
    supervised: ClassVar[bool] = False  #: whether `fit` needs classes
    learns: ClassVar[bool] = False  #: whether `fit` learns more than a size and scales, so that others should be compared
    resize: str = ""  #: the rule by which pictures come to one size; known after fit
    notes: tuple[str, ...] = ()  #: words that should be read beside the numbers; known after fit

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


def choose(modality: str, labels: bool, records: int) -> str:
    """The name of the features that are used where nobody says which. labels : whether classes are known; records : of the
    reference. Raises Incompatible FEATURES_MODALITY."""
    from .sentences import installed
    if modality == "image":
        return "classifier" if labels and records >= FEWEST else "principal"
    if modality == "table":
        return "columns"
    if modality == "text":
        return "sentences" if installed() else "ngrams"
    raise Incompatible("FEATURES_MODALITY", f"There are no features of {modality} records.", "See: verossim list features.")


def modality_of(records: Records, reads: tuple[str, ...], name: str) -> str:
    """Which modality of `reads` the records are of. Raises Incompatible FEATURES_MODALITY, and BadData DATA_EMPTY where
    there are none."""
    column = next((m for m in ("image", "text", "audio", "video") if m in records.columns), "table")
    arrow = all(isinstance(c, pa.Array | pa.ChunkedArray) for c in records.columns.values())
    found = "table" if arrow and (column != "text" or "text" not in reads) else column
    if found not in reads:
        raise Incompatible("FEATURES_MODALITY", f"Features '{name}' read {' or '.join(reads)} records, and these are {found}.",
                           "See: verossim list features.")
    if not len(records):
        raise BadData("DATA_EMPTY", f"{records.origin}: there are no records to take features of.", "Give at least one.")
    return found


def blocks(records: Records, size: int) -> Iterator[Records]:
    """The records, `size` of them at a time."""
    for first in range(0, len(records), size):
        yield Records({name: column[first:first + size] for name, column in records.columns.items()},
                      records.origin, records.first + first, records.names[first:first + size])


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


def texts_of(records: Records) -> list[str]:
    """The column "text" as strings; bytes are read as UTF-8, and what is none becomes the replacement character."""
    plain = (value.as_py() if type(value).__module__.startswith("pyarrow") else value for value in records.columns["text"])
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "") for value in plain]
