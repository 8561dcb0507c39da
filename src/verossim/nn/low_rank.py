"""Low-rank adapters: a matrix that stands still learns by the product of two small ones beside it.

    h = W x + (alpha / r) B A x        A (r, in) normal at the start, B (out, r) zero, so that nothing is changed then

Hu et al., "LoRA: low-rank adaptation of large language models", arXiv:2106.09685, eq. 3. A matrix that is several in one, such
as those of queries, keys and values, has an A and a B for each. What stands still is in buffers that are no part of a module's
state: what is saved, what is kept of a run and what is given to an optimizer are the adapters alone.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .language import LanguageModel

__all__ = ["LowRank", "adapt", "stand_still", "still"]

HELD = "held"  # where a layer has the one that stands still


class LowRank(nn.Module):
    """A linear layer with adapters: (..., in) to (..., out). pieces : rows of the matrices that its own is made of, from above;
    scale : alpha / r. weight, bias : of the one linear layer that it amounts to."""

    def __init__(self, linear: nn.Linear, pieces: tuple[int, ...], rank: int, scale: float):
        super().__init__()
        self.held, self.pieces, self.rank, self.scale = linear, pieces, rank, scale
        self.in_features, self.out_features = linear.in_features, linear.out_features
        A = torch.empty(len(pieces) * rank, linear.in_features)
        self.lora_A = nn.Parameter(nn.init.normal_(A, std=linear.in_features ** -0.5))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        u = F.linear(x, self.lora_A).split(self.rank, dim=-1)
        told = [F.linear(each, B) for each, B in zip(u, self.lora_B.split(self.pieces), strict=True)]
        return self.held(x) + self.scale * torch.cat(told, dim=-1)

    @property
    def weight(self) -> Tensor:
        """W + scale B A, (out, in)."""
        return self.held.weight + self.scale * torch.cat([B @ A for A, B in self.pairs()])

    @property
    def bias(self) -> Tensor | None:
        """That of the layer that stands still."""
        return self.held.bias

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """A (r, in) and B (out, r) of each piece."""
        return zip(self.lora_A.split(self.rank), self.lora_B.split(self.pieces), strict=True)


def adapt(model: LanguageModel, rank: int, scale: float) -> None:
    """Gives adapters to the matrices of attention and MLP of every block; all else of the model stands still."""
    stand_still(model)
    shape = model.shape
    H, G, D = shape.heads, shape.groups, shape.head
    gated = (shape.inside,) * (2 if shape.activation == "swiglu" else 1)
    blocks: Any = model.blocks
    for block in blocks:
        block.attention.qkv = LowRank(block.attention.qkv, (H * D, G * D, G * D), rank, scale)
        block.attention.out = LowRank(block.attention.out, (shape.width,), rank, scale)
        block.mlp.inner = LowRank(block.mlp.inner, gated, rank, scale)
        block.mlp.out = LowRank(block.mlp.out, (shape.width,), rank, scale)


def stand_still(module: nn.Module) -> None:
    """Turns all parameters of a module into buffers that are no part of its state."""
    for each in module.modules():
        for name, parameter in [*each.named_parameters(recurse=False)]:
            delattr(each, name)
            each.register_buffer(name, parameter.detach(), persistent=False)


def still(module: nn.Module) -> dict[str, Tensor]:
    """What stands still, by the names that it has in a module without adapters."""
    return {name.replace(f".{HELD}.", "."): buffer for name, buffer in module.named_buffers()}
