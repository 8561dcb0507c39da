"""The number of statistically different bins (Richardson and Weiss, "On GANs and GMMs", NeurIPS 2018, section 3).

Real records are parted into K bins by k-means; in each bin the shares p of real and q of made records are held against each
other,

    z = (p - q) / sqrt(s (1 - s) (1/n + 1/m)),        s = (n p + m q) / (n + m),

and a bin differs where |z| is beyond the two-sided point of `level`. A bin that is fitted to records holds these in a way that
it does not hold others; therefore one half of the real records makes the bins and the other half is counted. Under the null a
share `level` of bins differs, and no more. That share is not a property of the two distributions but of these sizes; its
expectation is covered by Clopper and Pearson's interval over bins, whereas a bootstrap would add noise to the noise that it
should measure.

How far the bins are apart whatever the sizes is the Jensen-Shannon divergence of the shares, in nats. Near zero X = 8 JSD /
(1/n + 1/m) is noncentral chi-square with K - 1 degrees of freedom and noncentrality X of the truth: K - 1 is taken off, and
the interval inverts that distribution.
"""

from dataclasses import dataclass

import numpy as np

from ..config import knob
from ..intervals import LEVEL, Interval, clopper_pearson, p_value
from . import Metric, Quantity, Sample

__all__ = ["MEMBER", "Bins", "divergence"]

FULL = 10  # records of either side that a bin should hold
LEARNED = 20_000  # most records that bins are made of
BLOCK = 1 << 24  # distances at a time
PERMUTED = 999


@dataclass(frozen=True, kw_only=True)
class BinsConfig:
    """Settings of the statistically different bins."""

    bins: int = knob(100, "bins at most; fewer where these would hold fewer than 10 records", low=2, high=10_000)
    level: float = knob(0.05, "of the test in each bin", low=1e-6, high=0.5)


class Bins(Metric):
    """The share of bins that differ, with the p-value of the hypothesis that none does (chi-square of all bins, by permutation
    of the sides); and the divergence of the bins."""

    Config = BinsConfig
    fewest = 40
    gives = (Quantity("bins", "lower", "Share of parts of the real records where made ones are too many or too few; 0.05 where "
                      "all is alike.", "Differences within a part; it grows with the number of records."),
             Quantity("bins_divergence", "lower", "How differently real and made records are spread over parts of the real "
                      "ones.", "Differences within a part.", "nats"))

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Both numbers, of the half of the real records that did not make the bins."""
        order = rng.permutation(len(real))
        learned, counted = order[:len(real) // 2], order[len(real) // 2:]
        K = int(max(2, min(self.config.bins, len(counted) // FULL, len(made) // FULL)))
        centres = _centres(real.vectors[learned[:LEARNED]], K, int(rng.integers(2**31)))
        a = np.bincount(_nearest(real.vectors[counted], centres), minlength=len(centres))
        b = np.bincount(_nearest(made.vectors, centres), minlength=len(centres))
        return {"bins": self._different(a, b, rng), "bins_divergence": divergence(a, b)}

    def _different(self, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> Interval:
        """The share of bins with counts (K,) that differ."""
        from scipy.stats import norm
        n, m = a.sum(), b.sum()
        s = (a + b) / (n + m)
        error = np.sqrt(s * (1 - s) * (1 / n + 1 / m))
        z = (a / n - b / m) / np.where(error > 0, error, np.inf)
        share = clopper_pearson(int((np.abs(z) > norm.ppf(1 - self.config.level / 2)).sum()), len(a))
        permuted = rng.multivariate_hypergeometric(a + b, int(n), size=PERMUTED, method="marginals")
        return Interval(share.value, share.low, share.high, p_value(float(_chi_square(a[None], a + b)[0]),
                                                                 _chi_square(permuted, a + b)))


MEMBER = Bins


def divergence(a: np.ndarray, b: np.ndarray) -> Interval:
    """The Jensen-Shannon divergence in nats of what counts (K,) and (K,) are drawn from, its bias taken off, at least 0."""
    from scipy.optimize import brentq
    from scipy.stats import chi2, ncx2
    a, b = a[a + b > 0], b[a + b > 0]
    n, m, freedom = a.sum(), b.sum(), max(len(a) - 1, 1)
    p, q = a / n, b / m
    middle = (p + q) / 2
    plain = _entropy(middle) - (_entropy(p) + _entropy(q)) / 2
    unit = (1 / n + 1 / m) / 8
    x = max(plain, 0.0) / unit

    def noncentral(tail: float) -> float:
        """The noncentrality under which a share `tail` lies above x; 0 where already more does without any."""
        if chi2.sf(x, freedom) >= tail:
            return 0.0
        top = 2 * x + 40 * (freedom + 1) ** 0.5 + 100
        return float(brentq(lambda away: ncx2.sf(x, freedom, away) - tail, 1e-12, top))
    low, high = (min(noncentral(tail) * unit, np.log(2)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(max(plain - freedom * unit, 0.0)), low, high, float(chi2.sf(x, freedom)))


def _entropy(p: np.ndarray) -> float:
    """Nats of shares (K,)."""
    known = p[p > 0]
    return float(-(known * np.log(known)).sum())


def _chi_square(a: np.ndarray, both: np.ndarray) -> np.ndarray:
    """The statistic of homogeneity, up to a constant factor, of counts (n, K) out of those of both sides (K,)."""
    both = np.maximum(both, 1)
    expected = both * a.sum(axis=1, keepdims=True) / both.sum()
    return (np.square(a - expected) / both).sum(axis=1)


def _centres(x: np.ndarray, K: int, seed: int) -> np.ndarray:
    """Middles (<= K, D) of bins of records (N, D); one thread, since the order of sums would change the last bits."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits
    K = min(K, len(np.unique(x, axis=0)))
    with threadpool_limits(limits=1):
        return KMeans(K, n_init=1, max_iter=50, random_state=seed).fit(x.astype(np.float64)).cluster_centers_


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The bin of each record (N, D), (N,), in blocks."""
    squares = np.square(centres).sum(axis=1) / 2
    step = max(1, BLOCK // len(centres))
    return np.concatenate([(squares - x[first:first + step] @ centres.T).argmin(axis=1) for first in range(0, len(x), step)])
