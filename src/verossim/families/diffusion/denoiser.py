"""What a diffusion model knows: the mean of x given x + r eps.

    D(x_r; r, y) = E[x | x_r = x + r eps, y]

Everything else follows from it: the score (D - x_r) / r^2, samples, densities. `Preconditioned` makes it of a network whose
input and target have unit variance at every r (Karras et al., arXiv:2206.00364). With centre m and spread s of the data,

    D = m + keep (x_r - m) + gain N((x_r - m) / sqrt(r^2 + s^2), ln(r / s) / 4, y),
    keep = s^2 / (r^2 + s^2),  gain = r s / sqrt(r^2 + s^2).

With N = 0 this is the exact denoiser of the Gaussian N(m, s^2 I): the network learns how data differ from it. Networks that
say x, noise or velocity have another keep and gain (`schedule`). What they say errs, by a share TRUST of its size or so; an
error in x is far more than the noise where there is little of it, and one in the noise more than the data where there is much.
There the answer is weighed by its precision against the other thing that is known, as Bayes' rule has it:

    x       against x_r = x + r eps:          (r^2 N_x + (TRUST s)^2 x_r) / (r^2 + (TRUST s)^2)
    noise   against x ~ N(m, s^2 I):          (s^2 (x_r - r N_eps) + (TRUST r)^2 m) / (s^2 + (TRUST r)^2)

A velocity turns from noise to data as the noise grows, and errs little anywhere; where alpha stands still it is the noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from .schedule import Output, Schedule, output

__all__ = ["Denoiser", "Preconditioned", "Standard", "reexpressed", "wide"]

TRUST = 0.05


class Denoiser(Protocol):
    """D(x_r, ratio, y): x_r (B, *event) = x + ratio eps, ratio (B,), y (B, ...) or None -> E[x | x_r, y], (B, *event)."""

    def __call__(self, x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor: ...


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Numbers (B,) as (B, 1, ..., 1), so that they multiply the records of `like`."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def reexpressed(denoise: Callable[[Tensor, Tensor, Tensor | None], Tensor], schedule: Schedule) -> Denoiser:
    """A `denoise(x_t, t, y)` that was written for a schedule, as a denoiser that serves every other."""
    def denoiser(x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor:
        t = schedule.when(ratio)
        return denoise(wide(schedule.at(t).alpha, x_r) * x_r, t, y)
    return denoiser


@dataclass(frozen=True)
class Standard:
    """The Gaussian N(centre, spread^2 I) that data would be if nothing had been learned; centre (*event), spread in x's units.

    Its noised form has standard deviation sqrt(r^2 + spread^2); w = (x_r - centre) / sqrt(r^2 + spread^2).
    """

    centre: Tensor
    spread: float

    def scale(self, ratio: Tensor) -> Tensor:
        """sqrt(r^2 + spread^2), of ratio's shape."""
        return (ratio.square() + self.spread ** 2).sqrt()

    def output(self, ratio: Tensor) -> Output:
        """keep and gain of the preconditioning above, of ratio's shape."""
        scale = self.scale(ratio)
        return Output((self.spread / scale).square(), ratio * (self.spread / scale))

    def start(self, z: Tensor, ratio: float) -> Tensor:
        """x_r (B, *event) at so large a ratio that the data are lost in it, of z (B, *event) standard normal."""
        return self.centre + (ratio ** 2 + self.spread ** 2) ** 0.5 * z


@dataclass(frozen=True)
class Preconditioned:
    """The denoiser of a network N(w, time, y) that says "x", "noise", "velocity", or their "auto" mixture above.

    All that is said has unit variance: x as (x - centre) / spread, velocities by their own size.
    """

    network: nn.Module
    standard: Standard
    schedule: Schedule
    kind: str = "auto"

    def __call__(self, x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor:
        X = x_r - self.standard.centre
        scale = wide(self.standard.scale(ratio), X)
        said = self.network(X / scale, (ratio / self.standard.spread).log() / 4, y)
        form = self.form(ratio)
        return self.standard.centre + wide(form.keep, X) * X + wide(form.gain, X) * said

    def form(self, ratio: Tensor) -> Output:
        """x - centre = keep (x_r - centre) + gain N, each of ratio's shape."""
        if self.kind == "auto":
            return self.standard.output(ratio)
        spread = self.standard.spread
        if self.kind == "x":
            heard = 1 / (1 + (TRUST * spread / ratio).square())
            return Output(1 - heard, heard * spread)
        if self.kind == "noise" or (self.kind == "velocity" and self.schedule.still):
            heard = 1 / (1 + (TRUST * ratio / spread).square())
            return Output(heard, -heard * ratio)
        point = self.schedule.at(self.schedule.when(ratio.double()))
        size = ((point.alpha_slope * spread).square() + point.sigma_slope.square()).sqrt()
        plain = output("velocity", point)
        return Output((plain.keep * point.alpha).to(ratio.dtype), (plain.gain * size).to(ratio.dtype))
