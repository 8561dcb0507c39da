"""The interval and the p-value of a distance between two sets of records.

A distance is never below its ideal, 0, and by chance it lies above it even between two sets of one source. Resampling adds the
same chance a second time, so that the bootstrap's own interval misses the truth near the ideal. The interval here joins three
facts: Student's t of the jackknife over groups of records (Efron and Stein 1981); towards the ideal, as much more as resampling
takes the number away from it, which estimates what chance has done already (Efron and Tibshirani 1993, chapter 10); and the
ideal itself wherever a permutation test cannot tell the sets apart at 5 % (a confidence set is what a test does not reject).
benchmarks/records.py counts how often it covers the truth.

Wasserstein-1 between two sets of numbers is the area between their distribution functions, W = integral |F(t) - G(t)| dt
(Vallender 1974), in the unit of the numbers.
"""

from collections.abc import Callable

import numpy as np

from ..intervals import LEVEL, Interval, p_value

__all__ = ["distance", "wasserstein"]

Statistic = Callable[[np.ndarray, np.ndarray], float]
GROUPS = RESAMPLES = 64


def distance(statistic: Statistic, n: int, m: int, rng: np.random.Generator, ideal: float = 0.0,
             most: float = np.inf, rounds: int = 400) -> Interval:
    """The value, interval and p-value of a statistic of `n` real and `m` made records.

    statistic : takes the rows (n,) of real records and those (m,) of made ones, in the pool of both, real ones first.
    ideal : its value where nothing differs; chance only takes it away from there. most : its largest value.
    rounds : permutations.
    """
    from scipy.stats import t
    i, j = np.arange(n), np.arange(n, n + m)
    value = statistic(i, j)
    shuffled = (rng.permutation(n + m) for _ in range(rounds))
    apart = np.array([abs(statistic(rows[:n], rows[n:]) - ideal) for rows in shuffled])
    p = p_value(abs(value - ideal) * (1 - 1e-12), apart)    # sums in another order differ in their last bit
    variance = _left_out(lambda rows: statistic(rows, j), i, rng) + _left_out(lambda rows: statistic(i, rows), j, rng)
    reach = float(t.ppf((1 + LEVEL) / 2, min(n, m, GROUPS) - 1)) * variance ** 0.5
    drawn = [statistic(rng.integers(0, n, n), n + rng.integers(0, m, m)) for _ in range(RESAMPLES)]
    chance = max(0.0, abs(float(np.mean(drawn)) - ideal) - abs(value - ideal))
    down, up = (chance, 0.0) if value > ideal else (0.0, chance)
    ends = [min(max(end, 0.0), most) for end in (value - reach - down, value + reach + up)]
    if p > 1 - LEVEL:
        ends.append(ideal)
    return Interval(value, min(ends), max(ends), p)


def wasserstein(real: np.ndarray, made: np.ndarray, rng: np.random.Generator, most: float = np.inf) -> Interval:
    """Wasserstein-1 between numbers (n,) and (m,), one a record; at most `most`."""
    pool = np.concatenate([real, made])
    order = np.argsort(pool, kind="stable")
    steps = np.diff(pool[order])

    def statistic(i: np.ndarray, j: np.ndarray) -> float:
        F, G = (np.bincount(rows, minlength=len(pool))[order].cumsum()[:-1] / len(rows) for rows in (i, j))
        return float(np.abs(F - G) @ steps)
    return distance(statistic, len(real), len(made), rng, most=most)


def _left_out(statistic: Callable[[np.ndarray], float], rows: np.ndarray, rng: np.random.Generator) -> float:
    """The jackknife's variance of a statistic over its rows, a group left out at a time."""
    groups = np.array_split(rng.permutation(len(rows)), min(len(rows), GROUPS))
    G = len(groups)
    left = np.array([statistic(np.delete(rows, group)) for group in groups])
    return (G - 1) / G * float(np.square(left - left.mean()).sum())
