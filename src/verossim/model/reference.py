"""What models and samples are held against: real records with their features, prepared once, and every measure that fits them.

    Reference(source) -> judge(model), judge(folder of samples), judge(records) -> Judgement: a Report, and what it looked at

All that is judged against one reference is measured alike, so that the numbers may be compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import data
from ..codecs import Codec
from ..codecs.label import Label
from ..config import build
from ..errors import BadConfig, BadData, Incompatible, NoLikelihood, printable
from ..features import Features, choose, texts_of
from ..metrics import Measured, Quantity, Report, Sample, Stamp, measure, named
from ..scores import anomaly, calibration, likelihood
from ..shelves import CODECS, FEATURES, METRICS
from ..spaces import Problem, Records
from .verbs import Model

__all__ = ["Judgement", "Reference", "as_read", "codec_of"]

MOST = 10_000  # records of either side
DRAWN = 500  # records made at a time
PIECE = 400  # characters of a text that are measured as one record
APART = 30  # records that features are learned from at least, where these are not compared
SCORED = {"exact": 10_000, "bound": 300, "estimate": 24}  # records whose likelihood is asked for, by its kind
NAMED = {"exact": 100_000, "bound": 600, "estimate": 40}  # likelihoods for finding classes: a record takes one for each

BITS = Quantity("bits", "lower", "Bits per dimension that the model needs for records it has not seen; for texts per byte.",
                "Whether samples look right: a model may be probable and blurred.", "bits/dim")
UNUSUAL = Quantity("anomaly_auc", "higher", "How well the model tells unusual records from usual ones by their probability.",
                   "Unusual records that are simpler than usual ones: these may be more probable.")
ACCURACY = Quantity("accuracy", "higher", "Share of records whose class the model finds by Bayes' rule from p(x | y) p(y).",
                    "Classes that are rare; how sure it is.")
ECE = Quantity("calibration_error", "lower", "How far the probability of a class is from how often it is the class.",
               "Whether the classes are found at all.")


@dataclass(frozen=True)
class Judgement:
    """A report, and the records that it is about with their features."""

    report: Report
    made: Sample


class Reference:
    """Real records, at most `n` of them, their features and classes, and the measures that fit.

    source : anything that `open_source` opens, with its label where it has one. features : a name of the shelf, or "auto";
    metrics : names of the shelf, or None for all that fit but those to `skip`. n : records of either side; None for all, at
    most `most`. codec, labels : of a model that will be judged, so that pictures come to its size; else they are fitted here.
    read : how texts and pairs are read. fit_on : other records, on which features that learn are fitted. Raises BadData
    METRIC_FEW where there are fewer records than asked for, BadConfig, and what opening raises.
    """

    def __init__(self, source: Any, *, label: str | None = None, features: str = "auto", metrics: Sequence[str] | None = None,
                 n: int | None = None, most: int = MOST, seed: int = 0, codec: Codec | None = None, labels: Label | None = None,
                 read: Mapping[str, Any] | None = None, fit_on: Records | None = None, skip: Sequence[str] = ()):
        if n is not None and not 2 <= n <= most:
            raise BadConfig("SETTING_RANGE", f"'n' is {n}; it should be from 2 to {most:,}.")
        asked = {**(read or {}), "modality": None if codec is None else codec.modality,
                 "beside": None if labels is None else labels.config.column}
        opened = data.open_source(source, label=label or _there(source, asked), **asked)
        self.modality, self.seed, self.most, self.origin = opened.modality, seed, most, opened.origin
        self.labels, self.codec = labels, codec if codec is not None else codec_of(opened)
        if opened.label is not None and labels is None:
            self.labels = Label(Label.Config(column=opened.label)).fit(opened.blocks())
        self.problems: list[Problem] = []
        self.records, self.classes = self._read(opened, n)
        if n is not None and len(self.records) < n:
            raise BadData("METRIC_FEW", f"{self.origin}: {n:,} records were asked for as the reference, and there are "
                          f"{len(self.records):,}.", "Ask for fewer: -n, or give more records.")
        self.metrics = _fitting(self.modality, metrics, tuple(map(named, skip)))
        self.asked = metrics is not None
        self.features = self._features(features, None if fit_on is None else self.hold(fit_on))
        self.n = len(self.records)
        self.files = {entry.sha256 for entry in opened.digests()}
        self.sample = Sample(self.records, self.features(self.records), self.classes)
        self.problems = [*opened.problems, *self.problems]

    def judge(self, subject: Any, *, name: str = "", n: int | None = None, seed: int = 0, made: Records | None = None,
              unusual: Any = None, **sampling: Any) -> Judgement:
        """Every measure of a Model, or of samples in anything that `open_source` opens.

        n : records that a model makes; as many as the reference has where None. made : what it has made, where that is there
        already. unusual : records that the model should find less probable than the reference. sampling : settings of the
        model's sampling. Raises what measures raise where they were asked for by name; else what cannot be measured is left
        out, with a warning.
        """
        model = subject if isinstance(subject, Model) else None
        if model is not None and made is None:
            made = self.draw(model, n or self.n, seed, **sampling)
        held = self.hold(subject if made is None else made, n)
        assert held.records is not None
        records = held.records
        made_sample = Sample(records, self.features(records), held.labels)
        warnings = [] if model is None else _seen(model, self.files)
        about = {"name": name, "reference": self.origin, "records": self.n, "made": len(records),
                 "features": f"{self.name} {self.features.hash}", "seed": seed}
        report = Report(about=about, warnings=tuple(warnings))
        for metric in self.metrics:
            try:
                report = report.with_(measure(metric, self.sample, made_sample, seed=self.seed,
                                              features=report.about["features"], resize=self.features.resize))
            except (BadData, Incompatible) as error:
                if self.asked:
                    raise
                report = report.with_(warnings=[f"'{metric}' was left out: {error.message}"])
        return Judgement(report if model is None else self._probable(model, report, unusual), made_sample)

    def hold(self, source: Any, n: int | None = None) -> Sample:
        """Records of anything that `open_source` opens, at most n, as the reference's are, with their classes."""
        opened = source if isinstance(source, Records) else data.open_source(source, modality=self.modality)
        records, classes = self._parsed(opened) if isinstance(opened, Records) else self._read(opened, n)
        return Sample(records, None, classes)

    def draw(self, model: Model, n: int, seed: int = 0, **sampling: Any) -> Records:
        """n records that a model makes, with their labels, some at a time. Raises Incompatible MODALITY."""
        if self.modality != model.codec.modality:
            raise Incompatible("MODALITY", f"The reference holds records of modality '{self.modality}', and the model makes "
                               f"'{model.codec.modality}'.", "Give records of the kind that the model learned.")
        return data.joined([model.draw(min(DRAWN, n - first), seed=seed, first=first, **sampling)
                            for first in range(0, n, DRAWN)])

    def _probable(self, model: Model, report: Report, unusual: Any) -> Report:
        """The report with bits per dimension of the reference, and with how well its classes are found."""
        some = data.few(self.records, SCORED[model.likelihood_kind], self.seed)  # not the first: these may be of one class
        try:
            found = model.log_prob(as_read(model, some))
        except NoLikelihood as error:
            return report.with_(warnings=[f"there is no likelihood: {error.message}"])
        summary = likelihood.summary(found)
        stamp = Stamp(metric="likelihood", settings={"kind": found.kind}, reference=Sample(some).digest(),
                      real=len(found.log_prob), seed=self.seed)
        report = report.with_([Measured(replace(BITS, unit=f"{found.kind} bits/dim"), summary.bits, stamp)],
                              kind=found.kind, bits_error_of_estimate=summary.estimate_error)
        if unusual is not None:
            odd = self.hold(unusual, SCORED[model.likelihood_kind]).records
            assert odd is not None
            other = model.log_prob(as_read(model, odd))
            told = anomaly.summary(found.log_prob.double().numpy(), other.log_prob.double().numpy())
            stamped = replace(stamp, metric="anomaly", made=told.unusual)
            report = report.with_([Measured(UNUSUAL, told.auc, stamped, told.notes)], unusual=told.curve)
        if len(some) < self.n:
            report = report.with_(warnings=[f"bits are of {len(some):,} of {self.n:,} records, drawn by the seed: "
                                             f"so many are scored where the likelihood is {found.kind}"])
        if model.label is None or self.labels is None:
            return report
        known = np.flatnonzero(self.classes >= 0)
        if not len(known):
            return report
        most = max(NAMED[model.likelihood_kind] // len(self.labels.classes), 4)
        rows = known[data.lots(known, most, self.seed)]
        named = self.records.take(rows.tolist())
        right = calibration.summary(model.predict_proba(as_read(model, named)).numpy(), self.classes[rows])
        stamp = replace(stamp, metric="calibration", settings={}, reference=Sample(named).digest(), real=len(rows))
        notes = (f"of texts, of pieces of at most {PIECE} characters",) if self.modality == "text" else ()
        return report.with_([Measured(ACCURACY, right.accuracy, stamp, notes), Measured(ECE, right.error, stamp, notes)],
                            reliability=right.curve)

    def _read(self, opened: data.Source, n: int | None) -> tuple[Records, np.ndarray]:
        """The records of a source, at most n, chosen by a hash of their number."""
        if self.modality == "text":
            texts = (pair for block in data.whole(opened.blocks()) if "text" in block.columns
                     for pair in zip(texts_of(block), self._named(block), strict=True))
            return _pieces(texts, n or self.most, self.seed)
        chosen = data.Chosen(n or self.most, self.seed)
        for block in opened.blocks():
            chosen.add(block.without(*(name for name in [opened.weight] if name)))
        return self._parsed(chosen.records())

    def _parsed(self, block: Records) -> tuple[Records, np.ndarray]:
        """Records as the codec parses them, without their label, and their classes (N,)."""
        if self.modality == "text":
            return _pieces(zip(texts_of(block), self._named(block), strict=True), self.most, self.seed)
        column = None if self.labels is None else self.labels.config.column
        parsed = self.codec.parse(block.without(*([column] if column else [])), self.problems)
        if not len(parsed):
            first = f"The first problem: {self.problems[0].message}" if self.problems else ""
            raise BadData("DATA_EMPTY", f"{block.origin}: no record can be measured.", first)
        return parsed, self._named(block)[data.rows_of(block, parsed)]

    def _named(self, block: Records) -> np.ndarray:
        """The classes (N,) of a block; -1 where there is none."""
        if self.labels is None or self.labels.config.column not in block.columns:
            return np.full(len(block), -1)
        return self.labels.encode(block).numpy()

    def _features(self, name: str, others: Sample | None) -> Features:
        """The features, fitted: those that learn on other records, or on a third of the reference, which is then compared no
        more. Features fitted on one side of a comparison are nearer to it, and no p-value would hold."""
        labelled = len(self.classes) > 0 and bool((self.classes >= 0).all())
        self.name = choose(self.modality, labelled, len(self.records)) if name == "auto" else name
        kind: type[Features] = FEATURES.load(self.name)
        records, classes = self.records, self.classes
        if kind.learns and others is not None and others.records is not None and others.labels is not None:
            records, classes = others.records, others.labels
        elif kind.learns and len(self.records) >= 3 * APART:
            third = data.lots(np.arange(len(self.records)), len(self.records) // 3, self.seed)
            rest = np.setdiff1d(np.arange(len(self.records)), third)
            records, classes = self.records.take(third.tolist()), self.classes[third]
            self.records, self.classes = self.records.take(rest.tolist()), self.classes[rest]
        return kind().fit(records, classes if labelled else None, self.seed)


def _seen(model: Model, files: set[str]) -> list[str]:
    """A warning where the reference has files that the model learned from."""
    known = {entry["sha256"] for entry in model.card.get("manifest", {}).get("files", ())}
    return [f"SEEN: the model learned from {len(known & files)} of the {len(files)} files of this reference, so what is said "
            "here is no word on new records. Give others."] if known & files else []


def codec_of(source: data.Source) -> Codec:
    """The codec of its records with its own settings, fitted to them."""
    kind = CODECS.load(source.modality)
    return kind(build(kind.Config, {}, source.modality)).fit(source.features())


def as_read(model: Model, records: Records) -> Any:
    """Records as a model reads them: texts alone, for it asks a table for the column that it learned them from."""
    return list(records.columns["text"]) if model.codec.modality == "text" else records


def _there(source: Any, asked: Mapping[str, Any]) -> str | None:
    """The column of a model's classes where the source has it; texts have it beside them in any case."""
    column = asked["beside"]
    known = column is not None and asked["modality"] != "text" and column in data.open_source(source, **asked).columns
    return column if known else None


def _fitting(modality: str, asked: Sequence[str] | None, skip: tuple[str, ...]) -> tuple[str, ...]:
    """The measures that were asked for, or where none was, those of the shelf that look at features or at such records, but for
    those to skip. Raises Incompatible SHELF_UNKNOWN, METRIC_SHAPE."""
    def fits(name: str) -> bool:
        kind = METRICS.load(name)
        return (kind.sees == "features" and (not kind.modalities or modality in kind.modalities)) or kind.sees == modality
    asked = None if asked is None else list(dict.fromkeys(map(named, asked)))
    for name in asked or ():
        if not fits(name):
            raise Incompatible("METRIC_SHAPE", f"Measure '{printable(name)}' is not of {modality} records.",
                               "See: verossim list metrics.")
    return tuple(asked) if asked is not None else tuple(name for name in METRICS.names() if fits(name) and name not in skip)


def _pieces(texts: Iterable[tuple[str, int]], n: int, seed: int) -> tuple[Records, np.ndarray]:
    """At most n pieces of PIECE characters that texts are cut into, each of the class of its text; what is left over of a text
    is a piece where it is all of it, or half as long. Raises BadData DATA_EMPTY."""
    chosen = data.Chosen(n, seed)
    for text, y in texts:
        pieces = [piece for first in range(0, len(text), PIECE)
                  if (piece := text[first:first + PIECE]).strip() and (len(text) <= PIECE or 2 * len(piece) >= PIECE)]
        if pieces:
            chosen.add(Records({"text": pieces, "class": [int(y)] * len(pieces)}, "texts"))
    if not chosen.given:
        raise BadData("DATA_EMPTY", "There is no text to measure: all are empty, or chats.", "Give or write longer ones; chats "
                      "are scored by: verossim log-prob.")
    found = chosen.records()
    return found.without("class"), np.asarray(found.columns["class"], np.int64)
