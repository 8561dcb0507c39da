"""MAUVE: how near the distribution of made records comes to that of real ones, in both directions at once.

Features are cut into k cells by k-means, and P and Q become histograms over them. For mixtures R = w P + (1 - w) Q the pairs
(exp(-c KL(Q, R)), exp(-c KL(P, R))) draw a curve from (1, 0) to (0, 1): the one is low where what is made is not real, the
other where what is real is not made. MAUVE is the area under it (Pillutla et al., NeurIPS 2021, eqs. 1 to 3). What k-means
finds follows from its seed; the number is the mean over several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..config import knob
from ..errors import BadData
from ..intervals import Interval
from . import Metric, Quantity, Sample
from ._distance import distance

__all__ = ["MEMBER", "Mauve", "MauveConfig", "frontier_integral", "mauve_area"]

POINTS, EDGE = 25, 1e-6
FEW = 100  # records, below which the number says little


@dataclass(frozen=True, kw_only=True)
class MauveConfig:
    """Settings of MAUVE; the defaults are the paper's."""

    seeds: int = knob(5, "runs of k-means whose numbers are averaged", low=1, high=100)
    cells: int = knob(0, "cells of the histograms; 0 takes a tenth of the smaller side, at most 500", low=0, high=100_000)
    restarts: int = knob(1, "starts of each k-means, of which the best is kept", low=1, high=50)
    scale: float = knob(5.0, "c, how fast a divergence brings the curve down", low=1e-3, high=1e3)
    explained: float = knob(0.9, "share of the variance that features keep before k-means", low=0.01, high=0.999999)


class Mauve(Metric):
    """Area under the divergence frontier, its smoothed form, and the frontier's integral, of features (N, D)."""

    Config = MauveConfig
    sees = "features"
    fewest = 10
    modalities = ("text",)
    gives = (
        Quantity("mauve", "higher", "how much made and real records fill the same regions of the features; 1 where they fill "
                 "them alike, near 0 where they have none in common", "What the features do not see; it falls with fewer "
                 "records and with texts of other lengths, so compare only numbers of equal size and length. Which texts: it "
                 "looks at the crowd."),
        Quantity("mauve_star", "higher", "the same with half a record added to every cell, which few records need (Pillutla et "
                 "al., JMLR 2023)", "As mauve; the added halves draw both sides together."),
        Quantity("frontier_integral", "lower", "divergence of the two histograms averaged over all mixtures of them, 0 where "
                 "they are alike, 1 where they have nothing in common (Liu et al., NeurIPS 2021)", "As mauve."),
    )

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Raises BadData METRIC_CONSTANT where no feature varies. The cells stay as they are while records are resampled."""
        n, m = len(real), len(made)
        cells = self.config.cells or min(500, max(2, round(min(n, m) / 10)))
        found = _cells(np.concatenate([real.vectors, made.vectors]), min(cells, n + m), self.config,
                       [int(seed) for seed in rng.integers(0, 2**31 - 1, self.config.seeds)])
        numbered, S = np.stack(found) + cells * np.arange(len(found))[:, None], len(found)
        area = partial(mauve_area, scale=self.config.scale)

        def averaged(number, smooth: float, i: np.ndarray, j: np.ndarray) -> float:  # type: ignore[no-untyped-def]
            P, Q = (np.bincount(numbered[:, rows].ravel(), minlength=S * cells).reshape(S, cells) + smooth for rows in (i, j))
            return float(number(P / P.sum(axis=1, keepdims=True), Q / Q.sum(axis=1, keepdims=True)).mean())
        return {"mauve": distance(partial(averaged, area, 0.0), n, m, rng, ideal=1.0, most=1.0),
                "mauve_star": distance(partial(averaged, area, 0.5), n, m, rng, ideal=1.0, most=1.0),
                "frontier_integral": distance(partial(averaged, frontier_integral, 0.0), n, m, rng, most=1.0)}

    def notes(self, real: Sample, made: Sample) -> Sequence[str]:
        """That few records or unlike sizes weigh on the number."""
        few = [f"MAUVE of fewer than {FEW} records says little: it follows from their number more than from their quality"]
        apart = ["The sides differ in size; MAUVE was published for sides of one size"]
        return (few if min(len(real), len(made)) < FEW else []) + (apart if len(real) != len(made) else [])


def mauve_area(p: np.ndarray, q: np.ndarray, scale: float = 5.0) -> np.ndarray:
    """The area under the divergence curve of histograms (..., k), drawn at 25 mixtures: (...)."""
    w = np.linspace(EDGE, 1 - EDGE, POINTS).reshape(-1, *(1,) * p.ndim)
    r = w * p + (1 - w) * q
    end = np.zeros((1, *p.shape[:-1]))
    x = np.concatenate([end + 1, np.exp(-scale * _divergence(q, r)), end])
    y = np.concatenate([end, np.exp(-scale * _divergence(p, r)), end + 1])
    return (_area(x, y) + _area(y, x)) / 2


def frontier_integral(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """2 integral over w of w KL(p, r) + (1 - w) KL(q, r), r = w p + (1 - w) q, of histograms (..., k): (...).

    A cell gives (p + q) / 2 - p q log(p / q) / (p - q); it gives 0 where p = q."""
    both = (p > 0) & (q > 0)
    logs = np.log(np.where(both, p, 1)) - np.log(np.where(both, q, 1))
    apart = np.abs(p - q) > 1e-8
    return np.where(apart, (p + q) / 2 - p * q * logs / np.where(apart, p - q, 1), 0).sum(axis=-1)


def _divergence(p: np.ndarray, r: np.ndarray) -> np.ndarray:
    """KL(p, r) in nats (W, ...), of histograms (..., k) and W mixtures (W, ..., k), which are above 0 wherever p is."""
    return (p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, r, 1))).sum(axis=-1)


def _area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The area under curves (points, ...), which are sorted by x first."""
    order = np.argsort(x, axis=0, kind="stable")
    return np.trapezoid(np.take_along_axis(y, order, 0), np.take_along_axis(x, order, 0), axis=0)


def _cells(x: np.ndarray, k: int, config: MauveConfig, seeds: Sequence[int]) -> list[np.ndarray]:
    """The cell of each row of features (N, D), by k-means of each seed: rows are scaled to unit length and turned to the axes
    of most variance, as in the paper."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits
    x = normalize(x.astype(np.float64))
    N, D = x.shape
    if not np.ptp(x, axis=0).max() > 1e-12:
        raise BadData("METRIC_CONSTANT", f"Measure 'mauve': none of {D} features varies in direction over {N:,} records.",
                      "Choose other features, or centre these: MAUVE looks at their direction from zero.")
    turned = PCA(svd_solver="covariance_eigh" if N > D else "full").fit(x)
    kept = int(np.argmax(np.cumsum(turned.explained_variance_ratio_) >= config.explained)) + 1
    x = turned.transform(x)[:, :kept]
    k = min(k, len(np.unique(x, axis=0)))
    with threadpool_limits(limits=1):    # the order of sums would change the last bits
        return [KMeans(k, n_init=config.restarts, max_iter=500, random_state=seed).fit_predict(x) for seed in seeds]


MEMBER = Mauve
