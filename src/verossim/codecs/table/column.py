"""What each kind of column must be able to do: read its cells, become entries of x, and come back.

    number      x = (v - mean) / std                real; log |dx/dv| = -log std
    positive    x = (log v - mean) / std            real; log |dx/dv| = -log std - log v
    integer     x = (v - mean) / std                a cell of width 1 / std: its probability is a mass
    words       x = one-hot over the words          a simplex
    constant, identifier                            no entries: put back by decode

A column that had missing cells in training has two more entries, a simplex (present, missing). The entries of the value are NaN
where the cell is missing, so its probability is that of the indicator alone, and a family may be asked what should stand there.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from . import cells

__all__ = ["Column", "Fault"]


@dataclass(frozen=True)
class Fault:
    """One cell that cannot be used: its row in the block, a code, what is wrong and the way out."""

    row: int
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Column(ABC):
    """One column as `fit` settled it.

    kind : the type in words; dtype : the Arrow type that decode gives; gaps : missing cells in training; indicated : whether x
    says which cells are missing; distinct : different values, where they were counted.
    """

    name: str
    kind: str
    dtype: str
    gaps: int = 0
    indicated: bool = False
    distinct: int | None = None

    @property
    def entries(self) -> int:
        """Entries of x for the value, the indicator not counted."""
        return 0

    @property
    def width(self) -> float:
        """The width in x of the cell that a value stands for, 0 where it is real."""
        return 0.0

    @property
    def simplex(self) -> bool:
        """Whether the value's entries are a one-hot block."""
        return False

    @property
    @abstractmethod
    def range(self) -> str:
        """The values that occurred, for people."""

    @abstractmethod
    def parse(self, column: pa.Array) -> tuple[pa.Array, list[Fault]]:
        """Typed values (B,), null where missing, and the cells that cannot be used."""

    @abstractmethod
    def encode(self, values: pa.Array) -> np.ndarray:
        """Entries (B, entries) float64 of parsed values, NaN where missing."""

    @abstractmethod
    def decode(self, x: np.ndarray, first: int) -> pa.Array:
        """Parsed values from entries x (B, entries), null where x is NaN; `first` is the first record's number."""

    def render(self, values: pa.Array) -> pa.Array:
        """Parsed values in the column's own Arrow type."""
        return cells.typed(values, cells.arrow_type(self.dtype))

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """log |dx / dv| where the value is real, (B,) nats; 0 elsewhere."""
        return np.zeros(len(x))
