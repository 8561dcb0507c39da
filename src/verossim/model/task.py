"""What is to be learned from what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import data
from ..codecs import Codec
from ..codecs.label import Label
from ..spaces import Space
from ..training import Engine, Journal

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """A family (`kind`, its config) that is to learn encoded records, the codecs they came by, and how to learn.

    card : what is known of the model so far; asked : the settings as they were given, by name;
    began : when the fit did, by `time.perf_counter`; tensors : of the family that is gone on from, by name. base : the sha256
    of its model where what is learned is to be saved apart from it.
    """

    kind: Any
    config: Any
    learning: Any
    codec: Codec
    labels: Label | None
    encoded: data.Encoded
    seed: int
    journal: Journal
    engine: Engine
    card: dict[str, Any]
    asked: dict[str, Any]
    began: float
    tensors: Mapping[str, Tensor] | None = None
    base: str | None = None

    @property
    def condition(self) -> Space | None:
        """The space of what the records are conditional on."""
        return None if self.labels is None else self.labels.space
