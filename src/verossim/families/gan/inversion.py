"""From a record to the latents whose record is nearest to it.

    min over z_1 .. z_L of |x - G(z_1, .., z_L)|^2 + PULL / L sum_l |z_l|^2

by Adam, from the nearest of many drawn latents. Each layer of the generator has latents of its own, which reach records that
no single z would (Abdal, Qin and Wonka, "Image2StyleGAN", arXiv:1904.03189, do so with styles); the pull keeps them where z
usually is, so that interpolation and mixing between them make sense. Categories count by their cross-entropy.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from ...seeds import Noise
from ...spaces import Continuous
from ..diffusion.values import Values

__all__ = ["Invertible", "inverted", "nearest"]

DRAWN, STEPS, RATE, PULL = 256, 200, 0.1, 0.1
BETAS = (0.9, 0.99)
TINY = 1e-8
NUMBERS = 1 << 18  # in the records that are inverted at a time


class Invertible(Protocol):
    """What of a pair inversion asks for."""

    space: Continuous
    values: Values
    scale: Tensor
    layers: int
    latent: int

    def raw_points(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Points in units of data of latents, categories as logits."""


def inverted(pair: Invertible, x: Tensor, y: Tensor | None) -> Tensor:
    """Latents (B, L, Z) of x (B, *event), whose unknown entries do not count; the same for a record in any batch."""
    rows = max(1, NUMBERS // pair.space.dims)
    parts = [_inverted(pair, x[i:i + rows], None if y is None else y[i:i + rows]) for i in range(0, len(x), rows)]
    return torch.cat(parts) if parts else pair.scale.new_zeros(0, pair.layers, pair.latent)


def _inverted(pair: Invertible, x: Tensor, y: Tensor | None) -> Tensor:
    z = nearest(pair, x, y, DRAWN)[:, None].repeat(1, pair.layers, 1)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    best, least = z, torch.full((len(x),), math.inf, device=z.device)
    for step in range(STEPS + 1):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            missed = _missed(pair, pair.raw_points(z, y), x)
            total = missed + PULL * z.square().sum(dim=(1, 2)) / pair.layers
            slope = torch.autograd.grad(total.sum(), z)[0]
        better = total.detach() < least
        best, least = torch.where(better[:, None, None], z.detach(), best), torch.where(better, total.detach(), least)
        # Adam, record by record: the slope of one record does not move another
        first.lerp_(slope, 1 - BETAS[0])
        second.lerp_(slope.square(), 1 - BETAS[1])
        rate = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        upright = (second / (1 - BETAS[1] ** (step + 1))).sqrt() + TINY
        z = z.detach() - rate * first / (1 - BETAS[0] ** (step + 1)) / upright
    return best


def nearest(pair: Invertible, x: Tensor, y: Tensor | None, drawn: int) -> Tensor:
    """For each record the latents (B, Z), of so many drawn ones, whose record is nearest; the same are drawn for all."""
    z = Noise(0, drawn).normal(pair.latent).to(pair.scale)
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        kinds, which = (None, [0] * len(x)) if y is None else y.unique(dim=0, return_inverse=True)
        made, own = -1, x
        for row in sorted(range(len(x)), key=lambda row: int(which[row])):  # all of a condition one after the other
            if made != (made := int(which[row])):
                own = pair.raw_points(z, None if kinds is None else kinds[made].expand(drawn, *kinds.shape[1:]))
            found[row] = z[_missed(pair, own, x[row:row + 1].expand(drawn, *x.shape[1:])).argmin()]
    return torch.stack([found[row] for row in range(len(x))])


def _missed(pair: Invertible, made: Tensor, x: Tensor) -> Tensor:
    """Squared distance of numbers, in unit scale, and cross-entropy of categories, (B,)."""
    known, error = ~pair.values.unknown(x), (made - x.to(made).nan_to_num()) / pair.scale
    total = made.new_zeros(len(x))
    number = known.flatten(1).clone()
    for first, last in pair.space.simplexes:
        number[:, first:last] = False
        chosen = (made[:, first:last].log_softmax(dim=1) * x[:, first:last].to(made).nan_to_num()).sum(dim=1)
        total = total - torch.where(known[:, first], chosen, 0.0)
    return total + torch.where(number, error.flatten(1), 0.0).square().sum(dim=1)
