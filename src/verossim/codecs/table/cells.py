"""Reading the cells of an Arrow column, a block at a time: as words, as numbers, as moments in time.

Nothing here guesses: each reader is told how cells are written and says, row by row, which are missing, which are usable
and which cannot be read so. Text is trimmed first, and the words of `MISSING` stand for a missing cell; so do nulls and NaN.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import BadData, printable

__all__ = [
    "DATES", "DAY", "EXACT", "MISSING", "NUMBERS", "SECOND", "TRUTH", "Dates", "Numbers", "arrow_type", "dates", "flat",
    "group", "numbers", "shown", "stamped",
    "typed", "words",
]

#: Words that stand for a missing cell in text columns.
MISSING = ("", "-", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None")

#: Words of no and of yes, in pairs. The last pair is read so only where the user says that the column is boolean.
TRUTH = (("false", "no", "f", "n", "off", "0"), ("true", "yes", "t", "y", "on", "1"))

#: Ways to write a number: with a decimal point, with a decimal comma, with commas between thousands; and "either" of the first
#: two, for a column that is known to have decimal commas, where a point can be nothing else.
NUMBERS = {
    "point": r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$",
    "comma": r"^[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?$",
    "thousands": r"^[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)(\.\d*)?$",
    "either": r"^[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?$",
}
INFINITE = r"(?i)^[+-]?inf(inity)?$"
WHOLE = r"^[+-]?\d{1,18}$"

#: Integers up to this size are kept as such: the difference of any two still fits in 64 bits.
EXACT = 1 << 61

#: Ways to write a day, as strftime would; ISO 8601 first, then day first, then month first.
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%m.%d.%Y")
PARTS = {"%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d{1,2})", "%d": r"(?P<d>\d{1,2})"}
CLOCK = r"(?P<T>[T ])(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:\.(?P<f>\d{1,9}))?)?"
ZONE = r" ?(?P<z>Z|[+-]\d{2}:?\d{2})"

#: Microseconds in a second and in a day.
SECOND, DAY = 1_000_000, 86_400_000_000
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def flat(column: Any, name: str) -> pa.Array:
    """One Arrow array from an Arrow array, a chunked one, or any sequence. Raises BadData TAB_TYPE for mixed Python values."""
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.unify_dictionaries().chunks) if column.num_chunks else pa.array([], column.type)
    if isinstance(column, pa.Array):
        return column
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadData("TAB_TYPE", f"Column '{name}': {error}.", "Give every cell of a column one type.") from error


def group(kind: pa.DataType) -> str:
    """How a column of an Arrow type is read: "text", "number", "truth", "date", "words" (categories), "nothing" where all is
    null, or "" for types that are not table cells (binary, nested, extension)."""
    is_ = pa.types
    families = {
        "nothing": is_.is_null(kind), "truth": is_.is_boolean(kind), "words": is_.is_dictionary(kind),
        "text": is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind),
        "number": any(test(kind) for test in (is_.is_integer, is_.is_floating, is_.is_decimal, is_.is_time, is_.is_duration)),
        "date": is_.is_date(kind) or is_.is_timestamp(kind),
    }
    return next((word for word, fits in families.items() if fits), "")


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `str` wrote: `pa.type_for_alias`, and time zones, decimals and dictionaries beside."""
    if match := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", text):
        return pa.timestamp(match[1], match[2])
    if match := re.fullmatch(r"decimal(\d+)\((\d+), (-?\d+)\)", text):
        return getattr(pa, f"decimal{match[1]}")(int(match[2]), int(match[3]))
    if match := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=(\d)>", text):
        return pa.dictionary(pa.type_for_alias(match[2]), arrow_type(match[1]), match[3] == "1")
    return pa.type_for_alias(text)


def words(column: pa.Array) -> pa.Array:
    """Every cell as text, (B,) string; text is trimmed, missing cells are null."""
    kind = group(column.type)
    if kind == "words":
        return words(column.dictionary_decode())
    column = _counted(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    text = column.cast(pa.string())
    if kind != "text":
        return text
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.is_in(text, value_set=pa.array(MISSING)), pa.scalar(None, pa.string()), text)


def typed(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text as `words` gives it, or numbers as `numbers` does, in an Arrow type."""
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        return values.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).view(kind)
    return values.cast(kind, safe=False)


def shown(column: pa.Array, row: int) -> str:
    """One cell in quotes, short and safe to print, whatever it holds."""
    return f"'{printable(column.slice(row, 1).cast(pa.string())[0].as_py(), 40)}'"


@dataclass(frozen=True)
class Numbers:
    """A block of cells read as numbers. values (B,) int64 when every usable cell is whole and below `EXACT`, else float64;
    masks (B,): missing, unread (not a number), infinite (or beyond float64). A masked value means nothing."""

    values: np.ndarray
    missing: np.ndarray
    unread: np.ndarray
    infinite: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """(B,) bool: cells that hold a finite number."""
        return ~(self.missing | self.unread | self.infinite)


@dataclass(frozen=True)
class Dates:
    """A block of cells read as moments. values (B,) int64, microseconds since 1970 UTC; masks (B,): missing, unread; and how
    text cells are written: unpadded days ("5/1/2024"), the mark before the clock, seconds and fractions shown, a zone."""

    values: np.ndarray
    missing: np.ndarray
    unread: np.ndarray
    traits: frozenset[str] = frozenset()


def numbers(column: pa.Array, form: str = "point") -> Numbers:
    """The cells as numbers; `form`, a key of `NUMBERS`, says how text is written. Durations and clock times count units."""
    if group(column.type) in ("text", "words"):
        return _numbers_of_text(words(column), form)
    column = _counted(column)
    if group(column.type) != "number":
        nothing = np.zeros(len(column), bool)
        missing = _mask(column.is_null())
        return Numbers(np.zeros(len(column)), missing, ~missing, nothing)
    whole = pa.types.is_integer(column.type)
    missing = _mask(column.is_null(nan_is_null=True))
    values = column.fill_null(0).to_numpy(zero_copy_only=False) if whole else _floats(column)
    whole = whole and not np.any((values > EXACT) | (values < -EXACT))
    values = values.astype(np.int64 if whole else np.float64)
    infinite = np.zeros(len(values), bool) if whole else np.isinf(values)
    return Numbers(values, missing, np.zeros(len(values), bool), infinite)


def _numbers_of_text(text: pa.Array, form: str) -> Numbers:
    missing = _mask(text.is_null())
    reads = _mask(pc.match_substring_regex(text, NUMBERS[form]))
    named = _mask(pc.match_substring_regex(text, INFINITE))
    plain = text if form == "point" else pc.replace_substring(text, ",", "." if form in ("comma", "either") else "")
    plain = pc.if_else(pa.array(reads), plain, pa.scalar(None, pa.string()))
    usable = plain.drop_null()
    if len(usable) and pc.all(pc.match_substring_regex(usable, WHOLE)).as_py():
        signless = pc.replace_substring_regex(plain, r"^\+", "")
        values = signless.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return Numbers(values, missing, ~(missing | reads | named), named)
    values = _floats(plain.cast(pa.float64()))
    return Numbers(values, missing, ~(missing | reads | named), named | (reads & np.isinf(values)))


def dates(column: pa.Array, form: str = DATES[0]) -> Dates:
    """The cells as moments; `form`, one of `DATES`, says how the day is written in text, which may go on with a clock time and
    a zone. Cells without a zone are taken as they stand; those with one are turned to UTC."""
    if group(column.type) in ("text", "words"):
        return _dates_of_text(words(column), form)
    missing = _mask(column.is_null())
    if group(column.type) != "date":
        return Dates(np.zeros(len(column), np.int64), missing, ~missing)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    raw = column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    per_second = _PER_SECOND[column.type.unit]
    beyond = np.abs(raw // per_second) > EXACT // SECOND
    values = np.where(beyond, 0, raw) * (SECOND // per_second) if per_second <= SECOND else raw // (per_second // SECOND)
    return Dates(values, missing, beyond & ~missing)


def _dates_of_text(text: pa.Array, form: str) -> Dates:
    """Fields are cut out by one regular expression; the calendar is NumPy's, which knows every leap year from 0001 to 9999."""
    day = re.sub("%[Ymd]", lambda part: PARTS[part[0]], form.replace(".", r"\."))
    missing = _mask(text.is_null())
    fields = pc.extract_regex(text, rf"^{day}(?:{CLOCK}(?:{ZONE})?)?$")
    if not len(text) or fields.null_count == len(text):
        return Dates(np.zeros(len(text), np.int64), missing, ~missing)
    reads = _mask(fields.is_valid())
    part = {name: pc.struct_field(fields, name) for name in ("Y", "m", "d", "T", "H", "M", "S", "f", "z")}
    Y, m, d, H, M, S = (_count(part[name]) for name in "YmdHMS")
    month = np.clip(Y - 1970, -1969, 8029).astype("M8[Y]").astype("M8[M]") + (np.clip(m, 1, 12) - 1)
    date = month.astype("M8[D]") + (np.clip(d, 1, 31) - 1)
    reads &= (Y >= 1) & (m >= 1) & (m <= 12) & (d >= 1) & (date.astype("M8[M]") == month) & (H < 24) & (M < 60) & (S < 60)
    fraction = _count(pc.utf8_slice_codeunits(pc.utf8_rpad(part["f"], 6, "0"), 0, 6))
    zone = pc.replace_substring_regex(part["z"], "Z|:", "")
    shift = _count(pc.utf8_slice_codeunits(zone, 1, 3)) * 60 + _count(pc.utf8_slice_codeunits(zone, 3, 5))
    shift = np.where(_mask(pc.starts_with(zone, "-")), -shift, shift)
    values = date.astype(np.int64) * DAY + ((H * 60 + M - shift) * 60 + S) * SECOND + fraction
    traits = {
        "unpadded": pc.or_(pc.equal(pc.utf8_length(part["m"]), 1), pc.equal(pc.utf8_length(part["d"]), 1)),
        "T": pc.equal(part["T"], "T"), "clock": pc.not_equal(part["T"], ""), "seconds": pc.not_equal(part["S"], ""),
        "zone": pc.not_equal(part["z"], ""),
    }
    seen = frozenset(trait for trait, mask in traits.items() if bool(np.any(_mask(mask) & reads)))
    return Dates(np.where(reads, values, 0), missing, ~(missing | reads), seen)


def stamped(values: pa.Array, form: str) -> pa.Array:
    """Moments (int64 microseconds, nulls kept) as text; `form` is as strftime's, with %-d and %-m for days, months unpadded."""
    moment = values.cast(pa.timestamp("us"))
    unit = "us" if values.null_count < len(values) and pc.any(pc.not_equal(pc.subsecond(moment), 0)).as_py() else "s"
    text = pc.strftime(moment.cast(pa.timestamp(unit)), format=form.replace("%-", "%"))
    if "%-" not in form:
        return text
    day_first = "" if form.startswith("%Y") else "^|"
    return pc.replace_substring_regex(text, rf"({day_first}[/.-])0(\d)", r"\1\2")


def _counted(column: pa.Array) -> pa.Array:
    """Durations and clock times as whole numbers of their units; other columns as they are."""
    if not (pa.types.is_time(column.type) or pa.types.is_duration(column.type)):
        return column
    return column.view(pa.int32() if pa.types.is_time32(column.type) else pa.int64())


def _mask(column: pa.Array) -> np.ndarray:
    return column.fill_null(False).to_numpy(zero_copy_only=False)


def _floats(column: pa.Array) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _count(digits: pa.Array) -> np.ndarray:
    """Digits as int64, nothing as zero."""
    digits = pc.if_else(pc.equal(digits, ""), "0", digits).fill_null("0")
    return digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
