"""Which network serves which space: the one table.

| space | network |
|---|---|
| vector (entries) | mlp |
| channels and one to three axes, none longer than 64 | unet |
| channels and one to three axes, longer | transformer over patches |
"""

from torch import nn

from ..spaces import Continuous, Space
from .conditioning import Embedding
from .mlp import Mlp
from .transformer import PatchTransformer
from .unet import UNet

__all__ = ["KINDS", "backbone"]

KINDS = ("auto", "mlp", "unet", "transformer")
UNET_LONGEST = 64
PLACES = 256  # patches along all axes together, about


def backbone(space: Continuous, *, width: int, depth: int, condition: Space | None = None, timed: bool = False,
             channels_in: int | None = None, channels_out: int | None = None, kind: str = "auto") -> nn.Module:
    """A network for x (B, *event) of the space: forward(x, t=None, y=None) -> (B, channels_out, *axes).

    timed : whether it is told a time t (B,) of about unit scale. condition : the space of y, which may be None in a call.
    channels : of input and output, those of the space where None (of a vector, its entries). Its output is zero at the start.
    """
    rank, given = len(space.shape), space.shape[0]
    channels, out, axes = channels_in or given, channels_out or given, space.shape[1:]
    if kind == "auto":
        kind = "mlp" if rank == 1 else "unet" if max(axes) <= UNET_LONGEST else "transformer"
    wide = width if kind != "unet" else 4 * width
    embedding = Embedding(wide, condition, timed) if timed or condition is not None else None
    if kind == "mlp":
        return Mlp(channels, out, width, depth, embedding)
    if kind == "unet":
        return UNet(channels, out, axes, width, depth, embedding)
    return PatchTransformer(channels, out, axes, width, depth, embedding, _patch(axes))


def _patch(axes: tuple[int, ...]) -> int:
    """The shortest patch, a power of two, that leaves no more than PLACES of them."""
    patch = 1
    while _places(axes, patch) > PLACES:
        patch *= 2
    return patch


def _places(axes: tuple[int, ...], patch: int) -> int:
    count = 1
    for length in axes:
        count *= -(-length // patch)
    return count
