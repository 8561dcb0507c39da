"""The variational autoencoder: latents z with a simple prior, a decoder p(x | z), and an encoder q(z | x) that finds them.

    log p(x) >= E_q(z|x) log p(x | z) - KL(q(z | x) | p(z))        Kingma and Welling, arXiv:1312.6114

z may have several levels (`ladder`); what the decoder says of each entry depends on what the entry is (`heads`). The bound, a
tighter one and an estimate of log p(x) are in `estimators`. Learning weighs the KL term from little to whole over the first
share of a run, so that latents are used before they are paid for (Bowman et al., arXiv:1511.06349), and pays nothing for the
first `free` nats of each level (Kingma et al., arXiv:1606.04934).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...config import knob
from ...errors import BadData, Incompatible
from ...nn.conditioning import Embedding, dropped
from ...seeds import Noise
from ...spaces import Batch, Continuous, Discrete, Likelihood, Space
from .. import LearnsByGradient, Losses, Turn
from .estimators import annealed, bounds
from .heads import Head, head_of
from .ladder import Descent, Ladder, MapLadder, VectorLadder

__all__ = ["MEMBER", "VAE"]

ROWS = 1 << 12  # records times draws judged at a time
RECORDS = 256  # annealed at a time
CHAINS, STEPS, LEAPS = 8, 100, 5  # of annealed importance sampling
ROUNDS = 24  # of Gibbs sampling, to complete a record
MEANS = 8  # of the last rounds, whose mean is the conditional mean


class VAE(LearnsByGradient):
    """P(X) or P(X | Y): the mean over records of -log p(x | z) + KL(q(z | x) | p(z)), z drawn once."""

    accepts = (Continuous, Discrete)
    likelihood: Literal["exact", "bound", "estimate", "none"] = "bound"
    methods = ("iwae", "elbo", "ais")
    centre: Tensor
    anchor: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int | None = knob(None, "channels, or numbers inside for vectors; where nothing is said 32, or 256 for vectors",
                                 low=4, high=16_384)
        depth: int = knob(1, "residual blocks a resolution, or layers for vectors", low=1, high=64)
        levels: int = knob(1, "levels of latents", low=1, high=64)
        latent: int | None = knob(None, "numbers, or channels, of a level; where nothing is said 8, or 16 for vectors", low=1,
                                  high=4096)
        network: str = knob("auto", "mlp: anything as a vector; conv: over axes; auto: by the shape of the data",
                            choices=("auto", "mlp", "conv"))
        components: int = knob(5, "logistics in the mixture of each entry that has levels", low=1, high=50)
        warm: float = knob(0.1, "share of a run over which the KL term grows to its whole weight", low=0.0, high=1.0)
        free: float = knob(0.0, "nats of each level that cost nothing while learning", low=0.0, high=100.0)
        drop: float = knob(0.1, "share of records whose condition is hidden from the network", low=0.0, high=1.0)
        draws: int = knob(64, "draws of the encoder that log_prob takes for a record", low=2, high=100_000)

    def __init__(self, config: Any, space: Space, condition: Space | None = None):
        super().__init__(_resolved(config, space), space, condition)
        config = self.config
        self.head: Head = head_of(space, config.components)
        embedding = None if condition is None else Embedding(config.width, condition, timed=False)
        shape = (space.dims * space.vocabulary,) if isinstance(space, Discrete) else space.shape
        sizes = config.width, config.depth, config.levels, config.latent
        if config.network == "conv":
            ladder: Ladder = MapLadder(shape, self.head.outputs, *sizes, embedding)
        else:
            out = (self.head.outputs, *(() if isinstance(space, Discrete) else shape[1:]))
            ladder = VectorLadder(shape, out, *sizes, embedding)
        self.networks = nn.ModuleDict({"ladder": ladder})
        self.latents = ladder.levels
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("anchor", torch.zeros(space.shape))

    def start(self, batch: Batch, noise: Noise) -> None:
        """Measures the mean of each entry, and where grids of values lie."""
        x = self._given(batch.x)
        self.centre.copy_(x.nanmean(dim=0).nan_to_num())
        if isinstance(self.space, Continuous):
            known = ~batch.x.isnan()
            self.anchor.copy_(batch.x.nan_to_num().gather(0, known.to(torch.int8).argmax(dim=0, keepdim=True))[0])

    def loss(self, batch: Batch, turn: Turn) -> Losses:
        """-log p(x | z) + beta KL, a record; "nats" is the whole bound, beta = 1."""
        assert batch.noise is not None
        y = batch.condition
        if y is not None:
            y = dropped(y, batch.noise.uniform().to(self.centre), self.config.drop)
        down = self._down(batch.x, y, batch.noise)
        log_p = self.head.log_prob(down.parameters, batch.x)
        beta = min(1.0, turn.progress / self.config.warm) if self.config.warm else 1.0
        paid = down.rates.clamp(min=self.config.free).sum(dim=1)
        kl = down.rates.sum(dim=1)
        levels = {f"rate_{level}": rate.detach() for level, rate in enumerate(down.rates.unbind(dim=1))}
        parts = {"nats": (kl - log_p).detach(), "kl": kl.detach(), "distortion": -log_p.detach()}
        return Losses(beta * paid - log_p, parts if len(levels) == 1 else {**parts, **levels})

    def unfold(self, noise: Noise, condition: Tensor | None = None, **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, *event): z from the prior, then x from the decoder."""
        draws = [noise.normal(*level).to(self.centre) for level in self.latents]
        down: Descent = self.networks["ladder"](None, self._condition(condition), draws)
        yield self._nearest(self.head.sample(down.parameters, noise))

    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """log p(x) or log p(x | y), (B,), over the known entries of x: "elbo" and "iwae" of `draws` draws are bounds, "ais" is
        an estimate; all with the standard error of their draws."""
        method = self.way(method)
        noise = Noise(0, len(x)) if noise is None else noise
        with torch.inference_mode(False), torch.no_grad():
            x, y = x.clone(), None if condition is None else condition.clone()
            if method == "ais":
                log_p, error = self._annealed(x, y, noise)
            else:
                elbo, elbo_error, iwae, iwae_error = bounds(self._log_weights(x, y, noise))
                log_p, error = (elbo, elbo_error) if method == "elbo" else (iwae, iwae_error)
        return Likelihood(log_p, "estimate" if method == "ais" else "bound", self.space.coordinates, error)

    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with its unknown entries drawn given the others, by Gibbs sampling between z and them (Rezende et al.,
        arXiv:1401.4082, appendix F), which is exact in the long run; or without `noise` at the mean of the last rounds. Known
        entries keep their bits."""
        unknown = self._unknown(x)
        rows = unknown.flatten(1).any(dim=1).nonzero()[:, 0]
        if not len(rows):
            return x
        given, gone = x[rows], unknown[rows]
        y = None if condition is None else condition[rows]
        source = Noise(0, len(rows)) if noise is None else noise.rows(rows)
        filled, total = given, torch.zeros_like(given, dtype=torch.float32)
        with torch.no_grad():
            for turn in range(ROUNDS):
                parameters = self._down(filled, y, source).parameters
                filled = torch.where(gone, self._nearest(self.head.sample(parameters, source)).to(given), given)
                if turn >= ROUNDS - MEANS:
                    total = total + self.head.middle(parameters) / MEANS
        if noise is None:
            filled = torch.where(gone, self._nearest(self._likeliest(total)).to(given), given)
        out = x.clone()
        out[rows] = filled
        return out

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, Z): the encoder's means, coarsest level first, each in units of its prior; about standard normal."""
        with torch.no_grad():
            down = self._descended(x, condition, [torch.zeros(len(x), *level).to(self.centre) for level in self.latents])
            return torch.cat([mean.flatten(1) for mean in down.means], dim=1)

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, *event): the middle of what the decoder says of latents (B, Z). Raises BadData LATENT_SHAPE."""
        if z.ndim != 2 or z.shape[1] != sum(map(math.prod, self.latents)):
            raise BadData("LATENT_SHAPE", f"Latents have the shape {tuple(z.shape[1:])}; this model's have "
                          f"({sum(map(math.prod, self.latents))},).", "Give what `encode` gave.")
        with torch.no_grad():
            down: Descent = self.networks["ladder"](None, self._condition(condition), self._split(z.to(self.centre)))
            return self._nearest(self.head.middle(down.parameters))

    def health(self, x: Tensor, condition: Tensor | None = None) -> dict[str, Any]:
        """What the latents are used for, over records x (B, *event): units that move with x (the variance over records of the
        encoder's mean is above 0.01: Burda et al., arXiv:1509.00519) of all there are, and the nats of each level."""
        with torch.no_grad():
            down = self._descended(x, condition, [torch.zeros(len(x), *level).to(self.centre) for level in self.latents])
        moving = [int((mean.flatten(1).var(dim=0) > 0.01).sum()) for mean in down.means]
        return {"active_units": sum(moving), "units": sum(map(math.prod, self.latents)), "active_by_level": moving,
                "nats_by_level": down.rates.mean(dim=0).tolist()}

    def _down(self, x: Tensor, y: Tensor | None, noise: Noise) -> Descent:
        return self._descended(x, y, [noise.normal(*level).to(self.centre) for level in self.latents])

    def _descended(self, x: Tensor, y: Tensor | None, draws: list[Tensor], given: bool = False) -> Descent:
        x = self._given(x)
        x = torch.where(x.isnan(), self.centre, x) - self.centre
        down: Descent = self.networks["ladder"](x, self._condition(y), draws, given)
        return down

    def _drawn(self, x: Tensor, y: Tensor | None, noise: Noise, draws: int) -> Descent:
        """The way down with several draws of a record, (B * draws, ...), those of one record side by side."""
        eps = [noise.normal(draws, *level).flatten(0, 1).to(self.centre) for level in self.latents]
        return self._descended(*_repeated(x, y, draws), eps)

    def _log_weights(self, x: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """log p(x, z) - log q(z | x) of each draw and record, (draws, B), ROWS at a time."""
        found = []
        for first in range(0, len(x), ROWS):
            rows = slice(first, min(first + ROWS, len(x)))
            own, label, part = x[rows], None if y is None else y[rows], noise.part(rows.start, rows.stop)
            most, left, weights = max(1, ROWS // len(own)), self.config.draws, []
            while left:
                few = min(most, left)
                down = self._drawn(own, label, part, few)
                log_p = self.head.log_prob(down.parameters, own.repeat_interleave(few, dim=0))
                weights.append((log_p + down.log_ratio).view(len(own), few))
                left -= few
            found.append(torch.cat(weights, dim=1))
        return torch.cat(found).T

    def _annealed(self, x: Tensor, y: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor]:
        """Estimate and standard error, (B,) each, from CHAINS chains a record, RECORDS at a time."""
        found = []
        for first in range(0, len(x), RECORDS):
            rows = slice(first, min(first + RECORDS, len(x)))
            part = noise.part(rows.start, rows.stop)
            own, label = _repeated(x[rows], None if y is None else y[rows], CHAINS)
            start = self._drawn(x[rows], None if y is None else y[rows], part, CHAINS)
            flat = torch.cat([draw.flatten(1) for draw in start.draws], dim=1)

            def log(e: Tensor, own: Tensor = own, label: Tensor | None = label) -> tuple[Tensor, Tensor]:
                down = self._descended(own, label, self._split(e), given=True)
                log_prior = -0.5 * e.square().sum(dim=1)
                return log_prior + self.head.log_prob(down.parameters, own), log_prior - down.log_ratio
            found.append(annealed(log, flat, CHAINS, part, STEPS, LEAPS).view(-1, CHAINS))
        _, _, log_p, error = bounds(torch.cat(found).T)
        return log_p, error

    def _split(self, z: Tensor) -> list[Tensor]:
        pieces = z.split([math.prod(level) for level in self.latents], dim=1)
        return [piece.view(len(z), *level) for piece, level in zip(pieces, self.latents, strict=True)]

    def _given(self, x: Tensor) -> Tensor:
        """x as the encoder takes it: numbers; tokens as one-hot vectors, padding as zeros."""
        if isinstance(self.space, Continuous):
            return x.to(self.centre)
        V = self.space.vocabulary
        return nn.functional.one_hot(x.clamp(min=0), V + 1)[..., :V].flatten(1).to(self.centre)

    def _unknown(self, x: Tensor) -> Tensor:
        if isinstance(self.space, Discrete):
            return x == self.space.pad if self.space.pad is not None else torch.zeros_like(x, dtype=torch.bool)
        gone = x.isnan()
        for first, last in self.space.simplexes:
            gone[:, first:last] = gone[:, first:last].any(dim=1, keepdim=True)
        return gone

    def _likeliest(self, x: Tensor) -> Tensor:
        """One-hot blocks of shares as their largest; tokens as whole numbers."""
        if isinstance(self.space, Discrete):
            return x.round().long()
        for first, last in self.space.simplexes:
            x[:, first:last] = nn.functional.one_hot(x[:, first:last].argmax(dim=1), last - first).to(x)
        return x

    def _nearest(self, x: Tensor) -> Tensor:
        """Entries with cells rounded to their grid."""
        if isinstance(self.space, Discrete):
            return x
        if self.space.levels:
            level = ((x + 1) * (self.space.levels / 2) - 0.5).round().clamp(0, self.space.levels - 1)
            return (level + 0.5) * (2 / self.space.levels) - 1
        cells = self.space.cells().to(x).view(self.space.shape)
        return torch.where(cells > 0, ((x - self.anchor) / cells.clamp(min=1e-12)).round() * cells + self.anchor, x)

    def _condition(self, y: Tensor | None) -> Tensor | None:
        """The condition where the network takes one, on its device."""
        return None if y is None or self.condition_space is None else y.to(self.centre.device)


MEMBER = VAE


def _repeated(x: Tensor, y: Tensor | None, times: int) -> tuple[Tensor, Tensor | None]:
    """Each record `times` in a row."""
    return x.repeat_interleave(times, dim=0), None if y is None else y.repeat_interleave(times, dim=0)


def _resolved(config: Any, space: Space) -> Any:
    """The config with nothing left open: the network by the number of axes, its sizes by its kind."""
    axes = isinstance(space, Continuous) and 2 <= len(space.shape) <= 4
    if config.network == "conv" and not axes:
        raise Incompatible("SPACE", "A convolution needs channels and one to three axes, which this space has not.",
                           "Leave 'network' open, or set it to mlp.")
    kind = "conv" if axes and config.network == "auto" else "mlp" if config.network == "auto" else config.network
    width, latent = (32, 8) if kind == "conv" else (256, 16)
    return replace(config, network=kind, width=config.width or width, latent=config.latent or latent)
