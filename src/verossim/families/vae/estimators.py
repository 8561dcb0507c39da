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
from collections.abc import Callable

import torch
from torch import Tensor

from ...seeds import Noise

__all__ = ["annealed", "bounds"]

Log = Callable[[Tensor], tuple[Tensor, Tensor]]  # e (B, Z) -> log p(e) + log p(x | e), log q(e | x)


def bounds(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From log p(x, z) - log q(z | x) of k draws (k, B): the elbo, its standard error, the iwae bound and its (by the delta
    method), (B,) each."""
    k = len(log_weights)
    elbo, spread = log_weights.mean(dim=0), log_weights.std(dim=0) if k > 1 else torch.full_like(log_weights[0], torch.nan)
    iwae = log_weights.logsumexp(dim=0) - math.log(k)
    share = (log_weights - iwae).exp()
    error = share.std(dim=0) / math.sqrt(k) if k > 1 else spread
    return elbo, spread / math.sqrt(k), iwae, error


def annealed(log: Log, start: Tensor, chains: int, noise: Noise, steps: int, leaps: int) -> Tensor:
    """Log weights of one chain a row, (R,), from draws `start` (R, Z) of q(. | x); `steps` temperatures, `leaps` a move. noise
    has a stream for each `chains` rows, those of one record.

    The size of the leaps of each chain grows by a little after each move accepted and shrinks after each refused (towards two
    thirds), which Neal's proof does not cover exactly; the effect dies out as the sizes settle.
    """
    e = start
    size = torch.full((len(e), 1), 0.1).to(start)
    betas = torch.linspace(0, 1, steps + 1).to(start)
    joint, log_q = _values(log, e)
    weights = e.new_zeros(len(e))
    for before, b in itertools.pairwise(betas):
        weights = weights + (b - before) * (joint - log_q)
        e, joint, log_q, accepted = _moved(log, e, joint, log_q, b, size, chains, noise, leaps)
        size = size * torch.where(accepted, 1.04, 0.92)[:, None]
    return weights


def _moved(log: Log, e: Tensor, joint: Tensor, log_q: Tensor, b: Tensor, size: Tensor, chains: int,
           noise: Noise, leaps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One Hamiltonian move at temperature b: leapfrog steps, then the Metropolis test."""
    momentum = noise.normal(chains, e.shape[1]).flatten(0, 1).to(e)
    energy = (1 - b) * log_q + b * joint - momentum.square().sum(dim=1) / 2
    there, p = e, momentum + size / 2 * _slope(log, e, b)
    for leap in range(leaps):
        there = there + size * p
        p = p + (size if leap < leaps - 1 else size / 2) * _slope(log, there, b)
    joint_there, log_q_there = _values(log, there)
    gain = (1 - b) * log_q_there + b * joint_there - p.square().sum(dim=1) / 2 - energy
    accepted = (noise.uniform(chains).flatten().to(e).log() < gain) & gain.isfinite()
    there = torch.where(accepted[:, None], there, e)
    return there, torch.where(accepted, joint_there, joint), torch.where(accepted, log_q_there, log_q), accepted


def _values(log: Log, e: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return log(e)


def _slope(log: Log, e: Tensor, b: Tensor) -> Tensor:
    """The gradient of log f_b."""
    with torch.enable_grad():
        e = e.detach().requires_grad_()
        joint, log_q = log(e)
        return torch.autograd.grad(((1 - b) * log_q + b * joint).sum(), e)[0]
