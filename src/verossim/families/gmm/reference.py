"""The sums of the E-step as the formula has them: one component at a time, centred, in float64. `kernel` does the same fast.

    log p(x, k) = log w_k + log N(x_n; mu_k, (R_k R_k')^-1) + x_s . logits_k          x = (numbers x_n, one-hot entries x_s)
    log N(x; mu, (R R')^-1) = -D/2 log 2 pi + sum_d log R_dd - 1/2 |R' (x - mu)|^2    R triangular
    r_k = p(x, k) / sum_j p(x, j)

Nothing is ever squared before it is centred on its component, so the log density loses no digits far from the origin.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Components", "Sums", "log_density", "log_joint", "sums"]


@dataclass(frozen=True)
class Components:
    """Gaussians over D numbers with independent categories over S one-hot entries; all float64.

    log_weights (K,) log of the mixing weight plus any other constant of the component.
    means (K, D). logits (K, S) log probability of each one-hot entry; S may be 0.
    roots (K, D, D) triangular with precision_k = roots_k roots_k', or (K, D) inverse standard deviations.
    shift (D,) a point near the middle of the data, subtracted before any product.
    """

    log_weights: Tensor
    means: Tensor
    roots: Tensor
    logits: Tensor
    shift: Tensor

    @property
    def products(self) -> int:
        """How many products x_i x_j a log density is made of."""
        D = self.means.shape[1]
        return D * (D + 1) // 2 if self.roots.ndim == 3 else D

    def part(self, which: slice) -> "Components":
        """Some of the components, in order."""
        return replace(self, log_weights=self.log_weights[which], means=self.means[which], roots=self.roots[which],
                       logits=self.logits[which])


@dataclass(frozen=True)
class Sums:
    """What the M-step needs to know of the records, float64 and additive. x here is (x - shift); r counts its record's units.

    count (K,) sum r; first (K, D) sum r x; second (K, D, D) or (K, D) sum r x x'; categories (K, S) sum r x_s;
    log_likelihood () sum of units times log p(x).
    """

    count: Tensor
    first: Tensor
    second: Tensor
    categories: Tensor
    log_likelihood: Tensor


def log_joint(numbers: Tensor, onehots: Tensor | None, components: Components, precision: str = "auto") -> Tensor:
    """log w_k + log p_k(x), (B, K) float64, of numbers (B, D) and one-hot entries (B, S); `precision` is the kernel's."""
    B, D = numbers.shape
    x = numbers.double() - components.shift
    log_p = components.log_weights - 0.5 * D * math.log(2 * math.pi) + _log_roots(components.roots)
    log_p = log_p.repeat(B, 1) if onehots is None else log_p + onehots.double() @ components.logits.T
    for k, mu in enumerate(components.means - components.shift):
        R = components.roots[k]
        y = (x - mu) @ R if R.ndim == 2 else (x - mu) * R
        log_p[:, k] -= 0.5 * y.square().sum(dim=1)
    return log_p


def log_density(numbers: Tensor, onehots: Tensor | None, components: Components, precision: str = "auto") -> Tensor:
    """log p(x) = log sum_k w_k p_k(x), (B,) float64."""
    return log_joint(numbers, onehots, components).logsumexp(dim=1)


def sums(numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: Components,
         precision: str = "auto") -> Sums:
    """The sums over B records that count `units` (B,) each, or one each."""
    units = numbers.new_ones(len(numbers), dtype=torch.float64) if units is None else units.double()
    log_p = log_joint(numbers, onehots, components)
    log_likelihood = log_p.logsumexp(dim=1)
    r = (log_p - log_likelihood[:, None]).exp() * units[:, None]
    x = numbers.double() - components.shift
    second = torch.stack([(x * r_k[:, None]).T @ x for r_k in r.T]) if components.roots.ndim == 3 else r.T @ x.square()
    categories = torch.zeros_like(components.logits) if onehots is None else r.T @ onehots.double()
    return Sums(r.sum(dim=0), r.T @ x, second, categories, log_likelihood @ units)


def _log_roots(roots: Tensor) -> Tensor:
    """1/2 log |precision_k|, (K,)."""
    diagonal = roots.diagonal(dim1=1, dim2=2) if roots.ndim == 3 else roots
    return diagonal.log().sum(dim=1)
