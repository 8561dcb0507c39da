"""Guidance: a denoiser that leans away from a worse one.

    D = D_worse + weight (D_better - D_worse),      low < r <= high;   D = D_better elsewhere.

Classifier-free guidance takes the unconditional model for the worse one (Ho and Salimans, arXiv:2207.12598), autoguidance a
smaller or less trained model (Karras et al., arXiv:2406.02507). Both do good at middling noise only, hence the interval
(Kynkaanniemi et al., arXiv:2404.07724). With weight 1 it is the better denoiser, exactly. With other weights the samples are
of no distribution that log_prob speaks of.
"""

from dataclasses import dataclass

from torch import Tensor

from .denoiser import Denoiser

__all__ = ["Guided", "Unconditional"]


@dataclass(frozen=True)
class Unconditional:
    """The denoiser with its condition hidden."""

    denoiser: Denoiser

    def __call__(self, x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor:
        return self.denoiser(x_r, ratio, None)


@dataclass(frozen=True)
class Guided:
    """`better` led away from `worse` by `weight`, at noise ratios in (low, high]. All records of a batch share one ratio."""

    better: Denoiser
    worse: Denoiser
    weight: float
    low: float = 0.0
    high: float = float("inf")

    def __call__(self, x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor:
        D = self.better(x_r, ratio, y)
        if self.weight == 1 or not self.low < float(ratio[0]) <= self.high:
            return D
        return self.worse(x_r, ratio, y).lerp(D, self.weight)
