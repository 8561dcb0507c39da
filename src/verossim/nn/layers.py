"""Layers that every network is made of: convolutions of any rank, norms without batch statistics, and the residual block.

A residual block computes x + f(x) with its last layer zero at the start, so that a deep network begins as the identity (Zhang,
Dauphin and Ma, "Fixup initialization", ICLR 2019); an embedding e (B, E) of time or condition scales and shifts the
normalised features (Perez et al., "FiLM", AAAI 2018; Dhariwal and Nichol, arXiv:2105.05233).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Fourier", "Residual", "conv", "halving", "norm", "pooled", "through", "unit", "unpooled", "zeroed"]

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def conv(rank: int, channels: int, out: int, kernel: int = 3, bias: bool = True) -> nn.Module:
    """A convolution over `rank` axes that keeps their lengths: (B, channels, *axes) to (B, out, *axes); kernel is odd."""
    reach = kernel // 2
    if rank < 3 or not reach:
        return CONV[rank](channels, out, kernel, padding=reach, bias=bias)
    # Padded apart: where a convolution pads a first axis of length 2, oneDNN's gradient of the kernel in bfloat16 is wrong.
    padding = nn.ConstantPad3d((0, 0, 0, 0, reach, reach), 0.0)
    return nn.Sequential(padding, nn.Conv3d(channels, out, kernel, padding=(0, reach, reach), bias=bias))


def halving(rank: int, channels: int, out: int) -> nn.Module:
    """A convolution to half of each length, which is even: of kernel 4 in steps of two, so that no pattern is lost to it as
    those of period 2 are to means."""
    return CONV[rank](channels, out, 4, stride=2, padding=1)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in groups of at least 8 channels, at most 32 of them (Wu and He, arXiv:1803.08494)."""
    groups = next(g for g in range(min(32, max(1, channels // 8)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def unit(x: Tensor) -> Tensor:
    """x (..., C) over the root of the mean square of its last dimension (Zhang and Sennrich, arXiv:1910.07467)."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)  # said, for the default grows as precision shrinks


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def pooled(x: Tensor) -> Tensor:
    """(B, C, *axes) to half of each length, by means; an axis of odd length is rounded up."""
    rank = x.ndim - 2
    return POOL[rank](x, 2, ceil_mode=True, count_include_pad=False)


def unpooled(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """(B, C, *halves) to (B, C, *axes), each value repeated; the inverse of the lengths of `pooled`."""
    x = F.interpolate(x, scale_factor=2.0)
    for axis, length in enumerate(axes, start=2):
        x = x.narrow(axis, 0, length)
    return x


def through(blocks: Any, h: Tensor, e: Tensor | None) -> Tensor:
    """h after the blocks in turn."""
    for block in blocks:
        h = block(h, e)
    return h


class Fourier(nn.Module):
    """Features of a number (B,) -> (B, width): cosines and sines at frequencies spaced evenly in their logarithm.

    Tancik et al., "Fourier features let networks learn high frequency functions", arXiv:2006.10739, with fixed frequencies.
    """

    frequencies: Tensor

    def __init__(self, width: int, most: float = 64.0):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, math.log10(most), width // 2) * 0.5, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies.to(t.dtype)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Residual(nn.Module):
    """x + f(x) over `rank` axes, or over none (rank 0: vectors); an embedding (B, embedding) modulates f where there is one.

    channels -> out; where they differ the skip is a 1x1 convolution.
    """

    def __init__(self, rank: int, channels: int, out: int | None = None, embedding: int = 0, kernel: int = 3):
        super().__init__()
        out = channels if out is None else out
        self.rank = rank
        self.norm_1, self.norm_2 = norm(channels), norm(out)
        self.layer_1, self.layer_2 = self._layer(channels, out, kernel), zeroed(self._layer(out, out, kernel))
        self.skip = nn.Identity() if channels == out else self._layer(channels, out, 1)
        self.modulation = zeroed(nn.Linear(embedding, 2 * out)) if embedding else None

    def _layer(self, channels: int, out: int, kernel: int) -> nn.Module:
        return conv(self.rank, channels, out, kernel) if self.rank else nn.Linear(channels, out)

    def forward(self, x: Tensor, e: Tensor | None = None) -> Tensor:
        h = self.norm_2(self.layer_1(F.silu(self.norm_1(x))))
        if self.modulation is not None and e is not None:
            scale, shift = self.modulation(e).unflatten(1, (2, -1) + (1,) * self.rank).unbind(dim=1)
            h = torch.addcmul(h + shift, h, scale)
        return self.skip(x) + self.layer_2(F.silu(h))
