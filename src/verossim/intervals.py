"""Numbers with their uncertainty: an interval by the bootstrap or by Student's t, and p-values by permutation.

Sources: Efron, "Better bootstrap confidence intervals" (JASA 1987) for the BCa interval; Phipson and Smyth, "Permutation
p-values should never be zero" (2010).
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = ["LEVEL", "Interval", "bootstrap", "of_mean", "p_value"]

LEVEL = 0.95  # of every interval
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95 % interval; None where it has none. p_value: of the hypothesis that nothing differs."""

    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


def bootstrap(statistic: Callable[..., float], counts: tuple[int, ...], rng: np.random.Generator,
              rounds: int = 400) -> Interval:
    """The BCa interval of a statistic of independent samples of `counts` records, drawn with replacement `rounds` times.

    statistic : takes an index array (n,) for each sample; called with every record once, with resamples, and with one record
        left out for the acceleration (in at most 64 groups a sample, so that the cost does not grow with the records).
    """
    whole = [np.arange(n) for n in counts]
    value = statistic(*whole)
    drawn = np.sort([statistic(*(rng.integers(0, n, n) for n in counts)) for _ in range(rounds)])
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / rounds
    if drawn[0] == drawn[-1] or not np.isfinite(drawn).all():
        return Interval(value, *((float(drawn[0]), float(drawn[-1])) if np.isfinite(drawn).all() else (None, None)))
    bias = NORMAL.inv_cdf(float(np.clip(below, 0.5 / rounds, 1 - 0.5 / rounds)))
    skew = _acceleration(statistic, whole, rng)

    def end(probability: float) -> float:
        z = bias + NORMAL.inv_cdf(probability)
        return float(np.quantile(drawn, NORMAL.cdf(bias + z / (1 - skew * z))))
    return Interval(value, end((1 - LEVEL) / 2), end((1 + LEVEL) / 2))


def _acceleration(statistic: Callable[..., float], whole: list[np.ndarray], rng: np.random.Generator) -> float:
    """The skewness of the jackknife's influences over six, of all samples together."""
    cubes = squares = 0.0
    for place, rows in enumerate(whole):
        groups = np.array_split(rng.permutation(rows), min(len(rows), 64))
        left = np.array([statistic(*(np.setdiff1d(rows, group) if k == place else other for k, other in enumerate(whole)))
                         for group in groups if len(group) < len(rows)])
        influence = (left.mean() - left) if len(left) else np.zeros(1)
        cubes, squares = cubes + float((influence ** 3).sum()), squares + float((influence ** 2).sum())
    return cubes / (6 * squares ** 1.5) if squares > 0 else 0.0


def of_mean(values: np.ndarray) -> Interval:
    """The mean of independent numbers (n,) with its interval by Student's t; without an interval where there is but one."""
    from scipy.stats import t
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean)
    reach = float(t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / n ** 0.5)
    return Interval(mean, mean - reach, mean + reach)


def p_value(observed: float, permuted: np.ndarray) -> float:
    """The share of permutations (n,) whose statistic is at least the observed one, which counts among them."""
    return float((1 + np.sum(permuted >= observed)) / (1 + len(permuted)))
