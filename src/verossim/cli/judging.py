"""`verossim log-prob` and `verossim predict`: how probable each record is, and which class it belongs to.

Scores are written as they come; what stays in memory is a number a record and the few records that are shown.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import torch

from ..errors import BadConfig, BadData, Incompatible, NoLikelihood, printable
from ..model import Model
from ..model.checking import normalised
from ..safety import Provenance, release_file
from ..scores.normalisation import Normalisation
from .arguments import SUFFIXES, table_format
from .console import Voice, first_rank, told
from .records import class_of, guarded, provenance, write_table

__all__ = ["log_prob", "predict"]

SHOWN = 10  # records shown
CLASSES = 20  # of a confusion table at most


def log_prob(voice: Voice, path: str, source: str, output: str | None, condition: str | None, method: str | None,
             outliers: int, overwrite: bool, check: bool = False) -> dict[str, Any]:
    """Nats and bits of each record, their mean, and the least probable records, least probable first; by one of the family's
    methods, or by all of them, the first of which is written. check: also whether all probabilities add up to one, and where a
    family has them bounds on records that the model makes itself."""
    if not first_rank():
        return {}
    model = Model.load(path)
    wanted = class_of(model, condition)
    methods = list(model.family.methods) if method == "all" and model.family.methods else [method]
    total = _total(model) if check else None
    checked = _bounds(model) if check else None
    told_of = []
    for number, way in enumerate(methods):
        scores = _Scores(outliers)
        blocks = scores.tables(model, source, wanted, way)
        _write(voice, blocks, None if number else output, provenance("log-prob", path, model, condition=condition, method=way),
               overwrite)
        if not scores.count:
            raise _nothing(model, "scored")
        told_of.append({"method": way, **scores.summary()})
    voice.quiet_bars()
    voice.problems(model.problems)
    document = told_of[0]
    names = [name for name, value in document.items() if name != "outliers" and value is not None]
    voice.table("How probable", ["", *[""] * len(told_of)], ([name.replace("_", " "), *(told(d[name]) for d in told_of)]
                                                             for name in names))
    least = ("record", "log_prob", "bits")
    voice.table("Least probable", least, ([outlier[name] for name in least] for outlier in document["outliers"]))
    if total is not None:
        voice.say(f"Over all records there could be: {total.words}.")
    if checked is not None:
        voice.say(f"On records that the model made itself the estimate is {told(checked['lower'])} nats on average, and at "
                  f"most {told(checked['upper'])} is true: it may be {told(checked['gap'])} nats too low.")
    _saved(voice, output)
    return {**document, "output": output, "problems": [vars(problem) for problem in model.problems], "check": checked,
            "normalisation": total and {**asdict(total), "words": total.words},
            **({"methods": told_of} if len(told_of) > 1 else {})}


def _bounds(model: Model) -> dict[str, float] | None:
    """Bounds from both sides, of families that have them."""
    try:
        return model.sandwich()
    except NoLikelihood as error:
        if error.code != "NO_CHECK":
            raise
        return None


def _total(model: Model) -> Normalisation | None:
    """What all probabilities add up to, of spaces that can be gone through."""
    try:
        return normalised(model)
    except Incompatible as error:
        if error.code != "NORMALISATION_SHAPE":
            raise
        return None


class _Scores:
    """Scores as they pass: sums, extremes and the least probable records."""

    def __init__(self, outliers: int):
        self.most = outliers
        self.count = 0
        self.nats = self.sizes = self.squares = 0.0  # sizes: of records, in variables
        self.errors: float | None = None
        self.low, self.high = math.inf, -math.inf
        self.kind = "exact"
        self.least: list[tuple[float, int, str, float]] = []

    def tables(self, model: Model, source: Any, condition: Any, method: str | None) -> Iterator[pa.Table]:
        """A table a block: record, log_prob (nats), bits (a dimension), kind, and stderr where it is an estimate."""
        for scored in model.score(source, condition, method):
            likelihood, records = scored.likelihood, scored.records
            log_p, bits = likelihood.log_prob.double(), likelihood.bits.double()
            places = [records.where(row) for row in range(len(records))]
            if likelihood.stderr is not None:
                self.errors = (self.errors or 0.0) + float(likelihood.stderr.double().square().sum())
            self.sizes += float(torch.as_tensor(likelihood.coordinates).double().expand(len(log_p)).sum())
            self._take(log_p, bits, places, likelihood.kind)
            table = pa.table({"record": places, "log_prob": log_p.numpy(), "bits": bits.numpy()})
            table = table.append_column("kind", [[likelihood.kind] * len(places)])
            yield table if likelihood.stderr is None else table.append_column("stderr", [likelihood.stderr.numpy()])

    def _take(self, log_p: torch.Tensor, bits: torch.Tensor, places: list[str], kind: str) -> None:
        self.nats += float(log_p.sum())
        self.squares += float(log_p.square().sum())
        self.low, self.high = min(self.low, float(log_p.min())), max(self.high, float(log_p.max()))
        self.kind = kind
        for row in log_p.argsort()[:self.most].tolist():
            # The heap keeps the least probable, the most probable of them on top; of equals the earlier.
            item = (-float(log_p[row]), -(self.count + row), places[row], float(bits[row]))
            (heapq.heappush if len(self.least) < self.most else heapq.heappushpop)(self.least, item)
        self.count += len(places)

    def summary(self) -> dict[str, Any]:
        """What the scores came to."""
        mean = self.nats / self.count
        spread = math.sqrt(max(self.squares / self.count - mean ** 2, 0.0) / (self.count - 1)) if self.count > 1 else None
        return {"records": self.count, "kind": self.kind, "mean_log_prob": mean, "error_of_the_mean": spread,
                "of_which_by_the_estimate": None if self.errors is None else math.sqrt(self.errors) / self.count,
                "mean_bits_per_dimension": -self.nats / math.log(2) / max(self.sizes, 1.0),
                "lowest_log_prob": self.low, "highest_log_prob": self.high,
                "outliers": [{"record": place, "log_prob": -minus, "bits": bits}
                             for minus, _, place, bits in sorted(self.least, reverse=True)]}


def predict(voice: Voice, path: str, source: str, output: str | None, overwrite: bool) -> dict[str, Any]:
    """P(Y | X) of each record, and how right that is where the label is known."""
    if not first_rank():
        return {}
    model = Model.load(path)
    classes = model.classes
    predictions = _Predictions(classes)
    _write(voice, predictions.tables(model, source), output, provenance("predict", path, model), overwrite)
    if not predictions.count:
        raise _nothing(model, "classified")
    voice.quiet_bars()
    voice.problems(model.problems)
    if not output:
        voice.table("Predictions", ["record", "class", "probability"], predictions.first)
        voice.more(predictions.count - len(predictions.first), "; write all of them with -o FILE.csv.")
    document = predictions.summary()
    if document["accuracy"] is not None:
        _show_confusion(voice, classes, predictions)
    _saved(voice, output)
    return {**document, "output": output, "problems": [vars(problem) for problem in model.problems]}


class _Predictions:
    """Predictions as they pass: the first of them, and how often which class was taken for which."""

    def __init__(self, classes: list[Any]):
        self.classes = classes
        self.count = 0
        self.first: list[tuple[str, Any, float]] = []
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)

    def tables(self, model: Model, source: Any) -> Iterator[pa.Table]:
        """A table a block: record, class (the most probable), its probability, and P(class) of each class."""
        for records, p, y in model.classify(source):
            best, which = p.max(dim=1)
            places = [records.where(row) for row in range(len(records))]
            named = [self.classes[c] for c in which.tolist()]
            if len(self.first) < SHOWN:
                self.first += list(zip(places, named, best.tolist(), strict=True))[:SHOWN - len(self.first)]
            known = y >= 0
            C = len(self.classes)
            self.confusion += torch.bincount(y[known] * C + which[known], minlength=C * C).view(C, C)
            self.count += len(places)
            each = {f"P({label})": p[:, c].numpy() for c, label in enumerate(self.classes)}
            yield pa.table({"record": places, "class": pa.array(named), "probability": best.numpy(), **each})

    def summary(self) -> dict[str, Any]:
        """Records, those with a known label, the share of them that was right, and the confusion (rows: the truth)."""
        known, right = int(self.confusion.sum()), int(self.confusion.trace())
        return {"records": self.count, "labelled": known, "accuracy": right / known if known else None, "classes": self.classes,
                "confusion": self.confusion.tolist() if known else None,
                "first": [{"record": place, "class": label, "probability": p} for place, label, p in self.first]}


def _show_confusion(voice: Voice, classes: list[Any], predictions: _Predictions) -> None:
    summary = predictions.summary()
    voice.say(f"accuracy: {summary['accuracy']:.4f} of {summary['labelled']:,} labelled records")
    if len(classes) > CLASSES:
        voice.note(f"The confusion of {len(classes)} classes is in the JSON: --json.")
        return
    rows = [[label, *counts] for label, counts in zip(classes, summary["confusion"], strict=True)]
    voice.table("Confusion (rows: the label; columns: the prediction)", ["", *map(printable, classes)], rows)


def _write(voice: Voice, blocks: Iterator[pa.Table], output: str | None, source: Provenance, overwrite: bool) -> None:
    """Runs through the blocks, writing them where there is an output."""
    if output is None:
        for _ in blocks:
            pass
        return
    if not output.lower().endswith(tuple(SUFFIXES)):
        raise BadConfig("USAGE", f"The output is named {printable(output)}.", "Name it .csv or .parquet.")
    with release_file(output, source, overwrite) as file:
        kind = table_format(output, None)
        write_table(file, guarded(voice, blocks) if kind == "csv" else blocks, kind)


def _saved(voice: Voice, output: str | None) -> None:
    if output:
        voice.say(f"written: {printable(output)}")


def _nothing(model: Model, what: str) -> BadData:
    first = f"The first problem: {model.problems[0].message} {model.problems[0].hint}".rstrip() if model.problems else ""
    return BadData("DATA_EMPTY", f"No record of the source can be {what}.", first)
