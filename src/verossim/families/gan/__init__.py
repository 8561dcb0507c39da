"""The adversarial pair: a generator makes records of noise, a discriminator tells them from real ones.

    min over D of E softplus(D(G(z)) - D(x)) + (gamma / 2) (|dD/dx|^2 + |dD/dG(z)|^2)
    min over G of E softplus(D(x) - D(G(z)))

The pairing of a real with a made record leaves no minimum at which all samples are alike, and with the penalties on both sides
the game converges near its solution (Huang et al., "The GAN is dead; long live the GAN! A modern GAN baseline", NeurIPS
2024, eq. 1 to 6; Mescheder, Geiger and Nowozin, arXiv:1801.04406). There are no batch statistics.

gamma has the dimension of a squared length of x. Its unit is measured before learning: the squared length over which a fresh
discriminator of random last layer changes by as much as it varies over the data,

    l^2 = Var D(x) / E |dD/dx|^2,      gamma = GAMMA l^2, falling to COLDEST of it

A strong penalty at first lets a smooth discriminator draw the generator over all of the data; a weak one at the end lets it see
fine detail (ibid., table 6, cools to a tenth; a hundredth was measured to be better on narrow Gaussians: docs/log.md).

What a pair has learned can be measured like any model of latents, with a noise of observation: see `likelihood`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import knob
from ...errors import BadConfig, Incompatible
from ...nn.adversary import Discriminator, Generator
from ...nn.conditioning import dropped
from ...seeds import Noise
from ...spaces import Batch, Continuous, Likelihood, Space
from .. import Exam, LearnsByGradient, Losses, Sign, Turn
from ..diffusion.values import Values
from .augment import MOST, augmented
from .inversion import inverted
from .likelihood import Observation
from .signs import distances, judgements

__all__ = ["GAN", "MEMBER"]

GAMMA = 1.0
COLDEST, COOLED = 1e-2, 0.7  # what gamma falls to, and the share of a run that it takes
PROBES = 1 << 20  # streams of one side of an exam
MEASURED, LOOKS = 256, 32  # records that gamma's unit is measured on, and random discriminators
TARGET, PACE = 0.3, 0.05  # of overfit that augmentation aims at, and how much more likely it grows or shrinks at each exam
PROBE = 256  # records of an exam
MAPS = {"width": 16, "depth": 1, "latent": 64, "chains": 4, "temperatures": 100}  # where nothing is said
VECTORS = {"width": 64, "depth": 3, "latent": 16, "chains": 16, "temperatures": 400}
PEAKS = 2e-3, 1e-3  # rates of vectors and of maps
CHUNK = 1 << 20  # numbers in the records that are made at a time


class GAN(LearnsByGradient):
    """P(X) or P(X | Y) by a generator G(z, y), z ~ N(0, I), that a discriminator D(x, y) cannot tell from the data."""

    accepts = (Continuous,)
    likelihood: Literal["exact", "bound", "estimate", "none"] = "estimate"
    methods = ("ais",)
    turns = (Turn("discriminator", ("discriminator",)), Turn("generator", ("generator",)))
    moments = (0.0, 0.99)
    descends = False
    twice = True
    fewest = 8
    examined = 50
    signs = (
        Sign(name="spread", low=0.5, cause="made records crowd around few of the real ones: the generator has collapsed",
             remedies=("penalty", "penalty", "rate", "rollback")),
        Sign(name="diversity", low=0.5, cause="made records are too much alike: the generator has collapsed",
             remedies=("penalty", "penalty", "rate", "rollback")),
        Sign(name="overfit", high=0.6, cause="the discriminator knows the records it learned from by heart",
             remedies=("augmentation", "penalty", "rollback")),
        Sign(name="margin", high=5.0, cause="the discriminator knows all that is made at once, and teaches nothing more",
             remedies=("penalty", "rate", "rollback")),
        Sign(name="movement", low=1e-5, high=1.8, cause="the generator stands still, or swings without settling",
             remedies=("rate", "penalty", "rollback")),
        Sign(name="support", low=0.5, cause="records learned from are too few to say what others are like, or unlike them",
             remedies=("augmentation",)),
    )
    space: Continuous
    centre: Tensor
    scale: Tensor
    anchor: Tensor
    gamma: Tensor
    pressed: Tensor
    p: Tensor
    raw: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int | None = knob(None, "channels of the finest resolution; where nothing is said 16, or 64 for vectors", low=4,
                                 high=16_384)
        depth: int | None = knob(None, "residual blocks a resolution; where nothing is said 1, or 3 for vectors", low=1,
                                 high=64)
        latent: int | None = knob(None, "numbers of the noise; where nothing is said 64, or 16 for vectors, "
                                  "and no more than a record has", low=1, high=4096)
        penalty: float = knob(1.0, "gradient penalties, over the weight that is chosen from the data", low=0.0, high=1e6)
        augment: float | str = knob("auto", "how likely each augmentation is; auto: as much as the discriminator overfits",
                                    low=0.0, high=MOST, choices=("auto",))
        drop: float = knob(0.1, "share of records whose condition is hidden from both networks", low=0.0, high=1.0)
        chains: int | None = knob(None, "annealed chains that log_prob takes for a record; where nothing is said 4, or 16 for "
                                  "vectors", low=2, high=100_000)
        temperatures: int | None = knob(None, "temperatures of a chain; where nothing is said 100, or 400 for vectors", low=2,
                                        high=1_000_000)

    @dataclass(frozen=True, kw_only=True)
    class Sampling:
        truncation: float = knob(1.0, "styles towards their mean: below 1 more usual and less diverse", low=0.0, high=10.0)

    def __init__(self, config: Any, space: Space, condition: Space | None = None):
        if not isinstance(space, Continuous):
            raise Incompatible("SPACE", f"An adversarial pair learns Continuous spaces, not {type(space).__name__}: there is "
                               "no gradient through tokens.", "Use family vae for tokens.")
        super().__init__(_resolved(config, space), space, condition)
        sizes = self.config.width, self.config.depth
        self.values = Values(space)
        self.observation = Observation(space, self.config.chains, self.config.temperatures)
        self.networks = nn.ModuleDict({"generator": Generator(space, *sizes, self.config.latent, condition),
                                       "discriminator": Discriminator(space, *sizes, condition)})
        if len(space.shape) == 3:
            networks: Any = self.networks
            networks.to(memory_format=torch.channels_last)
        self.layers, self.latent = self.generator.layers, self.config.latent
        self.peak = PEAKS[len(space.shape) > 1]
        self.register_buffer("centre", torch.zeros(space.shape))
        self.register_buffer("scale", torch.ones(space.shape))
        self.register_buffer("anchor", torch.zeros(space.shape))
        self.register_buffer("gamma", torch.ones(()))  # at the start of a run
        self.register_buffer("pressed", torch.ones(()))  # what remedies have made of it
        self.register_buffer("p", torch.tensor(0.0 if self.config.augment == "auto" else float(self.config.augment)))
        self.register_buffer("raw", self.observation.raw(0.3))  # of the observation's log scale, for all entries

    @property
    def generator(self) -> Any:
        """The generator, wrapped where it learns on several ranks."""
        return self.networks["generator"]

    @property
    def discriminator(self) -> Any:
        """The discriminator, likewise."""
        return self.networks["discriminator"]

    def start(self, batch: Batch, noise: Noise) -> None:
        """Measures where each entry lies, and the unit of the penalties."""
        x = batch.x.double()
        known = ~self.values.unknown(x)
        centre, number = torch.where(known, x, torch.nan).nanmean(dim=0).nan_to_num(), self._numbers()
        spread = torch.where(known & number, (x - centre).square(), torch.nan).nanmean().sqrt()
        first = known.to(torch.int8).argmax(dim=0, keepdim=True)
        anchor = x.nan_to_num().gather(0, first)[0]
        self.centre.copy_(torch.where(number, centre, 0.0))
        self.scale.copy_(torch.where(number, spread.nan_to_num(1.0).clamp(min=0.01), 1.0))
        self.anchor.copy_(torch.full_like(anchor, -1 + 1 / self.values.levels) if self.values.levels else anchor)
        unit = torch.where(known[:MEASURED], self._unit(batch.x[:MEASURED]), 0.0)
        self.gamma.copy_(GAMMA * self._length(unit, noise))

    def _length(self, x: Tensor, noise: Noise) -> Tensor:
        """l^2 (), over directions of a fresh discriminator's features: the means over several of both variance and slope."""
        variance, slope = x.new_zeros(()), x.new_zeros(())
        with torch.enable_grad():
            phi = self.discriminator.seen(x.requires_grad_())
            for v in noise.normal(LOOKS, phi.shape[1])[0].to(phi):
                D = phi @ v
                variance += D.detach().var(correction=0)
                slope += torch.autograd.grad(D.sum(), x, retain_graph=True)[0].flatten(1).square().sum(dim=1).mean()
        return variance / slope.clamp(min=1e-12)

    def loss(self, batch: Batch, turn: Turn) -> Losses:
        """softplus of how much less real the one looks than the other, a pair; for the discriminator with its penalties."""
        assert batch.noise is not None
        G, D, noise = self.generator, self.discriminator, batch.noise
        z, u = noise.normal(self.latent).to(self.centre), noise.uniform(2, *self.space.shape).to(self.centre)
        y = dropped(self._condition(batch.condition), noise.uniform().to(z), self.config.drop if self.training else 0.0)
        known = ~self.values.unknown(batch.x)
        real = torch.where(known, self._unit(batch.x) + (u[:, 0] - 0.5) * self._cells(), 0.0)
        learns = turn.name == "generator"
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            made = torch.where(known, self._categories(G(z, y), u[:, 1]), 0.0)
        p = float(self.p)
        real, made = augmented(real, noise, p), augmented(made, noise, p)
        if learns:
            with torch.no_grad():
                D_real = D(real, y)
            D_made = D(made, y)
            return Losses(F.softplus(D_real - D_made))
        weight = self.weight(turn.progress)
        both = torch.cat([real, made]).detach().requires_grad_(weight > 0)
        with torch.enable_grad():
            looks = D(both, None if y is None else torch.cat([y, y]))
            slopes = torch.autograd.grad(looks.sum(), both, create_graph=True)[0] if weight > 0 else torch.zeros_like(both)
        D_real, D_made = looks.chunk(2)
        penalty = slopes.flatten(1).square().sum(dim=1).unflatten(0, (2, -1)).sum(dim=0)
        parts = {"real": D_real.detach(), "made": D_made.detach(), "penalty": weight / 2 * penalty.detach()}
        return Losses(F.softplus(D_made - D_real) + weight / 2 * penalty, parts)

    def weight(self, progress: float) -> float:
        """gamma after a share of the run."""
        return self.config.penalty * float(self.gamma * self.pressed) * COLDEST ** min(1.0, progress / COOLED)

    def unfold(self, noise: Noise, condition: Tensor | None = None, truncation: float = 1.0, **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, *event), at once. truncation: styles w become mean + truncation (w - mean), the mean that of their
        condition (arXiv:1812.04948, appendix B)."""
        z = self.latents(noise)
        u = noise.uniform(*self.space.shape).to(self.centre) if self.space.simplexes else None
        x = self._made(z, condition) if truncation == 1 else self._styled(self.styles(z, condition, truncation))
        yield self._finished(x, u)

    def styles(self, z: Tensor, condition: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Styles of each layer (B, L, W) of latents (B, Z) or (B, L, Z)."""
        G, y = self.generator, self._condition(condition)
        with torch.no_grad():
            w = G.styles(z.to(self.centre), y)
            if truncation != 1:
                mean = self._mean_style(y, len(z))
                mean = mean if w.ndim == 2 else mean[:, None]
                w = mean + truncation * (w - mean)
        return w if w.ndim == 3 else w[:, None].expand(-1, self.layers, -1)

    def latents(self, noise: Noise) -> Tensor:
        """z (B, Z) of each stream, which its sample begins with."""
        return noise.normal(self.latent).to(self.centre)

    def mixed(self, coarse: Tensor, fine: Tensor, layer: int) -> Tensor:
        """Latents (B, L, Z) with those of `coarse` before a layer, and of `fine` from it on; each (B, Z) or (B, L, Z)."""
        if not 0 <= layer <= self.layers:
            raise BadConfig("SETTING_RANGE", f"'layer' is {layer}; this model has {self.layers} layers of styles.")
        coarse, fine = (z if z.ndim == 3 else z[:, None].expand(-1, self.layers, -1) for z in (coarse, fine))
        return torch.cat([coarse[:, :layer], fine[:, layer:]], dim=1)

    def edited(self, z: Tensor, direction: int, strengths: Tensor, condition: Tensor | None = None) -> Tensor:
        """Points (B, S, *event): latents (B, Z) or (B, L, Z) whose styles are moved along a direction, by each strength (S,) in
        deviations of the styles along it. Directions are numbered from 0, those that move most first."""
        directions = self.generator.directions()
        if not 0 <= direction < len(directions):
            raise BadConfig("SETTING_RANGE", f"'direction' is {direction}; there are {len(directions)}, numbered from 0.")
        w, along = self.styles(z, condition), directions[direction]
        usual = self.generator.styles(Noise(0, MEASURED).normal(self.latent).to(z), None) @ along
        moved = w[:, None] + strengths.to(w).view(1, -1, 1, 1) * usual.std() * along
        return self._finished(self._styled(moved.flatten(0, 1))).unflatten(0, (len(z), -1))

    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """log p(x) or log p(x | y), (B,), over the known entries of x, of made records with the noise of observation that was
        fitted on held-out ones: an estimate by annealed importance sampling, with its standard error."""
        self.way(method)
        noise = Noise(0, len(x)) if noise is None else noise
        log_p, stderr = self.observation.estimated(self, x, self._condition(condition), noise)
        return Likelihood(log_p, "estimate", self.space.coordinates, stderr)

    def finish(self, batch: Batch, noise: Noise) -> None:
        """Fits the noise of observation to held-out records."""
        self.raw.copy_(self.observation.fitted(self, batch.x, self._condition(batch.condition), noise))

    def sandwich(self, count: int, noise: Noise) -> dict[str, float]:
        """How far the estimate of log_prob is to be trusted: see `likelihood.Observation.checked`."""
        return self.observation.checked(self, noise, count)

    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with its unknown entries drawn given the others, or without `noise` at the mean of a few draws; by the
        latents that annealing finds, approximately. Known entries keep their bits."""
        rows, out = self.values.unknown(x).flatten(1).any(dim=1).nonzero()[:, 0], x.clone()
        if len(rows):
            y = self._condition(condition)
            own = None if noise is None else noise.rows(rows)
            filled = self.observation.filled(self, x[rows], None if y is None else y[rows], own)
            filled = self.values.nearest(filled, self.anchor).to(x)
            out[rows] = torch.where(self.values.unknown(x[rows]), filled, x[rows])
        return out

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, L, Z), about standard normal, each layer's own, whose record is nearest to x (B, *event)."""
        with torch.inference_mode(False):
            y = self._condition(condition)
            return inverted(self, x.clone(), None if y is None else y.clone())

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, *event) of latents (B, L, Z), or of (B, Z) for all layers. Raises BadData LATENT_SHAPE."""
        if z.ndim != 2:
            self.check_latents(z, (self.layers, self.latent))
        else:
            self.check_latents(z, (self.latent,))
        return self._finished(self._made(z.to(self.centre), condition))

    def raw_points(self, z: Tensor, y: Tensor | None) -> Tensor:
        """What the generator says, in units of data: numbers as they are, logits of categories; gradients flow."""
        return self.generator(z, y) * self.scale + self.centre

    def examine(self, seen: Batch, unseen: Batch | None, noise: Noise) -> Exam:
        """Signs of collapse and overfit from as many made records as there are real ones; see `signs`. Real and made ones are
        treated as in the loss. Without held-out records there is no telling overfit."""
        held = seen if unseen is None else unseen
        noise, D = noise.part(0, min(len(noise), len(held.x))), self.discriminator
        n, y = len(noise), self._condition(held.condition)
        y = None if y is None else y[:n]
        with torch.no_grad():
            z, u = self.latents(noise), noise.uniform(*self.space.shape).to(self.centre)
            made = torch.where(self.values.unknown(held.x[:n]), 0.0, self._categories(self.generator(z, y), u))
            points = [self._spread(batch.x, Noise(0, len(batch.x), first * PROBES)) for first, batch in enumerate((seen, held))]
            found = distances(made.flatten(1), points[0].flatten(1), points[1].flatten(1))
            labels = self._condition(seen.condition), self._condition(held.condition), y
            looks = [D(x, label) for x, label in zip((*points, made), labels, strict=True)]
        found |= judgements(*looks)
        if unseen is None:
            del found["overfit"], found["support"]
        return Exam(found, made)

    def adapt(self, signs: Mapping[str, float]) -> None:
        """Augmentation more or less likely, as the discriminator overfits."""
        if self.config.augment == "auto" and "overfit" in signs:
            self.p.add_(PACE if signs["overfit"] > TARGET else -PACE).clamp_(0.0, MOST)

    def treat(self, remedy: str) -> str | None:
        """Presses the penalty or the augmentation; what was done, or None where there is nothing to do."""
        if remedy == "penalty" and self.config.penalty and float(self.pressed) < 1e4:
            self.pressed.mul_(4).clamp_(min=1 / self.config.penalty)
            return f"gradient penalties weigh {self.config.penalty * float(self.pressed):g} times what was chosen from the data"
        if remedy == "augmentation" and self.config.augment == "auto" and float(self.p) < MOST:
            self.p.add_(0.2).clamp_(max=MOST)
            return f"each augmentation falls on {float(self.p):.0%} of records"
        return None

    def _condition(self, y: Tensor | None) -> Tensor | None:
        return None if y is None or self.condition_space is None else y.to(self.centre.device)

    def _numbers(self) -> Tensor:
        """Which entries are numbers, (*event) bool; the others are one-hot."""
        number = torch.ones(self.space.shape, dtype=torch.bool, device=self.centre.device)
        for first, last in self.space.simplexes:
            number[first:last] = False
        return number

    def _cells(self) -> Tensor:
        """Widths of the cells that values stand for, in units of scale: real records are spread over them, for a generator's
        numbers are not on a grid."""
        return self.values.cells.view(self.space.shape).to(self.scale) / self.scale

    def _unit(self, x: Tensor) -> Tensor:
        return (x.to(self.centre) - self.centre) / self.scale

    def _spread(self, x: Tensor, noise: Noise) -> Tensor:
        """Real records as the discriminator sees them: in unit scale, over their cells, unknown entries at 0."""
        u = noise.uniform(*self.space.shape).to(self.centre)
        return torch.where(self.values.unknown(x), 0.0, self._unit(x) + (u - 0.5) * self._cells())

    def _categories(self, x: Tensor, u: Tensor) -> Tensor:
        """One-hot blocks drawn from their logits by u, in (0, 1), with the gradient of the softmax that they came from (the
        straight-through Gumbel softmax: Jang, Gu and Poole, arXiv:1611.01144)."""
        blocks = [x[:, first:last] - (-u[:, first:last].log()).log() for first, last in self.space.simplexes]
        for (first, last), block in zip(self.space.simplexes, blocks, strict=True):
            soft = block.softmax(dim=1)
            hard = F.one_hot(block.argmax(dim=1), last - first).to(x)
            x = torch.cat([x[:, :first], hard + soft - soft.detach(), x[:, last:]], dim=1)
        return x

    def _made(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """What the generator says (B, *event) of latents, some at a time."""
        y, rows = self._condition(condition), max(1, CHUNK // self.space.dims)
        with torch.no_grad():
            made = [self.generator(z[i:i + rows], None if y is None else y[i:i + rows]) for i in range(0, len(z), rows)]
        return torch.cat([self.centre.new_zeros(0, *self.space.shape), *made])

    def _styled(self, w: Tensor) -> Tensor:
        """The same of styles (B, L, W)."""
        with torch.no_grad():
            made = [self.generator.made(part) for part in w.split(max(1, CHUNK // self.space.dims))]
        return torch.cat([self.centre.new_zeros(0, *self.space.shape), *made])

    def _finished(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Points (B, *event) of what the generator said; categories drawn by u, or the likeliest."""
        x = x if u is None else self._categories(x, u)
        return self.values.nearest(x * self.scale + self.centre, self.anchor)

    def _mean_style(self, y: Tensor | None, count: int) -> Tensor:
        """Mean styles (B, W) of each record's condition."""
        G, z = self.generator, Noise(0, MEASURED).normal(self.latent).to(self.centre)
        if y is None:
            return G.styles(z, None).mean(dim=0).expand(count, -1)
        kinds, which = y.unique(dim=0, return_inverse=True)
        return torch.stack([G.styles(z, kind.expand(len(z), *kind.shape)).mean(dim=0) for kind in kinds])[which]


MEMBER = GAN


def _resolved(config: Any, space: Continuous) -> Any:
    """The config with nothing left open."""
    usual = VECTORS if len(space.shape) == 1 else MAPS
    usual = {**usual, "latent": min(usual["latent"], max(space.coordinates, 2))}
    return replace(config, **{name: value for name, value in usual.items() if getattr(config, name) is None})
