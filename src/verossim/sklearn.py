"""A scikit-learn estimator over the mixture family: a drop-in for `sklearn.mixture.GaussianMixture`.

Constructor arguments, methods and fitted attributes are scikit-learn's, so it stands in a Pipeline or a GridSearchCV. What
scikit-learn's own lacks: record weights (`fit(X, sample_weight=...)`) and missing values (`missing="marginal"`: a NaN entry
is summed out of the likelihood, by the exact E-step on the observed part). From the same start (`weights_init`,
`means_init`, `precisions_init`) both take the same steps.

Two things differ, on purpose. A start that is not given is made from at most 20,000 of the records, and parameters are
float64 whatever the type of X. Errors are scikit-learn's kinds (ValueError, NotFittedError), as its checks want.
"""

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .errors import BadConfig
from .shelves import FAMILIES
from .spaces import Batch, Continuous
from .training import History, Journal, Learning, learn

__all__ = ["GaussianMixture"]

START_RECORDS = 20_000
DRAWN = 1 << 17  # numbers at a time, which stay in cache
FLOAT64_NUMBERS = 1 << 20  # data of fewer numbers are learned from in float64
BATCH_NUMBERS = 1 << 20
Array = NDArray[Any]
_Parameters = tuple[Array, Array, Array]  # weights, means, covariances


class BadValue(BadConfig, ValueError):
    """A setting or a start that cannot be; a ValueError too, as scikit-learn's users expect."""


@dataclass(frozen=True)
class _Rows:
    """X (N, D) as a Split: batches are moved to the centre (D,), so that far-off data keep their digits, and never kept.

    Large data are learned from in float32 products (sums stay float64), small data in float64.
    """

    X: Array
    weights: Array
    centre: Array

    def __len__(self) -> int:
        return len(self.X)

    @property
    def dtype(self) -> type:
        return np.float64 if self.X.size <= FLOAT64_NUMBERS else np.float32

    def take(self, indices: torch.Tensor) -> Batch:
        return self._batch(np.asarray(indices))

    def sweep(self, batch: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        for first in range(rank * batch, len(self), ranks * batch):
            yield self._batch(slice(first, first + batch))

    def distinct(self, random: np.random.RandomState, least: int) -> tuple[Array, Array]:
        """At most 20,000 records (B, D) and their weights (B,), for the start; missing entries are at the mean.

        Equal records are one record of their summed weight, in sorted order, so that a weight of 3 starts like three records.
        """
        there = np.flatnonzero(self.weights)
        some = there if len(there) <= START_RECORDS else np.sort(random.choice(there, START_RECORDS, replace=False))
        x, w = np.nan_to_num(self.X[some] - self.centre), self.weights[some]
        if len(some) == START_RECORDS:
            return x, w
        merged, which = np.unique(x, axis=0, return_inverse=True)
        return (merged, np.bincount(which.reshape(-1), w)) if len(merged) >= least else (x, w)

    def _batch(self, which: slice | Array) -> Batch:
        x: Array = np.subtract(self.X[which], self.centre, dtype=np.float64).astype(self.dtype, copy=False)
        return Batch(torch.from_numpy(x), None, torch.from_numpy(self.weights[which]), torch.arange(len(x)))


@dataclass(frozen=True)
class _Console:
    """Prints progress as scikit-learn does: every so many sweeps."""

    interval: int

    def __call__(self, said: dict[str, Any]) -> None:
        if said["event"] == "sweep" and said["sweep"] % self.interval == 0:
            sys.stdout.write(f"  Iteration {said['sweep']}\t lower bound {said['objective']:.5f}\n")
        elif said["event"] == "learned":
            word = "converged" if said["converged"] else "did not converge"
            sys.stdout.write(f"Initialization {word} after {said['sweeps']} iterations, {said['seconds']:.2f} s.\n")


@dataclass(frozen=True)
class _Fit:
    """One learned mixture: parameters as scikit-learn shapes them, and how the learning went."""

    weights: Array
    means: Array
    covariances: Array
    history: History

    @property
    def lower_bound(self) -> float:
        return self.history.objectives[-1] if self.history.objectives else -np.inf


class GaussianMixture(DensityMixin, BaseEstimator):
    """p(x) = sum_k w_k N(x; m_k, S_k), learned by expectation-maximisation.

    Parameters are those of `sklearn.mixture.GaussianMixture`, and one more:

    missing : "error" refuses NaN in X (scikit-learn's behaviour), "marginal" learns from and scores the entries that are there.

    Fitted attributes: weights_ (K,), means_ (K, D), covariances_, precisions_ and precisions_cholesky_ (K, D, D) when full,
    (D, D) tied, (K, D) diag, (K,) spherical; converged_, n_iter_, lower_bound_ and lower_bounds_ (nats a record),
    n_features_in_, feature_names_in_.
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "random", "random_from_data", "k-means++"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "missing": [StrOptions({"error", "marginal"})],
    }

    def __init__(self, n_components=1, *, covariance_type="full", tol=1e-3, reg_covar=1e-6, max_iter=100, n_init=1,
                 init_params="kmeans", weights_init=None, means_init=None, precisions_init=None, random_state=None,
                 warm_start=False, verbose=0, verbose_interval=10, missing="error"):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.missing = missing

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> "GaussianMixture":
        """Learns from X (N, D), each record counted `sample_weight` (N,) times; `n_init` starts, the best is kept.

        Raises ValueError for X that cannot be learned from and for starts of wrong shape.
        Warns ConvergenceWarning when the best start used all of `max_iter`.
        """
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2, ensure_all_finite=self._finite)
        weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        if np.count_nonzero(weights) < self.n_components:
            raise BadValue("GMM_K", f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                           f"n_samples = {np.count_nonzero(weights)}.", "Use fewer components or more records.")
        rows = _Rows(x, weights, _centre(x, weights))
        going_on = self.warm_start and "converged_" in vars(self)
        random = check_random_state(self.random_state)
        fits = [self._fit_from(rows, self._parameters(rows.centre) if going_on else self._start(rows, random))
                for _ in range(1 if going_on else self.n_init)]
        best = max(fits, key=lambda fit: fit.lower_bound)
        if self.max_iter and not best.history.converged:
            warnings.warn("Best performing initialization did not converge. Try different init parameters, or increase "
                          "max_iter, tol, or check for degenerate data.", ConvergenceWarning, stacklevel=3)
        return self._settle(best, rows.centre)

    def fit_predict(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Array:
        """`fit`, then the most probable component (N,) of each record of X (N, D)."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: ArrayLike) -> Array:
        """The most probable component (N,) int64 of each record of X (N, D)."""
        return self._assigned(X).argmax(axis=1)

    def predict_proba(self, X: ArrayLike) -> Array:
        """P(component | record), (N, K), of X (N, D)."""
        return self._assigned(X)

    def score_samples(self, X: ArrayLike) -> Array:
        """Log-density (N,) in nats of each record of X (N, D); of the entries that are there under missing="marginal"."""
        rows, family = self._scored(X)
        return np.concatenate([family.log_prob(batch.x).log_prob.double().numpy() for batch in rows.sweep(_batch(rows))])

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log-density of X (N, D), nats a record."""
        return float(self.score_samples(X).mean())

    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion of the mixture on X (N, D); smaller is better."""
        log_p = self.score_samples(X)
        return float(-2 * log_p.sum() + self._n_parameters() * np.log(len(log_p)))

    def aic(self, X: ArrayLike) -> float:
        """Akaike information criterion of the mixture on X (N, D); smaller is better."""
        return float(-2 * self.score_samples(X).sum() + 2 * self._n_parameters())

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """New records (n, D) and the components (n,) they come from, sorted by component. Raises ValueError for n < 1."""
        check_is_fitted(self)
        if n_samples < 1:
            raise BadValue("SETTING_RANGE", f"Invalid value for 'n_samples': {n_samples}.", "Ask for at least one sample.")
        random = np.random.default_rng(check_random_state(self.random_state).randint(2 ** 31))
        counts = random.multinomial(n_samples, self.weights_ / self.weights_.sum())
        K, D = self.means_.shape
        X = np.empty((n_samples, D))
        roots = np.linalg.cholesky(self.covariances_) if _is_matrix(self.covariance_type) else np.sqrt(self.covariances_)
        roots = np.broadcast_to(roots, (K, D, D)) if self.covariance_type == "tied" else roots

        def draw(part: Array, generator: np.random.Generator, mean: Array, root: Array) -> None:
            for rows in np.array_split(part, -(-part.size // DRAWN) or 1):
                generator.standard_normal(out=rows)
                rows[:] = mean + (rows @ root.T if root.ndim == 2 else rows * root)
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:  # a generator a component
            list(pool.map(draw, np.split(X, counts.cumsum()[:-1]), random.spawn(K), self.means_, roots))
        return X, np.repeat(np.arange(K), counts)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "marginal"
        return tags

    @property
    def _finite(self) -> bool | str:
        return "allow-nan" if self.missing == "marginal" else True

    def _n_parameters(self) -> int:
        return self._family(self.means_.shape[1]).freedom

    def _family(self, features: int) -> Any:
        """The mixture over `features` numbers by maximum likelihood, its parameters still to be placed."""
        kind: Any = FAMILIES.load("gmm")
        config = kind.Config(components=int(self.n_components), covariance=self.covariance_type,
                             jitter=float(self.reg_covar), prior=0.0)
        return kind(config, Continuous(shape=(features,), axes=("column",)), None)

    def _parameters(self, centre: Array) -> _Parameters:
        return self.weights_, self.means_ - centre, self.covariances_

    def _scored(self, X: ArrayLike) -> tuple["_Rows", Any]:
        """X as rows, and the mixture as fitted, both around the centre of the mixture."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False, ensure_all_finite=self._finite)
        centre = self.weights_ @ self.means_
        family = self._family(x.shape[1])
        family.place(*map(torch.from_numpy, self._parameters(centre)))
        return _Rows(x, np.ones(len(x)), centre), family

    def _assigned(self, X: ArrayLike) -> Array:
        rows, family = self._scored(X)
        return np.concatenate([family.assign(batch).double().numpy() for batch in rows.sweep(_batch(rows))])

    def _start(self, rows: "_Rows", random: np.random.RandomState) -> _Parameters:
        """Starting parameters around the centre: the given ones, and for the others moments of a first grouping."""
        K, D = self.n_components, rows.X.shape[1]
        weights, means, precisions = _given(self, K, D)
        if weights is None or means is None or precisions is None:
            x, w = rows.distinct(random, K)
            resp = w[:, None] * _grouping(self.init_params, x, w, K, random)
            made = _moments(x, resp, self.covariance_type, self.reg_covar)
        return (made[0] if weights is None else weights,
                made[1] if means is None else means - rows.centre,
                made[2] if precisions is None else _inverse(precisions, self.covariance_type))

    def _fit_from(self, rows: "_Rows", start: _Parameters) -> _Fit:
        family = self._family(rows.X.shape[1])
        family.place(*map(torch.from_numpy, start))
        journal = Journal(None, *([_Console(self.verbose_interval)] if self.verbose else []))
        settings = Learning(iterations=int(self.max_iter), tolerance=float(self.tol), accelerate=False)
        history = learn(family, rows, batch=_batch(rows), config=settings, journal=journal)
        weights, means, covariances = (tensor.numpy() for tensor in family.moments())
        return _Fit(weights, means, covariances, history)

    def _settle(self, fit: _Fit, centre: Array) -> "GaussianMixture":
        """Writes the fitted attributes."""
        self.weights_, self.means_, self.covariances_ = fit.weights, fit.means + centre, fit.covariances
        self.precisions_cholesky_ = root = _root_of_inverse(fit.covariances, self.covariance_type)
        self.precisions_ = root @ root.swapaxes(-1, -2) if _is_matrix(self.covariance_type) else root ** 2
        self.converged_, self.n_iter_ = fit.history.converged, fit.history.sweeps
        self.lower_bound_, self.lower_bounds_ = fit.lower_bound, list(fit.history.objectives)
        return self


def _batch(rows: _Rows) -> int:
    return max(64, BATCH_NUMBERS // rows.X.shape[1])


def _centre(X: Array, weights: Array) -> Array:
    """Mean of the entries that are there (D,), float64, a batch at a time; 0 where a column has none."""
    total, count = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    step = max(64, BATCH_NUMBERS // X.shape[1])
    for first in range(0, len(X), step):
        part, w = X[first:first + step].astype(np.float64), weights[first:first + step]
        count += w @ ~np.isnan(part)
        total += w @ np.nan_to_num(part, nan=0.0)
    return total / np.maximum(count, 1e-300)


def _given(estimator: GaussianMixture, K: int, D: int) -> tuple[Array | None, Array | None, Array | None]:
    """The starts that were given, checked."""
    shape = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}[estimator.covariance_type]
    weights = _shaped("weights", estimator.weights_init, (K,))
    means = _shaped("means", estimator.means_init, (K, D))
    precisions = _shaped("precisions", estimator.precisions_init, shape)
    if weights is not None and (weights.min() < 0 or abs(weights.sum() - 1) > 1e-6):
        raise BadValue("GMM_START", f"The parameter 'weights' should be normalized and not negative, but got {weights}.")
    if precisions is not None and not _positive(precisions, estimator.covariance_type):
        raise BadValue("GMM_START", f"'{estimator.covariance_type} precision' should be symmetric, positive-definite.")
    return weights, means, precisions


def _shaped(name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    if value is None:
        return None
    array = check_array(value, dtype=np.float64, ensure_2d=False, allow_nd=True)
    if array.shape != shape:
        raise BadValue("GMM_START", f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}.")
    return array


def _is_matrix(covariance_type: str) -> bool:
    return covariance_type in ("full", "tied")


def _positive(precisions: Array, covariance_type: str) -> bool:
    if not _is_matrix(covariance_type):
        return bool((precisions > 0).all())
    return np.allclose(precisions, precisions.swapaxes(-1, -2)) and bool((np.linalg.eigvalsh(precisions) > 0).all())


def _inverse(precisions: Array, covariance_type: str) -> Array:
    return np.linalg.inv(precisions) if _is_matrix(covariance_type) else 1 / precisions


def _root_of_inverse(covariances: Array, covariance_type: str) -> Array:
    """Upper triangular U with U U' = inverse of the covariance; its square root entry by entry where it is diagonal."""
    if not _is_matrix(covariance_type):
        return 1 / np.sqrt(covariances)
    root = np.linalg.cholesky(covariances)
    return solve_triangular(root, np.broadcast_to(np.eye(root.shape[-1]), root.shape), lower=True).swapaxes(-1, -2)


def _grouping(way: str, x: Array, w: Array, K: int, random: np.random.RandomState) -> Array:
    """A first grouping (B, K) of records x (B, D) of weights w (B,), by distances in float32: rows add up to one."""
    x = (x / max(np.abs(x).max(), np.finfo(x.dtype).tiny)).astype(np.float32)
    if way == "random":
        resp = random.uniform(size=(len(x), K))
        return resp / resp.sum(axis=1, keepdims=True)
    if way == "kmeans":
        labels = KMeans(K, n_init=1, random_state=random).fit(x, sample_weight=w).labels_
    else:
        centres = (kmeans_plusplus(x, K, sample_weight=w, random_state=random)[0] if way == "k-means++"
                   else x[random.choice(len(x), K, replace=False, p=w / w.sum())])
        labels = pairwise_distances_argmin(x, centres)
    return np.eye(K)[labels]


def _moments(x: Array, resp: Array, covariance_type: str, reg_covar: float) -> _Parameters:
    """Weights (K,), means (K, D) and covariances of records x (B, D) shared out by resp (B, K)."""
    D = x.shape[1]
    n = resp.sum(axis=0) + 10 * np.finfo(np.float64).eps
    means = resp.T @ x / n[:, None]
    if _is_matrix(covariance_type):
        scatter = np.stack([_scatter(x[r > 0] - mean, r[r > 0]) for r, mean in zip(resp.T, means, strict=True)])
        covariances = scatter / n[:, None, None] if covariance_type == "full" else scatter.sum(axis=0) / n.sum()
        return n / n.sum(), means, covariances + reg_covar * np.eye(D)
    squares = np.stack([r[r > 0] @ (x[r > 0] - mean) ** 2 for r, mean in zip(resp.T, means, strict=True)])
    variances = squares / n[:, None] + reg_covar
    return n / n.sum(), means, variances if covariance_type == "diag" else variances.mean(axis=1)


def _scatter(x: Array, r: Array) -> Array:
    return (r * x.T) @ x
