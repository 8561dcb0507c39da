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
from ...errors import Incompatible
from ...nn.conditioning import Embedding, dropped
from ...seeds import Noise
from ...spaces import Batch, Continuous, Discrete, Likelihood, Space
from .. import PAIRS, Exam, LearnsByGradient, Losses, Sign, Turn, beyond_chance
from .estimators import annealed, averaged, log_averaged
from .heads import Head, head_of
from .ladder import Descent, Ladder, MapLadder, VectorLadder

__all__ = ["MEMBER", "VAE"]

ROWS, NUMBERS = 1 << 12, 1 << 22  # draws judged at a time: at most so many, and so many numbers in the widest layer
LEAST_ACTIVE = 0.05  # share of the latents that could be active
WIDEST_GAP = 1.0  # nats an entry
CHAINS, STEPS, LEAPS = 8, 100, 5  # of annealed importance sampling; as many chains make a conditional mean
ROUNDS = 48  # to complete a record
UNTESTED = 12  # of the first rounds, that take every move: from far away the Metropolis test would refuse them all
MEANS = 24  # of the last rounds, whose mean is the conditional mean


class VAE(LearnsByGradient):
    """P(X) or P(X | Y): the mean over records of -log p(x | z) + KL(q(z | x) | p(z)), z drawn once."""

    accepts = (Continuous, Discrete)
    likelihood: Literal["exact", "bound", "estimate", "none"] = "bound"
    methods = ("iwae", "elbo", "ais")
    examined = 500
    signs = (
        Sign(name="active", low=LEAST_ACTIVE, cause="the decoder makes records without the latents, which hold next to nothing "
             "of them (posterior collapse); a longer 'warm', or some 'free' nats, keep them in use"),
        Sign(name="gap", high=WIDEST_GAP, cause="the network knows the records it learned from by heart, and held-out ones are "
             "far less probable to it; more data, a smaller network or fewer samples help"),
    )
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
        places = math.prod(shape[1:])
        widest = max(self.head.outputs * places, config.width * (places if config.network == "conv" else 1))
        self.rows = min(ROWS, max(1, NUMBERS // widest))
        self.levels, self.units = ladder.levels, sum(map(math.prod, ladder.levels))
        self.latent_shape = self.levels[0] if len(self.levels) == 1 else (self.units,)
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
        if y is not None and self.training:
            y = dropped(y, batch.noise.uniform().to(self.centre), self.config.drop)
        down = self._drawn(batch.x, y, batch.noise, 1)
        log_p = self.head.log_prob(down.parameters, batch.x)
        beta = min(1.0, turn.progress / self.config.warm) if self.config.warm else 1.0
        rates = down.rates()
        kl = rates.sum(dim=1)
        paid = rates.clamp(min=self.config.free).sum(dim=1) if self.config.free else kl
        parts = {"kl": kl.detach(), "reconstruction": -log_p.detach()}
        parts["nats"] = parts["kl"] + parts["reconstruction"]
        if len(self.levels) > 1:
            parts |= {f"rate_{level}": rate.detach() for level, rate in enumerate(rates.unbind(dim=1))}
        return Losses(beta * paid - log_p, parts)

    def unfold(self, noise: Noise, condition: Tensor | None = None, **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, *event): z from the prior, then x from the decoder."""
        eps = [noise.normal(*level).to(self.centre) for level in self.levels]
        with torch.no_grad():
            down: Descent = self.networks["ladder"](None, self._condition(condition), eps)
            x = self._nearest(self.head.sample(down.parameters, noise))
        yield x

    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """log p(x) or log p(x | y), (B,), over the known entries of x: "elbo" and "iwae" of `draws` draws are bounds, "ais" is
        an estimate; all with the standard error of their draws."""
        method = self.way(method)
        noise = Noise(0, len(x)) if noise is None else noise
        with torch.inference_mode(False), torch.no_grad():
            x, y = x.clone(), None if condition is None else condition.clone()
            weights = self._annealed(x, y, noise) if method == "ais" else self._log_weights(x, y, noise)
        log_p, error = averaged(weights) if method == "elbo" else log_averaged(weights)
        return Likelihood(log_p, "estimate" if method == "ais" else "bound", self.space.coordinates, error)

    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with its unknown entries drawn given the others, or without `noise` at their conditional means (nearest
        values, likeliest categories). Known entries keep their bits.

        In turns z is drawn given x and the unknown entries given z, each proposal of the encoder put to the Metropolis test
        (Mattei and Frellsen, arXiv:1802.04826, section 3.3): exact in the long run, whatever the encoder.
        """
        unknown, out = self._unknown(x), x.clone()
        rows = unknown.flatten(1).any(dim=1).nonzero()[:, 0]
        for part in rows.split(max(1, self.rows // CHAINS)) if len(rows) else ():
            y = None if condition is None else condition[part]
            own = None if noise is None else noise.rows(part)
            with torch.no_grad():
                out[part] = self._completed(x[part], unknown[part], y, own)
        return out

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, Z): the encoder's means, coarsest level first, each in units of its prior; about standard normal."""
        return torch.cat([mean.flatten(1) for mean in self._expected(x, condition).means], dim=1)

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, *event): the middle of what the decoder says of latents (B, Z). Raises BadData LATENT_SHAPE."""
        self.check_latents(z, (self.units,))
        with torch.no_grad():
            down: Descent = self.networks["ladder"](None, self._condition(condition), self._split(z.to(self.centre)))
            return self._nearest(self.head.value(self.head.mean(down.parameters)))

    def health(self, x: Tensor, condition: Tensor | None = None) -> dict[str, Any]:
        """What the latents are used for, over at least two records x (B, *event): units that move with x (the variance over
        records of the encoder's mean is above 0.01: Burda et al., arXiv:1509.00519) of all there are, and the nats of each
        level."""
        down = self._expected(x, condition)
        moving = [int((mean.flatten(1).var(dim=0) > 0.01).sum()) for mean in down.means]
        return {"active_units": sum(moving), "units": self.units, "active_by_level": moving,
                "nats_by_level": down.rates().mean(dim=0).tolist()}

    def examine(self, seen: Batch, unseen: Batch | None, noise: Noise) -> Exam:
        """active: share of the units that move with x, of as many as there are entries or units; gap: nats an entry that
        held-out records are less probable by than those learned from, beyond chance."""
        could = min(self.units, self.space.coordinates)
        y = None if seen.condition is None else seen.condition[:PAIRS]
        signs = {"active": min(1.0, self.health(seen.x[:PAIRS], y)["active_units"] / could)}
        if unseen is not None:
            learned, held = self.paired(seen, unseen, noise)
            signs["gap"] = beyond_chance(held.parts["nats"], learned.parts["nats"]) / self.space.coordinates
        return Exam(signs)

    def _completed(self, x: Tensor, gone: Tensor, y: Tensor | None, noise: Noise | None) -> Tensor:
        """x (B, *event) with all that is `gone` filled in."""
        if noise is not None:
            return self._gibbs(x, gone, y, noise)[0]
        # Each record goes by the same streams, so that its means do not depend on the batch that it is in.
        streams = Noise(0, CHAINS).rows(torch.arange(CHAINS).repeat(len(x)))
        chains = x.repeat_interleave(CHAINS, dim=0), gone.repeat_interleave(CHAINS, dim=0)
        labels = None if y is None else y.repeat_interleave(CHAINS, dim=0)
        _, mean = self._gibbs(*chains, labels, streams)
        return torch.where(gone, self._nearest(self.head.value(mean.unflatten(0, (-1, CHAINS)).mean(dim=1))).to(x), x)

    def _gibbs(self, given: Tensor, gone: Tensor, y: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor]:
        """The last draw (B, *event) and the mean of the last `MEANS`, of x with its `gone` entries moved in turns with z."""
        x, eps, parameters, mean = given, list[Tensor](), torch.empty(0), torch.zeros(())
        for turn in range(ROUNDS):
            there = self._drawn(x, y, noise, 1)
            if turn < UNTESTED:
                eps, parameters = there.units, there.parameters
            else:
                here = self._descended(x, y, eps, given=True)
                gain = self._log_weight(there, x) - self._log_weight(here, x)
                accepted = noise.uniform().to(gain).log() < gain
                eps = [_chosen(accepted, a, b) for a, b in zip(there.units, eps, strict=True)]
                parameters = _chosen(accepted, there.parameters, parameters)
            x = torch.where(gone, self._nearest(self.head.sample(parameters, noise)).to(given), given)
            if turn >= ROUNDS - MEANS:
                mean = mean + self.head.mean(parameters) / MEANS
        return x, mean

    def _descended(self, x: Tensor, y: Tensor | None, draws: list[Tensor], given: bool = False) -> Descent:
        x = (self._given(x) - self.centre).nan_to_num()
        down: Descent = self.networks["ladder"](x, self._condition(y), draws, given)
        return down

    def _expected(self, x: Tensor, y: Tensor | None) -> Descent:
        """The way down by the encoder's means, nothing drawn."""
        with torch.no_grad():
            return self._descended(x, y, [torch.zeros(len(x), *level).to(self.centre) for level in self.levels])

    def _drawn(self, x: Tensor, y: Tensor | None, noise: Noise, draws: int) -> Descent:
        """The way down with several draws of each record, (B * draws, ...), those of one record side by side."""
        eps = [noise.normal(draws, *level).flatten(0, 1).to(self.centre) for level in self.levels]
        return self._descended(x, y, eps)

    def _log_likelihood(self, down: Descent, x: Tensor) -> Tensor:
        """log p(x | z) of draws (B * k,) of x (B, *event)."""
        k = len(down.parameters) // max(len(x), 1)
        return self.head.log_prob(down.parameters, x.repeat_interleave(k, dim=0))

    def _log_weight(self, down: Descent, x: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x) of draws (B * k,) of x (B, *event)."""
        return self._log_likelihood(down, x) + down.log_ratio()

    def _log_weights(self, x: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """log p(x, z) - log q(z | x) of all draws of each record, (draws, B)."""
        # The draws are cut in pieces of one size whatever the batch, so that they are the same in any.
        draws, found = self.config.draws, []
        pieces = [min(self.rows, draws - done) for done in range(0, draws, self.rows)]
        for own, label, part in self._parts(x, y, noise, draws):
            weights = [self._log_weight(self._drawn(own, label, part, k), own).view(len(own), k) for k in pieces]
            found.append(torch.cat(weights, dim=1))
        return torch.cat(found).T

    def _annealed(self, x: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """Log weights (CHAINS, B) of annealed chains."""
        found = []
        for own, label, part in self._parts(x, y, noise, CHAINS):
            start = torch.cat([eps.flatten(1) for eps in self._drawn(own, label, part, CHAINS).units], dim=1)

            def log(e: Tensor, own: Tensor = own, label: Tensor | None = label) -> tuple[Tensor, Tensor]:
                down = self._descended(own, label, self._split(e), given=True)
                log_prior = -0.5 * e.square().sum(dim=1)
                return self._log_likelihood(down, own) + log_prior, log_prior - down.log_ratio()
            temperatures = torch.linspace(0, 1, STEPS + 1).tolist()
            weights, _ = annealed(log, start, CHAINS, part, temperatures, LEAPS, settled=False)
            found.append(weights.view(-1, CHAINS))
        return torch.cat(found).T

    def _parts(self, x: Tensor, y: Tensor | None, noise: Noise, draws: int) -> Iterator[tuple[Tensor, Tensor | None, Noise]]:
        """The records in blocks that fit into memory `draws` times; one empty block where there are none."""
        step = max(1, self.rows // draws)
        for first in range(0, max(len(x), 1), step):
            rows = slice(first, min(first + step, len(x)))
            yield x[rows], None if y is None else y[rows], noise.part(rows.start, rows.stop)

    def _split(self, z: Tensor) -> list[Tensor]:
        pieces = z.split([math.prod(level) for level in self.levels], dim=1)
        return [piece.view(len(z), *level) for piece, level in zip(pieces, self.levels, strict=True)]

    def _given(self, x: Tensor) -> Tensor:
        """x as the encoder takes it: numbers; tokens as one-hot vectors; NaN where unknown."""
        if isinstance(self.space, Continuous):
            return x.to(self.centre)
        gone = self._unknown(x)
        onehot = nn.functional.one_hot(torch.where(gone, 0, x), self.space.vocabulary).to(self.centre)
        return torch.where(gone.unsqueeze(-1), torch.nan, onehot).flatten(1)

    def _unknown(self, x: Tensor) -> Tensor:
        if isinstance(self.space, Discrete):
            return x == self.space.pad if self.space.pad is not None else torch.zeros_like(x, dtype=torch.bool)
        gone = x.isnan()
        for first, last in self.space.simplexes:
            gone[:, first:last] = gone[:, first:last].any(dim=1, keepdim=True)
        return gone

    def _nearest(self, x: Tensor) -> Tensor:
        """Numbers with cells at the nearest value of their grid."""
        if isinstance(self.space, Discrete) or not self.space.widths:
            return x
        cells = self.space.cells().to(x)
        return torch.where(cells > 0, ((x - self.anchor) / cells.clamp(min=1e-12)).round() * cells + self.anchor, x)

    def _condition(self, y: Tensor | None) -> Tensor | None:
        """The condition where the network takes one, on its device."""
        return None if y is None or self.condition_space is None else y.to(self.centre.device)


MEMBER = VAE


def _chosen(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a in these rows (B,) and b in the others."""
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)


def _resolved(config: Any, space: Space) -> Any:
    """The config with nothing left open: the network by the number of axes, its sizes by its kind."""
    axes = isinstance(space, Continuous) and 2 <= len(space.shape) <= 4
    if config.network == "conv" and not axes:
        raise Incompatible("SPACE", "A convolution needs channels and one to three axes, which this space has not.",
                           "Leave 'network' open, or set it to mlp.")
    kind = "conv" if axes and config.network == "auto" else "mlp" if config.network == "auto" else config.network
    width, latent = (32, 8) if kind == "conv" else (256, 16)
    return replace(config, network=kind, width=config.width or width, latent=config.latent or latent)
