"""What learning by gradient will cost, measured before the first step; and the settings that were left open, settled by it.

A few records are taken and go forward and back through a network built for the purpose, and its optimizers take a step of rate
zero. That gives the seconds a record takes, and, from the tensors that are kept for the way back, the bytes. A record takes
less among many: where time and memory allow it, as many as a step has are measured. With a budget the widest network is taken
that still sees ENOUGH records in that time; what cannot finish or fit is refused here, by the name of the setting to change.
"""

import contextlib
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import knob, knobs
from ..errors import BadConfig, printable
from ..families import LearnsByGradient, Turn
from ..seeds import Noise
from ..spaces import Batch
from .course import Settled
from .engine import Engine
from .heap import kept
from .optimizers import Optimizers
from .plan import memory
from .statistics import Split

__all__ = ["Forecast", "Training", "seconds_of", "settle"]

COPIES = 6  # of the parameters: raw, gradient, two moments, the average, and a copy while previews are made
SAVING = 8  # of the parameters while a checkpoint is written: raw, two moments and the average, and the file of these
MEASURED = 256  # records whose size is looked at
PROBED = 16  # records that are measured first
PROBING, PROBING_SECONDS = 0.01, 0.2  # of a budget, or without one, for measuring a network with as many records as a step has
NUMBERS = 1 << 18  # in a batch, about
BATCHES = (32, 256)  # records a step
ENOUGH_STEPS = 2000
EPOCHS, LEAST, MOST = 30, 100_000, 3_000_000  # records of a run without a budget
ENOUGH_EPOCHS, ENOUGH = 4, (50_000, 300_000)  # records that a run with a budget should see at least
STEPS = 100  # fewer are no learning
USED = 0.92  # of a budget; the rest goes into previews, saves and judging
PEAK_WIDTH = 64  # of networks that learn at a family's peak rate; wider ones learn more slowly
WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
NATIVE = ("avx512_bf16", "amx_bf16")  # what a CPU has that multiplies in bf16; others are many times slower at it
WORTH_ROUNDING = 0.8  # of the time in fp32
WORTH_COMPILING = 600.0  # seconds of a run, below which compiling takes more than it gives
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to learn by gradient. "auto" is settled before the first step, by `settle`."""

    samples: int | str = knob("auto", "records to see in all, each as often as it comes", low=1, high=10**13, choices=("auto",))
    budget: str = knob("", "time to finish in, such as 90s, 20m or 2h; chooses width, batch and samples")
    batch: int | str = knob("auto", "records a step, on all ranks together", low=1, high=1 << 20, choices=("auto",))
    accumulate: int = knob(1, "rounds that a step is cut into, to save memory", low=1, high=1 << 16)
    rate: float | str = knob("auto", "peak rate of learning", low=0.0, high=1.0, choices=("auto",))
    optimizer: str = knob("auto", "adamw, or muon for matrices and adamw for the rest; auto: what the family learns best by",
                          choices=("auto", "adamw", "muon"))
    decay: float = knob(0.01, "decay of matrices and kernels towards zero, per rate", low=0.0, high=1.0)
    clip: float = knob(1.0, "longest gradient; 0 for any", low=0.0, high=1e6)
    average: float = knob(0.05, "width of the weights' average, as a share of the run; 0 for none", low=0.0, high=0.28)
    precision: str = knob("auto", "fp32, or bf16 or fp16 for products; auto: bf16 where it pays, on a CPU only with a budget",
                          choices=("auto", "fp32", "bf16", "fp16"))
    compile: str = knob("auto", "torch.compile: yes, no, or where it was measured to pay", choices=("auto", "yes", "no"))
    sharded: bool = knob(False, "under torchrun, share out weights too (FSDP2), not gradients alone (DDP)")


@dataclass(frozen=True)
class Forecast:
    """What a run will take: seconds in all, bytes of memory, parameters, bytes on disk of the model and of what resumes it."""

    seconds: float
    memory: int
    parameters: int
    model_bytes: int
    state_bytes: int

    @property
    def disk(self) -> int:
        """The most bytes that a run has on disk: two models and three checkpoints, while new ones take the place of old."""
        return 2 * self.model_bytes + 3 * self.state_bytes


@dataclass(frozen=True)
class _Probe:
    """What one network costs: seconds and bytes a record, parameters. peak: the family's rate; width: as it was settled;
    enough: records that it should see at least; size: numbers of a record."""

    seconds: float
    bytes: float
    parameters: int
    peak: float
    width: int
    enough: int
    size: float


@kept()
def settle(build: Callable[[Any], LearnsByGradient], config: Any, training: Training, data: Split, engine: Engine,
           folder: Path | None = None, limit: int | None = None,
           began: float | None = None, kind: type[LearnsByGradient] = LearnsByGradient) -> tuple[Any, Settled, Forecast]:
    """The config and the training with nothing left open, and what they will cost.

    build : a family of a config, of a `kind`. limit : bytes of memory that may be used, the machine's when None. began : when
    the time that the budget allows began, by `time.perf_counter`; now when None.
    Raises BadConfig PLAN_MEMORY, PLAN_BUDGET or PLAN_DISK, each naming the setting to change.
    """
    limit = memory() if limit is None else limit
    began = time.perf_counter() if began is None else began
    budget = seconds_of(training.budget) if training.budget else None
    training = replace(training, optimizer=kind.optimizer) if training.optimizer == "auto" else training
    known = training.samples if isinstance(training.samples, int) else None  # to be seen; None where the budget decides
    if known is None and budget is None:
        known = min(max(EPOCHS * len(data), LEAST), MOST)

    full = data.take(torch.zeros(1, dtype=torch.int64)).x.numel()
    count = max(1, min(MEASURED, len(data), NUMBERS // max(full, 1)))
    some = data.take(torch.linspace(0, len(data) - 1, count, dtype=torch.float64).long()).x

    def a_step(seen: float, size: float) -> int:
        given = training.batch
        batch = given if isinstance(given, int) else _batch(len(data), size, full, seen, kind.a_step)
        return max(batch, engine.ranks)

    def a_share(enough: float, size: float) -> int:
        return -(-a_step(enough if known is None else known, size) // engine.ranks)

    def left() -> float:
        return math.inf if budget is None else budget - (time.perf_counter() - began)

    def affordable(probe: _Probe) -> float:
        return USED * left() * engine.ranks / probe.seconds if known is None else known
    prober = _Prober(build, data, some, training.precision, training.optimizer, engine, a_share,
                     PROBING * budget if budget else PROBING_SECONDS, limit)
    if training.precision == "auto":
        prober = _quickest(prober, config, budget)
    config, probe = _widest(prober, config, budget)
    batch = a_step(affordable(probe), probe.size)
    share = -(-batch // engine.ranks)
    if share != a_share(probe.enough, probe.size):  # more records in a step take less time each
        prober = replace(prober, records=lambda *_: share)
        probe = prober.probe(config)
    samples = known or max(1, round(affordable(probe) / batch)) * batch
    rate = training.rate if isinstance(training.rate, float) else probe.peak * min(1.0, math.sqrt(PEAK_WIDTH / probe.width))
    rounds, need = _rounds(training.accumulate, share, probe, limit)
    compiled = training.compile != "no" and prober.compiled(config, samples, probe, training.compile == "yes")
    settled = Settled(samples=samples, batch=batch, rate=rate, accumulate=rounds, precision=prober.precision, compiled=compiled,
                      **{name: getattr(training, name) for name in ("optimizer", "decay", "clip", "average", "sharded")})
    seconds = samples * probe.seconds / engine.ranks
    forecast = Forecast(seconds, need, probe.parameters, 4 * probe.parameters, 16 * probe.parameters)
    if budget is not None:
        _check_budget(training.budget, left(), settled, seconds)
    _check_disk(folder, forecast)
    return config, settled, forecast


def seconds_of(text: str) -> float:
    """Seconds of a time such as 90s, 20m, 1.5h or 1d; a bare number is seconds. Raises BadConfig SETTING_RANGE."""
    unit = "(?:(s)(?:ec(?:ond)?s?)?|(m)(?:in(?:ute)?s?)?|(h)(?:(?:ou)?rs?)?|(d)(?:ays?)?)"
    found = re.fullmatch(rf"\s*(\d+(?:\.\d*)?|\.\d+)\s*{unit}?\s*", text.lower())
    if not found or not float(found[1]):
        raise BadConfig("SETTING_RANGE", f"'budget' is {text!r}.", "Give a time such as 90s, 20m or 2h.")
    return float(found[1]) * UNITS[next(filter(None, found.groups()[1:]), "s")]


def _batch(records: int, size: float, full: int, samples: float, numbers: tuple[int, int] | None = None) -> int:
    """A power of two within BATCHES, or of so many numbers in all: about NUMBERS, no more than a quarter of the records, and
    ENOUGH_STEPS of them. size : numbers of a record; full : with what fills it up, which takes memory."""
    low, high = BATCHES
    if numbers is not None:
        low, high = 2 ** round(math.log2(max(1.0, numbers[0] / size))), -(-numbers[1] // max(full, 1))
    most = int(min(NUMBERS // max(full, 1), high, records // 4, samples / ENOUGH_STEPS))
    return 1 << max(most, min(low, records)).bit_length() - 1


def _quickest(prober: "_Prober", config: Any, budget: float | None) -> "_Prober":
    """The prober at the precision to learn by: bf16 on a GPU that has it. On a CPU that has it, only with a budget and where it
    was measured to pay: without a budget nothing that decides what is learned hangs on a measurement."""
    half, full = replace(prober, precision="bf16"), replace(prober, precision="fp32")
    quick = replace(half, seconds=0.0), replace(full, seconds=0.0)
    if prober.engine.device.startswith("cuda"):
        return half if torch.cuda.is_bf16_supported() else full
    if budget is None or not any(torch.cpu.get_capabilities().get(name) for name in NATIVE):
        return full
    sized = replace(config, width=PEAK_WIDTH) if _open(config) else config
    halved, whole = (prober.probe(sized).seconds for prober in quick)
    return half if halved < WORTH_ROUNDING * whole else full


def _open(config: Any) -> bool:
    """Whether a config has a width, which was left open."""
    return vars(config).get("width", 0) in (None, "auto")


def _widest(prober: "_Prober", config: Any, budget: float | None) -> tuple[Any, _Probe]:
    """The config. With a budget, where its width was left open, it has the widest network that sees enough records in that time
    and fits in memory."""
    if budget is None or not _open(config):
        return config, prober.probe(config)
    low, high = (knobs(type(config))["width"].metadata[end] for end in ("low", "high"))
    chosen: tuple[Any, _Probe] | None = None
    for width in (w for w in WIDTHS if low <= w <= high):
        candidate = replace(config, width=width)
        probe = prober.probe(candidate)
        slow = probe.seconds * probe.enough / prober.engine.ranks > USED * budget
        if chosen is not None and (slow or 4 * COPIES * probe.parameters + probe.bytes > prober.limit):
            break
        chosen = candidate, probe
    assert chosen is not None
    return chosen


@dataclass(frozen=True)
class _Prober:
    """Measures networks on a few records of the data.

    some : records whose size is looked at. records : of one rank's share of a step, given how many a run sees at least and the
    numbers of each. seconds : that may be spent on them once a few were measured. limit : of memory, in bytes.
    """

    build: Callable[[Any], LearnsByGradient]
    data: Split
    some: Tensor
    precision: str
    optimizer: str
    engine: Engine
    records: Callable[[float, float], int]
    seconds: float
    limit: int

    def probe(self, config: Any, compiled: bool = False) -> _Probe:
        """The cost of a config's networks; of those whose parameters alone are too many for memory, no time is measured."""
        family = self.build(config)
        parameters = dict(self.engine.named(family.networks))
        size, width = sum(p.numel() for p in parameters.values()), vars(family.config).get("width") or PEAK_WIDTH
        if 4 * COPIES * size > self.limit:
            return _Probe(math.inf, 0.0, size, family.peak, width, 0, 1.0)
        of_a_record = family.size(self.some)
        enough = family.enough(of_a_record) or min(max(ENOUGH_EPOCHS * len(self.data), ENOUGH[0]), ENOUGH[1])
        records = min(self.records(enough, of_a_record), len(self.data))
        count = min(PROBED, records)
        family.to(self.engine.device).train()
        family.start(batch := self._batch(count), Noise(0, 1))
        for network in family.networks.values() if compiled else ():
            network.compile()
        bytes_each = 0.0
        for turn in family.turns:
            with contextlib.nullcontext() if compiled else _Kept(family) as kept:
                self._gradient(family, batch, turn)
            bytes_each = max(bytes_each, kept.bytes / count if kept else 0.0)
        parameters = dict(self.engine.named(family.networks))  # on their device
        optimizers = Optimizers(family.turns, parameters, self.optimizer, family.peak, 0.0, family.moments)
        optimizers.set_rate(0.0)
        self._step(family, optimizers, count)
        a_record = self._quicker(family, optimizers, count)
        many = int(min(records, self.seconds / max(2 * a_record, 1e-9), self.limit / max(4 * bytes_each, 1.0)))
        a_record = self._quicker(family, optimizers, many) if many > count else a_record
        return _Probe(a_record, bytes_each, size, family.peak, width, enough, of_a_record)

    def _quicker(self, family: LearnsByGradient, optimizers: Optimizers, count: int) -> float:
        """Seconds a record in the quicker of two steps of so many."""
        return min(self._step(family, optimizers, count), self._step(family, optimizers, count)) / count

    def _batch(self, count: int) -> Batch:
        """The first `count` records."""
        given = self.data.take(torch.arange(count))
        return self.engine.placed(Batch(given.x, given.condition, given.units, given.index, Noise(0, count)))

    def _step(self, family: LearnsByGradient, optimizers: Optimizers, count: int) -> float:
        """Seconds of a step as the loop takes it, but for what the loop adds of its own."""
        began = time.perf_counter()
        batch = self._batch(count)
        for turn in family.turns:
            self._gradient(family, batch, turn)
            float(self.engine.norm(optimizers.parameters[turn.name]))
            for optimizer in optimizers.of[turn.name]:
                optimizer.step()
            for parameter in optimizers.parameters[turn.name]:
                parameter.grad = None
        if self.engine.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def _gradient(self, family: LearnsByGradient, batch: Batch, turn: Turn) -> None:
        """Once forward and back, in one process."""
        with Engine(device=self.engine.device).synced(family.networks, turn.networks, True):
            with self.engine.autocast(self.precision):
                total = family.loss(batch, turn).total.sum()
            total.backward()

    def compiled(self, config: Any, samples: int, probe: _Probe, asked: bool) -> bool:
        """Whether networks are to be compiled: where it is asked for, or was measured to save time over the whole run. On the
        CPU it never did; it is not tried. Raises BadConfig SETTING_RANGE where what is asked for cannot be."""
        worth = self.engine.device.startswith("cuda") and samples * probe.seconds >= WORTH_COMPILING
        if not asked and not worth:
            return False
        if self.build(config).twice:
            why = "its loss differentiates twice through its networks"
        else:
            try:
                return self.probe(config, compiled=True).seconds < 0.95 * probe.seconds or asked
            except (RuntimeError, AssertionError) as error:  # what the compiler and its kernels raise
                why = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if asked:
            raise BadConfig("SETTING_RANGE", f"'compile' is 'yes', and PyTorch cannot compile this family's networks: {why}.",
                            "Leave it out.")
        return False


class _Kept:
    """Counts the bytes of the tensors that autograd keeps for the way back, parameters aside."""

    def __init__(self, family: LearnsByGradient):
        self.seen = {p.untyped_storage().data_ptr() for p in family.networks.parameters()}
        self.bytes = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> "_Kept":
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)


def _rounds(rounds: int, records: int, probe: _Probe, limit: int) -> tuple[int, int]:
    """As many rounds of a step of `records` as memory asks for, and the bytes that it then takes. Raises BadConfig PLAN_MEMORY
    where one record at a time is too much."""
    def need(rounds: int) -> int:
        learning = 4 * COPIES * probe.parameters + 1.5 * probe.bytes * -(-records // rounds)
        return int(max(learning, 4 * SAVING * probe.parameters))
    while need(rounds) > limit and rounds < records:
        rounds *= 2
    if need(rounds) > limit:
        raise BadConfig("PLAN_MEMORY", f"Learning {probe.parameters:,} parameters takes {need(rounds) / 2**30:,.1f} GiB of "
                        f"memory even with one record at a time, and {limit / 2**30:,.1f} GiB are there.",
                        "Lower 'width' or 'depth', or make the records smaller ('size').")
    return rounds, need(rounds)


def _check_budget(given: str, left: float, settled: Settled, seconds: float) -> None:
    """Raises BadConfig PLAN_BUDGET where what is left of the budget is too short for what was asked, or for any learning."""
    a_step = seconds * settled.batch / settled.samples
    if settled.samples < STEPS * settled.batch and a_step * STEPS > left:
        raise BadConfig("PLAN_BUDGET", f"'budget' is {given}, of which {max(left, 0.0):,.0f} s are left to learn in; {STEPS} "
                        f"steps, below which nothing is learned, take about {a_step * STEPS:,.0f} s.",
                        "Raise 'budget', or lower 'width', 'batch' or 'size'.")
    if seconds > 1.05 * left:
        raise BadConfig("PLAN_BUDGET", f"'samples' is {settled.samples:,}, which take about {seconds:,.0f} s; "
                        f"'budget' is {given}, of which {max(left, 0.0):,.0f} s are left to learn in.",
                        f"Lower 'samples' to {max(1, int(settled.samples * USED * left / seconds)):,}, or leave it open.")


def _check_disk(folder: Path | None, forecast: Forecast) -> None:
    """Raises BadConfig PLAN_DISK where what will be written does not fit."""
    if folder is None:
        return
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    need, free = forecast.disk, shutil.disk_usage(there).free
    if need > free:
        raise BadConfig("PLAN_DISK", f"The run will write {need / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free at {there}.",
                        "Choose a folder on another disk, or lower 'width'.")
