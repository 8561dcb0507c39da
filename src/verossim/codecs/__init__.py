"""The contract of a codec: raw records become points of a Space, and come back.

A codec is all that a modality must provide. Its walk is: `fit` reads blocks of raw records once and settles the space;
`parse` turns raw values into typed ones and sets aside records that cannot be used; `encode` turns parsed records into `x`;
`decode` goes back. Conditions (a label, a table row) are encoded by the same shelf.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..spaces import Problem, Records, Space

__all__ = ["Codec"]


class Codec(ABC):
    """Raw records <-> x in a Space. `space` is known after `fit`, `notes` are words of warning from it, each with a stable code
    in front; `state` is what the saved model keeps."""

    Config: ClassVar[type]
    modality: str  #: what kind of records it reads
    lossy: ClassVar[bool] = False  #: whether many records share one x, so that how probable x is does not say it of a record
    windowed: ClassVar[bool] = False  #: whether a record may be cut into several points, by `cut`
    config: Any
    space: Space
    notes: list[str]

    @property
    def shelf(self) -> str:
        """Its name among the codecs."""
        return self.modality

    @abstractmethod
    def fit(self, blocks: Iterable[Records]) -> "Codec":
        """Settles sizes, vocabulary, scales and column types from one streaming pass; returns itself."""

    @abstractmethod
    def parse(self, records: Records, problems: list[Problem], unknown: bool = False) -> Records:
        """Typed records, without those that cannot be used; each of these adds a Problem to `problems`.

        With `unknown`, what a record marks as not known (see each codec) is kept, to be filled in.
        """

    @abstractmethod
    def encode(self, records: Records, unknown: bool = False) -> Tensor:
        """x (B, *event) of parsed records; what is missing is NaN. With `unknown`, it is there and only not known."""

    @abstractmethod
    def decode(self, x: Tensor, first: int = 0, known: Records | None = None) -> Records:
        """Records from x (B, *event), numbered from `first`: the inverse of `encode` up to the documented loss.

        With `known`, the parsed records that x completes, what is known stands as it was.
        """

    def cut(self, records: Records, learning: bool) -> tuple[Tensor, np.ndarray]:
        """Points x (W, *event) that parsed records are learned from, or judged by, and which record (W,) each is of, in order.
        log p of a record is the sum over the points that it is judged by."""
        return self.encode(records), np.arange(len(records))

    def units(self, x: Tensor) -> Tensor:
        """What each point counts for in a mean, (B,) float32, before weights: 1, or its tokens."""
        return torch.ones(len(x))

    def sizes(self, x: Tensor) -> Tensor:
        """Variables of the raw record in each point, (B,) int64, what bits per dimension divide by: bytes, for texts."""
        return torch.full((len(x),), self.space.coordinates)

    @abstractmethod
    def log_volume(self, x: Tensor) -> Tensor:
        """log |d x / d raw|, (B,) nats: adding it turns a log density of x into one in raw units. Entries that stand for
        cells (levels, integers) are masses and add nothing; NaN entries add nothing. NaN where the codec is lossy."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that `fit` learned, as JSON-ready values."""

    @classmethod
    @abstractmethod
    def restore(cls, config: Any, state: dict[str, Any]) -> "Codec":
        """The codec that `state` was taken from."""

    @abstractmethod
    def describe(self) -> list[dict[str, Any]]:
        """What was inferred, a row a column, for people: shown after `fit` and by `describe`."""
