"""A family small enough to check by hand: K normals on the line, and the data that it is learned from in the tests."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verossim.config import knob
from verossim.families import LearnsByStatistics
from verossim.spaces import Batch, Continuous, Likelihood
from verossim.training import InMemory

LINE = Continuous(shape=(1,), axes=("column",))


class Normals(LearnsByStatistics):
    """p(x) = sum_k w_k N(x; m_k, s_k^2), learned by maximum likelihood."""

    accepts, likelihood = (Continuous,), "exact"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        components: int | str = knob(2, "number of normals", low=1, high=100, choices=("auto",))
        covariance: str = knob("free", "one standard deviation each, or one for all", choices=("free", "shared", "auto"))
        precision: str = knob("auto", "a setting whose \"auto\" is not for selection", choices=("auto", "high"))

    def __init__(self, config, space=LINE, condition=None):
        super().__init__(config, space, condition)
        K = config.components
        self.register_buffer("w", torch.full((K,), 1 / K, dtype=torch.float64))
        self.register_buffer("m", torch.zeros(K, dtype=torch.float64))
        self.register_buffer("s", torch.ones(K, dtype=torch.float64))

    @classmethod
    def shapes(cls, config, space):
        words = ("free", "shared") if config.covariance == "auto" else (config.covariance,)
        return [replace(config, covariance=word) for word in words]

    def start(self, batch: Batch, noise) -> None:
        K = len(self.w)
        x = batch.x[:, 0].sort().values  # one record at random from each K-th part of the sorted line
        self.m.copy_(torch.stack([part[noise.uniform()[0].mul(len(part)).long()] for part in x.tensor_split(K)]))
        self.s.fill_(float(batch.x.std()) / K + 1e-3)
        self.w.fill_(1 / K)

    def joint(self, x: Tensor) -> Tensor:
        z = (x.double() - self.m) / self.s
        return self.w.log() - 0.5 * z ** 2 - self.s.log() - 0.5 * math.log(2 * math.pi)

    def statistics(self, batch: Batch) -> dict[str, Tensor]:
        joint = self.joint(batch.x)
        log_p = joint.logsumexp(1)
        r = (joint - log_p[:, None]).exp() * batch.units[:, None]
        x = batch.x.double()
        return {"n": r.sum(0), "x": (r * x).sum(0), "xx": (r * x ** 2).sum(0), "log_p": (log_p * batch.units).sum()}

    def absorb(self, statistics: dict[str, Tensor]) -> float:
        n, total = statistics["n"].clamp(min=1e-9), statistics["n"].sum()
        self.m.copy_(statistics["x"] / n)
        spread = (statistics["xx"] / n - self.m ** 2).clamp(min=1e-6)
        self.s.copy_((spread if self.config.covariance == "free" else (n * spread).sum() / total).sqrt())
        self.w.copy_(n / total)
        return float(statistics["log_p"] / total)

    def coordinates(self) -> Tensor:
        return torch.cat([self.w.log(), self.m, self.s.log()])

    def move(self, coordinates: Tensor) -> None:
        w, m, s = coordinates.chunk(3)
        self.w.copy_(w.softmax(0))
        self.m.copy_(m)
        self.s.copy_(s.exp())

    def assign(self, batch: Batch) -> Tensor:
        return self.joint(batch.x).softmax(1)

    @property
    def freedom(self) -> int:
        return 2 * len(self.w) - 1 + (len(self.w) if self.config.covariance == "free" else 1)

    def log_prob(self, x, condition=None, noise=None) -> Likelihood:
        return Likelihood(self.joint(x).logsumexp(1), "exact", 1)

    def unfold(self, noise, condition=None, **knobs):
        k = torch.searchsorted(self.w.cumsum(0), noise.uniform(dtype=torch.float64)).clamp(max=len(self.w) - 1)
        yield (self.m[k] + self.s[k] * noise.normal(1, dtype=torch.float64)[:, 0])[:, None]

    def complete(self, x, condition=None, noise=None):
        return torch.where(x.isnan(), self.sample(noise) if noise is not None else self.w @ self.m, x)


def batch_of(x: Tensor, units: Tensor | None = None) -> Batch:
    units = torch.ones(len(x), dtype=torch.float64) if units is None else units
    return Batch(x, None, units, torch.arange(len(x)))


def line(records: int, centres=(-1.0, 1.0), seed: int = 0) -> InMemory:
    """Records of equally likely normals of standard deviation 1 around the centres; near centres overlap."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(centres), (records,), generator=generator)
    noise = torch.randn(records, generator=generator, dtype=torch.float64)
    return InMemory(batch_of((torch.tensor(centres, dtype=torch.float64)[which] + noise)[:, None]))
