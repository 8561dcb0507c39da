"""Columns of numbers and dates: scaled to mean 0 and deviation 1, and back.

Whole numbers are centred in 64-bit integers before they become float32, so 1,000,000,007 and 1,000,000,008 stay apart. x keeps
24 bits, so a real v comes back to about |v - mean| * 6e-8. A whole number whose deviation is over 2^20 has a cell narrower in x
than float32 resolves: it counts as real (the density over a step is the step's mass, to one part in 10^12), and may come back
changed in its last digits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import printable
from . import cells
from .column import Column, Fault

__all__ = ["Number"]

#: Cells narrower than this in x are below the resolution of float32.
NARROW = 2.0 ** -20

#: Largest number that is used, and largest |x|: its square still is a float32.
LARGEST, FARTHEST = 1e307, 1e18


@dataclass(frozen=True, kw_only=True)
class Number(Column):
    """x = (v - mean) / std, or the same of log v for kind "positive".

    For kinds "integer" and "date" v counts whole steps and `mean` is an int; a date's step is `unit` microseconds: a day, a
    second or one. low, high : the range in training; clip : whether decode keeps to it; form : how text cells are written.
    """

    mean: float | int
    std: float
    low: float | int
    high: float | int
    clip: bool
    form: str
    unit: int = 0

    @property
    def whole(self) -> bool:
        """Whether values are whole numbers of a step."""
        return self.kind in ("integer", "date")

    @property
    def entries(self) -> int:
        """One."""
        return 1

    @property
    def width(self) -> float:
        """1 / std for whole numbers, unless too narrow to see."""
        return 1 / self.std if self.whole and 1 / self.std > NARROW else 0.0

    @property
    def range(self) -> str:
        """The smallest and the largest value; moments in UTC."""
        if self.unit:
            moments = pa.array([self.low * self.unit, self.high * self.unit], pa.int64())
            clock = "" if self.unit == cells.DAY else " %H:%M:%S"
            return " to ".join(cells.stamped(moments, self.form or f"{cells.DATES[0]}{clock}").to_pylist())
        return f"{self.low:.6g} to {self.high:.6g}" if isinstance(self.low, float) else f"{self.low} to {self.high}"

    def parse(self, column: pa.Array) -> tuple[pa.Array, list[Fault]]:
        """int64 of whole numbers and dates (in steps), else float64.

        Faults: TAB_TYPE, TAB_DATE, TAB_NUMBER (an integer beyond float64), TAB_NONFINITE, TAB_RANGE.
        """
        if self.unit:
            return self._parse_dates(column)
        read = cells.numbers(column, "either" if self.form == "comma" else self.form)
        values = read.values.astype(np.float64)
        usable = read.usable
        too_large = usable & (np.abs(values) > LARGEST)
        not_positive = usable & (values <= 0) if self.kind == "positive" else np.zeros(len(values), bool)
        not_whole = usable & (values != np.rint(values)) if self.whole else np.zeros(len(values), bool)
        fine = usable & ~(too_large | not_positive | not_whole)
        far = np.zeros(len(values), bool)
        far[fine] = np.abs(self._scaled(read.values[fine])) > FARTHEST
        skip = "Correct the cell, or leave the record out."
        faults = [
            *self._faults(column, read.unread, "TAB_TYPE", "is not a number", f"Set types={self.name}=category to keep it."),
            *self._infinite(column, read.infinite),
            *self._faults(column, not_positive, "TAB_RANGE", "is not positive", f"Set types={self.name}=real to keep it."),
            *self._faults(column, not_whole, "TAB_TYPE", "is not a whole number", f"Set types={self.name}=real to keep it."),
            *self._faults(column, too_large, "TAB_RANGE", f"is beyond {LARGEST:g}", skip),
            *self._faults(column, far, "TAB_RANGE", f"lies over {FARTHEST:g} standard deviations from the mean", skip),
        ]
        if self.whole:
            integers = read.values if read.values.dtype == np.int64 else np.where(fine & ~far, values, 0).astype(np.int64)
            return pa.array(integers, pa.int64(), mask=read.missing), faults
        return pa.array(values, pa.float64(), mask=read.missing), faults

    def _parse_dates(self, column: pa.Array) -> tuple[pa.Array, list[Fault]]:
        read = cells.dates(column, _day(self.form))
        unfit = ~(read.missing | read.unread) & (read.values % self.unit != 0)
        step = {cells.DAY: "day", cells.SECOND: "second"}.get(self.unit, "microsecond")
        written = f" written like {self.form}" if self.form else ""
        faults = [
            *self._faults(column, read.unread, "TAB_DATE", f"is not a date{written}",
                          f"Write every date one way, best 2024-12-31, or set types={self.name}=category."),
            *self._faults(column, unfit, "TAB_DATE", f"is not a whole {step}, as all in training were", "Round it."),
        ]
        return pa.array(read.values // self.unit, pa.int64(), mask=read.missing), faults

    def _infinite(self, column: pa.Array, mask: np.ndarray) -> Iterator[Fault]:
        for row in np.flatnonzero(mask).tolist():
            text = str(column[row].as_py())
            if text.lstrip("+-").isdigit():
                what = f"a number of {len(text):,} digits is beyond 1.8e308."
                yield Fault(row, "TAB_NUMBER", f"column '{printable(self.name)}': {what}",
                            f"If it is a code and no number, set types={self.name}=category.")
            else:
                yield Fault(row, "TAB_NONFINITE", f"column '{printable(self.name)}': {cells.shown(column, row)} is infinite.",
                            "Leave the cell empty if the value is missing.")

    def _faults(self, column: pa.Array, mask: np.ndarray, code: str, what: str, hint: str) -> Iterator[Fault]:
        for row in np.flatnonzero(mask).tolist():
            yield Fault(row, code, f"column '{printable(self.name)}': {cells.shown(column, row)} {what}.", hint)

    def _scaled(self, v: np.ndarray) -> np.ndarray:
        v = np.log(v.astype(np.float64)) if self.kind == "positive" else v
        return (v - self.mean).astype(np.float64) / self.std

    def encode(self, values: pa.Array) -> np.ndarray:
        """(B, 1)."""
        missing = values.is_null().to_numpy(zero_copy_only=False)
        v = values.fill_null(1).to_numpy(zero_copy_only=False)
        return np.where(missing, np.nan, self._scaled(v))[:, None]

    def decode(self, x: np.ndarray, first: int) -> pa.Array:
        """The inverse; clipped to the observed range if so set, and always to what can be held."""
        missing = np.isnan(x[:, 0])
        t = np.where(missing, 0.0, x[:, 0].astype(np.float64))
        if self.whole:
            low, high = (self.low, self.high) if self.clip else (-cells.EXACT, cells.EXACT)
            steps = np.rint(np.clip(t * self.std, float(low - self.mean), float(high - self.mean)))
            v = np.clip(self.mean + np.clip(steps, -cells.EXACT, cells.EXACT).astype(np.int64), low, high)
            return pa.array(v, pa.int64(), mask=missing)
        low, high = (self.low, self.high) if self.clip else (-LARGEST, LARGEST)
        with np.errstate(over="ignore"):
            v = self.mean + t * self.std
            v = np.exp(v) if self.kind == "positive" else v
        return pa.array(np.clip(v, low, high), pa.float64(), mask=missing)

    def render(self, values: pa.Array) -> pa.Array:
        """Numbers cut to what the Arrow type holds; dates as moments, or as text in the form they came in."""
        kind = cells.arrow_type(self.dtype)
        if self.unit:
            return self._render_dates(values, kind)
        if pa.types.is_integer(kind):
            values = _within(values if self.whole else pc.round(values), np.iinfo(kind.to_pandas_dtype()))
        return cells.typed(values, kind)

    def _render_dates(self, values: pa.Array, kind: pa.DataType) -> pa.Array:
        moments = pc.multiply(values, self.unit)
        if self.form:
            return cells.stamped(moments, self.form).cast(kind)
        moments = moments.cast(pa.timestamp("us"))
        if pa.types.is_timestamp(kind):
            # a time zone is how a moment is shown, so the number stays
            return moments.cast(pa.timestamp(kind.unit), safe=False).view(kind)
        return moments.cast(kind, safe=False)

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """-log std, and -log v beside for kind "positive"; 0 where x is NaN or values are masses."""
        if self.width:
            return np.zeros(len(x))
        t = x[:, 0].astype(np.float64)
        log_v = self.mean + self.std * t if self.kind == "positive" else 0.0
        return np.where(np.isnan(t), 0.0, -math.log(self.std) - log_v)


def _within(values: pa.Array, limits: np.iinfo) -> pa.Array:
    """Numbers cut to the limits of an integer type, which a float must stay strictly below."""
    raw = values.fill_null(0).to_numpy(zero_copy_only=False)
    low: float = limits.min
    high: float = limits.max
    if raw.dtype == np.int64:
        low, high = max(low, -cells.EXACT), min(high, cells.EXACT)
    else:
        low, high = float(low), float(np.nextafter(float(high), 0))
    return pa.array(np.clip(raw, low, high), mask=values.is_null().to_numpy(zero_copy_only=False))


def _day(form: str) -> str:
    """The day's part of a date form, as `cells.DATES` has it."""
    return form.replace("%-", "%").split("T%H")[0].split(" %H")[0] or cells.DATES[0]
