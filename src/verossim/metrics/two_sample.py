"""The classifier two-sample test: can a classifier tell made records from real ones (Lopez-Paz and Oquab, ICLR 2017)?

    accuracy = P(h(record) = its side),        1/2 where nothing can be told, from as many records of either side

Every classifier judges records that it did not learn from. Plain cross-fitting would let each pair of folds count twice, h_f
learned from fold g and h_g from fold f: the right answers of all folds together vary more than a binomial, and at 5 % they
would reject 7.5 % of alike sets (benchmarks/intervals_two_sample.py). Here a fold is judged by classifiers that
learned from all folds *before* it, the first half of the records being learned from only. Given the past the right answers of
a fold are then a sum of independent trials, of mean 1/2 under the null and of no more variance than a fair coin's (Hoeffding,
Ann. Math. Stat. 1956), and over folds they are a martingale: the total is held against a binomial, without permutations, and
the interval is Clopper and Pearson's.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import knob
from ..intervals import Interval, clopper_pearson
from . import Metric, Quantity, Sample

__all__ = ["MEMBER", "TwoSample"]

INNER = 4  # one of so many records that are learned from chooses between the two classifiers


@dataclass(frozen=True, kw_only=True)
class TwoSampleConfig:
    """Settings of the classifier two-sample test."""

    beside: str = knob("trees", "classifier that is tried beside logistic regression", choices=("trees", "network", "none"))
    folds: int = knob(5, "parts of the second half of the records, judged by what learned from all before", low=1, high=100)
    records: int = knob(5_000, "most records of each side", low=10, high=1_000_000)


class TwoSample(Metric):
    """Accuracy of a classifier of made against real records; the larger side is cut to the size of the smaller one.

    Within what is learned from, a quarter chooses between logistic regression and the classifier beside it, by log loss; the
    chosen one then learns from all of it.
    """

    Config = TwoSampleConfig
    fewest = 10
    gives = (Quantity("two_sample", "lower", "How often a classifier tells whether a record is real or made; 0.5 where it "
                      "cannot.", "Why they differ, and differences that this classifier does not see; nearly 1 also for "
                      "differences that do not matter."),)

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """The accuracy with its interval, and the p-value of the hypothesis that real and made are alike."""
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits
        n = min(len(real), len(made), self.config.records)
        sides = [rng.permutation(len(side))[:n] for side in (real, made)]
        x = np.stack([real.vectors[sides[0]], made.vectors[sides[1]]], axis=1).astype(np.float64)
        parts = np.array_split(np.arange(n - n // 2, n), min(self.config.folds, n // 2))
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)     # stopping early is meant
            right = sum(self._judged(x[:part[0]], x[part], int(rng.integers(2**31))) for part in parts)
        return {"two_sample": _interval(right, 2 * (n // 2))}

    def _judged(self, seen: np.ndarray, unseen: np.ndarray, seed: int) -> int:
        """How many of records (m, 2, D), real and made, are told right by what learned from (n, 2, D)."""
        middle, scale = seen.mean(axis=(0, 1)), seen.std(axis=(0, 1))
        scale = np.where(scale > 0, scale, 1.0)
        (x, y), (u, v) = (_labelled((part - middle) / scale) for part in (seen, unseen))
        return int((self._learned(x, y, seed).predict(u) == v).sum())

    def _learned(self, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
        """The better of the two classifiers, by a part of the records that neither has seen, learned from all of them."""
        from sklearn.metrics import log_loss
        held = np.arange(len(x)) // 2 % INNER == INNER - 1
        if not held.any() or self.config.beside == "none":
            return _classifiers("none", len(x), seed)[0].fit(x, y)
        losses = [log_loss(y[held], kind.fit(x[~held], y[~held]).predict_proba(x[held])[:, 1], labels=(0, 1))
                  for kind in _classifiers(self.config.beside, len(x), seed)]
        return _classifiers(self.config.beside, len(x), seed)[int(np.argmin(losses))].fit(x, y)


MEMBER = TwoSample


def _labelled(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (n, 2, D) of real and made as records (2n, D) and sides (2n,)."""
    n, _, D = pairs.shape
    return pairs.reshape(2 * n, D), np.tile([0, 1], n)


def _classifiers(beside: str, n: int, seed: int) -> list[Any]:
    """Logistic regression, and the classifier beside it, for n records."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    plain = LogisticRegression(C=0.1, max_iter=200)
    if beside == "trees":
        return [plain, HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=15, min_samples_leaf=max(2, min(20, n // 10)),
                                                      max_bins=63, early_stopping=False, random_state=seed)]
    if beside == "network":
        return [plain, MLPClassifier((64,), alpha=1e-2, max_iter=60, early_stopping=n >= 200, random_state=seed)]
    return [plain]


def _interval(right: int, n: int) -> Interval:
    """The share right / n, and the p-value of a fair coin that is right as often or more."""
    from scipy.stats import binom
    share = clopper_pearson(right, n)
    return Interval(share.value, share.low, share.high, float(min(1.0, binom.sf(right - 1, n, 0.5))))
