"""The cells of a table: what a number looks like beside its interval, and which of a column is surely the best."""

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from ..errors import printable
from ..intervals import Interval

__all__ = ["Cell", "Column", "Noted", "best", "ends", "number", "plainly", "rendered", "said"]


@dataclass(frozen=True)
class Noted:
    """A value with a word below it, such as its kind. bound: the truth may be better by any amount, so
    that no other row counts as surely better."""

    value: str | float | Interval | None
    note: str = ""
    bound: bool = False


Cell = str | float | Interval | Noted | None


@dataclass(frozen=True)
class Column:
    """A column of a table. better: which way is good, None where neither is; help: in words, below the table; unit: "%" shows
    shares as percent; cost: a price to pay and no measure of quality."""

    name: str
    better: Literal["lower", "higher"] | None = None
    help: str = ""
    unit: str = ""
    cost: bool = False

    @property
    def under(self) -> str:
        """What stands below its name: the unit, and which way is good."""
        way = f"{self.better} is better" if self.better and not self.cost else ""
        return ", ".join(part for part in (self.unit, way) if part)


def said(text: object, lines: bool = False) -> str:
    """Words from outside as HTML: escaped, with control and bidi characters made visible; their lines kept where asked."""
    if lines:
        return "\n".join(said(line) for line in str(text).replace("\r\n", "\n").split("\n"))
    plain = "".join(" " if c == "\t" or unicodedata.category(c) == "Zs" else c for c in str(text))
    return html.escape(printable(plain, 12 * len(plain) + 8))


def rendered(cell: Cell, column: Column, marked: bool = False) -> str:
    """A cell as HTML: the value, and small below it its interval and its note."""
    note = cell.note if isinstance(cell, Noted) else ""
    value = cell.value if isinstance(cell, Noted) else cell
    lines = [said(note)] if note else []
    if isinstance(value, Interval):
        digits = _digits(value, column.unit)
        shown = _number(value.value, column.unit, digits)
        if value.low is not None and value.high is not None:
            low, high = (_number(end, column.unit, digits) for end in (value.low, value.high))
            lines.insert(0, f"{low.removesuffix(' %')} to {high}")
    elif isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, Real):
        shown = _number(value, column.unit)
    else:
        shown = said(value) if value is not None else '<span class="none" aria-label="none">–</span>'
    shown = f'<strong>{shown}<span class="aloud"> (best)</span></strong>' if marked else shown
    return shown + "".join(f"<small>{line}</small>" for line in lines)


def best(cells: Sequence[Cell], column: Column) -> int | None:
    """The row that is surely the best: its interval lies apart from those of all others. None where there is none, where fewer
    than two have numbers, and where any of these has no interval: a number alone proves nothing."""
    numbers = [i for i, cell in enumerate(cells) if number(cell) is not None]
    known = {i: end for i in numbers if (end := ends(cells[i], column)) is not None}
    if column.better is None or len(numbers) < 2 or len(known) < len(numbers):
        return None
    first = min(known, key=lambda i: known[i][1])
    return first if all(known[first][1] < low for i, (low, _) in known.items() if i != first) else None


def number(cell: Cell) -> float | None:
    """The number in a cell; None where there is none."""
    value = cell.value if isinstance(cell, Noted) else cell
    found = value.value if isinstance(value, Interval) else value
    known = isinstance(found, Real) and not isinstance(found, bool) and not math.isnan(found)
    return float(found) if known else None  # type: ignore[arg-type]


def ends(cell: Cell, column: Column) -> tuple[float, float] | None:
    """The interval of a cell with its good end first, turned so that lower is better; None where it has none. The good end of a
    bound is nowhere: the truth may be better by any amount."""
    value = cell.value if isinstance(cell, Noted) else cell
    if number(cell) is None or not isinstance(value, Interval) or value.low is None or value.high is None:
        return None
    low, high = (-value.high, -value.low) if column.better == "higher" else (value.low, value.high)
    return (-math.inf if isinstance(cell, Noted) and cell.bound else low), high


def plainly(cell: Cell, column: Column) -> str:
    """The number in a cell as a sentence has it, with its unit."""
    found = number(cell)
    unit = f" {column.unit}" if column.unit not in ("", "%") else ""
    return "unknown" if found is None else f"{_number(found, column.unit)}{unit}"


def _digits(value: Interval, unit: str) -> int | None:
    """Decimals that show an interval to two figures of its width; None where it has none."""
    if value.low is None or value.high is None or not math.isfinite(value.high - value.low) or value.high <= value.low:
        return None
    width = (value.high - value.low) * (100 if unit == "%" else 1)
    return max(1 - math.floor(math.log10(width)), 0) if width > 1e-6 else None


def _number(value: Real | float, unit: str = "", digits: int | None = None) -> str:
    """A number for people: three figures, or as many decimals as its interval is worth; shares as percent where so asked."""
    if isinstance(value, Integral) and unit != "%" and digits is None:
        return f"{int(value):,}"
    number = float(value)
    if math.isnan(number):
        return "not a number"
    if math.isinf(number):
        return "infinite" if number > 0 else "-infinite"
    number *= 100 if unit == "%" else 1
    if digits is None and number == 0:
        digits = 0
    elif digits is None:
        size = math.floor(math.log10(abs(number))) if number else 0
        digits = None if size < -4 else min(max(2 - size, 0), 7)
    text = f"{number:.3g}" if digits is None else f"{number:,.{digits}f}"
    text = text.removeprefix("-") if float(text.replace(",", "")) == 0 else text
    return text + (" %" if unit == "%" else "")
