"""Attention over places in n dimensions.

    softmax(q k' / sqrt(D)) v        q, k of unit mean square (QK-norm: Henry et al., arXiv:2010.04245)

Where a place is, enters by turning q and k: pairs of their numbers rotate by an angle in proportion to the coordinate, so that
q k' depends on the difference of places alone (Su et al., "RoFormer", arXiv:2104.09864); with several axes, each has its own
share of the pairs. Heads have 64 numbers or more where there are so many: small heads are slow.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import unit

__all__ = ["Attention", "fast", "heads", "places", "reference", "turned", "turns"]

HEAD = 64
LONGEST = 1000.0  # the slowest rotation has this wavelength over 2 pi


def heads(channels: int) -> int:
    """How many heads: the most of at least HEAD numbers each that share the channels evenly; one where there are fewer."""
    return next(H for H in range(max(1, channels // HEAD), 0, -1) if channels % H == 0)


def places(axes: tuple[int, ...]) -> Tensor:
    """Coordinates of all places of a grid in row order, (N, len(axes)) float32."""
    return torch.cartesian_prod(*(torch.arange(float(length)) for length in axes)).view(-1, len(axes))


def turns(places: Tensor, width: int, longest: float = LONGEST) -> tuple[Tensor, Tensor]:
    """Cosines and sines (N, width // 2) of the angles at places (N, A); the pairs are shared out over the axes. longest: the
    slowest rotation has about this wavelength over 2 pi."""
    A, P = places.shape[1], width // 2
    each = P // A
    frequencies = longest ** -(torch.arange(each) / max(each, 1))
    angles = (places[:, :, None] * frequencies).flatten(1)
    angles = F.pad(angles, (0, P - angles.shape[1]))
    return angles.cos(), angles.sin()


def turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x (B, H, N, D) with its pairs (x_i, x_(i + P)) turned by angles (N, P) or (B, 1, N, P), P = D // 2; the last number of an
    odd D stays."""
    P = cosines.shape[-1]
    a, b, rest = x.tensor_split((P, 2 * P), dim=-1)
    return torch.cat([a * cosines - b * sines, a * sines + b * cosines, rest], dim=-1)


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k' / sqrt(D)) v, (B, H, N, D) each; with `causal`, places see themselves and those before."""
    N, D = q.shape[2:]
    scores = q @ k.mT / math.sqrt(D)
    if causal:
        later = torch.ones(N, N, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(dim=-1) @ v


def fast(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """The same by PyTorch's fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class Attention(nn.Module):
    """Attention of features (B, N, C) at `places` (N, A), or at the first of them, to one another; without the residual."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, channels: int, places: Tensor, causal: bool = False):
        super().__init__()
        self.heads, self.causal = heads(channels), causal
        self.qkv, self.out = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels, bias=False)
        cosines, sines = turns(places, channels // self.heads)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        cosines, sines = self.cosines[:N].to(q.dtype), self.sines[:N].to(q.dtype)
        q, k = (turned(unit(a), cosines, sines) for a in (q, k))
        return self.out(fast(q, k, v, self.causal).transpose(1, 2).reshape(B, N, C))
