"""One process or many, behind one set of verbs: the only room that knows ranks.

Started alone, a program is rank 0 of 1 and every verb is the identity. Started by `torchrun`, the same program runs once a
rank over PyTorch's gloo backend; sums of statistics are then one all-reduce of one float64 vector, whose result is the same
bits on every rank, so that all ranks take the same decisions without asking each other.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as processes
from torch import Tensor

__all__ = ["Engine"]


@dataclass(frozen=True)
class Engine:
    """This process among its peers: number `rank` of `ranks`. `Engine()` is a process on its own."""

    rank: int = 0
    ranks: int = 1

    @classmethod
    def start(cls) -> "Engine":
        """The engine of this process, from RANK and WORLD_SIZE as `torchrun` sets them; joins the group if there is one."""
        rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if ranks > 1:
            processes.init_process_group("gloo", rank=rank, world_size=ranks)
        return cls(rank, ranks)

    @property
    def first(self) -> bool:
        """Whether this process is the one that starts models and writes files."""
        return self.rank == 0

    def sum(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the same names and shapes summed over the ranks, in float64: one all-reduce for all of them."""
        if self.ranks == 1:
            return parts
        vector = torch.cat([parts[name].double().reshape(-1) for name in sorted(parts)])
        processes.all_reduce(vector)
        return _unpacked(vector, parts)

    def share(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first rank's tensors, on every rank; names, shapes and dtypes are the same everywhere."""
        if self.ranks == 1:
            return parts
        shared = {name: parts[name].detach().clone().contiguous() for name in sorted(parts)}
        for tensor in shared.values():
            processes.broadcast(tensor, src=0)
        return shared

    def gather(self, part: Tensor) -> Tensor:
        """The ranks' rows (B_rank, *event), one after the other in order of rank, on every rank; B may differ."""
        if self.ranks == 1:
            return part
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.ranks)]
        processes.all_gather(lengths, torch.tensor(len(part)))
        longest = int(max(lengths))
        padded = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
        pieces = [torch.empty_like(padded) for _ in range(self.ranks)]
        processes.all_gather(pieces, padded)
        return torch.cat([piece[:int(length)] for piece, length in zip(pieces, lengths, strict=True)])

    def close(self) -> None:
        """Leaves the group; the process is then on its own."""
        if self.ranks > 1:
            processes.destroy_process_group()


def _unpacked(vector: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    names = sorted(like)
    pieces = vector.split([like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}
