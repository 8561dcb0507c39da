"""The entries of a flat event, by what they are: numbers, or one-hot blocks of categories; and the units they are worked in.

Numbers that stand for cells (whole numbers, 8-bit values) have a width delta; their grid of values is anchor + n delta.
Extreme units are taken out first by powers of two, which rounds nothing: x' = x / 2^e has neither overflow nor underflow
in its squares.
"""

import torch
from torch import Tensor

from ...errors import Incompatible
from ...spaces import Continuous, Space

__all__ = ["Entries", "fitting_scale"]

TAME = 2.0 ** 16  # spreads within [1 / TAME, TAME] are left as they are: their squares are far from any limit


class Entries:
    """Where the D numbers and the S one-hot entries lie in the flat event of a space.

    numbers (D,), onehots (S,) positions; blocks: (first, last) of each category within the S one-hot entries;
    cells (D,) float64 width of each number's cell, 0 where it is real.
    """

    def __init__(self, space: Space):
        if not isinstance(space, Continuous):
            raise Incompatible("SPACE", f"A mixture learns Continuous spaces, not {type(space).__name__}.")
        taken = [position for first, last in space.simplexes for position in range(first, last)]
        self.shape, self.dims, self.levels = space.shape, space.dims, space.levels
        self.onehots = torch.tensor(taken, dtype=torch.int64)
        self.numbers = torch.tensor(sorted(set(range(space.dims)) - set(taken)), dtype=torch.int64)
        lengths = [last - first for first, last in space.simplexes]
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        self.blocks = tuple((start, start + length) for start, length in zip(starts, lengths, strict=True))
        self.cells = space.cells()[self.numbers]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Events (B, *event) as numbers (B, D) and one-hot entries (B, S), or None where there are none."""
        flat = x.reshape(len(x), self.dims)
        return (flat[:, self.numbers], flat[:, self.onehots]) if len(self.onehots) else (flat, None)

    def join(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """The events (B, *event) that `split` would take apart into these."""
        if onehots is None:
            return numbers.reshape(len(numbers), *self.shape)
        flat = numbers.new_empty(len(numbers), self.dims)
        flat[:, self.numbers], flat[:, self.onehots] = numbers, onehots.to(numbers.dtype)
        return flat.reshape(len(numbers), *self.shape)

    def missing(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """Which numbers and which blocks are unknown, (B, D + blocks) bool; a block is unknown as a whole."""
        unknown = [numbers.isnan()]
        if onehots is not None:
            unknown += [onehots[:, first:last].isnan().any(dim=1, keepdim=True) for first, last in self.blocks]
        return torch.cat(unknown, dim=1)

    def known(self, unknown: Tensor) -> Tensor:
        """Which one-hot entries are not in the blocks of `unknown` (blocks,) bool; (S,) bool."""
        lengths = torch.tensor([last - first for first, last in self.blocks], dtype=torch.int64)
        return (~unknown).repeat_interleave(lengths)

    def gridded(self, numbers: Tensor, anchor: Tensor) -> Tensor:
        """Numbers (B, D), those that stand for cells moved to the middle of their cell, in place; levels stay in [-1, 1]."""
        gridded = self.cells > 0
        if not gridded.any():
            return numbers
        cells = torch.where(gridded, self.cells, 1.0).to(numbers.dtype)
        anchor = anchor.to(numbers.dtype)
        nearest = ((numbers - anchor) / cells).round_().mul_(cells).add_(anchor)
        if self.levels:
            nearest.clamp_(-1 + 1 / self.levels, 1 - 1 / self.levels)
        return nearest if gridded.all() else torch.where(gridded, nearest, numbers)

    def one_hot(self, chosen: list[Tensor], dtype: torch.dtype) -> Tensor | None:
        """One-hot entries (B, S) of the category chosen in each block, each (B,) int64; None where there are no blocks."""
        if not self.blocks:
            return None
        return torch.cat([torch.nn.functional.one_hot(which, last - first) for which, (first, last)
                          in zip(chosen, self.blocks, strict=True)], dim=1).to(dtype)


def fitting_scale(middle: Tensor, spread: Tensor) -> Tensor:
    """A power of two for each number, (D,): 1 where its standard deviation `spread` is tame, else the one nearest to it.

    Where the spread vanishes beside the value in the `middle`, that value sets the scale.
    """
    size = torch.where(spread > 1e-6 * middle.abs(), spread, middle.abs())
    wild = (size > 0) & ((size > TAME) | (size < 1 / TAME))
    exponent = torch.where(wild, size, 1.0).log2().round().clamp(-1000, 1000)
    return torch.exp2(exponent)
