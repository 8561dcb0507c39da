"""The squared Frechet distance of two normals that have the records' means and covariances (Frechet, 1957; Dowson and Landau,
1982), which Heusel et al. (arXiv:1706.08500) call FID where the features are those of one Inception network:

    F = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With S1 = H H^T and H^T S2 H = Q c^2 Q^T the last trace is the sum of c: eigenvalues of a symmetric matrix. With fewer records
than features, X and Y (N, D), (M, D) centred and scaled so that S1 = X^T X, the c are the singular values of X Y^T, and no
matrix of D x D is formed.

The value of N records is too high by about b / N; from N and N / 2 records the value of infinitely many follows (Chong and
Forsyth, arXiv:1911.07023). Its error follows from the influence of each record, of the first order in S1 by the transport map
T = H^-T Q c Q^T H^-1 (for which T S1 T = S2; d tr (S1 S2)^(1/2) / d S1 = T / 2), of the second by its derivative.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..errors import Incompatible
from ..intervals import Interval
from . import Metric, Quantity, Sample, comparable

__all__ = ["MEMBER", "Frechet", "frechet_distance", "frechet_of_moments", "reference"]

ROWS = 4096  # records of a block
EPSILON = torch.finfo(torch.float64).eps
EXACT = 1e-7  # error of the eigenvalues, relative to the distance, above which they are computed the careful way
ENOUGH = 4  # records a feature, from where the intervals hold
NORMAL_FROM = 10_000  # degrees of freedom and noncentrality, above which a chi-square is taken as normal
NEAR_0 = 2.0  # deviations of the error, within which a distance is near 0
WIDE = 512  # features, up to where all three ways to halve four quarters are taken


@dataclass(frozen=True)
class Moments:
    """Of `count` records: their mean (D,), and the sum of (x - mean)(x - mean)^T, (D, D)."""

    count: int
    mean: Tensor
    scatter: Tensor

    @property
    def covariance(self) -> Tensor:
        """(D, D), divided by count - 1."""
        return self.scatter / (self.count - 1)

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both together (Chan, Golub and LeVeque, 1979)."""
        n, apart = self.count + other.count, other.mean - self.mean
        return Moments(n, self.mean + apart * (other.count / n), torch.addr(
            self.scatter + other.scatter, apart, apart, alpha=self.count * other.count / n))


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """The squared Frechet distance of features (N, D) and (M, D), in their unit squared; of these records, so too high by about
    b / N. Raises Incompatible METRIC_SHAPE, BadData METRIC_FEW."""
    comparable("The Frechet distance", real, made)
    if max(len(real), len(made)) < real.shape[1]:
        (mx, x), (my, y) = _centred(real), _centred(made)
        return _distance(mx, x.square().sum(), my, y.square().sum(), torch.linalg.svdvals(x @ y.T))
    return _of_moments(_moments(real), _moments(made))


def frechet_of_moments(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """The squared Frechet distance of normals with means (D,) and covariances (D, D), by symmetric eigenvalues."""
    means, covs = [torch.as_tensor(m).double() for m in (mean_a, mean_b)], [torch.as_tensor(s).double() for s in (cov_a, cov_b)]
    D = len(means[0])
    if {tuple(m.shape) for m in means} != {(D,)} or {tuple(s.shape) for s in covs} != {(D, D)}:
        shapes = ", ".join(str(tuple(value.shape)) for value in (*means, *covs))
        raise Incompatible("METRIC_SHAPE", f"Means and covariances of shapes {shapes} are not of one kind of features.",
                           "Give means (D,) and covariances (D, D).")
    return _of_moments(*(Moments(2, m, s) for m, s in zip(means, covs, strict=True)))


def reference(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """The same as `frechet_of_moments`, word by word: by the square root of a matrix."""
    from scipy.linalg import sqrtm
    root = sqrtm(np.asarray(cov_a, np.float64) @ np.asarray(cov_b, np.float64))
    return float(np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root).real)


fast = frechet_of_moments


class Frechet(Metric):
    """F = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), of these records and extrapolated to infinitely many.

    The interval of "frechet" is for the mean of the value over other records, as many; that of "frechet_infinity" for the
    distance of the distributions, t. Errors have the variance k t + V: V is that of the second order, which the extrapolation
    has once more over the K ways to halve; k t that of the first, which goes with t as both are quadratic in what differs.
    V, and by how much F is too high, are those of normals: of few features with heavy tails intervals hold the truth less
    often (docs/log.md)."""

    gives = (
        Quantity("frechet", "lower", "how far mean and covariance of the features are apart, of as many records as there are",
                 "all that mean and covariance do not show; too high for few records, so compare at equal numbers only"),
        Quantity("frechet_infinity", "lower", "the same, extrapolated to infinitely many records; near 0, and also below, "
                 "where nothing differs", "all that mean and covariance do not show; copying"),
    )
    fewest = 4

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Both distances; no interval with fewer than ENOUGH records a feature. `rng` chooses the halves."""
        x, y = real.vectors, made.vectors
        assert x is not None and y is not None
        (N, D), M = x.shape, len(y)
        orders = rng.permutation(N), rng.permutation(M)
        if max(N, M) < D:
            full, K = frechet_distance(x, y), 1
            halves = [frechet_distance(x[orders[0][k::2]], y[orders[1][k::2]]) for k in (0, 1)]
        else:
            parts = 4 if D <= WIDE else 2
            p, q = ([_moments(side, order[k::parts]) for k in range(parts)]
                    for side, order in ((x, orders[0]), (y, orders[1])))
            ways = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))] if parts == 4 else [((0,), (1,))]
            halves, K = [_of_moments(_sum(p, half), _sum(q, half)) for way in ways for half in way], len(ways)
            every = tuple(range(parts))
            a, b = _sum(p, every), _sum(q, every)
            full = _of_moments(a, b)
        value = full - (float(np.mean(halves)) - full) * _share(N, M)
        if min(N, M) < ENOUGH * D:
            return {"frechet": Interval(full), "frechet_infinity": Interval(value)}
        errors = _errors(x, y, a, b)
        low, high = _ends(full - errors.mean, full, errors, errors.V)
        these = Interval(full, errors.mean + low, max(errors.mean + high, full - value))
        low, high = _ends(value, full, errors, errors.V * (1 + 1 / K), bounded=True)
        return {"frechet": these, "frechet_infinity": Interval(value, min(value, max(low, 0.0)), high)}

    def notes(self, real: Sample, made: Sample) -> list[str]:
        """That there are too few records for an interval, where there are."""
        D, few = real.vectors.shape[1], min(len(real), len(made))
        return [] if few >= ENOUGH * D else [
            f"The Frechet distance has no interval: {few:,} records for {D:,} features; from {ENOUGH * D:,} on it has one."]


@dataclass(frozen=True)
class Errors:
    """Of the distance F: the variance of the first order, from the influences of the records, which is too high by 2 V; and of
    the second order, the mean, the variance V and the skewness."""

    first: float
    mean: float
    V: float
    skewness: float


def _ends(value: float, F: float, errors: Errors, V: float, bounded: bool = False) -> tuple[float, float]:
    """Between which t the distance is, of which `value` is an estimate without bias, with the variance V where t is 0; the
    greater is at least 0. bounded : a t below 0 is no answer, so that near 0 an interval can hardly be too low, and may be too
    high the more often; in the manner of Feldman and Cousins (arXiv:physics/9711021) the two may be so in 2.5 (1 - n) % and
    2.5 (1 + n) %, where n falls from 1 at t = 0 to 0 at NEAR_0 deviations of the error.

    Those t of which value - t is within its 95 %, as a scaled noncentral chi-square less its mean: errors that are sums of few
    squares are far from normal. Where t is 0 it has the cumulants of the second order (Buckley and Eagleson, 1988), and its
    variance grows by k t. A small F tells k badly, and too low when F is too low: at the upper end k is at least that of the
    mean direction of errors, 2 V / mean. All is counted in roots of V, so that the unit of the features changes nothing.
    """
    from scipy.optimize import brentq
    from scipy.special import chndtrix, ndtri
    unit = math.sqrt(V)
    if unit == 0:
        return value, max(value, 0.0)
    value /= unit
    k = max((errors.first - 2 * errors.V) / max(value * unit, math.sqrt(errors.V)), errors.first / (F or unit), 0.0) / unit
    steep = max(k, 2 * errors.V / errors.mean / unit)
    freedom = 8 / max(errors.skewness * (math.sqrt(errors.V) / unit) ** 3, 1e-3) ** 2

    def error(upper: bool, slope: float, t: float) -> float:
        near = max(0.0, 1 - t / (NEAR_0 * math.sqrt(slope * t + 1))) if bounded else 0.0
        share = 0.975 - 0.025 * near if upper else max(0.025 * (1 - near), 1e-9)
        noncentral = freedom * slope * t / 2
        if freedom + noncentral > NORMAL_FROM:
            return float(ndtri(share)) * math.sqrt(slope * t + 1)
        return float(chndtrix(share, freedom, noncentral) - freedom - noncentral) / math.sqrt(2 * freedom)

    def end(upper: bool, slope: float) -> float:
        """The t with value - t = error, which below 0 is that of 0. At `beyond` nothing is near 0, and an error within twice a
        normal's; where a value far below 0 has three such t, any."""
        at_0 = value - error(upper, slope, 0.0)
        beyond = max(value, 0.0) + 16 * (slope + 1) + 8 * math.sqrt(slope * max(value, 0.0) + 1)
        return at_0 if at_0 <= 0 else float(brentq(lambda t: value - t - error(upper, slope, t), 0.0, beyond, rtol=1e-9))
    return unit * end(True, k), unit * max(end(False, steep), 0.0)


def _blocks(x: np.ndarray, rows: np.ndarray | None = None) -> Iterator[Tensor]:
    """Records, or those at `rows`, as float64, ROWS at a time."""
    n = len(x) if rows is None else len(rows)
    for first, last in pairwise([*range(0, n, ROWS), n]):
        yield torch.from_numpy(np.asarray(x[first:last] if rows is None else x[rows[first:last]], np.float64))


def _moments(x: np.ndarray, rows: np.ndarray | None = None) -> Moments:
    """Of records (N, D), or those at `rows`; in two passes."""
    n = len(x) if rows is None else len(rows)
    mean = torch.stack([block.sum(dim=0) for block in _blocks(x, rows)]).sum(dim=0) / n
    scatter = mean.new_zeros(len(mean), len(mean))
    for block in _blocks(x, rows):
        apart = block - mean
        scatter.addmm_(apart.T, apart)
    return Moments(n, mean, scatter)


def _sum(parts: list[Moments], which: tuple[int, ...]) -> Moments:
    whole = parts[which[0]]
    for k in which[1:]:
        whole = whole + parts[k]
    return whole


def _share(N: int, M: int) -> float:
    """By how much of the rise from whole to half the whole is itself too high: 1 / N over 1 / (N / 2) - 1 / N, near 1."""
    whole = 1 / N + 1 / M
    half = sum(1 / (n // 2) + 1 / (n - n // 2) for n in (N, M)) / 2
    return whole / (half - whole)


def _centred(x: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean (D,), and X (N, D) with X^T X the covariance."""
    block = torch.from_numpy(np.asarray(x, np.float64))
    mean = block.mean(dim=0)
    return mean, (block - mean) / math.sqrt(len(x) - 1)


def _distance(mx: Tensor, trace_x: Tensor, my: Tensor, trace_y: Tensor, c: Tensor) -> float:
    return float((mx - my).square().sum() + trace_x + trace_y - 2 * c.sum())


def _of_moments(a: Moments, b: Moments) -> float:
    """F of two sets' moments."""
    S1, S2 = a.covariance, b.covariance
    lives = (S1.diagonal() > 0) & (S2.diagonal() > 0)    # a constant feature adds nothing to tr (S1 S2)^(1/2)
    A, B = (S if bool(lives.all()) else S[lives][:, lives] for S in (S1, S2))
    H, B = _factor(A, B)
    squares = torch.linalg.eigvalsh(H.T @ B @ H).clamp(min=0)
    c = squares.sqrt()
    found = _distance(a.mean, S1.trace(), b.mean, S2.trace(), c)
    if c.numel() and _doubt(squares) > EXACT * abs(found):
        c = torch.linalg.svdvals(H.T @ _root(B))
        return _distance(a.mean, S1.trace(), b.mean, S2.trace(), c)
    return found


def _factor(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """H with H H^T = A, and B; or the other way round where only B has a Cholesky factor, which is the quick way."""
    for S, other in ((A, B), (B, A)):
        H, failed = torch.linalg.cholesky_ex(S)
        if not int(failed):
            return H, other
    return _root(A), B


def _root(S: Tensor) -> Tensor:
    """H (D, rank) with H H^T = S."""
    values, V = torch.linalg.eigh(S)
    kept = values > EPSILON * len(values) * values.abs().amax() if values.numel() else values > 0
    return V[:, kept] * values[kept].sqrt()


def _doubt(squares: Tensor) -> float:
    """How far rounding may have moved the sum of the roots: an eigenvalue is good to EPSILON of the greatest."""
    error = 4 * EPSILON * squares.amax()
    return float(torch.minimum(error / (2 * squares.sqrt()), error.sqrt()).nan_to_num(0.0).sum())


def _errors(x: np.ndarray, y: np.ndarray, a: Moments, b: Moments) -> Errors:
    """Errors of the distance of x and y, whose moments are a and b; those of the second order as of normals.

    influence of x : 2 (m1 - m2).(x - m1) + |x - m1|^2 - (x - m1)^T T (x - m1), less its mean
    second order   : a sum of squares of standard normals, whose weights are (1/N + 1/M) c_i c_j / (c_i + c_j), i <= j, of the
                     covariances, and the eigenvalues of S1/N + S2/M of the means
    """
    S1, S2, apart = a.covariance, b.covariance, a.mean - b.mean
    H, other = _factor(S1, S2)
    squares, Q = torch.linalg.eigh(H.T @ other @ H)
    kept = squares > EPSILON * max(len(squares), 1) * squares.amax() if squares.numel() else squares > 0
    c, Q = squares[kept].sqrt(), Q[:, kept]
    back = torch.linalg.solve_triangular(H.T, Q, upper=True) if H.shape[0] == H.shape[1] else torch.linalg.pinv(H).T @ Q
    there, here = H @ Q / c.sqrt(), back * c.sqrt()    # T = here here^T, and there there^T is the map the other way
    maps = (here, there) if other is S2 else (there, here)
    V1 = 0.0
    for side, moments, U, delta in ((x, a, maps[0], apart), (y, b, maps[1], -apart)):
        influence = torch.cat([2 * d @ delta + d.square().sum(dim=1) - (d @ U).square().sum(dim=1)
                               for d in (block - moments.mean for block in _blocks(side))])
        V1 += float(influence.var()) / moments.count
    w = c[:, None] * c / (c[:, None] + c)
    w, means = (1 / a.count + 1 / b.count) * w, S1 / a.count + S2 / b.count
    mean = (w.sum() + w.diagonal().sum()) / 2 + means.trace()
    V = w.square().sum() + w.diagonal().square().sum() + 2 * means.square().sum()
    w, means = w / V.sqrt(), means / V.sqrt()
    skewness = 4 * (w.pow(3).sum() + w.diagonal().pow(3).sum()) + 8 * (means @ means * means).sum()
    return Errors(V1, float(mean), float(V), float(skewness.nan_to_num()))


MEMBER = Frechet
