"""The Transformer over patches of a grid or over tokens, bidirectional or causal.

    h <- h + g_1 attention((1 + a_1) norm(h) + b_1)        h <- h + g_2 mlp((1 + a_2) norm(h) + b_2)

norm divides by the root of the mean square, without weights (Zhang and Sennrich, arXiv:1910.07467); the MLP is SwiGLU (Shazeer,
arXiv:2002.05202). a, b, g come from the embedding of time and condition, zero at the start (adaLN-zero: Peebles and Xie,
arXiv:2212.09748); without an embedding a = b = 0, g = 1, and the last layers are zero instead.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, places, turns
from .conditioning import Embedding
from .layers import through, unit, zeroed

__all__ = ["Block", "PatchTransformer", "TokenTransformer"]

WIDENED = 8 / 3  # numbers inside SwiGLU over the width


class Block(nn.Module):
    """Attention and MLP over places (B, N, width), modulated by an embedding (B, embedding) where there is one."""

    def __init__(self, width: int, places: Tensor, embedding: int, causal: bool):
        super().__init__()
        inside = int(WIDENED * width / 8) * 8
        self.attention = Attention(width, places, causal)
        self.gates, self.out = nn.Linear(width, 2 * inside, bias=False), nn.Linear(inside, width, bias=False)
        self.modulation = nn.Linear(embedding, 6 * width) if embedding else None
        for layer in (self.attention.out, self.out) if self.modulation is None else (self.modulation,):
            zeroed(layer)

    def forward(self, h: Tensor, e: Tensor | None) -> Tensor:
        if self.modulation is None or e is None:
            h = h + self.attention(unit(h))
            return h + self.mlp(unit(h))
        a_1, b_1, g_1, a_2, b_2, g_2 = self.modulation(e)[:, None].chunk(6, dim=2)
        h = h + g_1 * self.attention((1 + a_1) * unit(h) + b_1)
        return h + g_2 * self.mlp((1 + a_2) * unit(h) + b_2)

    def mlp(self, h: Tensor) -> Tensor:
        """(B, N, W) to itself: silu(u) v."""
        u, v = self.gates(h).chunk(2, dim=2)
        return self.out(F.silu(u) * v)


class PatchTransformer(nn.Module):
    """(B, channels, *axes) to (B, out, *axes), by patches of `patch` places along each axis; axes are padded to whole ones.

    Turned attention knows how far apart patches are but not where: waves over the grid are added to them (Vaswani et al.,
    arXiv:1706.03762).
    """

    where: Tensor

    def __init__(self, channels: int, out: int, axes: tuple[int, ...], width: int, depth: int, embedding: Embedding | None,
                 patch: tuple[int, ...]):
        super().__init__()
        self.axes, self.patch, self.out = axes, patch, out
        self.grid = tuple(-(-length // p) for length, p in zip(axes, patch, strict=True))
        at, E = places(self.grid), 0 if embedding is None else embedding.layer.out_features
        waves = torch.cat(turns(at, width), dim=1)
        self.embedding = embedding
        self.first = nn.Linear(channels * math.prod(patch), width)
        self.register_buffer("where", F.pad(waves, (0, width % 2)), persistent=False)
        self.blocks = nn.ModuleList(Block(width, at, E, causal=False) for _ in range(depth))
        self.last = zeroed(nn.Linear(width, out * math.prod(patch)))

    def forward(self, x: Tensor, t: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        e = None if self.embedding is None else self.embedding(t, y, len(x))
        h = self.first(self.cut(x))
        h = through(self.blocks, h + self.where.to(h.dtype), e)
        return self.joined(self.last(unit(h)))

    def cut(self, x: Tensor) -> Tensor:
        """Patches (B, N, C * numbers of a patch) of x (B, C, *axes)."""
        B, C, *axes = x.shape
        A = len(axes)
        pads = [(0, g * p - length) for g, p, length in zip(self.grid, self.patch, axes, strict=True)]
        x = F.pad(x, list(itertools.chain(*reversed(pads))))
        x = x.reshape(B, C, *itertools.chain(*zip(self.grid, self.patch, strict=True)))
        grid, inner = [2 + 2 * a for a in range(A)], [3 + 2 * a for a in range(A)]
        return x.permute(0, *grid, 1, *inner).reshape(B, math.prod(self.grid), C * math.prod(self.patch))

    def joined(self, h: Tensor) -> Tensor:
        """The inverse of `cut`, for `out` channels."""
        B, A = len(h), len(self.axes)
        h = h.view(B, *self.grid, self.out, *self.patch)
        pairs = itertools.chain(*((1 + a, 2 + A + a) for a in range(A)))
        x = h.permute(0, 1 + A, *pairs).reshape(B, self.out, *(g * p for g, p in zip(self.grid, self.patch, strict=True)))
        for axis, length in enumerate(self.axes, start=2):
            x = x.narrow(axis, 0, length)
        return x


class TokenTransformer(nn.Module):
    """Tokens (B, N) in [0, vocabulary) to logits (B, N, vocabulary), N <= length."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, embedding: Embedding | None, causal: bool):
        super().__init__()
        at, E = places((length,)), 0 if embedding is None else embedding.layer.out_features
        self.embedding = embedding
        self.first = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, at, E, causal) for _ in range(depth))
        self.last = zeroed(nn.Linear(width, vocabulary, bias=False))

    def forward(self, x: Tensor, t: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        e = None if self.embedding is None else self.embedding(t, y, len(x))
        h = through(self.blocks, unit(self.first(x)), e)
        return self.last(unit(h))
