"""Proposals for importance sampling: distributions of known density that lie where a model does, with tails that are heavier.

    numbers     sum_k w_k N(mu_k, c Sigma_k) (1 - e) + e t_3(mu, S), each component beside the categories that are common in it
    tokens      a chain of the first order, its counts smoothed by the shares of tokens and by all tokens alike

They are fitted to examples of the model where there are any, else they are wide about the middle of the space. The part e, of
Student's t with three degrees of freedom, keeps the weights p / q bounded where the mixture has none (Hesterberg, "Weighted
average importance sampling and defensive mixture distributions", Technometrics 1995).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..spaces import Continuous, Discrete, Space

__all__ = ["Numbers", "Proposal", "Tokens", "fitted"]

DEFENSIVE = 0.1
TAILS = 3  # degrees of freedom
COMPONENTS = (1, 2, 4, 8, 16)
FITTED = 4_000  # most examples that are fitted to
DENSE = 64  # numbers up to which covariances are full


class Proposal(Protocol):
    """What importance sampling draws from."""

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Independent points (n, dims) float64 and the log density (n,) of each, a mass where they are tokens or categories;
        numbers are real, also where the space has cells."""
        ...


@dataclass(frozen=True)
class Numbers:
    """Numbers and categories. log_weights (K,), means (K, D), roots (K, D, D) lower triangular, the last component being
    Student's t; numbers (D,) positions; blocks: (first, last) of categories; shares: for each block (K, categories)."""

    log_weights: np.ndarray
    means: np.ndarray
    roots: np.ndarray
    numbers: np.ndarray
    blocks: tuple[tuple[int, int], ...]
    shares: tuple[np.ndarray, ...]
    dims: int

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, dims), categories as one-hot blocks, and log q (n,)."""
        K, D = self.means.shape
        chosen = rng.choice(K, size=n, p=np.exp(self.log_weights))
        z = rng.normal(size=(n, D))
        tails = np.sqrt(TAILS / rng.chisquare(TAILS, size=n))
        z *= np.where(chosen == K - 1, tails, 1.0)[:, None]
        x = np.zeros((n, self.dims))
        for k in range(K):
            rows = np.flatnonzero(chosen == k)
            x[np.ix_(rows, self.numbers)] = self.means[k] + z[rows] @ self.roots[k].T
        for (first, _), shares in zip(self.blocks, self.shares, strict=True):
            category = (rng.random(n)[:, None] > shares[chosen].cumsum(axis=1)[:, :-1]).sum(axis=1)
            x[np.arange(n), first + category] = 1.0
        return x, self.log_density(x)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log q of points (n, dims), (n,)."""
        from scipy.linalg import solve_triangular
        from scipy.special import gammaln, logsumexp
        K, D = self.means.shape
        log_q = np.tile(self.log_weights, (len(x), 1))
        for k in range(K if D else 0):
            z = solve_triangular(self.roots[k], (x[:, self.numbers] - self.means[k]).T, lower=True)
            squares = np.square(z).sum(axis=0)
            log_q[:, k] -= np.log(np.diag(self.roots[k])).sum()
            if k < K - 1:
                log_q[:, k] -= (squares + D * math.log(2 * math.pi)) / 2
            else:
                log_q[:, k] += gammaln((TAILS + D) / 2) - gammaln(TAILS / 2) - D / 2 * math.log(TAILS * math.pi)
                log_q[:, k] -= (TAILS + D) / 2 * np.log1p(squares / TAILS)
        for (first, last), shares in zip(self.blocks, self.shares, strict=True):
            log_q += np.log(shares)[:, x[:, first:last].argmax(axis=1)].T
        return logsumexp(log_q, axis=1)


@dataclass(frozen=True)
class Tokens:
    """A chain of the first order over tokens: first (V,), then (V, V), the row being the token before; `length` tokens."""

    first: np.ndarray
    then: np.ndarray
    length: int

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n, length) as float64, and log q (n,)."""
        x = np.zeros((n, self.length), dtype=np.int64)
        log_q = np.zeros(n)
        for place in range(self.length):
            rows = np.tile(self.first, (n, 1)) if place == 0 else self.then[x[:, place - 1]]
            x[:, place] = (rng.random(n)[:, None] > rows.cumsum(axis=1)[:, :-1]).sum(axis=1)
            log_q += np.log(rows[np.arange(n), x[:, place]])
        return x.astype(np.float64), log_q


def fitted(space: Space, examples: np.ndarray | None, seed: int) -> Proposal:
    """A proposal for points of a space, fitted to examples (N, dims) float64 where there are any."""
    return _tokens(space, examples) if isinstance(space, Discrete) else _numbers(space, examples, seed)


def _tokens(space: Discrete, examples: np.ndarray | None) -> Tokens:
    V = space.vocabulary
    x = np.zeros((0, space.dims), np.int64) if examples is None else examples.astype(np.int64)
    x = x[((x >= 0) & (x < V)).all(axis=1)]
    share = (np.bincount(x.reshape(-1), minlength=V) + 1) / (x.size + V)
    first = (np.bincount(x[:, 0] if len(x) else x.reshape(-1), minlength=V) + share) / (len(x) + 1)
    then = np.zeros((V, V))
    np.add.at(then, (x[:, :-1].reshape(-1), x[:, 1:].reshape(-1)), 1)
    then = (then + V ** 0.5 * share) / (then.sum(axis=1, keepdims=True) + V ** 0.5)
    return Tokens(first, then, space.dims)


def _numbers(space: Continuous, examples: np.ndarray | None, seed: int) -> Numbers:
    taken = [place for first, last in space.simplexes for place in range(first, last)]
    numbers = np.setdiff1d(np.arange(space.dims), taken)
    D, cells = len(numbers), space.cells().numpy()[numbers]
    if examples is None or len(examples) < 2 * D + 20:
        means, roots = np.zeros((2, D)), np.tile(np.eye(D), (2, 1, 1))
        even = tuple(np.full((2, last - first), 1 / (last - first)) for first, last in space.simplexes)
        return Numbers(np.log([0.5, 0.5]), means, roots, numbers, space.simplexes, even, space.dims)
    x = examples[np.random.default_rng(seed).permutation(len(examples))[:FITTED]]
    y = x[:, numbers]
    pooled = np.atleast_2d(np.cov(y, rowvar=False)) if D else np.zeros((0, 0))
    floor = np.square(cells) / 4 + 1e-6 * np.diag(pooled) + 1e-9
    weights, means, covariances, responsibilities = _mixture(y, floor, seed)
    wider = 1 + 1 / max(D, 1) ** 0.5
    spread = np.concatenate([wider * covariances, 2 * pooled[None]]) + np.eye(D) * floor
    roots = np.linalg.cholesky(spread)
    means = np.concatenate([means, y.mean(axis=0, keepdims=True)])
    weights = np.concatenate([(1 - DEFENSIVE) * weights, [DEFENSIVE]])
    belongs = np.concatenate([responsibilities, np.ones((len(y), 1))], axis=1)
    shares = []
    for first, last in space.simplexes:
        block = x[:, first:last]
        counts = belongs.T @ block + 0.02 * block.sum(axis=0) + 1.0
        shares.append(counts / counts.sum(axis=1, keepdims=True))
    return Numbers(np.log(weights), means, roots, numbers, space.simplexes, tuple(shares), space.dims)


def _mixture(y: np.ndarray, floor: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K,), means (K, D), covariances (K, D, D) and responsibilities (N, K) of the mixture that is best by the
    information criterion of Schwarz."""
    N, D = y.shape
    if D == 0:
        return np.ones(1), np.zeros((1, 0)), np.zeros((1, 0, 0)), np.ones((N, 1))
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits
    scale = np.sqrt(floor + y.var(axis=0))
    u = (y - y.mean(axis=0)) / scale
    kind = "full" if D <= DENSE else "diag"
    sizes = [K for K in COMPONENTS if N >= K * (D + 1) * 5] or [1]
    with threadpool_limits(limits=1):
        found = [GaussianMixture(K, covariance_type=kind, reg_covar=1e-4, random_state=seed, max_iter=50, tol=1e-2)
                 for K in sizes]
        best = min((mixture.fit(u) for mixture in found), key=lambda mixture: mixture.bic(u))
        responsibilities = best.predict_proba(u)
    covariances = best.covariances_ if kind == "full" else np.stack([np.diag(v) for v in best.covariances_])
    return best.weights_, y.mean(axis=0) + best.means_ * scale, covariances * scale[:, None] * scale, responsibilities
