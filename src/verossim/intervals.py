"""Numbers with their uncertainty: intervals by the bootstrap, by Student's t and of shares, and p-values by permutation.

Sources: Efron, "Better bootstrap confidence intervals" (JASA 1987) for the BCa interval, widened for few records as Hesterberg,
"What teachers should know about the bootstrap" (2015), says; Clopper and Pearson (Biometrika 1934) for shares; DeLong, DeLong
and Clarke-Pearson (Biometrics 1988) for areas under the curve; Phipson and Smyth, "Permutation p-values should never be zero"
(2010).
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .errors import BadData

__all__ = ["LEVEL", "Interval", "auc", "bootstrap", "clopper_pearson", "of_mean", "p_value", "rate_at"]

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

    The bootstrap's spread is that of n - 1 records and its tails are a Gaussian's; the normal quantiles are therefore widened
    to sqrt(n / (n - 1)) times Student's t for the smallest sample (Hesterberg 2015, section 5).

    statistic : takes an index array (n,) for each sample; called with every record once, with resamples, and with one record
        left out for the acceleration (in at most 64 groups a sample, so that the cost does not grow with the records).
    """
    from scipy.stats import t
    whole = [np.arange(n) for n in counts]
    value = statistic(*whole)
    drawn = np.sort([statistic(*(rng.integers(0, n, n) for n in counts)) for _ in range(rounds)])
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / rounds
    if drawn[0] == drawn[-1] or not np.isfinite(drawn).all():
        return Interval(value, *((float(drawn[0]), float(drawn[-1])) if np.isfinite(drawn).all() else (None, None)))
    bias = NORMAL.inv_cdf(float(np.clip(below, 0.5 / rounds, 1 - 0.5 / rounds)))
    skew, n = _acceleration(statistic, whole, rng), max(min(counts), 2)
    reach = float(t.ppf((1 + LEVEL) / 2, n - 1)) * (n / (n - 1)) ** 0.5

    def end(normal: float) -> float:
        z = bias + normal
        tilted = bias + z / max(1 - skew * z, 1e-3)
        return float(np.quantile(drawn, NORMAL.cdf(tilted), method="weibull"))
    return Interval(value, end(-reach), end(reach))


def _acceleration(statistic: Callable[..., float], whole: list[np.ndarray], rng: np.random.Generator) -> float:
    """The skewness of the jackknife's influences over six, of all samples together."""
    cubes = squares = 0.0
    for place, rows in enumerate(whole):
        groups = np.array_split(rng.permutation(rows), min(len(rows), 64))
        left = np.array([statistic(*(np.delete(rows, group) if k == place else other for k, other in enumerate(whole)))
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


def clopper_pearson(k: float, n: int) -> Interval:
    """The share k / n of n independent trials, with the exact interval of Clopper and Pearson."""
    from scipy.stats import beta
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return Interval(k / n, low, high)


def auc(positive: np.ndarray, negative: np.ndarray) -> Interval:
    """The area under the curve, P(positive > negative) + P(equal) / 2, of scores (m,) and (n,) of independent records.

    The interval is DeLong's, on the scale of the logit. Where the scores part wholly or are all alike, so that they tell no
    variance, it is that of a share of min(m, n) pairs. The p-value is that of Mann and Whitney, two-sided. Raises BadData
    SCORES_FEW or SCORES_NAN.
    """
    from scipy.stats import mannwhitneyu, norm, rankdata
    positive, negative = _scores(positive, "positive"), _scores(negative, "negative")
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n         # the share of negatives below each positive
    under = 1 - (ranks[m:] - rankdata(negative)) / m     # the share of positives above each negative
    value = float(above.mean())
    equal = bool((ranks == ranks[0]).all())
    p = 1.0 if equal else float(mannwhitneyu(positive, negative, method="asymptotic").pvalue)
    variance = above.var(ddof=1) / m + under.var(ddof=1) / n if min(m, n) > 1 else 0.0
    if variance <= 0 or not 0 < value < 1:
        share = clopper_pearson(value * min(m, n), min(m, n))
        return Interval(value, share.low, share.high, p)
    logit = np.log(value / (1 - value))
    reach = norm.ppf((1 + LEVEL) / 2) * variance ** 0.5 / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (logit - reach, logit + reach))
    return Interval(value, low, high, p)


def rate_at(positive: np.ndarray, negative: np.ndarray, share: float) -> Interval:
    """The true positive rate, of scores (m,), at the least threshold that at most a `share` of the negatives (n,) exceed.

    The interval is Clopper and Pearson's, given this threshold. The p-value, of the hypothesis that positives are as negatives,
    is exact: the share of all that exceeds the k+1st of n negatives is Beta(k + 1, n - k), so positives beyond it are
    beta-binomial. With fewer than 1 / share negatives the threshold is the largest of them. Raises BadData SCORES_FEW or
    SCORES_NAN.
    """
    from scipy.stats import betabinom
    positive, negative = _scores(positive, "positive"), _scores(negative, "negative")
    m, n = len(positive), len(negative)
    k = min(int(np.floor(share * n + 1e-9)), n - 1)
    threshold = np.partition(negative, n - 1 - k)[n - 1 - k]
    found = int((positive > threshold).sum())
    rate = clopper_pearson(found, m)
    return Interval(rate.value, rate.low, rate.high, float(min(1.0, betabinom.sf(found - 1, m, k + 1, n - k))))


def _scores(scores: np.ndarray, what: str) -> np.ndarray:
    """Scores (n,) as float64; infinite ones may be among them. Raises BadData SCORES_FEW or SCORES_NAN."""
    scores = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not len(scores):
        raise BadData("SCORES_FEW", f"There is no {what} score to compare.", "Give at least one record of each side.")
    if np.isnan(scores).any():
        raise BadData("SCORES_NAN", f"The {what} score {int(np.isnan(scores).argmax()) + 1} of {len(scores)} is not a number, "
                      f"and {int(np.isnan(scores).sum())} in all.", "Leave these records out.")
    return scores
