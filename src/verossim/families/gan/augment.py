"""Augmentation of what a discriminator sees, real and made alike, so that few records do not suffice to learn them by heart.

Each operation falls on a record with probability p and is drawn anew each time. With p well below 1 the distribution of
augmented records determines that of the records themselves, so that a generator which matches the one matches the other, and
nothing of the augmentation shows in its samples (Karras et al., "Training generative adversarial networks with limited
data", arXiv:2006.06676, section 2.1 and appendix C).

    over axes   mirrored along the last axis, with p / 2; shifted along each by up to an eighth, edges repeated; all entries
                shifted by N(0, 0.25^2); all scaled by 2^N(0, 0.4^2); a box of half each length blanked
    vectors     every entry shifted by N(0, 0.3^2)
"""

import math

import torch
from torch import Tensor

from ...seeds import Noise

__all__ = ["MOST", "augmented"]

MOST = 0.8  # of p: beyond, samples begin to show it
REACH = 8  # a shift is at most this part of an axis
SHIFT, SCALE, ROUGH = 0.25, 0.4, 0.3  # deviations, in the unit scale of x


def augmented(x: Tensor, noise: Noise, p: float) -> Tensor:
    """x (B, *event) of about unit scale after operations that fall on each record with probability p; x itself where p is 0."""
    if p <= 0:
        return x
    axes = x.shape[2:]
    if not axes:
        chosen = (noise.uniform(1) < p).to(x)
        return x + ROUGH * chosen * noise.normal(x.shape[1]).to(x)
    u = noise.uniform(5 + 2 * len(axes)).to(x)
    e = noise.normal(2).to(x)
    likely = u.new_tensor([p / 2, p, p, p, p])  # mirrored half of the time at most, or it would leak
    chosen, placed = u[:, :5] < likely, u[:, 5:]
    for number, length in enumerate(axes):
        x = _moved(x, 2 + number, chosen, placed[:, number], length, mirrored=number == len(axes) - 1)
    scale = torch.where(chosen[:, 2], (SCALE * math.log(2) * e[:, 0]).exp(), 1.0)
    shift = torch.where(chosen[:, 3], SHIFT * e[:, 1], 0.0)
    x = x * _wide(scale, x) + _wide(shift, x)
    return torch.where(_box(chosen[:, 4], placed[:, len(axes):], axes), 0.0, x)


def _moved(x: Tensor, axis: int, chosen: Tensor, u: Tensor, length: int, mirrored: bool) -> Tensor:
    """Mirrored along an axis, if that is asked for, and shifted along it, edges repeated."""
    reach = length // REACH
    index = torch.arange(length, device=x.device).expand(len(x), length)
    if mirrored:
        index = torch.where(chosen[:, :1], length - 1 - index, index)
    by = torch.where(chosen[:, 1], (u * (2 * reach + 1)).long() - reach, 0)
    index = (index + by[:, None]).clamp(0, length - 1)
    return x.gather(axis, index.view(len(x), *[length if a == axis else 1 for a in range(1, x.ndim)]).expand_as(x))


def _box(chosen: Tensor, u: Tensor, axes: torch.Size) -> Tensor:
    """Where the box of each chosen record is, (B, 1, *axes) bool; its middle is uniform over the record."""
    inside = chosen.view(-1, 1, *[1] * len(axes))
    for number, length in enumerate(axes):
        at = torch.arange(length, device=u.device)
        near = (at - u[:, number, None] * length).abs() <= length / 4
        inside = inside & near.view(len(u), 1, *[length if a == number else 1 for a in range(len(axes))])
    return inside


def _wide(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))
