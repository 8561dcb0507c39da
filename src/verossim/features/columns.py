"""Rows of a table as vectors: numbers standardised, dates as numbers, words one-hot.

    number or date   (v - mean) / deviation of the reference; where missing 0, and beside it whether it is missing where
                     cells of the reference are
    words, truth     one entry for each of the commonest `levels` words, one for all others, one for "missing" where cells of
                     the reference are

Words are never ordered, and a word that the reference has not is one of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config import knob
from ..errors import BadData, Incompatible, near, printable
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of

__all__ = ["MEMBER", "Columns", "ColumnsConfig"]

BLOCK = 16_384  # rows at a time


@dataclass(frozen=True, kw_only=True)
class ColumnsConfig:
    """Settings of columns."""

    levels: int = knob(50, "words of a column with an entry of their own", low=1, high=10_000)


@dataclass(frozen=True)
class _Column:
    """A column as the reference settled it. words: None for numbers; gaps: whether cells of the reference are missing."""

    name: str
    gaps: bool
    mean: float = 0.0
    deviation: float = 1.0
    words: tuple[str, ...] | None = None

    @property
    def entries(self) -> int:
        return (1 if self.words is None else len(self.words) + 1) + self.gaps

    def vectors(self, values: Any, out: np.ndarray) -> None:
        """Fills `out` (N, entries), which is zero."""
        if self.words is None:
            missing = np.isnan(values)
            out[:, 0] = np.where(missing, 0.0, (values - self.mean) / self.deviation)
        else:
            missing = values.is_null().to_numpy(zero_copy_only=False)
            index = pc.index_in(values, value_set=pa.array(self.words, pa.string())).fill_null(len(self.words)).to_numpy()
            out[np.arange(len(out)), np.where(missing & self.gaps, self.entries - 1, index)] = 1
        if self.gaps:
            out[:, -1] = missing


class Columns(Features):
    """Tables -> (N, D) float64, the columns in the order of the reference. A label stays among them only where it is given."""

    Config = ColumnsConfig
    modalities = ("table",)

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Columns":
        """Settles scales and words.

        Raises Incompatible FEATURES_MODALITY; BadData DATA_EMPTY, TAB_TYPE for cells that are no table's, TAB_NOTHING where
        every cell is missing.
        """
        modality_of(records, self.modalities, "columns")
        self.names = tuple(records.columns)
        settled = (self._settled(name, _read(name, column)) for name, column in records.columns.items())
        self.columns = tuple(column for column in settled if column is not None)
        if not self.columns:
            raise BadData("TAB_NOTHING", f"{records.origin}: every cell is missing.", "Give at least one column with values.")
        return self

    def _settled(self, name: str, values: np.ndarray | pa.Array) -> _Column | None:
        if isinstance(values, np.ndarray):
            known = values[np.isfinite(values)]
            if not len(known):
                return None
            still = known.min() == known.max()  # whose deviation may be what rounding left of it
            return _Column(name, bool(np.isnan(values).any()), float(known.mean()), 1.0 if still else float(known.std()))
        counts = {entry["values"]: entry["counts"] for entry in values.drop_null().value_counts().to_pylist()}
        words = tuple(sorted(counts, key=lambda word: (-counts[word], word))[:self.config.levels])
        return _Column(name, values.null_count > 0, words=words) if counts else None

    def __call__(self, records: Records) -> np.ndarray:
        """(N, D) float64. Raises Incompatible TAB_SCHEMA with the difference where columns are not those of the reference."""
        modality_of(records, self.modalities, "columns")
        self._same_columns(records.columns)
        out = np.zeros((len(records), sum(column.entries for column in self.columns)))
        for first, block in zip(range(0, len(records), BLOCK), blocks(records, BLOCK), strict=True):
            entry = 0
            for column in self.columns:
                values = _read(column.name, block.columns[column.name])
                if isinstance(values, np.ndarray) != (column.words is None):
                    values = self._reread(column, values, records)
                column.vectors(values, out[first:first + BLOCK, entry:entry + column.entries])
                entry += column.entries
        return out

    def _same_columns(self, columns: Mapping[str, Any]) -> None:
        missing = [name for name in self.names if name not in columns]
        extra = [name for name in columns if name not in self.names]
        if missing or extra:
            told = "; ".join(f"{word} {', '.join(repr(printable(name, 40)) for name in names[:5])}"
                             for word, names in (("missing", missing), ("not known", extra)) if names)
            raise Incompatible("TAB_SCHEMA", f"The columns are not those of the reference: {told}.",
                               near(printable(extra[0]), map(printable, missing or self.names)) if extra else "Add them.")

    def _reread(self, column: _Column, values: np.ndarray | pa.Array, records: Records) -> np.ndarray | pa.Array:
        """Values of the other kind where all are missing. Raises Incompatible TAB_SCHEMA where they are not."""
        if isinstance(values, np.ndarray) and np.isnan(values).all():
            return pa.nulls(len(values), pa.string())
        if not isinstance(values, np.ndarray) and values.null_count == len(values):
            return np.full(len(values), np.nan)
        is_, was = ("numbers", "words") if isinstance(values, np.ndarray) else ("words", "numbers")
        raise Incompatible("TAB_SCHEMA", f"{records.origin}: column '{printable(column.name)}' holds {is_}, in the reference "
                           f"{was}.", "Give both the same types.")

    @property
    def hash(self) -> str:
        """Of the columns, their scales and words."""
        return hash_of("columns", self.names, [(c.name, c.gaps, c.mean, c.deviation, c.words) for c in self.columns])


def _read(name: str, column: Any) -> np.ndarray | pa.Array:
    """Numbers (N,) float64 with NaN where missing, moments in microseconds; or words as an Arrow array of strings."""
    is_ = pa.types
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else pa.array(column)
    if is_.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if is_.is_date(kind) or is_.is_timestamp(kind):
        values = values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    elif is_.is_time(kind) or is_.is_duration(kind):
        values = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif is_.is_boolean(kind) or is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return values.cast(pa.string())
    elif not (is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind) or is_.is_null(kind)):
        raise BadData("TAB_TYPE", f"Column '{printable(name)}' is {kind}, which is no cell of a table.",
                      "Leave the column out.")
    return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)


MEMBER = Columns
