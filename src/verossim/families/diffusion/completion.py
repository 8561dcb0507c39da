"""What is unknown of a record, drawn given what is known: sampling with a denoiser that knows.

Given x_r, the moments of x are the denoiser's (Efron, JASA 2011): E[x | x_r] = D and Cov[x | x_r] = r^2 dD/dx_r = C. Were x
Gaussian given x_r, the mean of its unknown entries u given the known ones k would be that of a regression,

    D_u + C_uk a,     (C_kk + lambda I) a = x_k - D_k

(Boys et al., "Tweedie moment projected diffusions", arXiv:2310.06721), solved by a few steps of conjugate gradients, each a
vector times dD/dx_r. Sampled with this denoiser, Gaussian data are completed exactly, to the error of the solver. Others
are not Gaussian at middling noise, where their modes are weighed wrongly; each step is therefore gone over several times,
noised back up in between (Lugmayr et al., arXiv:2201.09865), so that the unknown entries settle anew with the known ones
beside them at the level of noise. That helps, and is not exact: between modes that are far apart the shares stay off.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...seeds import Noise
from .denoiser import Denoiser, Standard, wide
from .schedule import Exploding
from .solver import State, evenly_in_log_snr, heun, legs
from .values import Values

__all__ = ["Completion", "Knowing"]

FAR = 10.0  # spreads of the data: the noise ratio where it begins; what is above tells nothing
SOFT = 0.03  # deviation granted to known entries, in units of the noise: keeps the solution small where C is singular


@dataclass(frozen=True)
class Knowing:
    """E[x | x_r, known entries], about: `known` (B, *event) where `unknown` (bool, of its shape) is not."""

    denoiser: Denoiser
    known: Tensor
    unknown: Tensor
    turns: int = 4

    def __call__(self, x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor:
        variance = wide(ratio.square(), x_r)
        with torch.enable_grad():
            x_r = x_r.detach().requires_grad_()
            D = self.denoiser(x_r, ratio, y)

            def covariance(v: Tensor) -> Tensor:
                """C v, as v C: the covariance of an exact denoiser is symmetric."""
                return variance * torch.autograd.grad(D, x_r, v, retain_graph=True)[0]

            def matrix(v: Tensor) -> Tensor:
                """(C_kk + lambda I) v."""
                return torch.where(self.unknown, 0.0, covariance(v) + SOFT ** 2 * variance * v)
            a = _solved(matrix, torch.where(self.unknown, 0.0, self.known - D.detach()), self.turns)
            D = D.detach() + covariance(a)
        return torch.where(self.unknown, D, self.known)


@dataclass(frozen=True)
class Completion:
    """Fills what is unknown by one denoiser; `anchor` (*event) says where the grids of values lie, `low` the least noise."""

    denoiser: Denoiser
    standard: Standard
    values: Values
    anchor: Tensor
    low: float
    levels: int = 20
    rounds: int = 3

    def __call__(self, x: Tensor, noise: Noise, y: Tensor | None = None) -> Tensor:
        """x (B, *event) with its unknown entries drawn given the others, which keep their bits."""
        def draw() -> Tensor:
            return noise.normal(*x.shape[1:], dtype=x.dtype).to(x)
        unknown = self.values.unknown(x)
        denoiser = Knowing(self.denoiser, torch.where(unknown, 0.0, x), unknown)
        schedule = Exploding(self.low, max(FAR * self.standard.spread, 2 * self.low))
        path = legs(schedule, evenly_in_log_snr(schedule, self.levels), x)
        x_r = torch.where(unknown, self.standard.start(draw(), schedule.high), x + schedule.high * draw())
        for leg in path:
            for turn in range(self.rounds if leg.ratio_next else 1):
                if turn:
                    x_r = x_r + math.sqrt(leg.ratio ** 2 - leg.ratio_next ** 2) * draw()
                x_r = heun(denoiser, State(x_r, x_r), leg, y).x
        return torch.where(unknown, self.values.nearest(x_r, self.anchor), x)


def _solved(matrix: Callable[[Tensor], Tensor], b: Tensor, turns: int) -> Tensor:
    """a with matrix(a) near b, both (B, *event), by `turns` steps of conjugate gradients.

    A direction in which the matrix is not positive, as a network's may not be, is left alone.
    """
    def dot(left: Tensor, right: Tensor) -> Tensor:
        return wide((left * right).flatten(1).sum(dim=1), left)
    a, left, p = torch.zeros_like(b), b, b
    squares = dot(left, left)
    for _ in range(turns):
        A_p = matrix(p)
        curvature = dot(p, A_p)
        length = torch.where(curvature > 0, squares / curvature.clamp(min=torch.finfo(b.dtype).tiny), 0.0)
        a, left = a + length * p, left - length * A_p
        former, squares = squares, dot(left, left)
        p = left + squares / former.clamp(min=torch.finfo(b.dtype).tiny) * p
    return a
