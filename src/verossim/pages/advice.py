"""Which model should I use? The table's answer in plain words, no stronger than its intervals.

One row is surely better than another in a column where their 95 % intervals lie apart. A row is unbeaten in a column where no
other row is surely better. What is recommended is unbeaten most often; a cost decides only between equals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from . import Side
from .cells import Cell, Column, ends, number, plainly
from .plots import Line

__all__ = ["Row", "advise"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model or a baseline of the tour, with all that the page shows of it.

    numbers : cells by the names of columns; what is not there is left empty. words: what it is, in a sentence.
    baseline : it does not compete. floor: a baseline that any model should beat, such as noise or one Gaussian.
    flagged : whether it was found to copy or to remember records that it learned from; None where nobody looked.
    made : samples, pictures or texts. neighbours: (made, its nearest real record, words). curves: (xs, ys) by name.
    protocol, provenance : of this row alone. warnings: in words, the gravest first.
    """

    name: str
    numbers: Mapping[str, Cell]
    words: str = ""
    baseline: bool = False
    floor: bool = False
    flagged: bool | None = None
    made: Sequence[Image.Image] | Sequence[str] = ()
    neighbours: Sequence[tuple[Side, Side, str]] = ()
    curves: Mapping[str, Line] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def advise(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Sentences, the recommendation first; none where there is no model."""
    models = [row for row in rows if not row.baseline]
    clean = [row for row in models if not row.flagged]
    told = [column for column in columns if column.better and not column.cost]
    if not models:
        return []
    flagged = [row.name for row in models if row.flagged]
    out = [f"Left out of this advice, for signs of copying or remembering records learned from: {_list(flagged)}. Good numbers "
           "can be had so."] if flagged else []
    if not clean:
        return [*out, "None of these models should be used where the data is private."]
    standing = {column.name: _unbeaten(clean, column) for column in told}
    measured = {name: unbeaten for name, unbeaten in standing.items() if unbeaten}
    return [_choice(clean, measured, columns), *out, *_below_the_floor(clean, [row for row in rows if row.floor], told),
            *(_verdict(clean, column) for column in told if column.name in measured)]


def _choice(rows: Sequence[Row], measured: Mapping[str, list[str]], columns: Sequence[Column]) -> str:
    """What to use: the row that is unbeaten most often, and between equals the one that costs less."""
    if not measured:
        return "These numbers do not say which model to use: no measure of quality has intervals for two models."
    counts = {row.name: sum(row.name in unbeaten for unbeaten in measured.values()) for row in rows}
    top = [row for row in rows if counts[row.name] == max(counts.values())]
    of = f"{max(counts.values())} of {len(measured)} measure{'s' if len(measured) > 1 else ''} of quality"
    if len(top) == 1:
        return f"Use {top[0].name}: no other model is surely better in {of}."
    cost = next((c for c in columns if c.cost and all(number(row.numbers.get(c.name)) is not None for row in top)), None)
    equal = f"{_list([row.name for row in top])} stand equal: each is unbeaten in {of}."
    if cost is None:
        return f"{equal} Choose by what else matters to you."
    cheapest = min(top, key=lambda row: number(row.numbers.get(cost.name)) or 0.0)
    price = plainly(cheapest.numbers[cost.name], cost)
    return f"{equal} Use {cheapest.name}, which has the lowest {cost.name} of these: {price}."


def _verdict(rows: Sequence[Row], column: Column) -> str:
    """What one column says."""
    known = [row.name for row in rows if ends(row.numbers.get(column.name), column)]
    unbeaten = _unbeaten(rows, column)
    if len(unbeaten) == len(known):
        bound = any(math.isinf(low) for row in rows if (end := _interval(row, column)) for low in end)
        why = ", for there are bounds among the numbers, and the truth may be better" if bound else ""
        return f"{_capital(column.name)}: {_list(known)} cannot be told apart{why}."
    rest = [name for name in known if name not in unbeaten]
    if len(unbeaten) == 1 and _surely_best(unbeaten[0], rows, column):
        return f"{_capital(column.name)}: {unbeaten[0]} is surely the best."
    return f"{_capital(column.name)}: {_list(rest)} {_be(rest)} surely worse than the best of the others."


def _below_the_floor(rows: Sequence[Row], floors: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Models that are in nothing surely better than a baseline that any should beat."""
    out = []
    for floor in floors:
        weak = []
        for row in rows:
            judged = [(_interval(row, c), _interval(floor, c)) for c in columns]
            known = [(mine, its) for mine, its in judged if mine and its]
            if known and not any(mine[1] < its[0] for mine, its in known):
                weak.append(row.name)
        if weak:
            bound = any(math.isinf(end) for column in columns for end in _interval(floor, column) or ())
            why = ", whose bounds are taken for what they may be at best" if bound else ""
            out.append(f"{_list(weak)} {_be(weak)} not surely better than the baseline '{floor.name}' in anything "
                       f"measured{why}.")
    return out


def _interval(row: Row, column: Column) -> tuple[float, float] | None:
    return ends(row.numbers.get(column.name), column)


def _unbeaten(rows: Sequence[Row], column: Column) -> list[str]:
    """Names of the rows that no other is surely better than; none where fewer than two have intervals."""
    known = {row.name: end for row in rows if (end := _interval(row, column))}
    return [name for name, (low, _) in known.items()
            if not any(high < low for other, (_, high) in known.items() if other != name)] if len(known) > 1 else []


def _surely_best(name: str, rows: Sequence[Row], column: Column) -> bool:
    known = {row.name: end for row in rows if (end := _interval(row, column))}
    return all(known[name][1] < low for other, (low, _) in known.items() if other != name)


def _list(names: Sequence[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
