"""Tables: is each column distributed as it should be, and do columns go together as they should?

The numbers are those of the field (Synthetic Data Vault; Patki, Wedge and Veeramachaneni, DSAA 2016), 1 where nothing differs:

    shape of a column     numbers, dates: 1 - sup |F - G| (Kolmogorov and Smirnov); categories: 1 - 1/2 sum |p - q|
    trend of a pair       numbers, dates: 1 - |rho - rho'| / 2, Pearson's; else 1 - 1/2 sum |p - q| over pairs of categories,
                          numbers cut into 10 equal steps over the real range, a missing cell being a category
    missing               1 - |difference of the shares of missing cells|
    coverage              numbers, dates: the share of the real range between least and largest made value; categories: the
                          share of real ones that occur
Missing cells take no part in shapes and correlations. Where a made column is constant and the real one is not, its correlations
count as 0: leaving such pairs out would hide that it collapsed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from ..codecs.table.cells import dates, flat, group, numbers, words
from ..config import knob
from ..errors import BadData, Incompatible, near, printable
from ..intervals import LEVEL, Interval
from . import Metric, Quantity, Sample
from ._distance import distance

__all__ = ["MEMBER", "Associations", "AssociationsConfig"]

BINS, WORST = 10, 3


@dataclass(frozen=True, kw_only=True)
class AssociationsConfig:
    """Settings of marginals and associations of tables."""

    rows: int = knob(2_000, "most records a side that intervals and p-values rest on; intervals are scaled to all records",
                     low=50, high=1_000_000)
    rounds: int = knob(400, "permutations of each p-value", low=40, high=100_000)
    identifiers: float = knob(0.5, "share of distinct values above which a column of words is left out, as one of names or "
                              "numbers of records; 1 leaves none out", low=0.0, high=1.0)


@dataclass(frozen=True)
class _Column:
    """One column over N + M pooled records. codes (N + M,): the number of its value among all, -1 where missing; values
    (N + M,): as numbers of unit scale, nan where missing, or None; cells: as codes, or for numbers which of the
    steps; missing ones have the last."""

    name: str
    codes: np.ndarray
    kinds: int
    cells: np.ndarray
    values: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "_Column":
        """The same of some records."""
        return _Column(self.name, self.codes[rows], self.kinds, self.cells[rows],
                       None if self.values is None else self.values[rows])


class Associations(Metric):
    """Means over columns of shapes, missing shares and coverage, and over pairs of columns of trends."""

    Config = AssociationsConfig
    sees = "table"
    gives = (
        Quantity("column_shapes", "higher", "how well each column by itself is met, 1 where its values are distributed as the "
                 "real ones, 0 where they have nothing in common; the mean over columns", "How columns go together: a table of "
                 "columns shuffled each for itself has 1. Two real halves stay below 1 by chance."),
        Quantity("pair_trends", "higher", "how well pairs of columns go together, by correlation or by shares of pairs of "
                 "categories; the mean over pairs", "What only three columns together show, and relations of numbers that are "
                 "not linear. Many categories keep it below 1 by chance: read the p-value."),
        Quantity("missing_similarity", "higher", "how well the share of missing cells is met; the mean over columns",
                 "Which records miss them."),
        Quantity("range_coverage", "higher", "how much of the real range of numbers and how many of the real categories occur; "
                 "the mean over columns. It has no interval: records left out cannot tell how extremes vary",
                 "What lies between the ends, and values beyond the real ones. It grows with the number of records."),
    )

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Raises Incompatible METRIC_COLUMN for columns that are missing or of another kind; BadData METRIC_EMPTY where none
        can be compared, METRIC_NONFINITE for infinite cells."""
        columns, _ = _columns(real, made, self.config.identifiers)
        n, m = len(real), len(made)
        k, l = min(n, self.config.rows), min(m, self.config.rows)
        chosen = np.concatenate([np.sort(rng.choice(n, k, replace=False)), n + np.sort(rng.choice(m, l, replace=False))])
        part = [column.take(chosen) for column in columns]
        i, j = np.arange(n), np.arange(n, n + m)
        scale = max(k / n, l / m) ** 0.5
        trend = _trends(part)

        def mean_shape(a: np.ndarray, b: np.ndarray) -> float:
            return float(np.mean([_shape(column, a, b) for column in part]))

        def mean_missing(a: np.ndarray, b: np.ndarray) -> float:
            return float(np.mean([_missing(column, a, b) for column in part]))

        def mean_trend(a: np.ndarray, b: np.ndarray) -> float:
            return _mean(trend(a, b))

        gaps = any((column.codes < 0).any() for column in columns)

        def scaled(value: float, statistic: Callable[..., float]) -> Interval:
            found = distance(statistic, k, l, rng, 1.0, 1.0, self.config.rounds)
            assert found.low is not None and found.high is not None and found.p_value is not None
            low, high = (value + scale * (end - found.value) for end in (found.low, found.high))
            alike = found.p_value > 1 - LEVEL
            return Interval(value, max(low, 0.0), 1.0 if alike else min(high, 1.0), found.p_value)
        return {
            "column_shapes": scaled(_mean(self.columns(real, made).values()), mean_shape),
            "pair_trends": scaled(_mean(self.pairs(real, made).values()), mean_trend) if len(columns) > 1 else Interval(1.0),
            "missing_similarity": scaled(float(np.mean([_missing(c, i, j) for c in columns])), mean_missing) if gaps
            else Interval(1.0, 1.0, 1.0, 1.0),
            "range_coverage": Interval(float(np.mean([_coverage(c, i, j) for c in columns]))),
        }

    def columns(self, real: Sample, made: Sample) -> dict[str, float]:
        """The shape of each column, in the table's order."""
        columns, _ = _columns(real, made, self.config.identifiers)
        n, m = len(real), len(made)
        return {column.name: _shape(column, np.arange(n), np.arange(n, n + m)) for column in columns}

    def pairs(self, real: Sample, made: Sample) -> dict[tuple[str, str], float]:
        """The trend of each pair of columns; nan where a real column of numbers is constant, so that there is none."""
        columns, _ = _columns(real, made, self.config.identifiers)
        n, m = len(real), len(made)
        found = _trends(columns, keep=False)(np.arange(n), np.arange(n, n + m))
        return {(a.name, b.name): value for (a, b), value in zip(combinations(columns, 2), found, strict=True)}

    def notes(self, real: Sample, made: Sample) -> Sequence[str]:
        """The worst columns and pairs, the columns left out, and on how many records the intervals rest."""
        shapes, trends = self.columns(real, made), {f"{a} with {b}": v for (a, b), v in self.pairs(real, made).items()}
        told = [f"The worst {what}: " + ", ".join(f"{printable(name, 60)} {value:.3f}" for name, value in worst)
                for what, worst in (("columns", _worst(shapes)), ("pairs", _worst(trends))) if worst]
        _, left = _columns(real, made, self.config.identifiers)
        if left:
            told.append(f"Left out: {', '.join(left)}")
        unmade = [name for name, value in trends.items() if value != value]
        if unmade:
            told.append(f"{len(unmade)} pairs have no trend, for a real column of theirs is constant")
        if max(len(real), len(made)) > self.config.rows:
            told.append(f"Intervals and p-values rest on {self.config.rows:,} records a side")
        return told


def _worst(values: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(((k, v) for k, v in values.items() if v == v), key=lambda pair: pair[1])[:WORST]


def _mean(values: Any) -> float:
    """The mean of what is not nan; 1 where there is nothing to differ."""
    able = [value for value in values if value == value]
    return float(np.mean(able)) if able else 1.0


def _columns(real: Sample, made: Sample, identifiers: float) -> tuple[list[_Column], list[str]]:
    """The columns that both sides can be compared in, and the others with the reason."""
    assert real.records is not None and made.records is not None
    given, others = real.records.columns, made.records.columns
    columns, left = [], []
    for name in given:
        if name not in others:
            raise Incompatible("METRIC_COLUMN", f"The made records have no column '{printable(name)}'.", near(name, others))
        sides = [flat(column[name], name) for column in (given, others)]
        kinds = {group(side.type) for side in sides} - {"nothing"}
        if "" in kinds or not kinds:
            left.append(f"{printable(name, 60)} ({'all missing' if not kinds else 'no cells of a table'})")
            continue
        written = {"truth": "words", "text": "words"}
        if len({written.get(kind, kind) for kind in kinds}) > 1:
            raise Incompatible("METRIC_COLUMN", f"Column '{printable(name)}' holds {sides[0].type} in the real records and "
                               f"{sides[1].type} in the made ones.", "Give both sides columns of the same types.")
        column = _numeric(name, sides, kinds.pop()) if kinds <= {"number", "date"} else _worded(name, sides)
        here = len(sides[0])
        if column.values is None and identifiers < 1 and np.ptp(column.codes[:here]) > 0 and \
                len(np.unique(column.codes[:here])) > max(identifiers * here, 20):
            left.append(f"{printable(name, 60)} (nearly every record has its own)")
            continue
        columns.append(column)
    if not columns:
        raise BadData("METRIC_EMPTY", "The tables have no column that can be compared.", "; ".join(left[:5]))
    return columns, left


def _numeric(name: str, sides: list[pa.Array], kind: str) -> _Column:
    """A column of numbers or of moments in microseconds. Raises BadData METRIC_NONFINITE."""
    parts = []
    for side, what in zip(sides, ("real", "made"), strict=True):
        if group(side.type) == "nothing":
            parts.append(np.full(len(side), np.nan))
            continue
        read = numbers(side) if kind == "number" else dates(side)
        infinite = getattr(read, "infinite", np.zeros(len(side), dtype=bool))
        if (infinite & ~read.missing).any():
            raise BadData("METRIC_NONFINITE", f"Column '{printable(name)}' of the {what} records is infinite in record "
                          f"{int(infinite.argmax()) + 1}.", "Leave these records out, or mend them.")
        parts.append(np.where(read.missing, np.nan, read.values.astype(np.float64)))
    x = np.concatenate(parts)
    there = ~np.isnan(x)
    codes = np.full(len(x), -1)
    values, codes[there] = np.unique(x[there], return_inverse=True)
    own = parts[0][~np.isnan(parts[0])]
    edges = np.histogram_bin_edges(own, BINS) if len(own) else np.linspace(0, 1, BINS + 1)
    cells = np.where(there, np.searchsorted(edges[1:-1], x, side="right"), BINS)
    middle, scale = (own.mean(), own.std()) if len(own) else (0.0, 1.0)
    return _Column(name, codes, max(len(values), 1), cells, (x - middle) / (scale if scale > 0 else 1.0))


def _worded(name: str, sides: list[pa.Array]) -> _Column:
    """A column of categories."""
    text = [words(side).cast(pa.string()) for side in sides]
    coded = pa.chunked_array(text).combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    kinds = max(len(coded.dictionary), 1)
    return _Column(name, codes, kinds, np.where(codes < 0, kinds, codes))


def _shares(column: _Column, rows: np.ndarray) -> np.ndarray | None:
    """The share of each value (kinds,) among what is not missing, None where all is."""
    counts = np.bincount(column.codes[rows] + 1, minlength=column.kinds + 1)[1:]
    return counts / counts.sum() if counts.any() else None


def _shape(column: _Column, i: np.ndarray, j: np.ndarray) -> float:
    """1 - the distance of Kolmogorov and Smirnov for numbers, 1 - total variation for categories."""
    p, q = _shares(column, i), _shares(column, j)
    if p is None or q is None:
        return float(p is q)
    apart = np.abs((p - q).cumsum()).max() if column.values is not None else np.abs(p - q).sum() / 2
    return float(1 - apart)


def _missing(column: _Column, i: np.ndarray, j: np.ndarray) -> float:
    return float(1 - abs((column.codes[i] < 0).mean() - (column.codes[j] < 0).mean()))


def _coverage(column: _Column, i: np.ndarray, j: np.ndarray) -> float:
    """The share of the real range, or of the real categories, that made values cover."""
    p, q = _shares(column, i), _shares(column, j)
    if p is None or q is None:
        return float(p is None)
    if column.values is None:
        return float((q[p > 0] > 0).mean())
    x, y = column.values[i], column.values[j]
    (a, b), (c, d) = ((np.nanmin(v), np.nanmax(v)) for v in (x, y))
    if a == b:
        return float(c <= a <= d)
    return float(max(0.0, 1 - max(0.0, (c - a) / (b - a)) - max(0.0, (b - d) / (b - a))))


def _trends(columns: list[_Column], keep: bool = True) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The trends (pairs,) as a statistic of rows. keep : whether the codes of pairs stay in memory, for many calls."""
    numeric = [place for place, column in enumerate(columns) if column.values is not None]
    at = {place: number for number, place in enumerate(numeric)}
    x = np.stack([columns[place].values for place in numeric], axis=1) if numeric else np.zeros((0, 0))  # type: ignore[misc]
    pairs = list(combinations(range(len(columns)), 2))
    both = np.array([a in at and b in at for a, b in pairs], dtype=bool)

    def coded() -> Iterator[tuple[np.ndarray, int]]:
        for (a, b), by_number in zip(pairs, both, strict=True):
            if not by_number:
                whole = columns[a].cells * (columns[b].cells.max() + 1) + columns[b].cells
                kinds, codes = np.unique(whole, return_inverse=True)
                yield codes, len(kinds)
    kept = list(coded()) if keep else None

    def statistic(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        out = np.empty(len(pairs))
        out[~both] = [1 - np.abs(np.bincount(codes[i], minlength=kinds) / len(i)
                                 - np.bincount(codes[j], minlength=kinds) / len(j)).sum() / 2
                      for codes, kinds in (coded() if kept is None else kept)]
        if len(numeric) > 1:
            rho, other = _correlations(x[i]), np.nan_to_num(_correlations(x[j]))
            place = np.array([(at[a], at[b]) for (a, b), here in zip(pairs, both, strict=True) if here])
            out[both] = 1 - np.abs(rho - other)[place[:, 0], place[:, 1]] / 2
        return out
    return statistic


def _correlations(x: np.ndarray) -> np.ndarray:
    """Pearson's correlations (D, D) of columns (n, D), each over the records that have both; nan where one is constant."""
    there = ~np.isnan(x)
    v, x = there.astype(np.float64), np.where(there, x, 0.0)
    n = np.maximum(v.T @ v, 1)
    total, square = x.T @ v, np.square(x).T @ v
    covariance = x.T @ x / n - total * total.T / n ** 2
    variance = square / n - np.square(total / n)
    scale = np.sqrt(np.maximum(variance * variance.T, 0))
    able = (variance > 1e-12 * (square / n)) & (variance.T > 1e-12 * (square / n).T)
    return np.divide(covariance, scale, out=np.full(scale.shape, np.nan), where=able & (scale > 0))


MEMBER = Associations
