"""Generator and discriminator of an adversarial pair: residual, without normalisation, over vectors or over one to three axes.

    w_l = f(z_l, y),   h_0 = c + W w_0,   h_l = skip(h_(l-1)) + V act(U act((1 + a_l) h_(l-1) + b_l)),   (a_l, b_l) = A_l w_l
    D(x, y) = v phi(x) + <e(y), phi(x)> / sqrt(F)

A mapping f takes latents to styles, one for each layer, so that layers may have styles of different samples (Karras, Laine
and Aila, arXiv:1812.04948); the condition enters the discriminator by projection (Miyato and Koyama, arXiv:1802.05637).
Layers U begin small and V at zero, as deep residual networks without normalisation need (Zhang, Dauphin and Ma, "Fixup
initialization", arXiv:1901.09321; Huang et al., "The GAN is dead; long live the GAN!", NeurIPS 2024, section 3).
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..spaces import Continuous, Space
from .conditioning import Condition
from .layers import conv, halving, pooled, unpooled, zeroed
from .resampling import convolved, lowered, raised

__all__ = ["Discriminator", "Generator"]

COARSEST = 4  # axes are halved while one is longer
FINEST = 16  # records with a longer axis are halved by the first layer, and doubled by the last
WIDENED = 4  # channels of the coarsest resolutions over those of the finest, at most; twice as many a halving
LEAK = 0.2
STYLE = 128  # numbers of a style, at most
WAVES = 4  # of an entry: of wavelengths 8, 4, 2 and 1


def active(h: Tensor) -> Tensor:
    """Leaky rectifier."""
    return _Active.apply(h) if h.requires_grad and torch.is_grad_enabled() else F.leaky_relu(h, LEAK)


class _Active(torch.autograd.Function):
    """Leaky rectifier whose gradient says that its second derivative vanishes; PyTorch's would add up zeros."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.save_for_backward(h)
        return F.leaky_relu(h, LEAK)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        h, = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(gradients[0], h.detach(), LEAK, False)


class Block(nn.Module):
    """skip(h) + V act(U act((1 + a) h + b)) over `rank` axes, 0 for vectors; a and b of a style (B, style), or none.

    share : of He's deviation that U begins with. What has every entry to itself is done where lengths are shorter: before h is
    unpooled, to `axes` where these are given, and after it is pooled, where it is to be `halved` at the end.
    """

    def __init__(self, rank: int, channels: int, out: int, share: float, style: int = 0):
        super().__init__()
        self.rank = rank
        self.inner = _begun(self._layer(channels, out, 3), share)
        self.outer = zeroed(self._layer(out, out, 3))
        self.skip = nn.Identity() if channels == out else _begun(self._layer(channels, out, 1), 2 ** -0.5)
        self.style = nn.Linear(style, 2 * channels) if style else None

    def _layer(self, channels: int, out: int, kernel: int) -> nn.Module:
        return conv(self.rank, channels, out, kernel) if self.rank else nn.Linear(channels, out)

    def forward(self, h: Tensor, w: Tensor | None = None, axes: tuple[int, ...] | None = None, halved: bool = False) -> Tensor:
        styled = h
        if self.style is not None and w is not None:
            a, b = self.style(w).unflatten(1, (2, -1) + (1,) * self.rank).unbind(dim=1)
            styled = torch.addcmul(h + b, h, a)
        inside = convolved(self.inner, active(styled)) if axes is None else raised(self.inner, active(styled), axes)
        skipped = convolved(self.skip, pooled(h) if halved else h)
        skipped = skipped if axes is None else unpooled(skipped, axes)
        return skipped + (lowered if halved else convolved)(self.outer, active(inside))


class Generator(nn.Module):
    """Latents z (B, Z), or of each layer its own (B, L, Z), and conditions y to points (B, *event), not yet in units of data.

    One-hot blocks of the space come as logits.
    """

    def __init__(self, space: Continuous, width: int, depth: int, latent: int, condition: Space | None):
        super().__init__()
        channels, *axes = space.shape
        rank, self.lengths, widths = len(axes), *_resolutions(tuple(axes), width)
        self.axes = tuple(axes)
        W = min(STYLE, max(latent, width))
        self.first, self.told = _begun(nn.Linear(latent, W)), None if condition is None else Condition(condition, W)
        self.second = _begun(nn.Linear(W, W))
        self.begin = nn.Linear(W, widths[0] * math.prod(self.lengths[0]))
        nn.init.normal_(self.begin.weight, std=W ** -0.5)
        outs = [own for own in widths for _ in range(depth)]
        share = len(outs) ** -0.5
        self.blocks = nn.ModuleList(Block(rank, before, own, share, W) for before, own in pairwise([widths[0], *outs]))
        self.depth, self.layers, self.latent = depth, 1 + len(outs), latent
        self.last = conv(rank, widths[-1], channels) if rank else nn.Linear(widths[-1], channels)

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """w (B, *, W) of latents (B, *, Z)."""
        h = self.first(z)
        if self.told is not None:
            e = self.told(y, len(z))
            h = h + (e if z.ndim == 2 else e[:, None])
        return active(self.second(active(h)))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        w = self.styles(z, y)
        return self.made(w if w.ndim == 3 else w[:, None].expand(-1, self.layers, -1))

    def made(self, w: Tensor) -> Tensor:
        """Points (B, *event) of styles (B, L, W), the coarsest layer's first."""
        h = self.begin(w[:, 0]).unflatten(1, (-1, *self.lengths[0]))
        for number, block in enumerate(self.blocks):
            resolution, within = divmod(number, self.depth)
            h = block(h, w[:, number + 1], self.lengths[resolution] if resolution and not within else None)
        return convolved(self.last, active(h)) if self.lengths[-1] == self.axes else raised(self.last, active(h), self.axes)

    def directions(self) -> Tensor:
        """Directions in the space of styles (K, W), of length one, those that move all layers together the most first: the
        eigenvectors of sum_l A_l' A_l (Shen and Zhou, "Closed-form factorization of latent semantics", arXiv:2007.06600)."""
        blocks: Any = self.blocks
        A = torch.cat([self.begin.weight, *(block.style.weight for block in blocks)])
        return torch.linalg.eigh((A.T @ A).double()).eigenvectors.flip(1).T.to(A)


class Discriminator(nn.Module):
    """How real points (B, *event) look, (B,): larger for those from data. One value a record, whatever else is in the batch.

    Entries of vectors come with waves of themselves, without which fine structure is learned slowly (Tancik et al.,
    arXiv:2006.10739).
    """

    waves: Tensor

    def __init__(self, space: Continuous, width: int, depth: int, condition: Space | None):
        super().__init__()
        channels, *axes = space.shape
        rank, lengths, widths = len(axes), *_resolutions(tuple(axes), width)
        self.halves = lengths[-1] != tuple(axes)
        waves = torch.zeros(0) if rank else math.pi * 2.0 ** torch.arange(-2, WAVES - 2)
        self.register_buffer("waves", waves, persistent=False)
        entries = channels * (1 + 2 * len(waves))
        first = (halving if self.halves else conv)(rank, channels, widths[-1]) if rank else nn.Linear(entries, widths[-1])
        self.first = _begun(first, 2 ** -0.5)
        outs = [own for own in reversed(widths) for _ in range(depth)]
        share = len(outs) ** -0.5
        self.blocks = nn.ModuleList(Block(rank, before, own, share) for before, own in pairwise([outs[0], *outs]))
        F_ = widths[0]
        # Pairs do not see what shifts all looks alike: the gradient of a bias here would be rounding alone.
        self.depth, self.features = depth, _begun(nn.Linear(widths[0] * math.prod(lengths[0]), F_, bias=False))
        self.last = nn.Linear(F_, 1, bias=False)
        self.told = None if condition is None else Condition(condition, F_)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        phi = self.seen(x)
        D = self.last(phi)[:, 0]
        return D if self.told is None else D + (self.told(y, len(x)) * phi).sum(dim=1) / phi.shape[1] ** 0.5

    def seen(self, x: Tensor) -> Tensor:
        """phi(x), (B, F)."""
        if len(self.waves):
            angles = (x[:, :, None] * self.waves).flatten(1)
            x = torch.cat([x, angles.cos(), angles.sin()], dim=1)
        h = convolved(self.first, _even(x) if self.halves else x)
        for number, block in enumerate(self.blocks, start=1):
            h = block(h, halved=number % self.depth == 0 and number < len(self.blocks))
        return active(self.features(active(h).flatten(1)))


def _resolutions(axes: tuple[int, ...], width: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Lengths and channels of every resolution of blocks, the coarsest first; of vectors, which have one, no lengths."""
    lengths = [axes if max(axes, default=0) <= FINEST else _halved(axes)]
    while max(lengths[-1], default=0) > COARSEST:
        lengths.append(_halved(lengths[-1]))
    widths = [width * min(2 ** halvings, WIDENED) for halvings in range(len(lengths))]
    return lengths[::-1], widths[::-1]


def _even(x: Tensor) -> Tensor:
    """x (B, C, *axes) with the last value of axes of odd length repeated."""
    odd = [length % 2 for length in x.shape[2:]]
    return F.pad(x, [by for length in reversed(odd) for by in (0, length)], mode="replicate") if any(odd) else x


def _halved(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-length // 2) for length in axes)


def _begun(layer: nn.Module, share: float = 1.0) -> nn.Module:
    """The layer with weights of a share of He's deviation (arXiv:1502.01852), and no biases."""
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, a=LEAK)
            with torch.no_grad():
                parameter.mul_(share)
        else:
            nn.init.zeros_(parameter)
    return layer
