"""The parts of a transformer encoder whose tensors lie in a file under their published names."""

from torch import Tensor
from torch.nn import functional as F

from ._weights import Weights

__all__ = ["Encoder"]


class Encoder:
    """Maps of a network of `width` numbers and `heads`, by the names of their tensors, of which all begin with `start`."""

    def __init__(self, weights: Weights, start: str, width: int, heads: int, epsilon: float):
        self.weights, self.start, self.width, self.heads, self.epsilon = weights, start, width, heads, epsilon

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of the file. Raises CorruptStore CKPT_SHAPE."""
        return self.weights.take(self.start + name, *shape)

    def linear(self, place: str, x: Tensor, into: int, out: int) -> Tensor:
        """(..., into) to (..., out)."""
        return F.linear(x, self.take(f"{place}.weight", out, into), self.take(f"{place}.bias", out))

    def norm(self, place: str, x: Tensor) -> Tensor:
        """Layer norm of (..., width)."""
        scale, shift = (self.take(f"{place}.{name}", self.width) for name in ("weight", "bias"))
        return F.layer_norm(x, (self.width,), scale, shift, self.epsilon)

    def attended(self, place: str, x: Tensor, there: Tensor | None = None) -> Tensor:
        """Attention of x (B, L, width) to itself, before its output's map; there: (B, 1, 1, L), which may be looked at."""
        Q, K, V = (self.linear(f"{place}.{name}", x, self.width, self.width).unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for name in ("query", "key", "value"))
        return F.scaled_dot_product_attention(Q, K, V, attn_mask=there).transpose(1, 2).flatten(2)
