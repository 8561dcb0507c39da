"""One process or many, one device, behind one set of verbs: the only room that knows ranks and devices.

Started alone, a program is rank 0 of 1 and every verb is the identity or a plain call. Started by `torchrun`, the same program
runs once a rank over PyTorch's process groups: sums of statistics are one all-reduce of one float64 vector, with the same bits
on every rank, so that all take the same decisions without asking each other; networks that learn by gradient are wrapped in
DistributedDataParallel (Li et al., VLDB 2020), or sharded by FSDP2's `fully_shard` where they are large.

Networks are wrapped, never the family: the hooks fire on a network's `forward`, and `loss` is a plain method.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as processes
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ..errors import BadConfig, near, printable
from ..spaces import Batch

__all__ = ["PRECISIONS", "Engine"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Engine:
    """This process among its peers: number `rank` of `ranks`, on `device`. `Engine()` is a process on its own."""

    rank: int = 0
    ranks: int = 1
    device: str = "cpu"

    @classmethod
    def start(cls, device: str = "cpu") -> "Engine":
        """The engine of this process, from RANK and WORLD_SIZE as `torchrun` sets them; joins the group if there is one.
        device: "cpu", "cuda", or "auto" for CUDA where it is. Raises BadConfig SETTING_RANGE where it is not to be had."""
        rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device not in ("auto", "cpu", "cuda"):
            raise BadConfig("SETTING_RANGE", f"'device' is {printable(device)!r}.", near(device, ("auto", "cpu", "cuda")))
        if device == "cuda" and not torch.cuda.is_available():
            raise BadConfig("SETTING_RANGE", "'device' is 'cuda', and PyTorch finds no such GPU here.",
                            "Use cpu or auto, or install a build of PyTorch for the GPU.")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            torch.cuda.set_device(device)
        if ranks > 1:
            backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
            store, *_ = next(rendezvous("env://", rank, ranks))
            # torchrun may keep one store over restarts, and in it the addresses of processes that are no more
            store = processes.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            processes.init_process_group(backend, store=store, rank=rank, world_size=ranks)
        return cls(rank, ranks, device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that starts models and writes files."""
        return self.rank == 0

    def sum(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the same names and shapes summed over the ranks, in float64: one all-reduce for all of them."""
        if self.ranks == 1:
            return parts
        vector = torch.cat([parts[name].detach().double().reshape(-1) for name in sorted(parts)])
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

    def tell(self, said: Callable[[], Any]) -> Any:
        """What the first rank says, a value that JSON can hold, on every rank; only the first is asked."""
        if self.ranks == 1:
            return said()
        letters = torch.tensor(list(json.dumps(said()).encode() if self.first else b""), dtype=torch.uint8)
        length = self.share({"length": torch.tensor(len(letters))})["length"]
        letters = letters if self.first else letters.new_zeros(int(length))
        return json.loads(bytes(self.share({"letters": letters})["letters"].tolist()))

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

    def wrap(self, networks: nn.ModuleDict, sharded: bool = False) -> None:
        """Makes every network's gradients those of all ranks together, from the first rank's weights."""
        if self.ranks == 1:
            return
        for name, network in networks.items():
            for tensor in (*network.parameters(), *network.buffers()):
                processes.broadcast(tensor.detach(), src=0)
            if sharded:
                from torch.distributed.fsdp import fully_shard
                for block in _blocks(network):
                    fully_shard(block)
                fully_shard(network)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # newer versions have another name for broadcast_buffers
                    networks[name] = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def unwrap(self, networks: nn.ModuleDict) -> None:
        """Undoes `wrap` for networks that were not sharded."""
        for name, network in networks.items():
            if isinstance(network, DistributedDataParallel):
                networks[name] = network.module

    def named(self, networks: nn.ModuleDict) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters by the names that they have without wrapping."""
        for name, network in networks.items():
            inner = network.module if isinstance(network, DistributedDataParallel) else network
            for own, parameter in inner.named_parameters():
                yield f"{name}.{own}", parameter

    def placed(self, batch: Batch) -> Batch:
        """A batch on this process's device."""
        if self.device == "cpu":
            return batch
        condition = None if batch.condition is None else batch.condition.to(self.device, non_blocking=True)
        x, units = batch.x.to(self.device, non_blocking=True), batch.units.to(self.device, non_blocking=True)
        return Batch(x, condition, units, batch.index, None if batch.noise is None else batch.noise.to(self.device))

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        """Where products are taken in bf16 or fp16; nothing for fp32."""
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.partition(":")[0], PRECISIONS[precision])

    @contextlib.contextmanager
    def synced(self, networks: nn.ModuleDict, learning: Iterable[str], last: bool) -> Iterator[None]:
        """Where gradients reach only networks that learn now, and are summed over ranks at the last round of a step."""
        learning = set(learning) or set(networks)
        with contextlib.ExitStack() as quiet:
            for name, network in networks.items():
                if name not in learning:
                    network.requires_grad_(False)
                    quiet.callback(network.requires_grad_)
            if self.ranks == 1:
                yield
                return
            for name, network in networks.items():
                wait = not last or name not in learning
                if isinstance(network, DistributedDataParallel):
                    if wait:
                        quiet.enter_context(network.no_sync())
                else:
                    sharded: Any = network
                    sharded.set_requires_gradient_sync(not wait)
            yield

    def norm(self, parameters: list[nn.Parameter]) -> Tensor:
        """The norm of the gradient over all parameters, ()."""
        norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
        total = torch.linalg.vector_norm(torch.stack(norms))
        return self.whole(total)

    def clip(self, parameters: list[nn.Parameter], share: float) -> None:
        """Shortens the gradient to a share of its length."""
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], share)

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor, put together where it is sharded over the ranks."""
        return tensor.full_tensor() if isinstance(tensor, _sharded()) else tensor

    def part(self, tensor: Tensor, like: Tensor) -> Tensor:
        """The inverse of `whole`: what of a tensor belongs on this rank, placed and laid out as `like` is; always a copy."""
        if isinstance(like, _sharded()):
            from torch.distributed.tensor import distribute_tensor
            return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
        return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor)

    def set(self, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """Sets tensors by name to whole values."""
        with torch.no_grad():
            for name in sorted(values):  # sharding sends, so the order is the same on every rank
                tensors[name].copy_(self.part(values[name], tensors[name]))

    def close(self) -> None:
        """Leaves the group; the process is then on its own."""
        if self.ranks > 1:
            processes.destroy_process_group()


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks in lists of a network, which are gathered one at a time where weights are shared out."""
    blocks = [block for each in network.modules() if isinstance(each, nn.ModuleList) for block in each]
    return [block for block in blocks if type(block).forward is not nn.Module.forward]


def _sharded() -> Any:
    from torch.distributed.tensor import DTensor
    return DTensor


def _unpacked(vector: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    names = sorted(like)
    pieces = vector.split([like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}
