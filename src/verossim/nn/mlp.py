"""A network for vectors.

    h = W x,    h <- h + f(h; e) for each block,    out = V silu(norm(h))

f has two layers and is told time and condition by the embedding e (`layers.Residual`; He et al., arXiv:1603.05027). V is zero
at the start.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .conditioning import Embedding
from .layers import Residual, norm, through, zeroed

__all__ = ["Mlp"]


class Mlp(nn.Module):
    """(B, entries) to (B, out) through `depth` residual blocks of `width` numbers; `embedding` tells time and condition."""

    def __init__(self, entries: int, out: int, width: int, depth: int, embedding: Embedding | None):
        super().__init__()
        self.embedding = embedding
        self.first = nn.Linear(entries, width)
        self.blocks = nn.ModuleList(Residual(0, width, embedding=width if embedding else 0) for _ in range(depth))
        self.norm, self.last = norm(width), zeroed(nn.Linear(width, out))

    def forward(self, x: Tensor, t: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        e = None if self.embedding is None else self.embedding(t, y, len(x))
        h = through(self.blocks, self.first(x), e)
        return self.last(F.silu(self.norm(h)))
