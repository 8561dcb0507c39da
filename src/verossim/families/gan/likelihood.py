"""How probable records are to a generator: p(x) = E_z p(x | z), where x is G(z) with a declared noise of observation.

Without one a generator's records fill a surface of no volume, and no record would have a density. Numbers get a normal
error about G(z), numbers with cells a logistic one and the mass of their cell, categories their softmax; one scale s serves all
numbers. It is part of the model, chosen to make held-out records most probable: in turns latents are drawn given a record, by
Hamiltonian moves, and s given those latents (EM by Monte Carlo; Wei and Tanner, 1990).

    log p(x) ~ log mean_i w_i      of chains from the prior to p(z | x): Neal, 2001; Wu et al., "On the quantitative analysis
                                   of decoder-based generative models", arXiv:1611.04273

The estimate falls short where chains do not find what they look for. How far, `checked` says: on records that were drawn of the
model itself chains also go back from the latents that made them, which bounds log p(x) from above (arXiv:1511.02543).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ...seeds import Noise
from ...spaces import Continuous
from ..diffusion.values import Values
from ..vae.estimators import annealed, log_averaged
from ..vae.heads import LEAST, MOST, Coins, Levels, bounded, head_of
from .inversion import nearest

__all__ = ["Observation"]

LEAPS = 5  # of a move
POWER = 4  # temperatures grow so with their number: the first change most
FITTED, DRAWN, ROUNDS, MOVES = 16, 256, 12, 12  # held-out records, first draws, turns, and moves of each
SETTLED = 0.05  # change of the logarithm of the scale, below which it is found
CHECKED = 8  # made records
LATER = 1 << 40  # words of a stream that chains do not reach
NUMBERS = 1 << 20  # in the records that are judged at a time


class Maker(Protocol):
    """What of a pair its likelihood asks for."""

    space: Continuous
    values: Values
    raw: Tensor
    scale: Tensor
    anchor: Tensor
    layers: int
    latent: int

    def raw_points(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Points in units of data of latents, categories as logits."""


class Observation(nn.Module):
    """p(x | G(z)) of one scale, and what follows of it, by `chains` of so many `temperatures` a record."""

    def __init__(self, space: Continuous, chains: int, temperatures: int):
        super().__init__()
        self.head, self.chains = head_of(space, 1), chains
        self.path = [(step / temperatures) ** POWER for step in range(temperatures + 1)]

    @staticmethod
    def raw(scale: float) -> Tensor:
        """What `heads.bounded` makes the logarithm of a scale of, ()."""
        middle, reach = (LEAST + MOST) / 2, (MOST - LEAST) / 2
        return torch.tensor(middle + reach * math.atanh((math.log(scale) - middle) / reach))

    def parameters_of(self, points: Tensor, raw: Tensor) -> Tensor:
        """The head's parameters for points (B, *event) of a generator."""
        if isinstance(self.head, Levels):
            return torch.stack([torch.zeros_like(points), points, raw.expand_as(points)], dim=2).flatten(1, 2)
        if isinstance(self.head, Coins):
            return points / bounded(raw).exp()
        return torch.cat([points, raw.expand_as(points)], dim=1)

    def estimated(self, maker: Maker, x: Tensor, y: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor]:
        """log p(x) and its standard error, (B,) each."""
        found = [log_averaged(weights.T) for weights, _ in self._chains(maker, x, y, noise, self.chains, self.path)]
        log_p, error = zip(*found, strict=True)
        return torch.cat(log_p), torch.cat(error)

    def filled(self, maker: Maker, x: Tensor, y: Tensor | None, noise: Noise | None) -> Tensor:
        """Draws (B, *event) given the known entries of x, or their means without noise."""
        own, made = Noise(0, 1).rows(torch.zeros(len(x), dtype=torch.int64)) if noise is None else noise, []
        for first, (weights, z) in zip(self._firsts(maker, len(x)), self._chains(maker, x, y, own, self.chains, self.path),
                                       strict=True):
            rows = slice(first, first + len(weights))
            label = None if y is None else y[rows]
            if noise is None:
                says = self._says(maker, z, label)
                mean = self.head.mean(says).unflatten(0, (-1, self.chains))
                share = weights.softmax(dim=1).view(*weights.shape, *[1] * (x.ndim - 1))
                made.append(self.head.value((share * mean).sum(dim=1)))
            else:
                part = own.part(rows.start, rows.stop)
                part.drawn += LATER
                edges = weights.softmax(dim=1).cumsum(dim=1)
                k = (edges < part.uniform(1).to(edges)).sum(dim=1).clamp(max=self.chains - 1)
                chosen = z.unflatten(0, (-1, self.chains))[torch.arange(len(k)), k]
                made.append(self.head.sample(self._says(maker, chosen, label), part))
        return torch.cat(made)

    def fitted(self, maker: Maker, x: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """The raw scale that makes x (B, *event) most probable, ()."""
        x, y = x[:FITTED], None if y is None else y[:FITTED]
        if not len(x):
            return maker.raw
        z, part = nearest(maker, x, y, DRAWN), noise.part(0, len(x))
        for turn in range(ROUNDS):
            with torch.no_grad():
                before = bounded(maker.raw)
                maker.raw.copy_(self._likeliest(maker.raw_points(z, y), x.to(z)))
            if turn and abs(float(bounded(maker.raw) - before)) < SETTLED:
                break
            part.drawn = (turn + 1) * LATER
            z = torch.cat([ends for _, ends in self._chains(maker, x, y, part, 1, [1.0] * (MOVES + 1), z)])
        return maker.raw

    def checked(self, maker: Maker, noise: Noise, count: int = CHECKED) -> dict[str, float]:
        """Means over `count` records that are drawn of the model, in nats: "lower", what `estimated` says of them, "upper", the
        bound from above, and "gap" between the two."""
        noise = noise.part(0, count)
        with torch.inference_mode(False), torch.no_grad():
            z = noise.normal(maker.latent).to(maker.raw)
            x = maker.values.nearest(self.head.sample(self._says(maker, z, None), noise), maker.anchor)
            lower, _ = self.estimated(maker, x, None, noise)
            noise.drawn += LATER
            down = [weights for weights, _ in self._chains(maker, x, None, noise, self.chains, self.path[::-1], z)]
            upper, _ = log_averaged(torch.cat(down).T)
        return {"lower": float(lower.mean()), "upper": float(-upper.mean()), "gap": float((-upper - lower).mean())}

    def _likeliest(self, points: Tensor, x: Tensor) -> Tensor:
        """The raw scale under which x is most probable given points, by a search as fine as 3 %."""
        tried = [self.raw(math.exp(s)).to(points) for s in torch.linspace(LEAST + 0.1, MOST - 0.1, 300).tolist()]
        return max(tried, key=lambda raw: float(self.head.log_prob(self.parameters_of(points, raw), x).mean()))

    def _says(self, maker: Maker, z: Tensor, y: Tensor | None) -> Tensor:
        """The head's parameters of latents (R, Z), the rows of a record side by side."""
        if y is not None and len(y) and len(z) > len(y):
            y = y.repeat_interleave(len(z) // len(y), dim=0)
        return self.parameters_of(maker.raw_points(z, y), maker.raw)

    def _firsts(self, maker: Maker, count: int) -> range:
        """The first record of each block that fits into memory."""
        return range(0, max(count, 1), max(1, NUMBERS // (self.chains * maker.space.dims)))

    def _chains(self, maker: Maker, x: Tensor, y: Tensor | None, noise: Noise, chains: int, path: Sequence[float],
                start: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Log weights (B, chains) and ends (B * chains, Z) of chains, block by block, along a path of temperatures: from
        the prior, or each from its record's `start` (B, Z)."""
        firsts = self._firsts(maker, len(x))
        with torch.inference_mode(False), torch.no_grad():
            for first in firsts:
                rows = slice(first, min(first + firsts.step, len(x)))
                own, part = x[rows].to(maker.raw, copy=True), noise.part(rows.start, rows.stop)
                label = None if y is None else y[rows].clone()
                drawn = part.normal(chains, maker.latent).flatten(0, 1).to(maker.raw)
                begun = drawn if start is None else start[rows].repeat_interleave(chains, dim=0)
                seen = own.repeat_interleave(chains, dim=0)

                def log(z: Tensor, seen: Tensor = seen, label: Tensor | None = label) -> tuple[Tensor, Tensor]:
                    log_q = -0.5 * z.square().sum(dim=1) - z.shape[1] / 2 * math.log(2 * math.pi)
                    return log_q + self.head.log_prob(self._says(maker, z, label), seen), log_q
                weights, z = annealed(log, begun, chains, part, path, LEAPS)
                yield weights.view(-1, chains), z
