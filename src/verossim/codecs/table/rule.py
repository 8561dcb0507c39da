"""The rule by which evidence becomes a column type; the first line that fits decides.

    all cells missing, or all the same                                   constant
    two words, one of no and one of yes ("no"/"yes", "f"/"t", ...)       boolean
    20 or more whole numbers, each one more than the one before          identifier
    all cells are numbers, without leading zeros                         integer where all are whole, else real
    all cells are dates, written in one way                              date
    20 or more words, more than half of them different                   identifier
    anything else                                                        category

Columns that come typed (Parquet, frames) keep their type; floats that are all whole are real, unless cells are missing, since
that is how frames keep integers with gaps. `positive` is only ever the user's choice. Numbers with a point are tried first,
then with a decimal comma, then with commas between thousands. Where all days can be read day first and month first, they are
taken day first, and a note says so. Month names and years of two digits are not read as dates.

Privacy: what is kept of the data are ranges, means and the words of categories; the words of identifiers are not kept.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ...errors import BadData, printable
from . import cells
from .column import Column
from .evidence import Evidence, Tally
from .number import Number
from .words import Constant, Identifier, Words

__all__ = ["KINDS", "notes", "settle"]

#: What the user may set a column to.
KINDS = ("real", "positive", "integer", "category", "boolean", "date", "identifier")

#: Fewer records than this are too few to call a column an identifier.
MANY = 20


def settle(seen: Evidence, missing: str, categories: int, bounds: str) -> Column:
    """The column that the evidence speaks for. `missing` is "value" (gaps are learned) or "unknown"; `categories` the most
    words of a column; `bounds` is "observed" where numbers are to be clipped to their range.

    Raises BadData TAB_TYPE where the type that the user set does not fit one cell.
    """
    shared: dict[str, Any] = {
        "name": seen.name, "dtype": str(seen.kind), "gaps": seen.missing,
        "indicated": missing == "value" and 0 < seen.missing < seen.rows,
        "distinct": len(seen.words) if seen.words and not seen.full else None,
    }
    kind = _kind(seen)
    if kind == "constant":
        return Constant(kind=kind, value=_only_value(seen), **shared | {"distinct": min(1, seen.present)})
    if kind == "identifier":
        return _identifier(seen, shared)
    if kind in ("category", "boolean"):
        return _words(seen, kind, categories, shared)
    tallies = seen.alive(seen.dates if kind == "date" else seen.numbers)
    if not tallies:
        raise BadData("TAB_TYPE", f"Column '{printable(seen.name)}' is to be {kind}, but no cell of it can be read so.",
                      "Give it finite values, leave it out, or set another type.")
    return _number(tallies[0], kind, bounds == "observed", seen.group == "text", shared)


def notes(column: Column, seen: Evidence) -> Iterator[str]:
    """Words of warning about a column, each beginning with a stable code."""
    name = printable(column.name)
    if column.kind == "constant":
        yield f"DATA_CONSTANT: column '{name}' is {column.range}; it is kept and not learned."
    if column.kind == "identifier":
        yield f"TAB_IDENTIFIER: column '{name}' looks like an identifier; it is not learned, and numbered anew."
    if column.kind == "category" and not seen.asked:
        for what, tallies in (("numbers", seen.numbers), ("dates written in one way", seen.dates)):
            partly = max(tallies.values(), key=lambda tally: tally.count, default=None)
            if partly and partly.count and partly.first_unread:
                yield (f"TAB_TYPE: column '{name}' is not all {what} ({partly.first_unread}), so it is taken as a category; "
                       f"set its type to skip the records that do not fit.")
    if isinstance(column, Words) and column.other is not None:
        yield f"TAB_CATEGORY: column '{name}' has many categories; the {len(column.words)} most common stand, others pool."
    if isinstance(column, Number) and seen.group == "text" and not seen.asked:
        readings = seen.alive(seen.dates if column.unit else seen.numbers)
        if column.unit and len(readings) > 1:
            yield f"TAB_DATE: column '{name}' could be read day first or month first; it is taken as {readings[0].form}."
        if column.form == "comma" and len(readings) > 1:
            yield f"TAB_NUMBER: column '{name}' is read with decimal commas; its commas could also divide thousands."


def _kind(seen: Evidence) -> str:
    numbers, dates = seen.alive(seen.numbers), seen.alive(seen.dates)
    tally = next(iter([*numbers, *dates]), None)
    if not seen.present or (len(seen.words) == 1 and not seen.full) or (
            tally and tally.low == tally.high and tally.count == seen.present):
        return "constant"
    if seen.asked:
        return seen.asked
    if seen.group == "truth" or _truth(seen, pairs=5):
        return "boolean"
    if numbers and not seen.zeros:
        whole = numbers[0].integers or (seen.group == "number" and numbers[0].whole and seen.missing > 0)
        return "identifier" if numbers[0].integers and numbers[0].consecutive and numbers[0].count >= MANY else (
            "integer" if whole else "real")
    if seen.group == "number":      # every cell infinite: a number none the less, whose records will be set aside
        return "real"
    if dates:
        return "date"
    mostly_unique = seen.counted >= MANY and 2 * len(seen.words) > seen.counted
    return "identifier" if mostly_unique and seen.group == "text" else "category"


def _truth(seen: Evidence, pairs: int) -> tuple[str, str] | None:
    """The column's own words of no and yes, if it has just these."""
    by_lower = {word.lower(): word for word in seen.words}
    for no, yes in list(zip(*cells.TRUTH, strict=True))[:pairs]:
        if set(by_lower) == {no, yes} and len(seen.words) == 2:
            return by_lower[no], by_lower[yes]
    return None


def _only_value(seen: Evidence) -> str | None:
    if not seen.present:
        return None
    if seen.words:
        return next(iter(seen.words))
    tally = next(t for t in (*seen.numbers.values(), *seen.dates.values()) if t.count)
    if tally in seen.numbers.values():
        return str(tally.low)
    return pa.array([tally.low], pa.timestamp("us")).cast(seen.kind, safe=False).cast(pa.string())[0].as_py()


def _identifier(seen: Evidence, shared: dict[str, Any]) -> Identifier:
    tallies = [t for t in seen.numbers.values() if t.count]
    after = max([seen.tail, *(int(t.high) for t in tallies[:1])])
    if seen.group == "number":
        return Identifier(kind="identifier", prefix="", digits=0, after=after, **shared)
    prefix = seen.lowest[:next((i for i, (a, b) in enumerate(zip(seen.lowest, seen.highest, strict=False)) if a != b), 0)]
    prefix = prefix.rstrip("0123456789")
    digits = max(1, min(18, seen.longest - len(prefix)))
    return Identifier(kind="identifier", prefix=prefix, digits=digits, after=after, **shared)


def _words(seen: Evidence, kind: str, categories: int, shared: dict[str, Any]) -> Words:
    if kind == "boolean":
        pair = ("false", "true") if seen.group == "truth" else _truth(seen, pairs=6)
        if pair is None:
            raise BadData("TAB_TYPE", f"Column '{printable(seen.name)}' is set to boolean, but its words are "
                          f"{', '.join(printable(word, 20) for word in list(seen.words)[:5])}.", "Set it to category.")
        return Words(kind=kind, words=pair, **shared)
    common = [word for word, _ in sorted(seen.words.items(), key=lambda item: (-item[1], item[0]))]
    pooled = len(common) > categories
    kept, other = (common[:categories - 1], common[categories - 1]) if pooled else (common, None)
    place = {word: rank for rank, word in enumerate(seen.ranked)}
    kept = sorted(kept, key=lambda word: (place.get(word, len(place)), word))
    return Words(kind=kind, words=tuple(kept), other=other, **shared)


def _number(tally: Tally, kind: str, clip: bool, is_text: bool, shared: dict[str, Any]) -> Number:
    if kind == "date":
        unit = next((size for step, size in (("day", cells.DAY), ("second", cells.SECOND)) if tally.steps[step]), 1)
        return Number(kind=kind, mean=tally.centre() // unit, std=tally.deviation() / unit, low=tally.low // unit,
                      high=tally.high // unit, clip=clip, form=_written(tally) if is_text else "", unit=unit, **shared)
    if is_text:
        shared["dtype"] = "int64" if kind == "integer" else "double"
    if kind == "integer":
        return Number(kind=kind, mean=tally.centre(), std=tally.deviation(), low=int(tally.low), high=int(tally.high),
                      clip=clip, form=tally.form, **shared)
    return Number(kind=kind, mean=tally.mean(), std=tally.deviation(), low=float(tally.low), high=float(tally.high),
                  clip=clip, form=tally.form, **shared)


def _written(tally: Tally) -> str:
    """How text dates are written, as strftime's form."""
    day = tally.form.replace("%d", "%-d").replace("%m", "%-m") if "unpadded" in tally.traits else tally.form
    if "clock" not in tally.traits:
        return day
    seconds = ":%S" if "seconds" in tally.traits else ""
    return f"{day}{'T' if 'T' in tally.traits else ' '}%H:%M{seconds}{'Z' if 'zone' in tally.traits else ''}"
