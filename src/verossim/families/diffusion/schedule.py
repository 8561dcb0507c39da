"""How data turn into noise: every schedule in one notation.

    x_t = alpha_t x + sigma_t eps,   eps ~ N(0, I),   t in [0, 1]: data at 0, noise at 1.

What matters of a schedule is the noise ratio r = sigma_t / alpha_t, or the log-SNR lambda = -2 ln r: x_t / alpha_t = x + r eps
is the same variable under all of them. So a schedule is a clock (which r at which t) and a gauge (alpha_t), and a denoiser
written for one serves any other exactly (Kingma et al., "Variational diffusion models", arXiv:2107.00630; Karras et al.,
"Elucidating the design space of diffusion-based generative models", arXiv:2206.00364). All schedules here run over the same
ratios, from `low` at t = 0 to `high` at t = 1: each has a time u of its own, of which t takes the piece that is needed.

A network may say what x is, what the noise was, or the velocity of x_t. All are x_t and x in other words,

    x = keep x_t + gain o:        o = x           keep = 0                                gain = 1
                                  o = eps         keep = 1 / alpha                        gain = -sigma / alpha
                                  o = dx_t / dt   keep = sigma' / (alpha sigma' - sigma alpha')   gain = -keep sigma / sigma'
                                                  = alpha' x + sigma' eps
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["SCHEDULES", "Cosine", "Exploding", "Flow", "Output", "Point", "Preserving", "Schedule", "output"]


@dataclass(frozen=True)
class Point:
    """A schedule at times t: alpha, sigma and their slopes d/dt, each of t's shape."""

    alpha: Tensor
    sigma: Tensor
    alpha_slope: Tensor
    sigma_slope: Tensor

    @property
    def ratio(self) -> Tensor:
        """r = sigma / alpha."""
        return self.sigma / self.alpha

    @property
    def log_snr(self) -> Tensor:
        """lambda = ln(alpha^2 / sigma^2)."""
        return 2 * (self.alpha / self.sigma).log()

    @property
    def log_snr_slope(self) -> Tensor:
        """d lambda / dt; never positive."""
        return 2 * (self.alpha_slope / self.alpha - self.sigma_slope / self.sigma)


class Schedule(ABC):
    """alpha_t and sigma_t for t in [0, 1], with noise ratios from `low` to `high`; its own time is u = first + length t."""

    still: ClassVar[bool] = False  #: whether alpha is 1 at all times, so that the velocity says the noise alone

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high
        ends = self.own_time(torch.tensor([low, high], dtype=torch.float64))
        self.first, self.length = float(ends[0]), float(ends[1] - ends[0])

    def at(self, t: Tensor) -> Point:
        """The schedule at times t of any shape; ask in float64, small ratios need it."""
        own = self.own_path(self.first + self.length * t)
        return Point(own.alpha, own.sigma, self.length * own.alpha_slope, self.length * own.sigma_slope)

    def when(self, ratio: Tensor) -> Tensor:
        """The time t at which sigma / alpha is `ratio`; the inverse of `at(t).ratio`."""
        return (self.own_time(ratio) - self.first) / self.length

    @abstractmethod
    def own_path(self, u: Tensor) -> Point:
        """alpha and sigma and their slopes d/du, at its own time."""

    @abstractmethod
    def own_time(self, ratio: Tensor) -> Tensor:
        """The u at which sigma / alpha is `ratio`."""


class Exploding(Schedule):
    """Variance exploding: alpha = 1, sigma = u^7. Steps that are even in t are those of Karras et al., eq. 5 with rho = 7."""

    still = True

    def own_path(self, u: Tensor) -> Point:
        return Point(torch.ones_like(u), u ** 7, torch.zeros_like(u), 7 * u ** 6)

    def own_time(self, ratio: Tensor) -> Tensor:
        return ratio ** (1 / 7)


class Preserving(Schedule):
    """Variance preserving: alpha^2 + sigma^2 = 1 with -2 ln alpha = int_0^u beta, beta linear from 0.1 to 20.

    Ho, Jain and Abbeel, arXiv:2006.11239, in the continuous time of Song et al., arXiv:2011.13456.
    """

    LEAST, GROWTH = 0.1, 19.9

    def own_path(self, u: Tensor) -> Point:
        beta = self.LEAST + self.GROWTH * u
        integral = self.LEAST * u + self.GROWTH * u.square() / 2
        alpha, sigma = (-integral / 2).exp(), (-torch.expm1(-integral)).sqrt()
        return Point(alpha, sigma, -beta * alpha / 2, beta * alpha.square() / (2 * sigma))

    def own_time(self, ratio: Tensor) -> Tensor:
        integral = torch.log1p(ratio.square())
        return 2 * integral / (self.LEAST + (self.LEAST ** 2 + 2 * self.GROWTH * integral).sqrt())


class Cosine(Schedule):
    """alpha = cos(pi u / 2), sigma = sin(pi u / 2): Nichol and Dhariwal, arXiv:2102.09672."""

    def own_path(self, u: Tensor) -> Point:
        angle, turn = u * (math.pi / 2), math.pi / 2
        alpha, sigma = angle.cos(), angle.sin()
        return Point(alpha, sigma, -turn * sigma, turn * alpha)

    def own_time(self, ratio: Tensor) -> Tensor:
        return ratio.atan() / (math.pi / 2)


class Flow(Schedule):
    """Rectified flow, the straight line alpha = 1 - u, sigma = u: Liu, Gong and Liu, arXiv:2209.03003."""

    def own_path(self, u: Tensor) -> Point:
        return Point(1 - u, u, -torch.ones_like(u), torch.ones_like(u))

    def own_time(self, ratio: Tensor) -> Tensor:
        return ratio / (1 + ratio)


SCHEDULES: dict[str, type[Schedule]] = {"ve": Exploding, "vp": Preserving, "cosine": Cosine, "flow": Flow}


@dataclass(frozen=True)
class Output:
    """What a network says, as x = keep x_t + gain o; keep and gain have the shape of the point's alpha."""

    keep: Tensor
    gain: Tensor


def output(kind: str, point: Point) -> Output:
    """The line of the table above for "x", "noise" or "velocity"."""
    alpha, sigma = point.alpha, point.sigma
    if kind == "x":
        return Output(torch.zeros_like(alpha), torch.ones_like(alpha))
    if kind == "noise":
        return Output(1 / alpha, -sigma / alpha)
    turning = alpha * point.sigma_slope - sigma * point.alpha_slope
    return Output(point.sigma_slope / turning, -sigma / turning)
