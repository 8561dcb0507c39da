"""Convolutions at whose end lengths are halved, or at whose beginning they are doubled, and gradients that are learned from.

Means over pairs are part of a longer kernel that goes in steps of two, and repetition is the transpose of such a one:

    pooled(k * x) = K *_2 x,      k * unpooled(x) = 2^rank K~ *_2^T x,      K = k * (1/2, 1/2) along each axis, K~ turned around

which is 2/3 of the multiplications along each axis, and every other step is done with half the lengths. `reference` says what
`lowered` and `raised` come to.

Where a loss has the gradient of a network in it, as gradient penalties have, the gradient of a convolution is differentiated
once more. PyTorch gets at that of the kernel by a convolution whose kernel is as large as the record, which no library is made
for. Here the gradient with respect to x is written as a transposed convolution, whose gradients are ordinary ones.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import pooled, unpooled

__all__ = ["convolved", "lowered", "raised", "reference"]

PLAIN = {1: F.conv1d, 2: F.conv2d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}


def reference(layer: nn.Module, x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """What `lowered`, or where axes are given `raised`, comes to."""
    return pooled(layer(x)) if axes is None else layer(unpooled(x, axes))


def convolved(layer: Any, x: Tensor) -> Tensor:
    """layer(x), of a convolution or of any other layer."""
    return _convolved(x, layer.weight, layer.bias, layer.stride[0]) if _quick(layer) else layer(x)


def lowered(layer: Any, x: Tensor) -> Tensor:
    """pooled(layer(x)) for a convolution of kernel 3."""
    if not _quick(layer) or any(length % 2 for length in x.shape[2:]):
        return reference(layer, x)
    return _convolved(x, _doubled(layer.weight), layer.bias, 2)


def raised(layer: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """layer(unpooled(x, axes)) for a convolution of kernel 3."""
    if not _quick(layer) or any(2 * half != length for half, length in zip(x.shape[2:], axes, strict=True)):
        return reference(layer, x, axes)
    kernel = _doubled(layer.weight, turned=True).transpose(0, 1)
    return TRANSPOSED[x.ndim - 2](x, kernel, layer.bias, stride=2, padding=1)


def _quick(layer: Any) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d)


def _doubled(kernel: Tensor, turned: bool = False) -> Tensor:
    """K (out, in, *4) of a kernel (out, in, *3), or 2^rank K~; in the memory format of channels last."""
    rank = kernel.ndim - 2
    pairs = torch.eye(3, 4) + torch.eye(3, 4).roll(1, 1)
    pairs = (pairs.flip(1) if turned else pairs / 2).to(kernel)
    matrix = pairs.T if rank == 1 else torch.kron(pairs, pairs).T
    return (matrix @ kernel.movedim(1, -1).flatten(1, -2)).unflatten(1, (4,) * rank).movedim(-1, 1)


def _convolved(x: Tensor, kernel: Tensor, bias: Tensor | None, step: int) -> Tensor:
    rank, reach = x.ndim - 2, (kernel.shape[2] - step) // 2
    if not x.requires_grad or not torch.is_grad_enabled():
        return PLAIN[rank](x, kernel, bias, stride=step, padding=reach)
    return _Slope.apply(PLAIN[rank](x.detach(), kernel, bias, stride=step, padding=reach), x, kernel, step, reach)


class _Slope(torch.autograd.Function):
    """y = kernel * x, of which the gradient with respect to x is a transposed convolution. That of the kernel is left to y, so
    that nobody computes it where only the other is asked for."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, kernel: Tensor, step: int, reach: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.step, ctx.reach, ctx.kind = step, reach, x.dtype
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        g, (kernel,) = gradients[0], ctx.saved_tensors
        back = TRANSPOSED[g.ndim - 2](g, kernel.to(g.dtype), stride=ctx.step, padding=ctx.reach)
        return g, back.to(ctx.kind), None, None, None
