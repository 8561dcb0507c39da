"""The contract of a measure: two sets of records in, a number with its interval out, and the protocol that goes with it.

A measure compares what was made with what is real. It knows features (arrays) and records, never a model. The shelf finds it
by its file's name; `measure` runs one, refuses what cannot be measured, and stamps the result: two numbers whose stamps differ
were not measured alike, and refuse to be compared.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from .. import __version__
from ..config import NoSettings, build, plain
from ..errors import BadData, Incompatible
from ..intervals import Interval
from ..seeds import check_seed
from ..shelves import METRICS
from ..spaces import Records

__all__ = ["Measured", "Metric", "Quantity", "Report", "Sample", "Stamp", "comparable", "measure",
           "named"]


LARGEST = 1e150  # a feature whose square is finite


@dataclass(frozen=True)
class Sample:
    """A set of records as measures see it: the records, their features (N, D), and their classes (N,), -1 where unknown."""

    records: Records | None = None
    features: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        """How many records."""
        return len(self.features) if self.features is not None else len(self.records or ())

    @property
    def vectors(self) -> np.ndarray:
        """The features. Raises Incompatible METRIC_SHAPE where there are none."""
        if self.features is None:
            raise Incompatible("METRIC_SHAPE", "Features are to be compared, and the records come without.",
                               "Give arrays, or Sample(features=...).")
        return self.features

    def digest(self) -> str:
        """The first 16 hex digits of a sha256 of the features, or of the records where there are none."""
        out = hashlib.sha256()
        if self.features is not None:
            out.update(repr((self.features.shape, str(self.features.dtype))).encode())
            out.update(np.ascontiguousarray(self.features).tobytes())
        elif self.records is not None:
            for name, column in self.records.columns.items():
                out.update(name.encode())
                for value in column:
                    plain_value = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else None
                    out.update(repr(value).encode() if plain_value is None else repr(plain_value.shape).encode())
                    out.update(b"" if plain_value is None else plain_value.tobytes())
        return out.hexdigest()[:16]


@dataclass(frozen=True)
class Quantity:
    """One number that a measure gives. better: which way is good; means, misses: in words, for people who read the report."""

    name: str
    better: Literal["lower", "higher", "neither"]
    means: str
    misses: str
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """The protocol of a number: all that has to be equal for two numbers to be compared."""

    metric: str
    settings: Mapping[str, Any]
    features: str = "records"  #: name and hash of the features, "records" where it looks at these themselves
    reference: str = ""  #: digest of the real records
    real: int = 0  #: how many were real
    made: int = 0  #: how many were made
    resize: str = ""  #: the rule by which pictures came to one size
    seed: int = 0
    version: str = __version__

    def check(self, other: "Stamp") -> None:
        """Raises Incompatible PROTOCOL, and says where they differ."""
        mine, its = asdict(self), asdict(other)
        apart = [f"{name} is {mine[name]!r} and {its[name]!r}" for name in mine if mine[name] != its[name]]
        if apart:
            raise Incompatible("PROTOCOL", f"These numbers were not measured alike: {'; '.join(apart)}.",
                               "Measure both anew, against the same records with the same settings.")


@dataclass(frozen=True)
class Measured:
    """A number, its 95 % interval, and its protocol. notes: words that should be read beside it."""

    quantity: Quantity
    interval: Interval
    stamp: Stamp
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The quantity's name."""
        return self.quantity.name

    @property
    def value(self) -> float:
        """The number itself."""
        return self.interval.value

    def better_than(self, other: "Measured") -> bool | None:
        """Whether it is surely better, surely not, or None where the intervals overlap or nothing is better.
        Raises Incompatible PROTOCOL where the two were not measured alike."""
        self.stamp.check(other.stamp)
        a, b, better = self.interval, other.interval, self.quantity.better
        if better == "neither" or None in (a.low, a.high, b.low, b.high):
            return None
        if a.high < b.low:  # type: ignore[operator]
            return better == "lower"
        return better == "higher" if a.low > b.high else None  # type: ignore[operator]

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"name": self.name, "better": self.quantity.better, "unit": self.quantity.unit, **asdict(self.interval),
                "notes": list(self.notes), "protocol": asdict(self.stamp)}


class Metric(ABC):
    """A measure. sees: "features", or the column of records that it reads: "image", "text", "audio", "video" or "table" (all
    columns); gives: its quantities; fewest: records that it needs of each side."""

    Config: ClassVar[type] = NoSettings
    sees: ClassVar[Literal["features", "image", "text", "audio", "video", "table"]] = "features"
    modalities: ClassVar[tuple[str, ...]] = ()  #: of records whose features it is for; () for any
    gives: ClassVar[tuple[Quantity, ...]]
    fewest: ClassVar[int] = 2

    def __init__(self, config: Any = None):
        self.config = self.Config() if config is None else config

    @abstractmethod
    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """An Interval for each quantity that it gives, by name. All randomness comes from `rng`."""

    def notes(self, real: Sample, made: Sample) -> Sequence[str]:
        """What should be read beside the numbers; nothing by default."""
        return ()


@dataclass(frozen=True)
class Report:
    """Numbers of one subject against one reference. about: whose numbers these are; warnings: in words, the gravest first."""

    measured: tuple[Measured, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Measured:
        found = next((m for m in self.measured if m.name == name), None)
        if found is None:
            raise KeyError(f"the report has no '{name}'; it has {', '.join(m.name for m in self.measured)}")
        return found

    def __iter__(self) -> Iterator[Measured]:
        return iter(self.measured)

    def with_(self, more: Iterable[Measured] = (), warnings: Iterable[str] = (), **about: Any) -> "Report":
        """The same with more numbers, warnings, and words about them."""
        return replace(self, measured=(*self.measured, *more), warnings=(*self.warnings, *warnings),
                       about={**self.about, **about})

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"about": dict(self.about), "warnings": list(self.warnings), "measured": [m.plain() for m in self.measured]}


def measure(name: str, real: Sample | np.ndarray | Records, made: Sample | np.ndarray | Records, *, seed: int = 0,
            features: str = "given", resize: str = "", **settings: Any) -> tuple[Measured, ...]:
    """What the measure `name` says of `made` against `real`, stamped: features as arrays (N, D), or records.

    seed : of its resampling; the same inputs and seed give the same bytes. features, resize : for the stamp, how the features
    were made. settings : those of the measure. Raises Incompatible SHELF_UNKNOWN or METRIC_SHAPE, BadData METRIC_FEW or
    METRIC_NONFINITE, BadConfig.
    """
    check_seed(seed)
    name = named(name)
    kind: type[Metric] = METRICS.load(name)
    metric = kind(build(kind.Config, settings, f"measure {name}"))
    sides = [_sample(side) for side in (real, made)]
    for side, what in zip(sides, ("real", "made"), strict=True):
        _check(metric, name, side, what)
    if kind.sees == "features":
        comparable(f"Measure '{name}'", sides[0].vectors, sides[1].vectors, kind.fewest)
    stamp = Stamp(metric=name, settings=plain(metric.config), features=features if kind.sees == "features" else "records",
                  reference=sides[0].digest(), real=len(sides[0]), made=len(sides[1]), resize=resize, seed=seed)
    found = metric.compare(sides[0], sides[1], np.random.default_rng([seed, len(name), *name.encode()]))
    notes = tuple(metric.notes(*sides))
    return tuple(Measured(quantity, found[quantity.name], stamp, () if place else notes)
                 for place, quantity in enumerate(kind.gives))


def comparable(what: str, real: np.ndarray, made: np.ndarray, fewest: int = 2) -> None:
    """Raises Incompatible METRIC_SHAPE where arrays are not (N, D) and (M, D), BadData METRIC_FEW for few records of a side."""
    if real.ndim != 2 or made.ndim != 2:
        raise Incompatible("METRIC_SHAPE", f"{what}: features of shapes {real.shape} and {made.shape} cannot be compared.",
                           "Give arrays (N, D) and (M, D).")
    if real.shape[1] != made.shape[1]:
        raise Incompatible("METRIC_SHAPE", f"{what}: real records have {real.shape[1]} features, made ones {made.shape[1]}.",
                           "Make both by the same features.")
    if min(len(real), len(made)) < fewest:
        raise BadData("METRIC_FEW", f"{what} needs {fewest} records of each; there are {len(real)} and {len(made)}.",
                      "Give or make more.")


def named(name: str) -> str:
    """The measure of this name, or the one that gives the quantity of this name; else the name."""
    known = METRICS.names()
    return name if name in known else next((m for m in known if any(q.name == name for q in METRICS.load(m).gives)), name)


def _sample(side: Sample | np.ndarray | Records) -> Sample:
    if isinstance(side, Sample):
        return side
    if isinstance(side, Records):
        return Sample(side)
    array = np.atleast_1d(side)
    return Sample(features=array if array.ndim == 2 else array.reshape(len(array), -1 if array.size else 0))


def _check(metric: Metric, name: str, side: Sample, what: str) -> None:
    """Raises BadData or Incompatible where a side cannot be measured."""
    if len(side) < metric.fewest:
        raise BadData("METRIC_FEW", f"Measure '{name}' needs {metric.fewest} {what} records; there are {len(side)}.",
                      "Give or make more.")
    if metric.sees == "features":
        if side.features is None:
            raise Incompatible("METRIC_SHAPE", f"Measure '{name}' looks at features, and the {what} records come without.",
                               "Give arrays, or Sample(features=...).")
        if side.features.dtype.kind not in "fiub" or not side.features.shape[1]:
            raise Incompatible("METRIC_SHAPE", f"Measure '{name}' compares numbers; the {what} records have "
                               f"{side.features.shape[1]} features of {side.features.dtype}.", "Give real numbers, (N, D).")
        unfit = ~(np.abs(side.features).max(axis=1, initial=0).astype(np.float64) < LARGEST)
        if unfit.any():
            raise BadData("METRIC_NONFINITE", f"Measure '{name}': the features of {what} record {int(unfit.argmax()) + 1} are "
                          f"not finite, or too large to be squared, and those of {int(unfit.sum())} in all.",
                          "Leave these records out, or mend them.")
    elif side.records is None or (metric.sees != "table" and metric.sees not in side.records.columns):
        raise Incompatible("METRIC_SHAPE", f"Measure '{name}' looks at {metric.sees} records, and the {what} ones are none.",
                           "See: verossim list metrics.")
