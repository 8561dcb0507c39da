"""What a network is told beside its input: time and condition, as one embedding; and the null condition.

A conditional model that learns with its condition left out now and then is also the unconditional one (Ho and Salimans,
"Classifier-free diffusion guidance", arXiv:2207.12598).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..spaces import Discrete, Space
from .layers import Fourier

__all__ = ["Condition", "Embedding", "dropped"]


def dropped(y: Tensor | None, u: Tensor, rate: float) -> Tensor | None:
    """y with the null condition (-1, or a row of NaN) where u (B,), uniform on (0, 1), is below the rate."""
    if y is None:
        return None
    null = u < rate
    return torch.where(null if y.ndim == 1 else null[:, None], torch.nan if y.is_floating_point() else -1, y)


class Condition(nn.Module):
    """A condition as a vector: a class (B,) in [0, C), or a record (B, D), to (B, width); -1, NaN or None is the null one."""

    def __init__(self, space: Space, width: int):
        super().__init__()
        self.null = nn.Parameter(torch.randn(width) / width ** 0.5)
        self.classes = nn.Embedding(space.vocabulary, width) if isinstance(space, Discrete) else None
        self.record = None if isinstance(space, Discrete) else nn.Linear(space.dims, width)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=width ** -0.5)

    def forward(self, y: Tensor | None, count: int) -> Tensor:
        if self.classes is not None:
            y = self.null.new_full((count,), -1, dtype=torch.int64) if y is None else y
            null, e = (y < 0)[:, None], self.classes(y.clamp(min=0))
        else:
            assert self.record is not None
            y = self.null.new_full((count, self.record.in_features), torch.nan) if y is None else y.to(self.null.dtype)
            null, e = y.isnan().any(dim=1, keepdim=True), self.record(y.nan_to_num())
        return torch.where(null, self.null, e)


class Embedding(nn.Module):
    """Time t (B,) and condition y as one vector (B, width), through a layer; one of them may be lacking."""

    def __init__(self, width: int, condition: Space | None, timed: bool):
        super().__init__()
        self.time = nn.Sequential(Fourier(64), nn.Linear(64, width)) if timed else None
        self.condition = None if condition is None else Condition(condition, width)
        self.layer = nn.Linear(width, width)

    def forward(self, t: Tensor | None, y: Tensor | None, count: int) -> Tensor:
        told = []
        if self.time is not None:
            assert t is not None
            told.append(self.time(t))
        if self.condition is not None:
            told.append(self.condition(y, count))
        return F.silu(self.layer(F.silu(sum(told[1:], told[0]))))
