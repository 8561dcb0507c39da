"""What one streaming pass gathers about a column, and the rule by which its type is settled at the end.

Every way in which a column might be read is a candidate, alive until a cell cannot be read so; a candidate that the user asked
for never dies. Memory does not grow with the rows: counts, ranges, running moments, and the distinct words up to a cap.

Means and variances are merged block by block (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances", 1979) on values divided by a power of two, so that neither 1e300 nor 1e-300 leaves float64, and
whole numbers are shifted by the first of them, so that large numbers of small spread keep all their digits.
"""

import copy
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import BadData, printable
from . import cells

__all__ = ["Evidence", "Spread", "Tally"]

#: Caps on the words that are counted, and on their characters in all.
DISTINCT, CHARACTERS = 1 << 14, 1 << 26


class Spread:
    """Running count, mean and standard deviation of numbers, as `count`, `scale * mean` and `scale * sqrt(square / count)`.

        delta = mean_b - mean_a      mean = mean_a + delta n_b / n      square = square_a + square_b + delta^2 n_a n_b / n
    """

    def __init__(self):
        self.count, self.mean, self.square, self.exponent = 0, 0.0, 0.0, -1074

    def add(self, values: np.ndarray) -> None:
        """Merges in the finite values (B,) float64."""
        if not len(values):
            return
        exponent = max(self.exponent, math.frexp(float(np.abs(values).max()))[1] - 1)
        self.mean = math.ldexp(self.mean, self.exponent - exponent)
        self.square = math.ldexp(self.square, 2 * (self.exponent - exponent))
        self.exponent = exponent
        scaled = np.ldexp(values, -exponent)
        n_a, n_b, mean_b = self.count, len(values), float(scaled.mean())
        n, delta = n_a + n_b, mean_b - self.mean
        self.mean += delta * n_b / n
        self.square += float(np.square(scaled - mean_b).sum()) + delta * delta * n_a * n_b / n
        self.count = n

    def total(self) -> tuple[float, float]:
        """Mean and standard deviation in the numbers' own unit."""
        deviation = math.sqrt(self.square / max(self.count, 1))
        return math.ldexp(self.mean, self.exponent), math.ldexp(deviation, self.exponent)


class Tally:
    """One candidate reading of a column as numbers or dates: `form` is how text is written, `logs` asks for the moments of
    logarithms."""

    def __init__(self, form: str, logs: bool = False):
        self.form, self.logs = form, logs
        self.spread, self.shift = Spread(), 0
        self.count = self.unread = 0
        self.first_unread = ""
        self.low: float | int = math.inf
        self.high: float | int = -math.inf
        self.integers = self.whole = self.consecutive = True
        self.last: float | int | None = None
        self.steps = {"day": True, "second": True}      # for dates: whether all are whole days, whole seconds
        self.traits: frozenset[str] = frozenset()

    def add(self, values: np.ndarray, unread: np.ndarray, column: pa.Array, first: int) -> None:
        """Usable values (n,), int64 where exact, of a block whose first record is number `first`; `unread` masks the block."""
        if unread.any() and not self.first_unread:
            row = int(unread.argmax())
            self.first_unread = f"{cells.shown(column, row)} in record {first + row + 1}"
        self.unread += int(unread.sum())
        if self.logs:
            values = values[values > 0]
        if not len(values):
            return
        integers = values.dtype == np.int64
        if not self.count:
            self.shift = values[0].item() if integers and not self.logs else 0
        self.integers &= integers
        self.whole &= integers or bool(np.all((values == np.rint(values)) & (np.abs(values) < 1 << 53)))
        self.consecutive &= bool(np.all(np.diff(values) == 1)) and self.last in (None, values[0].item() - 1)
        self.last = values[-1].item()
        self.low, self.high = min(self.low, values.min().item()), max(self.high, values.max().item())
        self.spread.add(np.log(values.astype(np.float64)) if self.logs else (values - self.shift).astype(np.float64))
        self.count += len(values)

    def mean(self) -> float:
        """Mean of the values, or of their logarithms where `logs`."""
        return self.shift + self.spread.total()[0]

    def centre(self) -> int:
        """The whole number nearest the mean, exact however large."""
        return self.shift + round(self.spread.total()[0])

    def deviation(self) -> float:
        """Standard deviation of the values, or of their logarithms where `logs`; never zero."""
        return max(self.spread.total()[1], math.ulp(0.0))


class Evidence:
    """What was seen of one column. `asked` is the type that the user set, or None."""

    def __init__(self, name: str, asked: str | None = None):
        self.name, self.asked = name, asked
        self.kind, self.group = pa.null(), "nothing"
        self.rows = self.missing = 0
        self.words: Counter[str] = Counter()            # the distinct words, until a cap is met
        self.full, self.counted = False, 0              # whether it was, and how many present cells were counted
        self.ranked: list[str] = []                     # the order of its words that a dictionary column brings
        self.lowest = self.highest = ""                 # the ends of the words in alphabetical order
        self.longest = self.tail = 0                    # characters of the longest word; the largest number that ends one
        self.points = self.zeros = False                # whether a cell has a point, or leading zeros
        reads_numbers = asked in (None, "real", "positive", "integer", "identifier")
        self.numbers = {"point": Tally("point", asked == "positive")} if reads_numbers else {}
        self.dates = {form: Tally(form) for form in cells.DATES} if asked in (None, "date") else {}

    @property
    def present(self) -> int:
        """Cells that are not missing."""
        return self.rows - self.missing

    def alive(self, tallies: dict[str, Tally]) -> list[Tally]:
        """Candidates that read every cell so far; where the column is typed, or its type set, the one that read most."""
        if self.asked or self.group != "text":
            return sorted((t for t in tallies.values() if t.count), key=lambda t: -t.count)[:1]
        return [t for t in tallies.values() if t.count and not t.unread]

    def add(self, column: pa.Array, first: int) -> None:
        """Merges in a block whose first record is number `first`. Raises BadData TAB_TYPE for types that are no table cells."""
        self._settle_group(column.type, first)
        self.rows += len(column)
        text = cells.words(column) if self.group in ("text", "words") else column
        self.missing += int(pc.sum(text.is_null(nan_is_null=True)).as_py() or 0)
        if self.group == "number" or (self.group == "text" and self.numbers):
            self._add_numbers(text, first)
        if self.group in ("date", "text") and self.dates:
            self._add_dates(text, first)
        if self.group in ("text", "words", "truth") or self.asked in ("category", "boolean", "identifier"):
            self._add_words(cells.words(column))
        if self.group == "words" and not self.ranked:
            self.ranked = cells.words(column.dictionary).to_pylist()

    def _settle_group(self, kind: pa.DataType, first: int) -> None:
        group = cells.group(kind)
        if not group:
            raise BadData("TAB_TYPE", f"Column '{printable(self.name)}' holds {kind}, which is not a table's cell.",
                          "Leave the column out, or turn it into numbers, text or dates first.")
        if group == "nothing":
            return
        if self.group not in ("nothing", group):
            raise BadData("TAB_TYPE", f"Column '{printable(self.name)}' is {self.kind} up to record {first}, then {kind}.",
                          "Give every part of the data the same column types.")
        if self.group == "nothing" or pa.types.is_floating(kind):
            self.kind, self.group = kind, group

    def _add_words(self, text: pa.Array) -> None:
        text = text.drop_null()
        if not len(text):
            return
        ends = pc.min_max(text).as_py()
        self.lowest, self.highest = min(self.lowest or ends["min"], ends["min"]), max(self.highest, ends["max"])
        self.longest = max(self.longest, pc.max(pc.utf8_length(text)).as_py())
        tails = pc.struct_field(pc.extract_regex(text, r"(?P<tail>\d{1,18})$"), "tail")
        tails = tails.filter(pc.not_equal(tails, ""))
        self.tail = max(self.tail, pc.max(tails.cast(pa.int64())).as_py() if len(tails) else 0)
        if self.full:
            return
        counts = pc.value_counts(text)
        self.words.update(dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)))
        self.counted += len(text)
        self.full = len(self.words) > DISTINCT or len(self.words) * self.longest > CHARACTERS

    def _add_numbers(self, column: pa.Array, first: int) -> None:
        if self.group == "text":
            if "comma" not in self.numbers and _any(pc.match_substring(column, ",")):
                self._split_commas()
            self.points = self.points or _any(pc.match_substring(column, "."))
            self.zeros = self.zeros or _any(pc.match_substring_regex(column, r"^[+-]?0\d"))
        for form, tally in self.numbers.items():
            if self.asked or not tally.unread:
                read = cells.numbers(column, form)
                tally.add(read.values[read.usable], read.unread, column, first)

    def _split_commas(self) -> None:
        """The first comma: what was read so far would read the same under the forms that know commas, if it had no point."""
        for form in ("thousands",) if self.points else ("comma", "thousands"):
            self.numbers[form] = copy.deepcopy(self.numbers["point"])
            self.numbers[form].form = form

    def _add_dates(self, column: pa.Array, first: int) -> None:
        if self.group == "date":
            self.dates = {form: tally for form, tally in self.dates.items() if form == cells.DATES[0]}
        for form, tally in self.dates.items():
            if self.asked or not tally.unread:
                read = cells.dates(column, form)
                values = read.values[~(read.missing | read.unread)]
                tally.add(values, read.unread, column, first)
                tally.steps["day"] &= bool(np.all(values % cells.DAY == 0))
                tally.steps["second"] &= bool(np.all(values % cells.SECOND == 0))
                tally.traits |= read.traits


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())
