"""The probability-flow ODE as a map between data and noise, and the density it carries.

In standard coordinates w = (x_r - m) / sqrt(r^2 + s^2) and the angle phi = arctan(r / s) the ODE dx = (x - D) / r dr becomes

    dw / dphi = -F(w, phi),    F = (D - m - keep (x_r - m)) / gain,

where F is what a preconditioned network says ("TrigFlow": Lu and Song, arXiv:2410.11081). It stands still where data are the
Gaussian N(m, s^2 I), and what is left to integrate is how they differ from it. By the instantaneous change of variables (Chen
et al., arXiv:1806.07366; Song et al., arXiv:2011.13456)

    log p_0(x) = log N(w_1; 0, I) - int_0^1 tr dF/dw dphi - d ln sqrt(r_0^2 + s^2).

The trace is the sum of e' dF/dw e over the unit vectors e where d is small, else Hutchinson's estimate, the same for one e of
random signs. The steps, of Runge and Kutta's method of fourth order, are even in the fourth root of phi (`levels`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .denoiser import Denoiser, Standard, wide
from .levels import Even
from .schedule import Schedule

__all__ = ["FlowMap", "Moved"]

ROWS = 512  # that go through the network at a time where a trace is exact, or as many as there are records

Rate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | float]]


@dataclass(frozen=True)
class Moved:
    """w (B, *event) at the other end of the flow, and the log volume (B,) that it gained on the way, in nats."""

    w: Tensor
    log_volume: Tensor


@dataclass(frozen=True)
class FlowMap:
    """The flow of a denoiser between the ratios of a schedule's ends, given a condition y (B, ...) or None."""

    denoiser: Denoiser
    standard: Standard
    schedule: Schedule
    y: Tensor | None = None

    def residual(self, w: Tensor, angle: Tensor) -> Tensor:
        """F(w, phi), (B, *event); the angle is () float64."""
        ratio = (self.standard.spread * angle.tan()).to(w).expand(len(w))
        form, scale = self.standard.output(ratio), self.standard.scale(ratio)
        X = wide(scale, w) * w
        D = self.denoiser(self.standard.centre + X, ratio, self.y) - self.standard.centre
        return (D - wide(form.keep, w) * X) / wide(form.gain, w)

    def standardised(self, x: Tensor) -> Tensor:
        """Data (B, *event) as w at the low end of the flow."""
        return (x - self.standard.centre) / self._scale(self.schedule.low)

    def encoded(self, x: Tensor, steps: int) -> Tensor:
        """Latents (B, *event), about standard normal, of data (B, *event)."""
        return _travelled(self._plain, self.standardised(x), self._angles(steps)).w

    def decoded(self, z: Tensor, steps: int) -> Tensor:
        """Data (B, *event) of latents: the way back of `encoded`."""
        w = _travelled(self._plain, z, self._angles(steps).flip(0)).w
        return self.standard.centre + self._scale(self.schedule.low) * w

    def log_density(self, x: Tensor, steps: int, signs: Tensor | None = None) -> Tensor:
        """log p_0(x), (B,) in nats, with the exact trace, or Hutchinson's for one e (B, *event) of signs."""
        def rate(w: Tensor, angle: Tensor) -> tuple[Tensor, Tensor | float]:
            return self._with_trace(w, angle, signs)
        d = x[0].numel()
        end = _travelled(rate, self.standardised(x), self._angles(steps))
        log_normal = -(end.w.square().flatten(1).sum(dim=1) + d * math.log(2 * math.pi)) / 2
        return log_normal + end.log_volume - d * math.log(self._scale(self.schedule.low))

    def _plain(self, w: Tensor, angle: Tensor) -> tuple[Tensor, Tensor | float]:
        return -self.residual(w, angle), 0.0

    def _with_trace(self, w: Tensor, angle: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor]:
        if signs is not None:
            F, trace = self._form(w, angle, signs)
            return -F, -trace
        B, d = w.flatten(1).shape
        several = max(1, ROWS // max(B, 1))  # entries at a time: few records make short work of a whole network
        total = w.new_zeros(B)
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            F = self.residual(w, angle)
            for entries in torch.eye(d, dtype=w.dtype, device=w.device).split(several):
                e = entries[:, None].expand(-1, B, -1).reshape(-1, *w.shape)
                rows = torch.autograd.grad(F, w, e, retain_graph=True, is_grads_batched=True)[0]
                total = total + (rows * e).flatten(2).sum(dim=(0, 2))
        return -F.detach(), -total

    def _form(self, w: Tensor, angle: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, *event) and e' dF/dw e (B,)."""
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            F = self.residual(w, angle)
            row = torch.autograd.grad(F, w, e)[0]
        return F.detach(), (row * e).flatten(1).sum(dim=1)

    def _angles(self, steps: int) -> Tensor:
        """Angles (steps + 1,) float64 from the low end to the high one, even in their fourth root."""
        return Even(self.schedule, self.standard.spread).angle(torch.linspace(0, 1, steps + 1, dtype=torch.float64))

    def _scale(self, ratio: float) -> float:
        return math.sqrt(ratio ** 2 + self.standard.spread ** 2)


def _travelled(rate: Rate, w: Tensor, angles: Tensor) -> Moved:
    """Runge and Kutta's method over the angles; rate(w, phi) gives dw / dphi and its trace."""
    gained = w.new_zeros(len(w))
    for a, b in pairwise(angles):
        middle, h = (a + b) / 2, float(b - a)
        k_1, t_1 = rate(w, a)
        k_2, t_2 = rate(torch.add(w, k_1, alpha=h / 2), middle)
        k_3, t_3 = rate(torch.add(w, k_2, alpha=h / 2), middle)
        k_4, t_4 = rate(torch.add(w, k_3, alpha=h), b)
        w = torch.add(w, k_1 + 2 * k_2 + 2 * k_3 + k_4, alpha=h / 6)
        gained = gained + (t_1 + 2 * t_2 + 2 * t_3 + t_4) * (h / 6)
    return Moved(w, gained)
