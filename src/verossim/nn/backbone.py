"""Which network serves which space: the one table.

| space | network |
|---|---|
| vector (entries) | mlp |
| channels and one to three axes, none longer than 64 | unet |
| channels and longer axes, or more of them | transformer over patches |
"""

import math

from torch import nn

from ..errors import BadConfig
from ..spaces import Continuous, Space
from .conditioning import Embedding
from .mlp import Mlp
from .transformer import PatchTransformer
from .unet import UNet

__all__ = ["KINDS", "backbone", "kind_of"]

KINDS = ("auto", "mlp", "unet", "transformer")
UNET_LONGEST = 64
UNET_AXES = 3
PLACES = 256  # patches along all axes together, about


def backbone(space: Continuous, *, width: int, depth: int, condition: Space | None = None, timed: bool = False,
             channels_in: int | None = None, channels_out: int | None = None, kind: str = "auto") -> nn.Module:
    """A network for x (B, *event) of the space: forward(x, t=None, y=None) -> (B, channels_out, *axes).

    timed : whether it is told a time t (B,) of about unit scale. condition : the space of y, which may be None in a call.
    channels : of input and output, those of the space where None (of a vector, its entries). Its output is zero at the start.
    kind : one of KINDS. Raises BadConfig SETTING_RANGE where it does not serve the space.
    """
    given, *rest = space.shape
    channels, out, axes = channels_in or given, channels_out or given, tuple(rest)
    kind = kind_of(space) if kind == "auto" else _checked(kind, axes)
    embedding = None
    if timed or condition is not None:
        embedding = Embedding(4 * width if kind == "unet" else width, condition, timed)
    if kind == "mlp":
        return Mlp(channels, out, width, depth, embedding)
    if kind == "unet":
        return UNet(channels, out, axes, width, depth, embedding)
    return PatchTransformer(channels, out, axes, width, depth, embedding, _patch(axes))


def kind_of(space: Continuous) -> str:
    """What "auto" stands for: the line of the table above."""
    axes = space.shape[1:]
    if not axes:
        return "mlp"
    return "unet" if len(axes) <= UNET_AXES and max(axes) <= UNET_LONGEST else "transformer"


def _checked(kind: str, axes: tuple[int, ...]) -> str:
    serves = ("mlp",) if not axes else ("unet", "transformer") if len(axes) <= UNET_AXES else ("transformer",)
    if kind in serves:
        return kind
    event = f"channels and {len(axes)} axes" if axes else "vectors"
    raise BadConfig("SETTING_RANGE", f"'network' is {kind!r}, which is not for {event}.",
                    f"Use auto, or {' or '.join(serves)}.")


def _patch(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shortest patches that leave no more than PLACES of them: a power of two along each axis, or all of a shorter one."""
    length = 1
    while math.prod(-(-axis // length) for axis in axes) > PLACES:
        length *= 2
    return tuple(min(length, axis) for axis in axes)
