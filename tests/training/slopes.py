"""A family learned by gradient that is small enough for tests: y = f(x) by a network of two layers, with noise in its loss."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from verossim.config import knob
from verossim.families import LearnsByGradient, Losses, Turn
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Likelihood
from verossim.training import InMemory, Settled

SPACE = Continuous(shape=(4,), axes=("number",))


class Denoiser(LearnsByGradient):
    """Learns x from x + noise; its likelihood is that of a standard normal, which nobody here asks for."""

    accepts, likelihood = (Continuous,), "exact"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = knob(16, "numbers inside", low=1, high=4096)

    def __init__(self, config, space=SPACE, condition=None):
        super().__init__(config, space, condition)
        self.networks = nn.ModuleDict({"net": nn.Sequential(
            nn.Linear(space.dims, config.width), nn.Tanh(), nn.Linear(config.width, space.dims))})
        self.register_buffer("middle", torch.zeros(space.dims))
        self.poison = None  # called with the batch's index; a loss of NaN where it says so

    def start(self, batch: Batch, noise: Noise) -> None:
        self.middle.copy_(batch.x.mean(dim=0))

    def loss(self, batch: Batch, turn: Turn) -> Losses:
        x = batch.x - self.middle
        made = self.networks["net"](x + 0.1 * batch.noise.normal(x.shape[1]))
        error = (made - x).square().mean(dim=1)
        if self.poison is not None and self.poison(batch):
            error = error * float("nan")
        return Losses(error, {"nats": error.detach()})

    def unfold(self, noise, condition=None, **knobs):
        yield self.networks["net"](noise.normal(self.space.dims))

    def log_prob(self, x: Tensor, condition=None, noise=None, method=None) -> Likelihood:
        return Likelihood(-0.5 * x.square().sum(dim=1), "exact", self.space.coordinates)

    def complete(self, x, condition=None, noise=None):
        return x.nan_to_num()


def numbers(count: int = 500) -> InMemory:
    """Records that differ in size from one another."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.2, 2, 4)
    return InMemory(Batch(x, None, torch.ones(count), torch.arange(count)))


def stream(data: InMemory, batch: int, rank: int = 0, ranks: int = 1):
    """This rank's share of every batch, from any number of records seen on, as the loader gives them."""
    def batches(samples: int) -> Iterator[Batch]:
        while True:
            low, high = samples + rank * batch // ranks, samples + (rank + 1) * batch // ranks
            yield data.take(torch.arange(low, high) % len(data))
            samples += batch
    return batches


def settled(**settings) -> Settled:
    """Settings with nothing left open."""
    return replace(Settled(samples=3200, batch=32, rate=1e-3), **settings)
