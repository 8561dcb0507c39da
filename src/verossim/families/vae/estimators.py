"""How probable a record is, by a model that can only draw: two bounds and an estimate.

    elbo   E_q [log p(x, z) - log q(z | x)]                                 Kingma and Welling, arXiv:1312.6114
    iwae   E log 1/k sum_i p(x, z_i) / q(z_i | x)                           Burda et al., arXiv:1509.00519; tighter with k
    ais    annealed importance sampling, from q(z | x) to p(z | x)          Neal, 2001; Wu et al., arXiv:1611.04273

For ais the latents are taken in units of their priors, so that p(e) is N(0, I), and move through

    log f_b(e) = (1 - b) log q(e | x) + b [log p(e) + log p(x | e)],        b from 0 to 1,

by Hamiltonian moves, each accepted or not, which leave f_b as it is. The product of the ratios f_b' / f_b along a chain has the
mean p(x): over n chains, log of the mean of the weights is an estimate, whose error is told from their spread. With few chains
it falls below the truth more often than above, as iwae does.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...seeds import Noise

__all__ = ["annealed", "averaged", "log_averaged"]

Log = Callable[[Tensor], tuple[Tensor, Tensor]]  # e (B, Z) -> log p(e) + log p(x | e), log q(e | x)


def averaged(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of log weights (k, B) of k > 1 draws, and its standard error, (B,) each."""
    return log_weights.mean(dim=0), _error(log_weights)


def log_averaged(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The log of the mean of weights, from log weights (k, B) of k > 1 draws, and its standard error, (B,) each: by the
    jackknife (Miller, 1974), for where one weight is all of the mean, the delta method says 1 however far below the others lie.
    """
    k, total = len(log_weights), log_weights.logsumexp(dim=0)
    top = log_weights.argmax(dim=0, keepdim=True)
    shares = log_weights - total
    others = torch.log1p(-shares.exp())  # the log of the sum without each, over the sum
    others = others.scatter(0, top, shares.scatter(0, top, -math.inf).logsumexp(dim=0, keepdim=True))
    error = ((k - 1) / k * (others - others.mean(dim=0)).square().sum(dim=0)).sqrt()
    return total - math.log(k), error.nan_to_num(math.inf, math.inf)


def annealed(log: Log, start: Tensor, chains: int, noise: Noise, temperatures: Sequence[float], leaps: int,
             settled: bool = True) -> tuple[Tensor, Tensor]:
    """Log weights (R,) and ends (R, Z) of one chain a row, from draws `start` (R, Z) of the first of the temperatures b, to the
    last; `leaps` a move. noise has a stream for each `chains` rows, those of one record. Without `settled` the ends are those
    before the last move, which changes no weight.

    Up from b = 0, draws of q(. | x), the mean of the weights is p(x); down from b = 1, a draw of p(. | x), it is 1 / p(x), so
    that minus its logarithm bounds log p(x) from above as the other does from below (Grosse, Ghahramani and Adams,
    arXiv:1511.02543). The size of the leaps of each chain grows by a little after each move accepted and shrinks after each
    refused (towards two thirds), which Neal's proof does not cover exactly; the effect dies out as the sizes settle.
    """
    at, size, weights = _Point.at(log, start), torch.full_like(start[:, :1], 0.1), torch.zeros_like(start[:, 0])
    for number, (before, b) in enumerate(itertools.pairwise(temperatures), start=2):
        weights = weights + (b - before) * (at.joint - at.log_q)
        if settled or number < len(temperatures):
            at, accepted = _moved(log, at, b, size, chains, noise, leaps)
            size = size * torch.where(accepted, 1.04, 0.92)[:, None]
    return weights, at.e


@dataclass(frozen=True)
class _Point:
    """e (R, Z) with log p(e, x) and log q(e | x), (R,) each, and their gradients: with these log f_b is known at every b."""

    e: Tensor
    joint: Tensor
    log_q: Tensor
    joint_slope: Tensor
    q_slope: Tensor

    @classmethod
    def at(cls, log: Log, e: Tensor) -> "_Point":
        with torch.enable_grad():
            e = e.detach().requires_grad_()
            joint, log_q = log(e)
            q_slope = torch.autograd.grad(log_q.sum(), e, retain_graph=True)[0]
            joint_slope = torch.autograd.grad(joint.sum(), e)[0]
        return cls(e.detach(), joint.detach(), log_q.detach(), joint_slope, q_slope)

    def log_f(self, b: float) -> Tensor:
        """(R,) at temperature b."""
        return (1 - b) * self.log_q + b * self.joint

    def slope(self, b: float) -> Tensor:
        """Its gradient (R, Z)."""
        return (1 - b) * self.q_slope + b * self.joint_slope

    def where(self, accepted: Tensor, other: "_Point") -> "_Point":
        """This point in the rows `accepted` (R,), the other elsewhere."""
        def chosen(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(accepted if a.ndim == 1 else accepted[:, None], a, b)
        return _Point(*(chosen(a, b) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def _moved(log: Log, at: _Point, b: float, size: Tensor, chains: int, noise: Noise, leaps: int) -> tuple[_Point, Tensor]:
    """One Hamiltonian move at temperature b: leapfrog steps, then the Metropolis test. The new points, and which moved."""
    R, Z = at.e.shape
    momentum = noise.normal(chains, Z).view(R, Z).to(at.e)
    u = noise.uniform(chains).view(R).to(at.e)
    there, p = at, momentum
    for _ in range(leaps):
        p = p + size / 2 * there.slope(b)
        there = _Point.at(log, there.e + size * p)
        p = p + size / 2 * there.slope(b)
    gain = there.log_f(b) - at.log_f(b) + (momentum.square() - p.square()).sum(dim=1) / 2
    accepted = (u.log() < gain) & gain.isfinite()
    return there.where(accepted, at), accepted


def _error(values: Tensor) -> Tensor:
    """The standard error of the mean over the first dimension."""
    k = len(values)
    return ((values - values.mean(dim=0)).square().sum(dim=0) / (k * (k - 1))).sqrt()
