"""How probable records are to a diffusion model, in two ways that check each other.

Both begin by adding noise r_0 to entries that take discrete values, z = x + r_0 eps, and pay for it by the flat measure r of
their values (`values`); real entries pay nothing. Then

    flow     log P(x) >= E [log p_0(z) - log r(z)], log p_0 by the probability-flow ODE (`flow`): an estimate, for the solver
             and the trace estimator err on either side. Real entries keep their value, and log p_0(x) is their density.

    bound    log p_0 is itself bounded, by the variational bound in continuous time (Kingma et al., arXiv:2107.00630), in
             which the schedule does not matter. A denoiser costs int E|x - D|^2 / r^2 d ln r nats. Take off what the
             Gaussian's own denoiser costs, whose bound is tight, and what remains is (as Kong et al., arXiv:2302.03792)

             -log P(x) <= E [log r(z) - log N(z; m, (r_0^2 + s^2) I)] - int keep E(|F*|^2 - |F - F*|^2) d ln r,

             F* = (x - m - keep (x_r - m)) / gain what the network should have said: the nats of a Gaussian, less what the
             network saves over it. The expectations are over all entries noised, real ones too.

With an exact denoiser both are log P(x). With another, flow and bound speak of two models, the ODE's and the reverse SDE's,
which then differ a little; bound <= log P of the SDE is a theorem, bound <= flow a habit.

Standard errors come from independent draws of noise, signs and (stratified) levels, widened by Student's t so that 1.96 of them
cover 95 % however few the draws are. The flow's hold two errors of its own besides: a fifth of what half the steps change
(theory says a fifteenth, in the limit), and what little the data are seen to differ from a round Gaussian at the far end.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...seeds import Noise
from .denoiser import Denoiser, Standard, wide
from .flow import FlowMap
from .levels import Even
from .schedule import Schedule
from .values import Values

__all__ = ["Estimate", "Judge", "gaussian_nats", "saving"]

EXACT = 64  # gradients for a record up to which the trace is exact: its entries, times the draws of noise


@dataclass(frozen=True)
class Estimate:
    """log P (B,) in nats with its standard error (B,)."""

    log_prob: Tensor
    stderr: Tensor


def gaussian_nats(standard: Standard, low: float, x: Tensor, known: Tensor) -> Tensor:
    """E_eps[-log N(x + r_0 eps; m, r_0^2 + s^2)] over the known entries (bool, of x's shape), (B,) in nats; r_0 = low."""
    variance = low ** 2 + standard.spread ** 2
    squares = torch.where(known, (x - standard.centre).square(), 0.0).flatten(1).sum(dim=1)
    return (squares / variance + known.flatten(1).sum(dim=1) * (math.log(2 * math.pi * variance) + low ** 2 / variance)) / 2


def saving(standard: Standard, x: Tensor, x_r: Tensor, D: Tensor, ratio: Tensor, known: Tensor) -> Tensor:
    """keep (|F*|^2 - |F - F*|^2) over the known entries, (B,): nats for each unit of ln r."""
    form = standard.output(ratio)
    wanted = (x - standard.centre - wide(form.keep, x) * (x_r - standard.centre)).square()
    missed = (x - D).square()
    return torch.where(known, wanted - missed, 0.0).flatten(1).sum(dim=1) / ratio.square()


@dataclass(frozen=True)
class Judge:
    """The likelihoods of one denoiser over one space."""

    denoiser: Denoiser
    standard: Standard
    schedule: Schedule
    values: Values

    def flow(self, x: Tensor, noise: Noise, y: Tensor | None = None, steps: int = 32, draws: int = 4) -> Estimate:
        """By the flow ODE, from `draws` draws of noise and signs; one where there is nothing to draw. x (B, *event)."""
        exact = x[0].numel() * (draws if self._noisy else 1) <= EXACT
        draws = 1 if exact and not self._noisy else draws
        spread_out = [self._spread_out(x, noise) for _ in range(draws)]
        z, log_flat = (torch.cat(parts) for parts in zip(*spread_out, strict=True))
        signs = None if exact else torch.cat([noise.uniform(*x.shape[1:]) for _ in range(draws)]).to(x).sub(0.5).sign()
        y = None if y is None else y.repeat(draws, *(1,) * (y.ndim - 1))
        flow = FlowMap(self.denoiser, self.standard, self.schedule, y)
        log_p = flow.log_density(z, steps, signs)
        rough = (log_p - flow.log_density(z, max(steps // 2, 1), signs)).view(draws, -1).mean(dim=0) / 5
        return _estimate((log_p - log_flat).view(draws, -1), torch.hypot(rough, torch.full_like(rough, self._far())))

    def bound(self, x: Tensor, noise: Noise, y: Tensor | None = None, strata: int = 8, draws: int = 16) -> Estimate:
        """By the variational bound, from `draws` independent draws of a level in each of `strata` strata. x (B, *event)."""
        even, known = Even(self.schedule, self.standard.spread), torch.ones_like(x, dtype=torch.bool)
        gaussian = gaussian_nats(self.standard, self.schedule.low, x, known)
        found = []
        for _ in range(draws):
            saved = torch.zeros_like(gaussian)
            for stratum in range(strata):
                r = even.ratio((stratum + noise.uniform(dtype=torch.float64)) / strata)
                eps, ratio = noise.normal(*x.shape[1:], dtype=x.dtype).to(x), r.to(x)
                x_r = x + wide(ratio, x) * eps
                D = self.denoiser(x_r, ratio, y)
                saved += saving(self.standard, x, x_r, D, ratio, known) / (even.density(r).to(x) * strata)
            log_flat = self.values.log_flat(x, noise.normal(*x.shape[1:], dtype=x.dtype).to(x)) if self._noisy else 0.0
            found.append(saved - gaussian - log_flat)
        return _estimate(torch.stack(found), torch.zeros_like(gaussian))

    def _far(self) -> float:
        """About what log N at the far end errs by, for data that are not as round as N: sqrt(2 d) (s / r_1)^2 nats."""
        return math.sqrt(2 * self.standard.centre.numel()) * (self.standard.spread / self.schedule.high) ** 2

    @property
    def _noisy(self) -> bool:
        return not self.values.all_real

    def _spread_out(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """z (B, *event), its entries of discrete values noised, and log r(z) (B,)."""
        if not self._noisy:
            return x, x.new_zeros(len(x))
        eps = noise.normal(*x.shape[1:], dtype=x.dtype).to(x)
        eps = torch.where(self.values.discrete.to(x.device), eps, 0.0)
        return x + self.schedule.low * eps, self.values.log_flat(x, eps)


def _estimate(found: Tensor, rough: Tensor) -> Estimate:
    """The mean of draws (draws, B) and its standard error, with what is `rough` (B,) in each of them."""
    n = len(found)
    if n == 1:
        return Estimate(found[0], rough.abs())
    return Estimate(found.mean(dim=0), torch.hypot(found.std(dim=0) / math.sqrt(n) * _widening(n - 1), rough))


def _widening(freedom: int) -> float:
    """The 97.5 % point of Student's t over that of the normal: Cornish and Fisher's expansion in 1 / freedom."""
    z, n = 1.959964, freedom
    return 1 + (z ** 2 + 1) / (4 * n) + (5 * z ** 4 + 16 * z ** 2 + 3) / (96 * n ** 2) + \
        (3 * z ** 6 + 19 * z ** 4 + 17 * z ** 2 - 15) / (384 * n ** 3)
