"""Attention over places in n dimensions.

    softmax(q k' / sqrt(D)) v        q, k of unit length times sqrt(D) (QK-norm: Henry et al., arXiv:2010.04245)

Where a place is, enters by turning q and k: pairs of their numbers rotate by an angle in proportion to the coordinate, so that
q k' depends on the difference of places alone (Su et al., "RoFormer", arXiv:2104.09864); with several axes, each has its own
share of the pairs. Heads have 64 numbers where the width allows it: small heads are slow.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "fast", "places", "reference", "turned", "turns"]

HEAD = 64
LONGEST = 1000.0  # the slowest rotation has this wavelength over 2 pi


def places(axes: tuple[int, ...]) -> Tensor:
    """Coordinates of all places of a grid in row order, (N, len(axes)) float32."""
    return torch.cartesian_prod(*(torch.arange(float(length)) for length in axes)).view(-1, len(axes))


def turns(places: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (N, width / 2) of the angles at each place; the pairs are shared out over the axes."""
    A = places.shape[1]
    each = width // 2 // A
    frequencies = LONGEST ** -(torch.arange(each) / max(each, 1))
    angles = (places[:, :, None] * frequencies).flatten(1)
    angles = F.pad(angles, (0, width // 2 - angles.shape[1]))
    return angles.cos(), angles.sin()


def turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x (B, H, N, D) with its pairs (x_i, x_(i + D/2)) turned."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosines - b * sines, a * sines + b * cosines], dim=-1)


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
    """Attention of places (B, N, C) to one another, without the residual."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, channels: int, places: Tensor, causal: bool = False):
        super().__init__()
        self.heads = max(1, channels // HEAD)
        assert channels % self.heads == 0
        self.causal = causal
        self.qkv, self.out = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels, bias=False)
        cosines, sines = turns(places, channels // self.heads // 2 * 2)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        cosines, sines = self.cosines[:N].to(x.dtype), self.sines[:N].to(x.dtype)
        q, k = (turned(F.rms_norm(a, a.shape[-1:]), cosines, sines) for a in (q, k))
        return self.out(fast(q, k, v, self.causal).transpose(1, 2).reshape(B, N, C))
