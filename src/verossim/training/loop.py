"""Learning by gradient: one loop for every family, counted in records seen.

    report, save and show first, learn last; one flag says when it is done

A step is a pure function of the state and of the number of records seen: the order of the data, the streams of random numbers
and the rate all follow from (seed, samples). So a run that was stopped goes on bit for bit where it was, from nothing but its
tensors and this number. The loss of a batch is the mean over its units, on all ranks and in all rounds together:

    L = sum_i u_i l_i / sum_i u_i        over the global batch, however it is cut
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import CannotWrite, Diverged
from ..families import LearnsByGradient, Losses, Turn
from ..sealed import check_shapes
from ..seeds import Noise, reseed, untouched
from ..spaces import Batch
from .average import Average, averaged
from .checkpoint import Checkpoint, Checkpoints
from .course import Course, Settled
from .doctor import Doctor
from .engine import Engine
from .guard import Guard
from .heap import kept
from .journal import Journal
from .optimizers import Optimizers, rate
from .pieces import cuts, piece
from .plan import resident
from .statistics import Split, subsample
from .stopping import SIGNALS, Stop, stopping

__all__ = ["train"]

STREAMS = 1 << 62  # training draws from other streams than sampling does
TURN_WORDS = 1 << 24  # words of a record's stream set aside for each turn
REPORT_SECONDS, SHOW_SECONDS, SAVE_SECONDS = 1.0, 20.0, 60.0
SHOW_SHARE, SAVE_SHARE = 0.05, 0.01  # of the time, at most, that goes into previews and into saving
CURVE = 1000  # points of the curve that are kept
SLOWER = 4  # the rate is lowered by, where the doctor says so
NAMED = 100  # records of a skipped step that the journal names, at most
NO_MEMORY = "can't allocate memory"  # what PyTorch's allocator on the CPU says


def train(family: LearnsByGradient, batches: Callable[[int], Iterator[Batch]], config: Settled, *, data: Split, seed: int = 0,
          held: Split | None = None, engine: Engine | None = None, journal: Journal | None = None,
          checkpoints: Checkpoints | None = None, show: Callable[[int], None] | None = None,
          publish: Callable[[dict[str, Tensor]], None] | None = None) -> Course:
    """Learns until `config.samples` records have been seen, from where the newest of `checkpoints` stands.

    batches : from a number of records seen, this rank's share of every global batch from there on. data : the records, of
    which some are measured before learning. held : records to examine the family by, which are not learned from. publish :
    called on the first rank after each save, with what ships: averaged weights and buffers by their names in
    `family.state_dict()`. show : called on the first rank with the records seen, while the family holds the averaged weights;
    neither where these are sharded, nor once a run was asked to stop, for it is given little time.

    The family holds the averaged weights at the end. Raises Diverged DIVERGED when steps keep failing after retreats, and
    CannotWrite when the last save fails, or RUN_APART where ranks would go on from different states.
    """
    run = _Run(family, config, seed, engine or Engine(), journal or Journal(), checkpoints, show, publish)
    family.train()
    with stopping() as stop, untouched(), kept(), run.prepared(data, held):
        source = batches(run.samples)
        while True:
            due = run.due_now(stop)
            run.report(due)
            run.save(due)
            run.show(due)
            if "done" in due:
                break
            run.learn(next(source))
    return run.finished()


class _Run:
    """The state of a run and the four things done with it."""

    def __init__(self, family: LearnsByGradient, config: Settled, seed: int, engine: Engine, journal: Journal,
                 checkpoints: Checkpoints | None, show: Callable[[int], None] | None,
                 publish: Callable[[dict[str, Tensor]], None] | None):
        self.family, self.config, self.seed, self.engine, self.journal = family, config, seed, engine, journal
        self.checkpoints, self.shown, self.published = checkpoints, show, publish
        self.total, self.batch, self.rounds = config.samples, config.batch, config.accumulate
        self.samples = self.steps = self.skipped = 0
        self.interrupted: int | None = None
        self.guard = Guard()
        self.scaler = torch.amp.GradScaler(engine.device.partition(":")[0], enabled=config.precision == "fp16")
        self.curve: list[tuple[int, float, float | None]] = []
        self.sums: dict[str, dict[str, float]] = {}  # by turn
        self.seconds = 0.0

    @contextlib.contextmanager
    def prepared(self, data: Split, aside: Split | None) -> Iterator[None]:
        """Where the networks are on their device, wrapped, with their optimizers, at the newest checkpoint."""
        family, engine = self.family, self.engine
        held = None if self.checkpoints is None else self.checkpoints.newest()
        for problem in self.checkpoints.damaged if self.checkpoints else ():
            self.journal.warn(problem.code, problem.message, "The checkpoint before it is used.")
        self.check_together(None if held is None else held.samples)
        if held is None:
            family.start(subsample(data, self.seed), Noise(self.seed, 1))
        family.to(engine.device)
        if self.config.compiled:
            for network in family.networks.values():
                network.compile()
        self.whole = copy.deepcopy(family.networks) if self.config.sharded and engine.ranks > 1 else None
        kept = family.state_dict().keys()
        self.buffers = {name: buffer for name, buffer in family.named_buffers() if name in kept}
        engine.wrap(family.networks, self.config.sharded)
        self.parameters = dict(engine.named(family.networks))
        self.optimizers = Optimizers(family.turns, self.parameters, self.config.optimizer, self.config.rate, self.config.decay,
                                     family.moments)
        self.doctor = Doctor(family, data, aside, self.seed, engine)
        if held is None:
            self.doctor.keep(self.parameters)
        if held is not None:
            self.resume(held)
        self.average = Average(self.parameters, self.config.average)
        if held is not None:
            self.engine.set(self.average.tensors, _under("average/", held.tensors))
        self.saved_at = self.samples if held is not None else -1
        now = self.began = self.since = time.monotonic()
        self.due = {"report": now + REPORT_SECONDS, "show": now + SHOW_SECONDS,
                    "save": now if held is None else now + SAVE_SECONDS}
        try:
            yield
        finally:
            engine.unwrap(family.networks)

    def check_together(self, samples: int | None) -> None:
        """Raises CannotWrite RUN_APART on all ranks where their newest checkpoints differ: nodes may not share a folder."""
        stand = self.engine.gather(torch.tensor([-1 if samples is None else samples])).tolist()
        if len({*stand}) > 1:
            told = ", ".join("none" if at < 0 else str(at) for at in stand)
            raise CannotWrite("RUN_APART", f"The ranks stand at [{told}] records.", "Give a folder that all nodes share.")

    def resume(self, held: Checkpoint) -> None:
        """Sets everything but the average to what a checkpoint holds."""
        self.samples = held.samples
        self.load(held)
        self.steps, self.skipped, self.seconds = (held.plain[name] for name in ("steps", "skipped", "seconds"))
        self.rounds = max(self.rounds, held.plain["rounds"])
        self.guard = Guard.restore(held.plain["guard"])
        self.doctor.restore(held.plain["doctor"], _under("doctor/", held.tensors))
        self.curve = [(samples, loss, bits) for samples, loss, bits in held.plain["curve"]]
        self.scaler.load_state_dict(held.plain["scaler"])
        self.journal.event("resumed", samples=self.samples, total=self.total)

    def load(self, held: Checkpoint) -> None:
        """Sets weights, buffers and optimizers to what a checkpoint holds. Raises CorruptStore CKPT_SHAPE where it is another
        network's."""
        own = {**{f"raw/{name}": self.engine.whole(p.detach()) for name, p in self.parameters.items()},
               **{f"buffer/{name}": value for name, value in self.buffers.items()}}
        assert self.checkpoints is not None
        check_shapes(self.checkpoints.folder, own,
                     {name: value for name, value in held.tensors.items() if name.startswith(("raw/", "buffer/"))},
                     "It was written by a run of another network. Begin anew with --restart, or choose another folder.")
        self.engine.set(self.parameters, _under("raw/", held.tensors))
        self.engine.set(self.buffers, _under("buffer/", held.tensors))
        self.optimizers.restore(_under("optimizer/", held.tensors), self.engine)

    def due_now(self, stop: Stop) -> set[str]:
        """What is to be done before the next step: "report", "show", "save" by the first rank's clock, and all of them and
        "done" at the end, or when any rank was asked to stop."""
        now = time.monotonic()
        due = {what for what, when in self.due.items() if self.engine.first and now >= when}
        self.interrupted = stop.signal
        if self.engine.ranks > 1:
            flags = {what: torch.tensor(float(what in due)) for what in self.due}
            numbers = {f"signal {n}": torch.tensor(float(stop.signal == n)) for n in SIGNALS}
            asked = {what for what, flag in self.engine.sum({**flags, **numbers}).items() if flag}
            due = {what for what in self.due if what in asked}
            self.interrupted = next((n for n in SIGNALS if f"signal {n}" in asked), None)
        return {*self.due, "done"} if self.interrupted is not None or self.samples >= self.total else due

    def learn(self, batch: Batch) -> None:
        """One step of every turn on one global batch, of which `batch` is this rank's share."""
        reseed(self.seed, self.engine.rank, self.samples)
        share = rate(self.samples, self.total, self.batch) * self.guard.share
        self.optimizers.set_rate(share)
        first = self.samples + self.engine.rank * self.batch // self.engine.ranks
        noise = Noise((self.seed + STREAMS) % (1 << 63), len(batch.x), first)
        units = max(float(self.engine.sum({"units": batch.units.sum()})["units"]), 1e-12)  # records of no weight teach nothing
        batch = self.engine.placed(Batch(batch.x, batch.condition, batch.units, batch.index, noise))
        assert batch.noise is not None
        skipped = self.skipped
        for number, turn in enumerate(self.family.turns):
            batch.noise.drawn = number * TURN_WORDS
            self.turn(batch, replace(turn, progress=self.samples / self.total), units)
        self.samples += self.batch
        self.steps += 1
        if self.skipped == skipped:
            self.average.update(self.steps)
        elif self.guard.lost:
            self.retreat()
        if self.doctor.due(self.steps):
            self.examine()

    def examine(self) -> None:
        """Asks the doctor, and does what it says."""
        found = self.doctor.examine(self.steps, self.parameters)
        action = None if found.alarm is None else self.doctor.remedy(found.alarm)
        if action in ("rate", "rollback"):
            self.guard.share /= SLOWER
            told = "the rate was quartered"
            if action == "rollback":
                back = self.doctor.healthy()
                self.engine.set(self.parameters, back)
                self.engine.set(self.average.tensors, back)
                self.optimizers.forget()
                told = f"the weights went back to when all was well, and {told}"
            action = told
        self.doctor.report(self.journal, self.samples, found, action)

    def turn(self, batch: Batch, turn: Turn, units: float) -> None:
        """One step of one turn, unless it would bring in numbers that are not finite or leap. units: of the global batch."""
        optimizers, learning = self.optimizers.of[turn.name], self.optimizers.parameters[turn.name]
        names, means = self.gradient(batch, turn, self.engine.ranks / units)
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)
        means = self.engine.sum({"means": means})["means"]
        *told, length = torch.cat([means, self.engine.norm(learning)[None]]).tolist()
        loss, *parts = (mean / self.engine.ranks for mean in told)
        rescaled = math.isfinite(loss) and not math.isfinite(length) and self.scaler.get_scale() > 1  # fp16 finds its scale
        why = "scale" if rescaled else self.guard.verdict(loss, length, turn.name, self.family.descends)
        if why is not None:
            self.skipped += 1
            self.journal.event("skipped", samples=self.samples, why=why, loss=loss, norm=length,
                               records=batch.index[:NAMED].tolist())
        else:
            if self.config.clip and length > self.config.clip:
                self.engine.clip(learning, self.config.clip / length)
            for optimizer in optimizers:
                self.scaler.step(optimizer)
            seen = self.sums.setdefault(turn.name, dict.fromkeys(("units", "steps", *names), 0.0))
            for name, total in zip(seen, (units, 1.0, loss * units, *(part * units for part in parts)), strict=True):
                seen[name] += total
        self.scaler.update() if self.scaler.is_enabled() else None
        for parameter in learning:
            parameter.grad = None

    def gradient(self, batch: Batch, turn: Turn, scale: float) -> tuple[list[str], Tensor]:
        """Adds the gradient of the global mean to the parameters, in rounds; when memory is short, in twice as many.
        Returns the names and the means of the loss and of its parts, whose own mean over the ranks is that of all records."""
        assert batch.noise is not None
        drawn = batch.noise.drawn
        while True:
            batch.noise.drawn = drawn
            try:
                return self.rounded(batch, turn, scale)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                short = isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_MEMORY in str(error)
                if not short or self.engine.ranks > 1 or self.rounds >= len(batch.x):
                    raise
            self.rounds *= 2
            for parameter in self.parameters.values():
                parameter.grad = None
            self.journal.warn("MEMORY", f"Memory was short: a step now takes {self.rounds} rounds of fewer records.",
                              "The result is the same; fewer records at once are slower.")

    def rounded(self, batch: Batch, turn: Turn, scale: float) -> tuple[list[str], Tensor]:
        """The same in a given number of rounds."""
        names, means = list[str](), torch.zeros(())
        slices = cuts(len(batch.x), min(self.rounds, self.batch // self.engine.ranks))  # the same number on every rank
        for cut in slices:
            part = piece(batch, cut) if len(slices) > 1 else batch
            with self.engine.synced(self.family.networks, turn.networks, cut is slices[-1]):
                with self.engine.autocast(self.config.precision):
                    losses: Losses = self.family.loss(part, turn)
                share = (part.units * scale).to(losses.total.dtype)  # what each record's loss counts for in the mean
                losses.total.backward(self.scaler.scale(share))
            names = ["loss", *losses.parts]
            told = torch.stack([losses.total, *losses.parts.values()]).detach()
            means = means + told.to(share.dtype) @ share
        return names, means

    def retreat(self) -> None:
        """Goes back to the averaged weights, or where these are not finite to the newest checkpoint, with half the rate and
        fresh moments. Raises Diverged when that has been done too often."""
        again = self.guard.retreat()
        off = sum((~value.isfinite()).sum() for value in map(self.engine.whole, self.average.tensors.values()))
        held = self.checkpoints.newest() if self.checkpoints is not None and off else None
        rate = self.config.rate * self.guard.share
        self.journal.event("retreat", samples=self.samples, retreats=self.guard.retreats, rate=rate,
                           to="average" if not off else held and held.samples)
        if not again or (off and held is None):
            raise Diverged("DIVERGED", f"Learning failed after {self.samples:,} records: losses or gradients of "
                           f"{self.skipped} of {self.steps} steps were not finite or leapt, at a rate of {rate:.2g}.",
                           "Lower 'rate', raise 'batch', or look at the records that the journal names.")
        if held is not None:
            self.load(held)
            self.engine.set(self.average.tensors, _under("average/", held.tensors))
        else:
            self.average.give(self.parameters)
        self.optimizers.forget()

    def report(self, due: set[str]) -> None:
        """Tells how far the run is: every second, and at the end."""
        if not self.sums or "report" not in due:
            return
        now = time.monotonic()
        self.due["report"] = now + REPORT_SECONDS
        means, loss, steps = dict[str, float](), 0.0, 0.0
        for turn, sums in self.sums.items():
            units, steps = sums.pop("units"), max(steps, sums.pop("steps"))
            loss += sums.pop("loss") / units
            means |= {f"{turn} {name}" if len(self.family.turns) > 1 else name: total / units for name, total in sums.items()}
        self.sums = {}
        bits = means.get("nats", math.nan) / (self.family.space.coordinates * math.log(2))
        speed = steps * self.batch / max(now - self.since, 1e-9)
        self.since = now
        self.curve.append((self.samples, loss, bits if math.isfinite(bits) else None))
        if len(self.curve) > CURVE:
            del self.curve[::2]
        self.journal.event("progress", samples=self.samples, total=self.total, loss=loss, bits=bits, parts=means,
                           samples_per_second=speed, seconds_left=(self.total - self.samples) / speed, memory=resident())

    def show(self, due: set[str]) -> None:
        """A preview by the averaged weights, ever more rarely; it takes no more than a twentieth of the time."""
        if self.shown is None or not self.steps or "show" not in due or self.config.sharded or self.interrupted is not None:
            return
        began = time.monotonic()
        if self.engine.first:
            with averaged(self.family, self.parameters, self.average), self.forgiven(due):
                self.shown(self.samples)
        self.due["show"] = time.monotonic() + max(SHOW_SECONDS, (time.monotonic() - began) / SHOW_SHARE)

    def save(self, due: set[str]) -> None:
        """A checkpoint, and what ships: no more than a hundredth of the time goes into them."""
        if self.checkpoints is None or self.saved_at == self.samples or "save" not in due:
            return
        began = time.monotonic()
        tensors = {
            **{f"raw/{name}": self.engine.whole(p.detach()) for name, p in self.parameters.items()},
            **{f"average/{name}": self.engine.whole(value) for name, value in self.average.tensors.items()},
            **{f"buffer/{name}": value for name, value in self.buffers.items()},
            **{f"optimizer/{name}": self.engine.whole(value) for name, value in self.optimizers.tensors().items()},
            **{f"doctor/{name}": value for name, value in self.doctor.tensors.items()},
        }
        if not all(value.isfinite().all() for value in tensors.values() if value.is_floating_point()):
            return self.retreat()  # on every rank, for all have the same
        if self.engine.first:
            with self.forgiven(due):
                self.checkpoints.save(Checkpoint(self.samples, self.plain(), tensors))
                if self.published is not None:
                    shipped = {f"networks.{name}": value for name, value in _under("average/", tensors).items()}
                    self.published({**self.buffers, **shipped})
                self.journal.event("saved", samples=self.samples, seconds=time.monotonic() - began)
        self.saved_at = self.samples
        self.due["save"] = time.monotonic() + max(SAVE_SECONDS, (time.monotonic() - began) / SAVE_SHARE)

    @contextlib.contextmanager
    def forgiven(self, due: set[str]) -> Iterator[None]:
        """Where something is written. What cannot be is told, and learning goes on, except at the end."""
        try:
            yield
        except CannotWrite as error:
            if "done" in due:
                raise
            self.journal.warn(error.code, error.message, "Learning goes on, and the next save tries again. " + error.hint)

    def plain(self) -> dict[str, Any]:
        """The state that is not tensors."""
        return {"total": self.total, "steps": self.steps, "skipped": self.skipped, "rounds": self.rounds,
                "seconds": self.elapsed(), "guard": self.guard.plain(), "doctor": self.doctor.plain(),
                "curve": self.curve, "scaler": self.scaler.state_dict()}

    def elapsed(self) -> float:
        """Seconds of learning, those before a resume included."""
        return self.seconds + time.monotonic() - self.began

    def finished(self) -> Course:
        """Sets the averaged weights for good, in whole networks, and says how it went."""
        if self.whole is None:
            self.engine.set(self.parameters, self.average.tensors)
        else:
            averages = {name: self.engine.whole(value) for name, value in self.average.tensors.items()}
            for name, network in self.whole.items():
                self.family.networks[name] = network
            self.engine.set(dict(self.engine.named(self.whole)), averages)
        self.family.eval()
        return Course(self.samples, self.steps, self.skipped, self.guard.retreats, self.elapsed(), self.interrupted, self.curve)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
