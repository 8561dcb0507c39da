"""What a loop adds to a step: this library's against a bare PyTorch loop, HF Accelerate and Lightning Fabric.

    python benchmarks/loop.py

A network of two layers (32-64-1), batches of 32 in memory, AdamW (fused), microseconds a step. Ours has in it: setting up,
guard, gradient norm, average of the weights, rate schedule, reseeding at every step, reports each second, and where it says
"saving" checkpoints. It has not: draws from the records' own streams of random numbers, for this loss draws none, nor a
journal's file. The larger network (512-2048-512) shows what is left of that where a step does work. Results:
benchmarks/results/loop.jsonl.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from timing import host, interleaved, write
from verossim.config import knob
from verossim.families import LearnsByGradient, Losses
from verossim.spaces import Batch, Continuous
from verossim.training import Checkpoints, InMemory, Settled, train

RECORDS = 32
SIZES = {"tiny": (32, 64, 1), "larger": (512, 2048, 512)}


def network(size: str) -> nn.Module:
    """Two layers."""
    a, b, c = SIZES[size]
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))


class Regression(LearnsByGradient):
    """y from x, where a record is (x, y)."""

    accepts, likelihood = (Continuous,), "none"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: str = knob("tiny", "which network")

    def __init__(self, config: Any, space: Any, condition: Any = None):
        super().__init__(config, space, condition)
        self.networks = nn.ModuleDict({"net": network(config.size)})

    def loss(self, batch: Batch, turn: Any) -> Losses:
        """Squared error."""
        x, y = batch.x.split((SIZES[self.config.size][0], SIZES[self.config.size][2]), dim=1)
        return Losses(mse_loss(self.networks["net"](x), y, reduction="none").mean(dim=1))

    def unfold(self, noise: Any, condition: Any = None, **knobs: Any) -> Iterator[Tensor]:
        """Nothing: it is the loop that is asked here."""
        yield from ()

    log_prob = complete = unfold


def bare(size: str, batches: list[Tensor]) -> Any:
    """A plain loop, with the same clipping of the gradient."""
    net = network(size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    first = SIZES[size][0]

    def run() -> None:
        for record in batches:
            x, y = record[:, :first], record[:, first:]
            optimizer.zero_grad(set_to_none=True)
            mse_loss(net(x), y).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
    return run


def accelerate(size: str, batches: list[Tensor]) -> Any:
    """The same through Accelerator."""
    from accelerate import Accelerator
    held = Accelerator(cpu=True)
    net = network(size)
    net, optimizer = held.prepare(net, torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True))
    first = SIZES[size][0]

    def run() -> None:
        for record in batches:
            x, y = record[:, :first], record[:, first:]
            optimizer.zero_grad(set_to_none=True)
            held.backward(mse_loss(net(x), y))
            held.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
    return run


def fabric(size: str, batches: list[Tensor]) -> Any:
    """The same through Fabric."""
    from lightning_fabric import Fabric
    held = Fabric(accelerator="cpu", devices=1)
    net = network(size)
    net, optimizer = held.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True))
    first = SIZES[size][0]

    def run() -> None:
        for record in batches:
            x, y = record[:, :first], record[:, first:]
            optimizer.zero_grad(set_to_none=True)
            held.backward(mse_loss(net(x), y))
            held.clip_gradients(net, optimizer, max_norm=1.0)
            optimizer.step()
    return run


def ours(size: str, batches: list[Tensor], checkpointed: bool) -> Any:
    """The library's loop over the same batches; its own time for setting up is part of it."""
    given = [Batch(x, None, torch.ones(len(x)), torch.arange(len(x))) for x in batches]
    space = Continuous(shape=(batches[0].shape[1],), axes=("number",))
    config = Settled(samples=RECORDS * len(batches), batch=RECORDS, rate=1e-3)

    def run() -> None:
        family = Regression(Regression.Config(size=size), space)
        with tempfile.TemporaryDirectory() as folder:
            train(family, lambda samples: iter(given), config, data=InMemory(given[0]),
                  checkpoints=Checkpoints(folder) if checkpointed else None)
    return run


def main() -> None:
    """Times all of them in one interleaved run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    about = host("accelerate", "lightning-fabric")
    print(json.dumps(about))
    for size, (a, _, c) in SIZES.items():
        steps = asked.steps if size == "tiny" else asked.steps // 4
        batches = [torch.randn(RECORDS, a + c) for _ in range(steps)]
        functions = {"bare": bare(size, batches), "ours": ours(size, batches, False), "ours, saving": ours(size, batches, True)}
        peers = (("accelerate", accelerate, "accelerate"), ("fabric", fabric, "lightning_fabric"))
        functions |= {name: make(size, batches) for name, make, module in peers if importlib.util.find_spec(module)}
        with contextlib.redirect_stdout(io.StringIO()):
            found = interleaved(functions, asked.rounds)
        plain = found["bare"]["seconds"] / steps * 1e6
        for name, times in found.items():
            microseconds = times["seconds"] / steps * 1e6
            added, ratio = microseconds - plain, microseconds / plain
            print(f"{size:8}{name:14}{microseconds:10.0f} us a step   {added:+8.0f} us   {ratio:6.2f}x")
            write("loop.jsonl", size=size, who=name, microseconds=microseconds, added=added, ratio=ratio, **about)


if __name__ == "__main__":
    main()
