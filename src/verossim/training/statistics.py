"""Learning by statistics: expectation-maximisation over any amount of data, in any number of processes.

EM (Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", JRSS B 1977) is a map
theta -> M(theta) that needs the data only through sums, `family.statistics`; each update never lowers the objective
L(theta) = mean log-likelihood (+ log prior). A sweep adds the sums up over batches, one all-reduce over ranks, `absorb`.

Acceleration (`accelerate`) is SQUAREM, scheme S3 (Varadhan and Roland, "Simple and globally convergent methods for
accelerating the convergence of any EM algorithm", Scand. J. Statist. 2008), on the family's unconstrained coordinates:

    r = M(theta) - theta      v = M(M(theta)) - M(theta) - r      alpha = -|r| / |v|
    theta' = theta - 2 alpha r + alpha^2 v

The sweep at theta' says what L(theta') is. Is it below the last objective that is known, L(M(theta)), the jump is undone and EM
goes on from M(M(theta)), so that no objective in the history is below the one before it. The longest jump allowed grows by 4
when used in full and shrinks after a miss.

Stepwise EM (`stepwise`; Cappé and Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B
2009) updates after every batch, for data so large that one sweep is long: s <- (1 - eta_t) s + eta_t s_batch, with
eta_t = (t + 2)^-0.7.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy
import torch
from torch import Tensor

from ..config import knob
from ..errors import Diverged
from ..families import LearnsByStatistics
from ..seeds import Noise, check_seed
from ..spaces import Batch
from .engine import Engine
from .journal import Journal

__all__ = ["History", "InMemory", "Learning", "Split", "begin", "learn", "subsample"]

START_RECORDS = 20_000  # enough to place components; more only costs time
START_NUMBERS = 1 << 22  # and so many numbers in them, however wide the records are
GROWTH = 4.0  # of the longest jump allowed, Varadhan and Roland's choice
ROUNDING = 1e-10  # gains below this share of the objective cannot tell a good jump from a bad one
GOLDEN = (math.sqrt(5) - 1) / 2
FORGETTING = 0.7  # exponent of the stepwise step; (0.5, 1] converges


class Split(Protocol):
    """Records that can be swept over again and again, in memory or not."""

    def __len__(self) -> int:
        """Number of records."""

    def take(self, indices: Tensor) -> Batch:
        """The records of these numbers, (B,) int64."""

    def sweep(self, batch: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """This rank's share of the records once over, at most `batch` at a time; the shares are disjoint and cover all."""


@dataclass(frozen=True)
class InMemory:
    """A Split over one batch that is held in memory; batches are views of it."""

    whole: Batch
    in_memory: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.whole.x)

    def slice(self, first: int, last: int) -> Batch:
        """Records from `first` to before `last`."""
        return _picked(self.whole, slice(first, last))

    def take(self, indices: Tensor) -> Batch:
        """The records of these numbers, (B,) int64."""
        return _picked(self.whole, torch.as_tensor(indices))

    def sweep(self, batch: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """Every `ranks`-th batch from number `rank` on."""
        for first in range(rank * batch, len(self), ranks * batch):
            yield self.slice(first, min(first + batch, len(self)))


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How to learn by statistics."""

    iterations: int = knob(200, "updates at most, each a sweep over the data", low=0, high=1_000_000)
    tolerance: float = knob(1e-5, "stop when an update gains less than this, in nats a record", low=0.0, high=1e3)
    accelerate: bool = knob(True, "extrapolate along the path of updates (SQUAREM), going back where that does not help")
    stepwise: bool = knob(False, "update after every batch, for data so large that few sweeps are affordable")


@dataclass(frozen=True)
class History:
    """How learning went.

    objectives : mean log-likelihood a unit plus log prior a unit (nats) at each point that was kept, in order; under
        stepwise learning, running estimates a sweep, the last one exact.
    sweeps : times the data was gone through; converged : whether the last update gained less than the tolerance.
    accelerated, rejected : extrapolations that were kept, and that were undone. seconds : wall time.
    """

    objectives: tuple[float, ...]
    sweeps: int
    converged: bool
    seconds: float
    accelerated: int = 0
    rejected: int = 0


def subsample(split: Split, seed: int, most: int = START_RECORDS, least: int = 1000) -> Batch:
    """At most `most` records chosen at random without replacement, in the order they lie in; where records are wide, fewer:
    about START_NUMBERS numbers, but not below `least` records."""
    width = split.take(torch.arange(min(1, len(split)))).x.numel()
    most = min(most, max(START_NUMBERS // max(width, 1), least))
    if len(split) <= most:
        return split.take(torch.arange(len(split)))
    # Generator.choice without shuffling is Floyd's algorithm: its memory grows with `most`, not with the data.
    chosen = numpy.random.default_rng(check_seed(seed)).choice(len(split), most, replace=False, shuffle=False)
    return split.take(torch.from_numpy(numpy.sort(chosen)))


def begin(family: LearnsByStatistics, split: Split, seed: int, engine: Engine = Engine()) -> None:
    """Sets the family's starting parameters from a random part of the records; the same on every rank."""
    if engine.first:
        components = vars(family.config).get("components", 1)
        batch = subsample(split, seed, most=START_RECORDS, least=100 * components)
        family.start(batch, Noise(seed, len(batch.x)))
    family.load_state_dict(engine.share(dict(family.state_dict())))


def learn(family: LearnsByStatistics, split: Split, *, batch: int, config: Learning = Learning(),
          engine: Engine = Engine(), journal: Journal | None = None) -> History:
    """Improves the family from where it stands until an update gains too little or the updates run out.

    batch: records at a time, which bounds the memory. Every rank calls it and ends with the same parameters.
    On Ctrl-C the family is left at the best parameters known and KeyboardInterrupt goes on its way.
    Raises Diverged (DIVERGED) when an update leaves the finite numbers.
    """
    climb = _Climb(family, split, batch, engine, journal or Journal(), config)
    try:
        (_stepwise if config.stepwise else _squarem if config.accelerate else _plain)(climb)
    except KeyboardInterrupt:
        family.move(climb.safe)
        raise
    history = climb.history()
    climb.journal.event("learned", objective=history.objectives[-1] if history.objectives else None, sweeps=history.sweeps,
                        converged=history.converged, seconds=history.seconds, accelerated=history.accelerated,
                        rejected=history.rejected)
    return history


@dataclass
class _Climb:
    """One run of `learn`: what it works on, and what it has seen so far. `safe` are the best coordinates known."""

    family: LearnsByStatistics
    split: Split
    batch: int
    engine: Engine
    journal: Journal
    config: Learning
    objectives: list[float] = field(default_factory=list)
    sweeps: int = 0
    converged: bool = False
    accelerated: int = 0
    rejected: int = 0
    started: float = field(default_factory=time.perf_counter)
    safe: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.safe = self.family.coordinates().clone()

    @property
    def going(self) -> bool:
        """Whether there is reason and allowance for one more sweep."""
        return not self.converged and self.sweeps < self.config.iterations

    def update(self) -> float:
        """One sweep and one update; returns the objective before it."""
        self.sweeps += 1
        return self.family.absorb(self.engine.sum(self._swept()))

    def step(self) -> None:
        """One plain update, and whether it was the last one worth making."""
        self.converged = abs(self.keep(self.update())) < self.config.tolerance

    def keep(self, objective: float, *, jumped: bool = False) -> float:
        """Writes an objective down and makes the update just done the safe point; returns the gain."""
        if not math.isfinite(objective):
            raise Diverged("DIVERGED", f"The objective became {objective} in sweep {self.sweeps}.",
                           "Look for columns of extreme values; fewer components or a simpler covariance may help.")
        gain = objective - self.objectives[-1] if self.objectives else math.inf
        self.objectives.append(objective)
        self.safe = self.family.coordinates().clone()
        self.journal.event("sweep", sweep=self.sweeps, of=self.config.iterations, objective=objective, gain=gain,
                           seconds=time.perf_counter() - self.started, jumped=jumped)
        return gain

    def history(self) -> History:
        """What is left to tell at the end."""
        return History(tuple(self.objectives), self.sweeps, self.converged, time.perf_counter() - self.started,
                       self.accelerated, self.rejected)

    def _swept(self) -> dict[str, Tensor]:
        """Statistics summed over this rank's share of the records; a rank without records adds zeros."""
        sums: dict[str, Tensor] = {}
        for batch in self.split.sweep(self.batch, self.engine.rank, self.engine.ranks):
            sums = _added(sums, self.family.statistics(batch))
        return sums or self.nothing()

    def nothing(self) -> dict[str, Tensor]:
        """Statistics of no records: zeros of the right names and shapes."""
        return self.family.statistics(self.split.take(torch.arange(0)))


def _plain(climb: _Climb) -> None:
    """EM as it is: theta <- M(theta)."""
    while climb.going:
        climb.step()


def _squarem(climb: _Climb) -> None:
    """Two updates show the direction, one jump follows it; a jump that landed lower is undone."""
    longest = 1.0
    while climb.going:
        theta_0 = climb.family.coordinates().clone()
        climb.step()
        theta_1 = climb.safe
        if not climb.going:
            return
        climb.step()
        theta_2 = climb.safe
        alpha = _alpha(theta_0, theta_1, theta_2, longest)
        telling = climb.objectives[-1] - climb.objectives[-2] > ROUNDING * max(abs(climb.objectives[-1]), 1.0)
        if climb.going and alpha < -1 and telling:
            landed = _jump(climb, theta_0, theta_1, theta_2, alpha)
            longest = longest * GROWTH if landed and alpha == -longest else longest if landed else max(longest / GROWTH, 1.0)
        elif alpha == -longest:
            longest *= GROWTH


def _alpha(theta_0: Tensor, theta_1: Tensor, theta_2: Tensor, longest: float) -> float:
    """Length of the jump, scheme S3, within [-longest, -1]; at -1 the jump is theta_2 itself."""
    r = theta_1 - theta_0
    v = theta_2 - theta_1 - r
    return max(-longest, min(-1.0, -float(r.norm()) / max(float(v.norm()), 1e-300)))


def _jump(climb: _Climb, theta_0: Tensor, theta_1: Tensor, theta_2: Tensor, alpha: float) -> bool:
    """Tries theta'; its sweep shows whether it is higher than what was known, and is itself one more update if so."""
    r = theta_1 - theta_0
    v = theta_2 - theta_1 - r
    try:
        climb.family.move(theta_0 - 2 * alpha * r + alpha ** 2 * v)
        objective = climb.update()
    except Diverged:
        objective = -math.inf
    landed = math.isfinite(objective) and objective >= climb.objectives[-1]
    if landed:
        climb.accelerated += 1
        climb.keep(objective, jumped=True)
    else:
        climb.rejected += 1
        climb.family.move(theta_2)
        climb.journal.event("undone", sweep=climb.sweeps, objective=objective, alpha=alpha)
    return landed


def _stepwise(climb: _Climb) -> None:
    """Batches move the parameters as they come; then one exact sweep says where that led, and is one more update."""
    blended: dict[str, Tensor] = {}
    records = units = 0.0
    steps, before = 0, math.inf
    while climb.sweeps < climb.config.iterations - 1 and not climb.converged:
        climb.sweeps += 1
        objectives = []
        for batch, sums in _rounds(climb):
            records, units, steps = records + batch["records"], units + batch["units"], steps + 1
            total = len(climb.split) * units / records  # units of all the data, as far as seen
            eta = 1.0 if steps == 1 else (steps + 1) ** -FORGETTING
            eta = 1 - (1 - eta) ** min(1.0, batch["records"] / (climb.batch * climb.engine.ranks))  # a short one says less
            fresh = {name: value * (total / batch["units"]) for name, value in sums.items()}
            blended = {name: (1 - eta) * blended[name] + eta * fresh[name] if blended else fresh[name] for name in fresh}
            objectives.append(climb.family.absorb(blended))
        gain = abs(climb.keep(sum(objectives) / len(objectives)))
        climb.converged = max(gain, before) < climb.config.tolerance  # twice in a row: what is kept is an estimate
        before = gain
    if climb.config.iterations:
        climb.keep(climb.update())


def _rounds(climb: _Climb) -> Iterator[tuple[dict[str, float], dict[str, Tensor]]]:
    """Statistics of one batch of every rank at a time, until no rank has any left."""
    mine = _strides(climb)
    while True:
        batch = next(mine, None)
        sums = climb.nothing() if batch is None else climb.family.statistics(batch)
        seen = torch.tensor([0.0, 0.0] if batch is None else [len(batch.x), float(batch.units.sum())], dtype=torch.float64)
        summed = climb.engine.sum({**sums, "records, units": seen})
        records, units = summed.pop("records, units").tolist()
        if not records:
            return
        if units:
            yield {"records": records, "units": units}, summed


def _strides(climb: _Climb) -> Iterator[Batch]:
    """This rank's batches of a sweep in which neighbours lie far apart: place p holds record a p + c modulo the number
    of records, a near the golden section of it and coprime to it. Data that lie sorted would pull the parameters about."""
    N, rank, ranks = len(climb.split), climb.engine.rank, climb.engine.ranks
    a = max(1, round(N * GOLDEN))
    while math.gcd(a, N) != 1:
        a += 1
    for first in range(rank * climb.batch, N, ranks * climb.batch):
        places = torch.arange(first, min(first + climb.batch, N))
        yield climb.split.take((a * places + climb.sweeps) % N)


def _added(sums: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: sums[name] + value for name, value in more.items()} if sums else more


def _picked(batch: Batch, which: slice | Tensor) -> Batch:
    condition = None if batch.condition is None else batch.condition[which]
    return Batch(batch.x[which], condition, batch.units[which], batch.index[which])
