"""The words every room speaks: what data is to a family (a Space), and what travels between the rooms.

A Space is all that a family may know of the data. Raw records (files, cells, pixels) become points `x` of a Space through a
codec, and come back through the same codec.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .seeds import Noise

__all__ = ["SIDE", "Batch", "Continuous", "Discrete", "Kind", "Likelihood", "Problem", "Records", "Space", "space_from",
           "space_plain"]

Kind = Literal["exact", "bound", "estimate"]
SIDE = "\0side"  # the column, which no data has, of what decides in a record's place on which side of a split it is


@dataclass(frozen=True, kw_only=True)
class Continuous:
    """Real tensors of about unit scale; a missing entry is NaN.

    shape, axes : the event's shape and the name of each axis, e.g. (3, 32, 32) and ("channel", "height", "width").
    levels : 256 when every value lies at the middle of one of 256 equal steps over [-1, 1] (8-bit data).
    widths : the same for the entries of a vector one by one: the step between neighbouring values, 0 where real-valued.
    simplexes : (first, last) slices of a vector that are one-hot blocks, one block a category.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    levels: int | None = None
    widths: tuple[float, ...] = ()
    simplexes: tuple[tuple[int, int], ...] = ()

    @property
    def dims(self) -> int:
        """Entries of one event."""
        return math.prod(self.shape)

    @property
    def coordinates(self) -> int:
        """Variables of one event: entries, with each simplex counted once. Bits per dimension divide by it."""
        return self.dims - sum(last - first - 1 for first, last in self.simplexes)

    def observed(self, x: Tensor) -> int | Tensor:
        """Variables that are there in each event (B, *shape): (B,) on the CPU, at least 1; a number where all are."""
        there = ~x.flatten(1).isnan()
        if bool(there.all()):
            return self.coordinates
        count = there.sum(dim=1)
        for first, last in self.simplexes:
            count -= (last - first - 1) * there[:, first]
        return count.clamp(min=1).float().cpu()

    def cells(self) -> Tensor:
        """Width of the cell that each entry's value stands for, (dims,) float64; 0 where the entry is real-valued."""
        if self.levels:
            return torch.full((self.dims,), 2.0 / self.levels, dtype=torch.float64)
        return torch.tensor(self.widths, dtype=torch.float64) if self.widths else torch.zeros(self.dims, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """Integer tokens in [0, vocabulary); `pad` marks what is not there (unknown, or past the end). Shape () is one label.

    An entry ~t, below zero, is the token t as a condition on the rest: given, never predicted. start, stop : tokens that begin
    and end a document, None in spaces without.
    """

    shape: tuple[int, ...]
    vocabulary: int
    pad: int | None = None
    start: int | None = None
    stop: int | None = None

    @property
    def dims(self) -> int:
        """Tokens of one event."""
        return math.prod(self.shape)

    @property
    def coordinates(self) -> int:
        """Variables of one event: its tokens."""
        return self.dims


Space = Continuous | Discrete


def space_plain(space: Space) -> dict[str, Any]:
    """A space as JSON-ready values; `space_from` reads them back."""
    return {"kind": type(space).__name__, **{k: v for k, v in vars(space).items() if v not in (None, ())}, "shape": space.shape}


def space_from(plain: Mapping[str, Any]) -> Space:
    """The space that `space_plain` wrote down, lists turned back into tuples."""
    def frozen(value: Any) -> Any:
        return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value
    values = {k: frozen(v) for k, v in plain.items() if k != "kind"}
    return {"Continuous": Continuous, "Discrete": Discrete}[plain["kind"]](**values)


@dataclass(frozen=True)
class Batch:
    """Points of a space, ready to be learned from.

    x (B, *event); condition (B, *condition event) or None; units (B,) the weight of each record in a mean: the record's
    own weight, or its tokens without padding; index (B,) the record's number in its source; noise: a random stream for
    each, which a loss draws from.
    """

    x: Tensor
    condition: Tensor | None
    units: Tensor
    index: Tensor
    noise: Noise | None = None


@dataclass(frozen=True)
class Likelihood:
    """Log-probabilities in nats, with what kind of number they are.

    log_prob (B,) nats; kind "exact", "bound" (never above the truth) or "estimate", then stderr (B,) in nats;
    coordinates: variables of one record, what bits per dimension divide by; or of each, (B,), where records differ in length.
    """

    log_prob: Tensor
    kind: Kind
    coordinates: int | Tensor
    stderr: Tensor | None = None

    @property
    def bits(self) -> Tensor:
        """Bits per dimension, (B,): -log_prob / (coordinates ln 2)."""
        return -self.log_prob / (self.coordinates * math.log(2))

    @property
    def bits_stderr(self) -> Tensor | None:
        """Standard error of `bits`, (B,), where `log_prob` is an estimate."""
        return None if self.stderr is None else self.stderr / (self.coordinates * math.log(2))


@dataclass(frozen=True)
class Problem:
    """Something wrong with one record or file that was passed over: a stable code, where, what, and what to do."""

    code: str
    where: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Records:
    """A block of records, column by column: the raw things people have, or the same parsed.

    columns : name -> sequence of one length. A picture set has the column "image" (encoded bytes as they lie in the file,
        or after parsing uint8 arrays (H, W, C)); a table has its own columns, as Arrow arrays. A label is one more column.
    origin, first : where the block comes from and the number of its first record there, for messages.
    names : one name a record where it has one (a file name), else empty.
    """

    columns: Mapping[str, Sequence[Any]]
    origin: str = "data"
    first: int = 0
    names: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)

    def where(self, row: int) -> str:
        """The place of one record of the block, as a person would say it."""
        return self.names[row] if self.names else f"{self.origin}, record {self.first + row + 1}"

    def take(self, rows: Sequence[int]) -> "Records":
        """The records at `rows` (numbers within the block), in that order, under their own names."""
        rows = [int(r) for r in rows]
        names = [self.where(r) for r in rows]
        columns = {name: _taken(c, rows) for name, c in self.columns.items()}
        return Records(columns, self.origin, self.first, names)

    def with_columns(self, **columns: Sequence[Any]) -> "Records":
        """The same records with some columns replaced or added."""
        return replace(self, columns={**self.columns, **columns})

    def without(self, *names: str) -> "Records":
        """The same records less some columns."""
        return replace(self, columns={k: v for k, v in self.columns.items() if k not in names})

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dictionary a record; for people and tests, never for the hot path."""
        for row in range(len(self)):
            yield {name: c[row].as_py() if _is_arrow(c) else c[row] for name, c in self.columns.items()}


def _taken(column: Any, rows: list[int]) -> Any:
    if not _is_arrow(column):
        return [column[row] for row in rows]
    return column.take(rows) if rows else column.slice(0, 0)    # Arrow takes an empty list for one of nulls


def _is_arrow(column: Any) -> bool:
    return type(column).__module__.startswith("pyarrow")
