"""The ladder: latents from the coarsest to the finest, each drawn given those above.

    p(z) = prod_l p(z_l | z_above)        q(z | x) = prod_l q(z_l | z_above, x)

Encoder features of x go up once; then both p and q come down the same path, q seeing the features beside it (Sønderby et al.,
"Ladder variational autoencoders", arXiv:1602.02282; Child, "Very deep VAEs", arXiv:2011.10650). At each level

    p = N(m, S^2)        q = N(m + S mu, (S s)^2)        KL(q | p) = sum 1/2 (s^2 + mu^2 - 1) - log s

so q is told in units of p (Vahdat and Kautz, "NVAE", arXiv:2007.03898), where a draw of p is a standard normal eps and nothing
is ever divided by S; at the top m = 0, S = 1. Every scale is bounded: |log s| < 5.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...nn.conditioning import Embedding
from ...nn.layers import Residual, conv, norm, pooled, through, unpooled, zeroed

__all__ = ["Descent", "Ladder", "MapLadder", "VectorLadder"]

REACH = 5.0  # of the logarithm of a scale
FAR = 1e6  # of a mean, in units of its prior


class Descent(NamedTuple):
    """One way down. parameters: of the head; units: each level's z in units of its prior, eps (B, *level). Where x was seen,
    means and log_scales: those of q, mu and log s; draws: (eps - mu) / s.

    It is a tuple, so that what is wrapped around a network to share it out over ranks can find the tensors in it.
    """

    parameters: Tensor
    units: list[Tensor]
    means: list[Tensor]
    log_scales: list[Tensor]
    draws: list[Tensor]

    def rates(self) -> Tensor:
        """KL(q | p) of each level, (B, L) nats."""
        levels = zip(self.means, self.log_scales, strict=True)
        rates = [(0.5 * ((2 * log_s).exp() + mu.square() - 1) - log_s).flatten(1).sum(dim=1) for mu, log_s in levels]
        return torch.stack(rates, dim=1)

    def log_ratio(self) -> Tensor:
        """log p(z) - log q(z | x), (B,) nats."""
        levels = zip(self.units, self.draws, self.log_scales, strict=True)
        ratios = [(0.5 * (u.square() - eps.square()) + log_s).flatten(1).sum(dim=1) for eps, u, log_s in levels]
        return torch.stack(ratios, dim=1).sum(dim=1)


class Rung(nn.Module):
    """One level: its prior (at the top `told`, by the condition alone, or none), its posterior, and how z enters the path."""

    def __init__(self, prior: nn.Module | None, posterior: nn.Module, enter: nn.Module, told: nn.Module | None = None):
        super().__init__()
        self.prior, self.posterior, self.enter, self.told = prior, posterior, enter, told


def normal(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log scale from a layer's output, along dimension 1; bounded, so that no square or exponential overflows."""
    mu, raw = numbers.chunk(2, dim=1)
    return mu.clamp(-FAR, FAR), REACH * torch.tanh(raw / REACH)


class Ladder(nn.Module, ABC):
    """What both ladders share: the way down. `levels` are the shapes of the latents, coarsest first."""

    levels: list[tuple[int, ...]]
    rungs: nn.ModuleList
    embedding: Embedding | None

    def forward(self, x: Tensor | None, y: Tensor | None, draws: Sequence[Tensor], given: bool = False) -> Descent:
        """The way down. x (B, *event) or None for the prior; draws: a tensor (B * k, *level) a level, k for each record side by
        side, standard normal, for draws of q (of p without x), or with `given` the eps of the latents themselves."""
        count = len(draws[0])
        k = count // len(x) if x is not None and len(x) else 1
        e = None if self.embedding is None else self.embedding(None, y, count // k)
        seen = None if x is None else [_each(h, k) for h in self.seen(x, e)]
        e = None if e is None else _each(e, k)
        h: Tensor | None = None
        units, means, log_scales, rests = [], [], [], []
        rung: Any
        for level, (rung, eps) in enumerate(zip(self.rungs, draws, strict=True)):
            h = self.before(level, h, e, count)
            if seen is not None:
                beside = seen[level] if h is None or rung.prior is None else torch.cat([h, seen[level]], dim=1)
                mu, log_s = normal(rung.posterior(beside).to(eps))
                u = (eps - mu) * (-log_s).exp() if given else eps
                eps = eps if given else mu + log_s.exp() * u
                means.append(mu)
                log_scales.append(log_s)
                rests.append(u)
            units.append(eps)
            own = rung.told(e).view(count, 2 * eps.shape[1], *eps.shape[2:]) if rung.told is not None else None
            own = own if rung.prior is None else rung.prior(h)
            entered = rung.enter(eps if own is None else _placed(own, eps))
            h = entered if h is None else h + entered
        assert h is not None
        return Descent(self.finish(h, e).to(eps), units, means, log_scales, rests)

    @abstractmethod
    def seen(self, x: Tensor, e: Tensor | None) -> list[Tensor]:
        """Features of x for each level, coarsest first."""

    @abstractmethod
    def before(self, level: int, h: Tensor | None, e: Tensor | None, count: int) -> Tensor | None:
        """The path on its way to a level; None at the top of a path that is nothing yet."""

    @abstractmethod
    def finish(self, h: Tensor, e: Tensor | None) -> Tensor:
        """The head's parameters from the end of the path."""


class VectorLadder(Ladder):
    """Over vectors; anything else is laid out as one. With one level and depth 1, one layer of ReLU each way."""

    def __init__(self, shape: tuple[int, ...], out_shape: tuple[int, ...], width: int, depth: int, levels: int, latent: int,
                 embedding: Embedding | None):
        super().__init__()
        self.out_shape, self.embedding = out_shape, embedding
        E = 0 if embedding is None else width
        entries, outputs = math.prod(shape), math.prod(out_shape)
        self.levels = [(latent,)] * levels
        self.first = nn.Linear(entries, width)
        self.told = nn.Linear(width, width, bias=False) if E else None
        self.up = nn.ModuleList(Residual(0, width, embedding=E) for _ in range(depth - 1))
        self.further = nn.ModuleList(nn.Linear(width, width) for _ in range(levels - 1))
        self.rungs = nn.ModuleList(Rung(nn.Sequential(nn.ReLU(), nn.Linear(width, 2 * latent)) if level else None,
                                        nn.Linear(width * (2 if level else 1), 2 * latent), nn.Linear(latent, width),
                                        zeroed(nn.Linear(E, 2 * latent)) if E and not level else None)
                                   for level in range(levels))
        self.start = nn.Linear(width, width, bias=False) if E else None
        self.down = nn.ModuleList(nn.ModuleList(Residual(0, width, embedding=E) for _ in range(depth - 1))
                                  for _ in range(levels))
        self.last = nn.Linear(width, outputs)

    def seen(self, x: Tensor, e: Tensor | None) -> list[Tensor]:
        """Features (B, width), through one layer more for each level above the finest."""
        h = self.first(x.flatten(1))
        h = h if self.told is None else h + self.told(e)
        h = F.relu(through(self.up, h, e))
        found = [h]
        for layer in self.further:
            found.append(F.relu(layer(found[-1])))
        return found[::-1]

    def before(self, level: int, h: Tensor | None, e: Tensor | None, count: int) -> Tensor | None:
        """The residual blocks of the level above."""
        if h is None:
            return None if self.start is None else self.start(e)
        return through(self.down[level - 1], h, e)

    def finish(self, h: Tensor, e: Tensor | None) -> Tensor:
        """Parameters (B, *out_shape)."""
        h = through(self.down[-1], h, e)
        return self.last(F.relu(h)).view(len(h), *self.out_shape)


class MapLadder(Ladder):
    """Over channels and one to three axes, by residual convolutions. The first level lies at the coarsest resolution, each
    further one at twice the lengths, and several at the finest where there are more levels than resolutions."""

    def __init__(self, shape: tuple[int, ...], outputs: int, width: int, depth: int, levels: int, latent: int,
                 embedding: Embedding | None, coarsest: int = 4):
        super().__init__()
        channels, *axes = shape
        rank, E = len(axes), 0 if embedding is None else width
        self.embedding = embedding
        lengths = [tuple(axes)]
        while max(lengths[-1]) > coarsest:
            lengths.append(tuple(-(-length // 2) for length in lengths[-1]))
        self.lengths, R = lengths[::-1], len(lengths)
        widths = [2 * width] * (R - 1) + [width]
        self.at = [min(level, R - 1) for level in range(levels)]  # the resolution of each level, coarsest 0
        self.levels = [(latent, *self.lengths[r]) for r in self.at]

        def blocks(before: int, own: int) -> nn.ModuleList:
            return nn.ModuleList(Residual(rank, before if n == 0 else own, own, E) for n in range(depth))
        self.first = conv(rank, channels, widths[-1])
        self.up = nn.ModuleList(blocks(widths[min(r + 1, R - 1)], widths[r]) for r in range(R))
        self.start = nn.Parameter(torch.zeros(widths[0], *self.lengths[0]))
        self.rungs, self.down = nn.ModuleList(), nn.ModuleList()
        C = widths[0]
        for level, r in enumerate(self.at):
            prior = zeroed(conv(rank, C, 2 * latent, 1)) if level else None
            posterior = conv(rank, widths[r] + (C if level else 0), 2 * latent, 1)
            told = zeroed(nn.Linear(E, 2 * math.prod(self.levels[0]))) if E and not level else None
            self.rungs.append(Rung(prior, posterior, conv(rank, latent, C, 1), told))
            self.down.append(blocks(C, widths[r]))
            C = widths[r]
        for r in range(self.at[-1] + 1, R):
            self.down.append(blocks(C, widths[r]))
            C = widths[r]
        self.norm, self.last = norm(C), conv(rank, C, outputs)

    def seen(self, x: Tensor, e: Tensor | None) -> list[Tensor]:
        """Features of each level's resolution."""
        h, found = self.first(x), dict[int, Tensor]()
        for r in reversed(range(len(self.lengths))):
            h = found[r] = through(self.up[r], h if r == len(self.lengths) - 1 else pooled(h), e)
        return [found[r] for r in self.at]

    def before(self, level: int, h: Tensor | None, e: Tensor | None, count: int) -> Tensor | None:
        """Through the blocks of the level above, to the resolution of this one."""
        if h is None:
            return self.start.expand(count, *self.start.shape)
        h, r = through(self.down[level - 1], h, e), self.at[level]
        return h if r == self.at[level - 1] else unpooled(h, self.lengths[r])

    def finish(self, h: Tensor, e: Tensor | None) -> Tensor:
        """Parameters (B, outputs, *axes)."""
        lowest = len(self.at) - 1
        h = through(self.down[lowest], h, e)
        for further, r in enumerate(range(self.at[-1] + 1, len(self.lengths)), start=1):
            h = through(self.down[lowest + further], unpooled(h, self.lengths[r]), e)
        return self.last(F.silu(self.norm(h)))


def _placed(numbers: Tensor, eps: Tensor) -> Tensor:
    """m + S eps, of the numbers that a prior's layer gives."""
    m, log_s = normal(numbers.to(eps))
    return m + log_s.exp() * eps


def _each(h: Tensor, k: int) -> Tensor:
    """Each row k times, side by side."""
    return h if k == 1 else h.repeat_interleave(k, dim=0)
