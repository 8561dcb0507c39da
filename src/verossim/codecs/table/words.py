"""Columns of words, and columns that are not learned: constants and identifiers."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import near, printable
from . import cells
from .column import Column, Fault

__all__ = ["Constant", "Identifier", "Words"]


@dataclass(frozen=True, kw_only=True)
class Words(Column):
    """One-hot over `words`; where `other` is set, a last entry stands for all words left out, and decodes to `other`, the most
    common of them. Kind "boolean": two words, the false one first."""

    words: tuple[str, ...]
    other: str | None = None

    @property
    def entries(self) -> int:
        """One for each word, and one for all others."""
        return len(self.words) + (self.other is not None)

    @property
    def simplex(self) -> bool:
        """Always."""
        return True

    @property
    def range(self) -> str:
        """The first words and how many there are."""
        shown = ", ".join(printable(word, 20) for word in self.words[:5])
        more = f" and {len(self.words) - 5} more" if len(self.words) > 5 else ""
        return shown + more + (", others pooled" if self.other is not None else "")

    def parse(self, column: pa.Array) -> tuple[pa.Array, list[Fault]]:
        """Words (B,) string. Fault TAB_CATEGORY for a new word where there is no entry for others."""
        text = cells.words(column)
        if self.kind == "boolean":
            text = self._truth(text)
        if self.other is not None:
            return text, []
        new = pc.and_(text.is_valid(), pc.invert(pc.is_in(text, value_set=pa.array(self.words))))
        rows = np.flatnonzero(new.to_numpy(zero_copy_only=False)).tolist()
        hints: dict[pa.Scalar, str] = {}  # a word that occurs often is looked up once
        for word in (text[row] for row in rows):
            if word not in hints:
                hints[word] = near(printable(word), map(printable, self.words))
        return text, [Fault(row, "TAB_CATEGORY", f"column '{printable(self.name)}': {cells.shown(text, row)} did not occur in "
                            "training.", hints[text[row]]) for row in rows]

    def _truth(self, text: pa.Array) -> pa.Array:
        """Words of truth in any spelling, as the column's own two."""
        lower = pc.utf8_lower(text)
        for own, spellings in zip(self.words, cells.TRUTH, strict=True):
            text = pc.if_else(pc.is_in(lower, value_set=pa.array(spellings)), own, text)
        return text

    def encode(self, values: pa.Array) -> np.ndarray:
        """(B, entries): one 1 a row."""
        index = pc.index_in(values, value_set=pa.array(self.words)).fill_null(len(self.words)).to_numpy(zero_copy_only=False)
        x = np.eye(len(self.words) + 1)[index][:, :self.entries]
        x[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return x

    def decode(self, x: np.ndarray, first: int) -> pa.Array:
        """The word of the largest entry."""
        words = pa.array([*self.words, *([] if self.other is None else [self.other])])
        missing = np.isnan(x).any(axis=1)
        return words.take(pa.array(np.nan_to_num(x).argmax(axis=1), mask=missing))

    def render(self, values: pa.Array) -> pa.Array:
        """Words as the column's Arrow type; a dictionary type gets all words, in their order."""
        kind = cells.arrow_type(self.dtype)
        if not pa.types.is_dictionary(kind):
            return cells.typed(values, kind)
        known = [*self.words, *([] if self.other is None else [self.other])]
        known += sorted(set(values.drop_null().to_pylist()) - set(known))
        index = pc.index_in(values, value_set=pa.array(known)).cast(kind.index_type)
        return pa.DictionaryArray.from_arrays(index, cells.typed(pa.array(known), kind.value_type), ordered=kind.ordered)


@dataclass(frozen=True, kw_only=True)
class Constant(Column):
    """Always `value` (text, or None where all is missing)."""

    value: str | None

    @property
    def range(self) -> str:
        """The value."""
        return "nothing" if self.value is None else f"always {printable(self.value, 40)}"

    def parse(self, column: pa.Array) -> tuple[pa.Array, list[Fault]]:
        """The cells as text: another value at scoring is no fault, since the column says nothing."""
        return cells.words(column), []

    def encode(self, values: pa.Array) -> np.ndarray:
        """(B, 0)."""
        return np.zeros((len(values), 0))

    def decode(self, x: np.ndarray, first: int) -> pa.Array:
        """The value, (B,) string."""
        return pa.array([self.value] * len(x), pa.string())


@dataclass(frozen=True, kw_only=True)
class Identifier(Column):
    """`prefix`, then a number of at least `digits` digits that goes on after the largest in training: `after` + 1 for the
    first record. No identifier of training is kept."""

    prefix: str
    digits: int
    after: int

    @property
    def range(self) -> str:
        """The first that decode would give."""
        return f"goes on with {printable(self._written(0), 40)}"

    def _written(self, number: int) -> str:
        return f"{self.prefix}{self.after + 1 + number:0{self.digits}d}"

    def parse(self, column: pa.Array) -> tuple[pa.Array, list[Fault]]:
        """The cells as text."""
        return cells.words(column), []

    def encode(self, values: pa.Array) -> np.ndarray:
        """(B, 0)."""
        return np.zeros((len(values), 0))

    def decode(self, x: np.ndarray, first: int) -> pa.Array:
        """New identifiers (B,) string, numbered from `first`."""
        return pa.array([self._written(first + row) for row in range(len(x))], pa.string())
