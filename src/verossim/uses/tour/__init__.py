"""The tour: every family that fits some data, learned in a given time, measured alike, in one table.

Which model should I use? Each learns from the same records and is held against the same others, that none has seen, beside
baselines that say what a number is worth: real records, copies, noise, and one Gaussian.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ... import data, store
from ...codecs import Codec
from ...codecs.label import Label
from ...errors import BadConfig, BadData, CannotWrite, Incompatible, Interrupted, VerossimError, near, printable
from ...families import LearnsByGradient
from ...folders import writable
from ...intervals import Interval
from ...metrics import Report, Sample
from ...model import Model, fit
from ...model.auditing import CLOSE
from ...model.reference import Reference, codec_of
from ...safety.audit import AuditReport, audit
from ...shelves import FAMILIES, FEATURES
from ...spaces import Discrete, Records
from ...training import Journal
from ..utility import utility
from .baselines import copies, noise
from .costs import Clock, Cost, size_of

__all__ = ["Row", "Tour", "tour"]

HELD_OUT = 0.4  # of the records: half of them to measure by, half to stand for real ones
MOST = 2_000  # records of each side that is measured
FEWEST = 40  # records held out, below which nothing can be told
BASELINES = ("real records", "copies", "noise", "one Gaussian")
NARROW = 50  # numbers of a record, up to which there is time to find how many components a mixture should have
SKIPPED = ("two_sample",)  # what no column shows, and takes more time than all others together
#: Of utility, which the table has one number of.
QUICK: dict[str, Any] = {"classifier": "logistic", "repeats": 2, "augmentation": False, "budget": 2000, "steps": 200}


@dataclass(frozen=True)
class Row:
    """One line of the table. kind: "family" or "baseline"; cost and folder: of models; failed: why there is no more than a
    name."""

    name: str
    kind: str
    report: Report = field(default_factory=Report)
    audit: AuditReport | None = None
    utility: Interval | None = None
    cost: Cost | None = None
    made: Sample | None = None
    folder: str | None = None
    failed: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"name": self.name, "kind": self.kind, "failed": self.failed or None, "folder": self.folder,
                **self.report.plain(), "audit": self.audit and self.audit.plain(),
                "utility": self.utility and asdict(self.utility), "cost": self.cost and asdict(self.cost)}


@dataclass(frozen=True)
class Tour:
    """The table. about: data, shares, features, seed; real: the records that all is held against; seen: some of those that
    were learned from."""

    rows: tuple[Row, ...]
    about: Mapping[str, Any]
    real: Sample
    seen: Records
    warnings: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"about": dict(self.about), "warnings": list(self.warnings),
                "rows": [row.plain() for row in self.rows]}


Tell = Callable[[str], None]


def tour(source: Any, *, folder: str | Path, families: Sequence[str] | None = None, budget: float = 300.0,
         label: str | None = None, target: str | None = None, seed: int = 0, restart: bool = False, tell: Tell = lambda _: None,
         journal: Journal | None = None) -> Tour:
    """Learns every family that fits the data, or those named, and measures all alike.

    source : anything that `verossim.fit` learns from; label, target : the columns of the class, and of the text where texts are
    in a table. folder : where models and runs are kept; the same call again goes on with runs that were cut off, or begins them
    anew with `restart`. budget : seconds that all share in which to learn, of which mixtures take what they take; measuring
    comes on top. tell : hears what is done next. Raises BadData DATA_TOO_FEW, Incompatible SPACE for a family that does not
    learn such records, CannotWrite, Interrupted where a signal stopped a run, and what `fit` raises where only one
    family was asked for.
    """
    if not budget > 0 or not math.isfinite(budget):
        raise BadConfig("SETTING_RANGE", f"'budget' is {budget}; it should be seconds above 0.", "For example --budget 5m.")
    if store.is_model(folder) or Path(folder).is_file():
        raise CannotWrite("OUT_EXISTS", f"{printable(folder)} is {'a file' if Path(folder).is_file() else 'a saved model'}.",
                          "Choose another folder for the tour.")
    modality = None if target is None else "text"
    opened = data.open_source(source, label=label, target=target, modality=modality)
    codec = codec_of(opened)
    labels = None if opened.label is None else Label(Label.Config(column=opened.label)).fit(opened.blocks())
    chosen = _families(families, codec, opened.modality)
    writable(Path(folder) / "report.html")
    learned, unseen = data.sides(opened, codec, HELD_OUT, MOST, seed)
    if len(unseen) < FEWEST:
        raise BadData("DATA_TOO_FEW", f"{opened.origin}: of {len(learned) + len(unseen)} records {len(unseen)} are held out, "
                      f"and a tour needs {FEWEST} of them.", "Give more records.")
    order = np.random.default_rng(seed).permutation(len(unseen))
    half = len(unseen) // 2
    against, fresh = (unseen.take(np.sort(part).tolist()) for part in (order[:half], order[half:2 * half]))
    reference = Reference(against, label=opened.label, codec=codec, labels=labels, seed=seed,
                          fit_on=learned, skip=SKIPPED)
    table = _Table(reference, learned, fresh, against, opened.label, seed)
    rows = []
    for name in BASELINES[:3]:
        tell(f"measuring {name}")
        made = {"real records": lambda: fresh, "copies": lambda: copies(learned, len(fresh), seed),
                "noise": lambda: noise(opened.without_roles(learned), codec, len(fresh), seed)}[name]()
        rows.append(table.row(name, "baseline", made))
    slow = [name for name in chosen if issubclass(FAMILIES.load(name), LearnsByGradient)]
    seconds = budget / max(len(slow) + ("gmm" in chosen), 1)  # the same each time, so that a run can be gone on with
    asked: list[tuple[str, str, dict[str, Any]]] = [(name, "family", _settings(name, codec)) for name in chosen]
    if "gmm" in _families(None, codec, opened.modality):
        asked.insert(0, ("one Gaussian", "baseline", {"components": 1}))
    for name, kind, settings in asked:
        family = "gmm" if kind == "baseline" else name
        place = Path(folder) / "models" / name.replace(" ", "-")
        given = {**settings, **({"budget": f"{seconds:.6g}s"} if name in slow else {})}
        tell(f"learning {name}" + (f" in {seconds:.0f} s" if name in slow else ""))
        clock = Clock()
        try:
            model = fit(source, family=family, label=label, target=target, modality=modality, seed=seed, held_out=HELD_OUT,
                        journal=journal, folder=place if name in slow else None, restart=restart and name in slow, **given)
        except VerossimError as error:
            if families is not None and len(chosen) == 1:
                raise
            hint = f" Give the tour more time than {budget:.0f} s, or fewer families." if error.code == "PLAN_BUDGET" else ""
            rows.append(Row(name, kind, failed=f"{error.code}: {error.message if hint else error}{hint}"))
            continue
        history = model.card["history"]
        if history.get("interrupted"):
            raise Interrupted(history["interrupted"], history["samples"], history["training"]["samples"])
        before = max(history["seconds"] / max(clock.seconds, 1e-9), 1.0)  # of a run that went on, what it took before is told
        cost = clock.seconds * before, clock.watt_hours * before
        if name not in slow:
            model.save(place)
        tell(f"measuring {name}")
        rows.append(table.model(name, kind, model, place, *cost))
    about = {"data": opened.origin, "modality": opened.modality, "label": opened.label, "seed": seed, "budget": budget,
             "held_out": HELD_OUT, "learned_from": len(learned), "held_against": half, "features": reference.name,
             "hash": reference.features.hash}
    return Tour(tuple(rows), about, reference.sample, table.learned_as_read, _warnings(rows))


class _Table:
    """What each row is measured by."""

    def __init__(self, reference: Reference, learned: Records, fresh: Records, against: Records, label: str | None, seed: int):
        self.reference, self.learned, self.against, self.label, self.seed = reference, learned, against, label, seed
        read = reference.hold(learned).records
        assert read is not None
        self.learned_as_read = read
        self.close = FEATURES.load(CLOSE[reference.modality])().fit(read, None, seed)
        self.tabular = reference.modality == "table"
        self.seen, self.unseen = (self.close(reference.hold(side).records) for side in (learned, fresh))

    def row(self, name: str, kind: str, made: Records, report: Report | None = None, sample: Sample | None = None) -> Row:
        """The row of made records that carry their class where they have one."""
        if report is None or sample is None:
            judged = self.reference.judge(made, name=name, seed=self.seed)
            report, sample = judged.report, judged.made
        assert sample.records is not None
        found: AuditReport | None = None
        if name != "real records":
            found = audit(self.seen, self.unseen, self.close(sample.records), seed=self.seed, standardise=self.tabular)
        helped: Interval | None = None
        if self.label is not None and self.label in made.columns and self.reference.modality != "text":
            try:
                helped = utility(made, self.learned, self.against, label=self.label, seed=self.seed, sizes=(),
                                 **QUICK).scores["made_on_real"]
            except (BadData, Incompatible) as error:
                report = report.with_(warnings=[f"utility was left out: {error.message}"])
        return Row(name, kind, report, found, helped, made=sample)

    def model(self, name: str, kind: str, model: Model, place: Path, seconds: float, watt_hours: float) -> Row:
        """The row of a model."""
        clock = Clock()
        made = self.reference.draw(model, self.reference.n, self.seed)
        drawing = clock.seconds / self.reference.n
        judged = self.reference.judge(model, name=name, made=made)
        row = self.row(name, kind, made, judged.report, judged.made)
        cost = Cost(seconds, drawing, size_of(place / "model" if (place / "model").is_dir() else place), watt_hours)
        return Row(name, kind, row.report, row.audit, row.utility, cost, row.made, str(place))


def _settings(family: str, codec: Codec) -> dict[str, Any]:
    """Settings that are not left as they are: the size of mixtures, and the chains of estimates of likelihood, few of them."""
    if family == "gmm":
        return {"components": "auto" if codec.space.dims <= NARROW else 4}
    return {"chains": 2, "temperatures": 50} if family == "gan" else {}


def _families(asked: Sequence[str] | None, codec: Codec, modality: str) -> list[str]:
    """The families that learn such a space, quick ones first. Raises Incompatible SHELF_UNKNOWN, SPACE."""
    kinds = {name: FAMILIES.load(name) for name in FAMILIES.names()}
    fitting = sorted((name for name, kind in kinds.items() if isinstance(codec.space, kind.accepts)
                      and (modality != "text" or kind.accepts == (Discrete,))),
                     key=lambda name: issubclass(kinds[name], LearnsByGradient))
    for name in asked or ():
        FAMILIES.load(name)
        if name not in fitting:
            raise Incompatible("SPACE", f"Family '{name}' does not learn {modality} records.", near(name, fitting))
    return [name for name in fitting if asked is None or name in asked]


def _warnings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Warnings of rows, each once, with whose they are."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for words in row.report.warnings:
            found.setdefault(words, []).append(row.name)
    return tuple(f"{', '.join(names)}: {words}" for words, names in found.items())
