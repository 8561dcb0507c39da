"""`verossim evaluate`, `compare` and `audit`: how good it is what a model makes, which of several is best, and does it copy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from .. import data, store
from ..config import build
from ..data import to_table
from ..errors import BadConfig, printable
from ..folders import writable
from ..intervals import Interval
from ..metrics import Measured, Quantity, Report, Stamp
from ..model import Model
from ..model.auditing import CLOSE, Audited, audited
from ..model.reference import Judgement, Reference
from ..pages import report as pages
from ..pages.plots import require
from ..safety import Provenance, release_file
from ..safety.gate import check_vacant
from ..seeds import check_seed
from ..shelves import FEATURES
from ..spaces import Records
from .console import Voice, first_rank, told
from .records import provenance

__all__ = ["audit", "closest", "compare", "evaluate", "interval", "looks", "nearest"]

SHOWN = 64  # records of a page
PAIRS = 12
CHARTS = 12  # columns of a table


def evaluate(voice: Voice, path: str, source: str, metrics: list[str] | None, features: str, n: int | None, label: str | None,
             seed: int, unusual: str | None, output: str | None, overwrite: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """Every measure of a model, or of a folder or file of samples, against DATA; as a page to `output`."""
    if not first_rank():
        return {}
    place = _page(output, overwrite)
    model = Model.load(path) if store.is_model(path) else None
    if model is None and (settings or unusual):
        raise BadConfig("USAGE", f"{printable(path)} holds samples, not a model.", "Leave --set and --unusual out.")
    check_seed(seed)
    if model is None:
        data.open_source(path)  # what cannot be read is told before anything is measured
    else:
        build(model.family.Sampling, settings, "sampling")
    if unusual is not None:
        data.open_source(unusual, modality=None if model is None else model.codec.modality)
    voice.note("reading the reference ...", "dim")
    reference = _reference(model, source, metrics, features, n, label, seed)
    voice.note(f"measuring by {reference.name} features of {reference.n:,} records ...", "dim")
    judged = reference.judge(model if model is not None else path, name=path, n=n, seed=seed, unusual=unusual,
                             **settings)
    _tell(voice, reference, [judged.report])
    if place is not None:
        with release_file(place, _origin("evaluate", path, model, seed, against=source, **settings), overwrite) as file:
            file.write_text(_page_of(reference, judged, model, path), encoding="utf-8")
        voice.say(f"written: {printable(place)}")
    return {**judged.report.plain(), "output": output, "problems": [vars(problem) for problem in reference.problems]}


def compare(voice: Voice, paths: Sequence[str], against: str, metrics: list[str] | None, features: str, n: int | None,
            label: str | None, seed: int) -> dict[str, Any]:
    """Models and samples beside one another, all measured alike, with what is surely better."""
    if not first_rank():
        return {}
    check_seed(seed)
    for path in paths:
        if not store.is_model(path):
            data.open_source(path)
    reference = Reference(against, label=label, features=features, metrics=metrics, n=n, seed=seed)
    reports = []
    for path in paths:
        voice.note(f"measuring {printable(path)} ...", "dim")
        subject = Model.load(path) if store.is_model(path) else path
        reports.append(reference.judge(subject, name=path, n=n, seed=seed).report)
    _tell(voice, reference, reports)
    made = dict.fromkeys(report.about["made"] for report in reports)
    if len(made) > 1:
        voice.warn(f"What is compared has {' and '.join(f'{count:,}' for count in made)} records: distances and coverage go "
                   "with their number. Compare as many of each: -n.")
    surely = _surely(reports)
    for name, words in surely.items():
        voice.say(f"{name.replace('_', ' ')}: {words}")
    if not surely and len(reports) > 1:
        voice.say("In no measure is one of these surely better than the others.")
    return {"reports": [report.plain() for report in reports], "surely": surely}


def audit(voice: Voice, path: str, train: str, held_out: str | None, n: int | None, seed: int, output: str | None,
          overwrite: bool) -> dict[str, Any]:
    """Whether a model gives back what it learned from, and whether somebody can tell what that was."""
    if not first_rank():
        return {}
    place = _page(output, overwrite)
    model = Model.load(path)
    found = audited(model, train, held_out, n=n, seed=seed)
    report = found.report
    for words in report.warnings:
        voice.warn(words)
    voice.say(f"verdict: {report.verdict}")
    for words in report.words:
        voice.say(words)
    copying = report.copying
    voice.table("Copies", ["", "", "95 %"], [
        ["made records closer than any new one should be", copying.copies, ""],
        ["their share", copying.rate.value, interval(copying.rate)],
        ["equal to a record learned from", copying.exact, ""],
        ["share nearer to one learned from than to any other", copying.nearer.value, interval(copying.nearer)]])
    voice.table("Can it be told what the model learned from?", ["by", "AUC", "95 %"],
                ([attack.by.replace("_", " "), attack.area.value, interval(attack.area)] for attack in report.membership))
    if place is not None:
        pairs = nearest(found.made, found.seen, [(pair.made, pair.train) for pair in report.pairs[:PAIRS]])
        page = pages.evaluation(_measures(found, seed).with_(model=path), title="Does it copy?", lead=" ".join(report.words),
                                neighbours=pairs, warnings=report.warnings, protocol={**report.settings, "seed": seed},
                                provenance={"model": path, "sha256": store.identity(path), "data": train})
        with release_file(place, provenance("audit", path, model, seed, train=train, held_out=held_out), overwrite) as file:
            file.write_text(page, encoding="utf-8")
        voice.say(f"written: {printable(place)}")
    return {**report.plain(), "output": output}


def _measures(found: Audited, seed: int) -> Report:
    """The numbers of an audit, as a page shows them."""
    report, share = found.report, "share of made records that "
    stamp = Stamp(metric="audit", settings=report.settings, real=report.train, made=report.made, seed=seed)
    told = [(Quantity("copies", "lower", f"{share}lie closer to a record learned from than new ones should; "
                      f"{report.copying.expected:.2%} are expected", "what is remembered, and not given back"),
             report.copying.rate),
            (Quantity("nearer", "lower", f"{share}lie nearer to a record learned from than to any held out; "
                      f"{report.copying.nearer_expected:.2%} are expected", "single copies among many records"),
             report.copying.nearer)]
    for attack in report.membership:
        by = attack.by.replace("_", " ")
        told += [(Quantity(f"AUC by {by}", "lower", "how often a record learned from is told from a held-out one; 0.5 is none",
                           "the few that are remembered best"), attack.area),
                 (Quantity(f"told by {by} at 1 %", "lower", "share of the records learned from that are told where 1 % of the "
                           "others are mistaken for such", "attacks that nobody has thought of"), attack.at_1_percent)]
    return Report(about={}).with_([Measured(quantity, area, stamp) for quantity, area in told])


def interval(found: Interval | None) -> str:
    """The ends of an interval, as a cell of a table."""
    return "-" if found is None or found.low is None or found.high is None else f"{told(found.low)} to {told(found.high)}"


def looks(records: Records | None, most: int = SHOWN) -> list[Image.Image] | list[str]:
    """Records as a page shows them, evenly from the first to the last: pictures or texts; none of tables."""
    if records is None:
        return []
    some = records.take(np.linspace(0, len(records) - 1, min(most, len(records))).astype(int).tolist())
    if "image" in some.columns:
        return [_picture(pixels) for pixels in some.columns["image"]]
    return [str(text) for text in some.columns["text"]][:6] if "text" in some.columns else []


def nearest(made: Records | None, real: Records | None, pairs: Sequence[tuple[int, int]]) -> list[tuple[Any, Any, str]]:
    """Pairs of made and real records by their numbers, as a page shows them; those of tables in words."""
    if made is None or real is None or not pairs:
        return []
    one, other = (side.take([pair[k] for pair in pairs]) for k, side in enumerate((made, real)))
    shown = (looks(side, len(pairs)) or [", ".join(f"{name} {value}" for name, value in row.items()) for row in side.rows()]
             for side in (one, other))
    return [(a, b, f"made {i + 1}, real {j + 1}") for a, b, (i, j) in zip(*shown, pairs, strict=False)]


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _reference(model: Model | None, source: str, metrics: list[str] | None, features: str, n: int | None, label: str | None,
               seed: int) -> Reference:
    if model is None:
        return Reference(source, label=label, metrics=metrics, features=features, n=n, seed=seed)
    return Reference(source, label=label, metrics=metrics, features=features, n=n, seed=seed, codec=model.codec,
                     labels=model.label, read=model.card.get("read"))


def _tell(voice: Voice, reference: Reference, reports: Sequence[Report]) -> None:
    voice.quiet_bars()
    voice.problems(reference.problems)
    for report in reports:
        for words in report.warnings:
            voice.warn(words if len(reports) == 1 else f"{report.about['name']}: {words}")
    if len(reports) == 1:
        voice.table(f"Against {printable(reference.origin)}", ["", "", "95 %", "better", "p"], (
            [", ".join(filter(None, [m.name.replace("_", " "), m.quantity.unit])), m.value, interval(m.interval),
             m.quantity.better, told(m.interval.p_value)]
            for m in reports[0]))
        for words in dict.fromkeys(note for m in reports[0] for note in m.notes):
            voice.note(words)
        return
    names = dict.fromkeys(m.name for report in reports for m in report)
    voice.table(f"Against {printable(reference.origin)} (95 % intervals)", ["", *(str(r.about["name"]) for r in reports)], (
        [name.replace("_", " "), *(_cell(report, name) for report in reports)] for name in names))


def _cell(report: Report, name: str) -> str:
    found = next((m for m in report if m.name == name), None)
    return "-" if found is None else f"{told(found.value)} ({interval(found.interval)})"


def _surely(reports: Sequence[Report]) -> dict[str, str]:
    """By quantity, which of the reports is surely better than all others, where one is."""
    found = {}
    for name in dict.fromkeys(m.name for report in reports for m in report):
        have = [(report, m) for report in reports for m in report if m.name == name]
        for report, m in have:
            others = [other for rival, other in have if rival is not report]
            if others and all(m.stamp == other.stamp and m.better_than(other) for other in others):
                found[name] = f"{report.about['name']} is surely best"
    return found


def _page(output: str | None, overwrite: bool) -> Path | None:
    """Where the page goes. Raises BadConfig USAGE, CannotWrite, MissingExtra EXTRA, before minutes are spent."""
    if output is None:
        return None
    if not output.lower().endswith((".html", ".htm")):
        raise BadConfig("USAGE", f"The output is named {printable(output)}.", "Name it .html.")
    require()
    writable(check_vacant(output, overwrite, file=True))
    return Path(output)


def _page_of(reference: Reference, judged: Judgement, model: Model | None, path: str) -> str:
    events = Path(path) / "events.jsonl"
    from ..training.journal import read_events
    curves = pages.curves_of(read_events(events)) if events.exists() else {}
    close = FEATURES.load(CLOSE[reference.modality])().fit(reference.records, None, reference.seed)
    made = judged.made.records
    assert made is not None
    few = made.take(range(min(PAIRS, len(made))))
    pairs = nearest(few, reference.records, closest(close(few), close(reference.records)))
    about = dict(judged.report.about)
    reliability, odd = about.pop("reliability", ()), about.pop("unusual", ())
    return pages.evaluation(replace(judged.report, about=about), title=f"How good is {Path(path).name}?",
                            real=looks(reference.records), made=looks(made), neighbours=pairs, curves=curves,
                            reliability=reliability, columns=_columns(reference.records, made),
                            unusual=([x for x, _ in odd], [y for _, y in odd]) if odd else None,
                            provenance={} if model is None else {"sha256": store.identity(path)})


def _columns(real: Records, made: Records) -> dict[str, tuple[list[Any], list[Any]]]:
    """The first columns of a table, real and made, that a chart can show: numbers, words and truths; none of other records."""
    shown = {name: column for name, column in real.columns.items() if isinstance(column, pa.Array | pa.ChunkedArray)
             and not pa.types.is_temporal(column.type)}
    return {name: tuple(to_table(side)[name].to_pylist() for side in (real, made))  # type: ignore[misc]
            for name in list(shown)[:CHARTS]}


def closest(made: np.ndarray, real: np.ndarray) -> list[tuple[int, int]]:
    """The numbers of made records, each with that of the real one which is nearest by its features."""
    return [(i, int(np.square(real - row).sum(axis=1).argmin())) for i, row in enumerate(made)]


def _origin(verb: str, path: str, model: Model | None, seed: int, **settings: Any) -> Provenance:
    if model is not None:
        return provenance(verb, path, model, seed, **settings)
    return Provenance(verb=verb, model=None, data=None, seed=seed, settings=settings)


