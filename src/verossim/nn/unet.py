"""The U-Net (Ronneberger et al., arXiv:1505.04597; Ho et al., arXiv:2006.11239) over one to three axes of any length.

Down through levels of half the length each, up again, with the features of each level of the way down laid beside those of the
way up. Most operations are on the finest level, so it has the fewest channels; attention sees the coarsest level only, where
every place can see every other for little.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, places
from .conditioning import Embedding
from .layers import Residual, conv, norm, pooled, through, unpooled, zeroed

__all__ = ["Attended", "UNet"]

COARSEST = 6  # the longest axis is halved while it stays at least this long
WIDENED = (1, 2)  # channels of the finest level, and of all others, over `width`


class Attended(nn.Module):
    """A residual block, then attention among its places (B, C, *axes)."""

    def __init__(self, channels: int, axes: tuple[int, ...], embedding: int):
        super().__init__()
        self.block, self.norm = Residual(len(axes), channels, embedding=embedding), norm(channels)
        self.attention = Attention(channels, places(axes))
        zeroed(self.attention.out)

    def forward(self, x: Tensor, e: Tensor | None) -> Tensor:
        x = self.block(x, e)
        seen = self.attention(self.norm(x).flatten(2).mT)
        return x + seen.mT.reshape(x.shape)


class UNet(nn.Module):
    """(B, channels, *axes) to (B, out, *axes); `depth` residual blocks a level and way."""

    def __init__(self, channels: int, out: int, axes: tuple[int, ...], width: int, depth: int, embedding: Embedding | None):
        super().__init__()
        rank, E = len(axes), 0 if embedding is None else embedding.layer.out_features
        halvings = max(1, int(math.log2(max(max(axes) / COARSEST, 1))))
        widths = [width * WIDENED[min(level, 1)] for level in range(halvings + 1)]
        lengths = [axes]
        for _ in range(halvings):
            lengths.append(tuple(-(-length // 2) for length in lengths[-1]))
        self.embedding = embedding
        self.first = conv(rank, channels, width)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = width
        for own in widths:
            blocks = [Residual(rank, before if number == 0 else own, own, E) for number in range(depth)]
            self.down.append(nn.ModuleList(blocks))
            before = own
        self.middle = Attended(before, lengths[-1], E)
        for own in reversed(widths):
            blocks = [Residual(rank, before + own if number == 0 else own, own, E) for number in range(depth)]
            self.up.append(nn.ModuleList(blocks))
            before = own
        self.norm, self.last = norm(before), zeroed(conv(rank, before, out))

    def forward(self, x: Tensor, t: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        e = None if self.embedding is None else self.embedding(t, y, len(x))
        h, levels = self.first(x), list[Tensor]()
        for blocks in self.down:
            h = pooled(h) if levels else h
            h = through(blocks, h, e)
            levels.append(h)
        h = self.middle(h, e)
        for blocks, beside in zip(self.up, reversed(levels), strict=True):
            h = unpooled(h, beside.shape[2:]) if h.shape[2:] != beside.shape[2:] else h
            h = torch.cat([h, beside], dim=1)
            h = through(blocks, h, e)
        return self.last(F.silu(self.norm(h)))
