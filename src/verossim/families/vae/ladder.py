"""The ladder: latents from the coarsest to the finest, each drawn given those above.

    p(z) = prod_l p(z_l | z_above)        q(z | x) = prod_l q(z_l | z_above, x)

Encoder features of x go up once; then both p and q come down the same path, q seeing the features beside it (Sønderby et al.,
"Ladder variational autoencoders", arXiv:1602.02282; Child, "Very deep VAEs", arXiv:2011.10650). The top prior is N(0, I). Every
scale is bounded: log s = 5 tanh(raw / 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...nn.conditioning import Embedding
from ...nn.layers import Residual, conv, norm, pooled, through, unpooled, zeroed

__all__ = ["Descent", "Ladder", "MapLadder", "VectorLadder"]


@dataclass(frozen=True)
class Descent:
    """One way down. parameters: of the head; means, draws: each level's E_q z and z in units of its prior (B, *level), so that
    a draw of the prior is N(0, I); rates (B, L): KL(q | p) of each level, nats; log_ratio (B,): log p(z) - log q(z | x)."""

    parameters: Tensor
    means: list[Tensor]
    draws: list[Tensor]
    rates: Tensor
    log_ratio: Tensor


class Rung(nn.Module):
    """One level: its prior (None at the top), its posterior, and how z enters the path."""

    def __init__(self, prior: nn.Module | None, posterior: nn.Module, enter: nn.Module):
        super().__init__()
        self.prior, self.posterior, self.enter = prior, posterior, enter


def _normal(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log scale from a layer's output, along dimension 1."""
    mu, raw = numbers.chunk(2, dim=1)
    return mu, 5 * torch.tanh(raw / 5)


class Ladder(nn.Module):
    """What both ladders share: the way down. `levels` are the shapes of the latents, coarsest first."""

    levels: list[tuple[int, ...]]
    rungs: nn.ModuleList
    embedding: Embedding | None

    def forward(self, x: Tensor | None, y: Tensor | None, draws: Sequence[Tensor], given: bool = False) -> Descent:
        """The way down. x (B, *event) or None for the prior; draws: a tensor a level, standard normal, for draws of q (of p
        without x), or with `given` the latents themselves in units of their priors."""
        e = self.embedded(y, len(draws[0]))
        seen = None if x is None else self.seen(x, e)
        h: Tensor | None = None
        means, units, rates, ratios = [], [], [], []
        rung: Any
        for level, rung in enumerate(self.rungs):
            h = self.before(level, h, e, len(draws[0]))
            zero = torch.zeros_like(draws[level])
            m_p, s_p = (zero, zero) if rung.prior is None else _normal(rung.prior(h))
            if seen is None:
                eps = mean = draws[level]
                z, rate, ratio = m_p + s_p.exp() * eps, eps.new_zeros(len(eps)), eps.new_zeros(len(eps))
            else:
                beside = seen[level] if rung.prior is None or h is None else torch.cat([h, seen[level]], dim=1)
                m_q, s_q = _normal(rung.posterior(beside))
                z = m_p + s_p.exp() * draws[level] if given else m_q + s_q.exp() * draws[level]
                eps, eps_q = (z - m_p) * (-s_p).exp(), (z - m_q) * (-s_q).exp()
                mean = (m_q - m_p) * (-s_p).exp()
                rate = (s_p - s_q + 0.5 * ((2 * (s_q - s_p)).exp() + mean.square() - 1)).flatten(1).sum(dim=1)
                ratio = (s_q - s_p + 0.5 * (eps_q.square() - eps.square())).flatten(1).sum(dim=1)
            entered = rung.enter(z)
            h = entered if h is None else h + entered
            means.append(mean)
            units.append(eps)
            rates.append(rate)
            ratios.append(ratio)
        assert h is not None
        return Descent(self.finish(h, e), means, units, torch.stack(rates, dim=1), torch.stack(ratios, dim=1).sum(dim=1))

    def embedded(self, y: Tensor | None, count: int) -> Tensor | None:
        """The condition's embedding (B, E)."""
        return None if self.embedding is None else self.embedding(None, y, count)

    def seen(self, x: Tensor, e: Tensor | None) -> list[Tensor]:
        """Features of x for each level, coarsest first."""
        raise NotImplementedError

    def before(self, level: int, h: Tensor | None, e: Tensor | None, count: int) -> Tensor | None:
        """The path on its way to a level; None at the top of a path that is nothing yet."""
        raise NotImplementedError

    def finish(self, h: Tensor, e: Tensor | None) -> Tensor:
        """The head's parameters from the end of the path."""
        raise NotImplementedError


class VectorLadder(Ladder):
    """Over vectors; anything else is laid out as one. With one level and depth 1, one layer of ReLU each way."""

    def __init__(self, shape: tuple[int, ...], out_shape: tuple[int, ...], width: int, depth: int, levels: int, latent: int,
                 embedding: Embedding | None):
        super().__init__()
        self.out_shape, self.embedding = out_shape, embedding
        E = 0 if embedding is None else width
        entries, outputs = int(torch.tensor(shape).prod()), int(torch.tensor(out_shape).prod())
        self.levels = [(latent,)] * levels
        self.first = nn.Linear(entries, width)
        self.told = nn.Linear(width, width, bias=False) if E else None
        self.up = nn.ModuleList(Residual(0, width, embedding=E) for _ in range(depth - 1))
        self.further = nn.ModuleList(nn.Linear(width, width) for _ in range(levels - 1))
        self.rungs = nn.ModuleList(Rung(nn.Linear(width, 2 * latent) if level else None,
                                        nn.Linear(width * (2 if level else 1), 2 * latent), nn.Linear(latent, width))
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
            self.rungs.append(Rung(prior, posterior, conv(rank, latent, C, 1)))
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
