"""Diffusion: data are noised little by little, and a network learns the way back.

    x_t = alpha_t x + sigma_t eps,     D(x_t, t, y) = E[x | x_t, y]

The network learns D by least squares over all noise levels (Ho, Jain and Abbeel, arXiv:2006.11239; Karras et al.,
"Elucidating the design space of diffusion-based generative models", arXiv:2206.00364). From it follow samples, by the
probability-flow ODE (`solver`); densities, by the same ODE or by a variational bound (`likelihood`); latents, for the ODE is
a bijection (`flow`); and what is unknown of a record given the rest (`completion`).

An event is treated as one vector of numbers, one-hot blocks too. Entries that take discrete values are rounded to them at
the end, and have a probability mass (`values`). Unknown entries of records that are learned from stand at their mean and cost
nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...config import knob
from ...errors import BadConfig, Incompatible, NoLikelihood, NotInvertible, VerossimError, near
from ...nn.backbone import KINDS, backbone, kind_of
from ...nn.conditioning import dropped
from ...seeds import Noise
from ...spaces import Batch, Continuous, Likelihood, Space
from .. import Exam, LearnsByGradient, Losses, Sign, Turn, beyond_chance
from .completion import Completion
from .denoiser import Denoiser, Preconditioned, Standard, wide
from .flow import FlowMap
from .guidance import Guided, Unconditional
from .levels import levels_of
from .likelihood import Judge, gaussian_nats, saving
from .schedule import SCHEDULES
from .solver import STEPS, evenly, legs, solve
from .values import Values

__all__ = ["MEMBER", "Diffusion"]

HIGHEST = 80.0  # the largest noise ratio: data of unit scale are lost in it (Karras et al., table 1)
CHUNK = 1 << 17  # numbers in the records that are judged at a time
FLOW_STEPS = 48  # between data and latents
GUIDED = 6.0  # spreads of the data: with more noise than that, guidance drives samples out of the data (arXiv:2404.07724)
WIDEST_GAP = 1.0  # of the loss: held-out records cost twice as much
MEANS = 8  # completions whose mean is the conditional mean
KNOBS = ("steps", "solver", "guidance", "interval", "worse", "dtype")  # of sampling


class Diffusion(LearnsByGradient):
    """P(X) or P(X | Y) by denoising: E |D(x + r eps) - x|^2 / gain^2 over x, eps ~ N(0, I) and r ~ q."""

    accepts = (Continuous,)
    likelihood: Literal["exact", "bound", "estimate", "none"] = "estimate"
    methods = ("flow", "bound")
    beside = ("worse",)
    examined = 500
    signs = (Sign(name="gap", high=WIDEST_GAP, cause="the network knows the records it learned from by heart, and finds "
                  "held-out ones in noise far worse; more data, a smaller network or fewer samples help"),)
    centre: Tensor
    spread: Tensor
    anchor: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int | None = knob(None, "channels of the network; where nothing is said 64, or 256 for vectors and patches",
                                 low=8, high=16_384)
        depth: int | None = knob(None, "blocks of the network, a level where it has levels; where nothing is said by its kind",
                                 low=1, high=256)
        network: str = knob("auto", "kind of network; auto: by the shape of the data",
                            choices=KINDS)
        schedule: str = knob("ve", "how noise grows: which levels are learned most, and where samples take their steps",
                             choices=tuple(SCHEDULES))
        output: str = knob("auto", "what the network says; auto: x and noise mixed by the noise level, or x from patches",
                           choices=("auto", "x", "noise", "velocity"))
        drop: float = knob(0.1, "share of records whose condition is hidden from the network, for guidance", low=0.0, high=1.0)

    @dataclass(frozen=True, kw_only=True)
    class Sampling:
        steps: int = knob(18, "noise levels on the way; heun evaluates the network twice at each", low=1, high=10_000)
        solver: str = knob("heun", "how a step is taken", choices=tuple(STEPS))
        guidance: float = knob(1.0, "weight of the condition against none, or against the worse model; 1 is the model itself",
                               low=0.0, high=100.0)
        interval: tuple[float, float] | None = knob(None, "noise ratios between which it is guided, such as 0.2,5; where "
                                                    "nothing is said up to 6 spreads of the data", low=0.0)
        worse: str | None = knob(None, "folder of a worse model of the same data, to be led away from")

    def __init__(self, config: Any, space: Space, condition: Space | None = None):
        if not isinstance(space, Continuous):
            raise Incompatible("SPACE", f"Diffusion learns Continuous spaces, not {type(space).__name__}.",
                               "Fit an autoencoder (family vae), and diffusion over it.")
        super().__init__(_resolved(config, space), space, condition)
        self.values = Values(space)
        self.schedule = SCHEDULES[self.config.schedule](self.values.finest, HIGHEST)
        network = backbone(space, width=self.config.width, depth=self.config.depth, condition=condition, timed=True,
                           kind=self.config.network)
        self.networks = nn.ModuleDict({"denoiser": network})
        self.register_buffer("centre", torch.zeros(space.shape))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("anchor", torch.zeros(space.shape))

    @property
    def standard(self) -> Standard:
        """The Gaussian that the network starts from."""
        return Standard(self.centre, float(self.spread))

    @property
    def denoiser(self) -> Preconditioned:
        """E[x | x + r eps, y] as the network has it."""
        return Preconditioned(self.networks["denoiser"], self.standard, self.schedule, self.config.output)

    def start(self, batch: Batch, noise: Noise) -> None:
        """Measures the mean of each entry, the spread about it, and where grids of values lie."""
        x = batch.x.double()
        there = ~self.values.unknown(x)
        weights = there * wide(batch.units.double(), x)
        known, total = torch.where(there, x, 0.0), weights.sum(dim=0)
        centre = (weights * known).sum(dim=0) / torch.where(total > 0, total, 1.0)
        squares = (weights * (known - centre).square()).sum() / weights.sum().clamp(min=1e-12)
        first = there.to(torch.int8).argmax(dim=0, keepdim=True)
        anchor = known.gather(0, first)[0]
        self.centre.copy_(centre)
        self.spread.copy_(squares.sqrt().clamp(min=0.01))
        self.anchor.copy_(torch.full_like(anchor, -1 + 1 / self.values.levels) if self.values.levels else anchor)

    def loss(self, batch: Batch, turn: Turn) -> Losses:
        """Mean square error of the network's target, a record; "nats" is the variational bound, from the same evaluation."""
        assert batch.noise is not None
        unknown = self.values.unknown(batch.x)
        known, standard, denoiser = ~unknown, self.standard, self.denoiser
        x = torch.where(unknown, self.centre, batch.x.to(self.centre))
        u = batch.noise.uniform(2, dtype=torch.float64)
        levels = levels_of(self.config.schedule, self.schedule, standard.spread)
        r = levels.ratio(u[:, 0])
        ratio, q = r.to(x), levels.density(r).to(x)
        eps = batch.noise.normal(*x.shape[1:]).to(x)
        y = self._condition(batch.condition)
        x_r = x + wide(ratio, x) * eps
        D = denoiser(x_r, ratio, dropped(y, u[:, 1].to(x), self.config.drop) if self.training else y)
        missed = torch.where(known, D - x, 0.0).square().flatten(1).sum(dim=1)
        with torch.no_grad():
            saved = saving(standard, x, x_r, D, ratio, known) / q
            nats = gaussian_nats(standard, self.schedule.low, x, known) + self.values.log_flat(x, eps, known) - saved
        weight = 1 / standard.output(ratio).gain.square()
        return Losses(weight * missed / known.flatten(1).sum(dim=1).clamp(min=1), {"nats": nats})

    def examine(self, seen: Batch, unseen: Batch | None, noise: Noise) -> Exam:
        """gap: how much more held-out records cost than those learned from, as a share of what these cost, beyond chance."""
        if unseen is None:
            return Exam({})
        learned, held = self.paired(seen, unseen, noise)
        return Exam({"gap": beyond_chance(held.total, learned.total) / max(float(learned.total.mean()), 1e-12)})

    def unfold(self, noise: Noise, condition: Tensor | None = None, steps: int = 18, solver: str = "heun",
               guidance: float = 1.0, interval: tuple[float, float] | None = None, worse: "Diffusion | None" = None,
               dtype: torch.dtype = torch.float32, **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, *event) after each of `steps` noise levels, as they would be if it ended there.

        solver : one of `solver.STEPS`; "heun" evaluates the network twice a level.
        guidance : weight of `guidance`, 1 is the model itself, at noise ratios in `interval`, up to GUIDED spreads of the data
            where None; away from the model `worse` where there is one, else from the unconditional.
        Raises BadConfig SETTING_RANGE, and CONFIG_KEY for a knob that there is not.
        """
        for name in knobs:
            raise BadConfig("CONFIG_KEY", f"Diffusion has no '{name}' to sample by.", near(name, KNOBS))
        if solver not in STEPS:
            raise BadConfig("SETTING_RANGE", f"'solver' is {solver!r}, which there is not.", near(solver, STEPS))
        if steps < 1:
            raise BadConfig("SETTING_RANGE", f"'steps' is {steps}.", "It should be at least 1; 18 is plenty for most data.")
        if interval is not None and interval[0] >= interval[1]:
            raise BadConfig("SETTING_RANGE", f"'interval' is {interval[0]:g},{interval[1]:g}: nothing lies between.",
                            "The lower noise ratio comes first.")
        if worse is not None and (type(worse) is not Diffusion or worse.space != self.space):
            raise Incompatible("SPACE", "The worse model is none of diffusion over the same space.",
                               "Fit both to the same data.")
        denoiser, y = self._guided(condition, guidance, interval, worse)
        z = noise.normal(*self.space.shape).to(self.centre)
        path = legs(self.schedule, evenly(steps), self.centre)
        x = path[0].alpha * self.standard.start(z, path[0].ratio)
        for state in solve(denoiser, x, path, solver, y, noise):
            yield self.values.nearest(state.denoised, self.anchor).to(dtype)

    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """log p(x) or log p(x | y), (B,): "flow" is an estimate, "bound" a bound, both with a standard error.

        Raises NoLikelihood UNKNOWN_ENTRIES for records with unknown entries, and BadConfig for another method.
        """
        method = self.way(method)
        self._whole(x, NoLikelihood, "the probability of the rest")
        noise = Noise(0, len(x)) if noise is None else noise
        judge = Judge(self.denoiser, self.standard, self.schedule, self.values)
        judged = {"flow": judge.flow, "bound": judge.bound}[method]
        found = self._in_parts(judged, x, self._condition(condition), noise)
        log_p = torch.cat([self.centre.new_zeros(0), *(part.log_prob for part in found)])
        stderr = torch.cat([self.centre.new_zeros(0), *(part.stderr for part in found)])
        return Likelihood(log_p, "estimate" if method == "flow" else "bound", self.space.coordinates, stderr)

    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with its unknown entries drawn given the others (approximately: see `completion`), or without `noise`
        at the mean of a few such draws; known entries keep their bits."""
        rows = self.values.unknown(x).flatten(1).any(dim=1).nonzero()[:, 0]
        if not len(rows):
            return x
        y = self._condition(condition)
        if noise is not None:
            filled = self._filled(x[rows], None if y is None else y[rows], noise.rows(rows.cpu()))
        else:
            several = rows.repeat_interleave(MEANS)
            streams = Noise(0, MEANS).rows(torch.arange(MEANS).repeat(len(rows)))  # the same for each record, in any batch
            drawn = self._filled(x[several], None if y is None else y[several], streams)
            filled = self.values.nearest(drawn.unflatten(0, (-1, MEANS)).mean(dim=1), self.anchor)
        out = x.clone()
        out[rows] = torch.where(self.values.unknown(x[rows]), filled.to(x), x[rows])
        return out

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, *event), about standard normal: where the probability-flow ODE takes x. Raises NotInvertible for
        records with unknown entries."""
        self._whole(x, NotInvertible, "latents")
        with torch.no_grad():
            return self._flow(condition).encoded(x.to(self.centre), FLOW_STEPS)

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, *event) of latents: `encode` backwards, to the error of the solver; discrete values exactly on their grid.
        Raises BadData LATENT_SHAPE."""
        self.check_latents(z, self.space.shape)
        with torch.no_grad():
            return self.values.nearest(self._flow(condition).decoded(z.to(self.centre), FLOW_STEPS), self.anchor)

    def _filled(self, x: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """Completions of records that all have something unknown."""
        fill = Completion(self.denoiser, self.standard, self.values, self.anchor, self.schedule.low)
        return torch.cat(self._in_parts(fill, x, y, noise))

    def _in_parts(self, verb: Callable[[Tensor, Noise, Tensor | None], Any], x: Tensor, y: Tensor | None,
                  noise: Noise) -> list[Any]:
        """What verb(x, noise, y) returns for some records at a time, free to ask for gradients in any mode of the caller."""
        rows = max(1, CHUNK // self.space.dims)
        with torch.inference_mode(False), torch.no_grad():
            return [verb(x[i:i + rows].to(self.centre, copy=True), noise.part(i, i + rows),
                         None if y is None else y[i:i + rows].clone()) for i in range(0, len(x), rows)]

    def _flow(self, condition: Tensor | None) -> FlowMap:
        return FlowMap(self.denoiser, self.standard, self.schedule, self._condition(condition))

    def _condition(self, y: Tensor | None) -> Tensor | None:
        """The condition where the network takes one, on its device."""
        return None if y is None or self.condition_space is None else y.to(self.centre.device)

    def _guided(self, condition: Tensor | None, weight: float, interval: tuple[float, float] | None,
                worse: "Diffusion | None") -> tuple[Denoiser, Tensor | None]:
        """The denoiser that samples follow, and its condition; no condition and no worse model: nothing to lean away from."""
        y = self._condition(condition)
        if weight == 1 or (worse is None and y is None):
            return self.denoiser, y
        away = Unconditional(self.denoiser) if worse is None else worse.denoiser
        return Guided(self.denoiser, away, weight, *(interval or (0.0, GUIDED * float(self.spread)))), y

    def _whole(self, x: Tensor, error: type[VerossimError], what: str) -> None:
        """Raises the error where a record has unknown entries."""
        lacking = int(self.values.unknown(x).flatten(1).any(dim=1).sum())
        if lacking:
            raise error("UNKNOWN_ENTRIES",
                        f"{lacking} of {len(x)} records have unknown entries, and a diffusion model cannot tell {what}.",
                        "Fill them first by `complete`, or use a mixture (family gmm), which sums them out.")


MEMBER = Diffusion


def _resolved(config: Any, space: Continuous) -> Any:
    """The config with nothing left open: the network by the rank and the lengths of the axes, its size by its kind."""
    kind = kind_of(space) if config.network == "auto" else config.network
    width, depth = {"mlp": (256, 4), "unet": (64, 2), "transformer": (256, 8)}[kind]
    spoken = "x" if config.output == "auto" and kind == "transformer" else config.output
    return replace(config, network=kind, output=spoken, width=config.width or width, depth=config.depth or depth)
