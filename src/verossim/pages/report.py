"""The two reports: of one model against its reference (`verossim evaluate`), and of all models side by side (`verossim tour`).

Both take plain values and give one HTML page. What is empty is left out: a table has no pictures, a mixture no curve.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from ..intervals import Interval
from ..metrics import Quantity, Report
from ..shelves import METRICS
from . import Page, Side, plots
from .advice import Row, advise
from .cells import Cell, Column, Noted, ends
from .plots import Line

__all__ = ["COLUMNS", "Row", "curves_of", "evaluation", "tour"]

#: The columns of a tour that gives no others; those that no row has a number for are left out.
COLUMNS = (
    Column("bits per dimension", "lower", "what a lossless coder would pay for each variable of a held-out record. exact: the "
           "number itself; bound: never below it, so the model may be better than it says; estimate: with an error of its own"),
    Column("distance", "lower", "how far the made records lie from the real ones, by the Frechet distance of their features"),
    Column("coverage", "higher", "share of the real records that have a made one nearby: what is left out lowers it", "%"),
    Column("copy rate", "lower", "share of made records nearer to one learned from than new real ones ever are", "%"),
    Column("utility", "higher", "accuracy, on real records, of a classifier that learned from made ones alone", "%"),
    Column("accuracy", "higher", "share of held-out records whose class the model itself names, by Bayes' rule", "%"),
    Column("calibration error", "lower", "how far the probabilities that the model states lie from what comes true", "%"),
    Column("size", "lower", "of the saved model", "MB", cost=True),
    Column("train", "lower", "time to learn, on this machine; what learns by gradient takes what the budget gives it", "s",
           cost=True),
    Column("sample", "lower", "time to make 1,000 records, on this machine", "s", cost=True),
    Column("energy", "lower", "of learning: an estimate, 10 W for each busy core; accelerators are not in it", "Wh", cost=True),
)
SHOWN = 64  # pictures of a grid, at most
TEXTS, PAIRS = 6, 12
NEIGHBOURS = ("Made records beside the real ones that are nearest. Likeness is expected; the same record again is a copy.")


def tour(rows: Sequence[Row], *, columns: Sequence[Column] = COLUMNS, title: str = "Which model should I use?", lead: str = "",
         advice: Sequence[str] | None = None, real: Sequence[Image.Image] | Sequence[str] = (),
         quantities: Iterable[Quantity] = (), protocol: Mapping[str, Any] | None = None,
         provenance: Mapping[str, Any] | None = None, warnings: Sequence[str] = ()) -> str:
    """The page of a tour: the advice and the table, then intervals, samples, learning curves, what the measures mean, protocol.

    rows : models and baselines in the order of the table. advice: sentences in place of those that the table gives. real:
    records to see beside the made ones. quantities: what is explained of measures, besides the columns.
    Raises MissingExtra EXTRA where a chart is due without matplotlib.
    """
    page = Page(title, lead)
    used = [c for c in columns if any(row.numbers.get(c.name) is not None for row in rows)]
    aside = {i for i, row in enumerate(rows) if row.baseline}
    page.section("In short").points(advise(rows, used) if advice is None else advice)
    for words in (*warnings, *(f"{row.name}: {words}" for row in rows for words in row.warnings)):
        page.warning(words)
    page.section("All models side by side")
    named = [Noted(row.name, "baseline") if row.baseline else row.name for row in rows]
    page.table([Column("model"), *used], [[name, *(row.numbers.get(c.name) for c in used)]
                                          for name, row in zip(named, rows, strict=True)],
               "Each number with its 95 % interval; baselines do not compete", aside)
    page.definitions({row.name: row.words for row in rows if row.words})
    charts = [chart for c in used if (chart := _chart(rows, c))]
    if charts:
        page.section("How sure is it?", "Where whiskers overlap, the numbers do not say which is better. Hollow: baselines.")
        for svg, caption in charts:
            page.figure(svg, caption)
    if real or any(row.made for row in rows):
        page.section("Samples", "Not chosen: taken evenly from the first to the last.")
        _samples(page, real, "Real records, held out")
        for row in rows:
            _samples(page, row.made, f"{row.name}: made")
    if any(row.neighbours for row in rows):
        page.section("Nearest neighbours", NEIGHBOURS)
        for row in rows:
            page.pairs(list(row.neighbours)[:PAIRS], row.name)
    _learning(page, {row.name: row.curves for row in rows})
    _meanings(page, quantities)
    _origin(page, {**(protocol or {}), **{row.name: row.protocol for row in rows if row.protocol}},
            {**(provenance or {}), **{row.name: row.provenance for row in rows if row.provenance}})
    return page.html()


def evaluation(report: Report | Mapping[str, Any], *, title: str = "How good is it?", lead: str = "",
               real: Sequence[Image.Image] | Sequence[str] = (),
               made: Sequence[Image.Image] | Sequence[str] = (), neighbours: Sequence[tuple[Side, Side, str]] = (),
               curves: Mapping[str, Line] | None = None, reliability: Sequence[Sequence[float]] = (),
               columns: Mapping[str, tuple[Sequence[Any], Sequence[Any]]] | None = None,
               unusual: Line | None = None, protocol: Mapping[str, Any] | None = None,
               provenance: Mapping[str, Any] | None = None, warnings: Sequence[str] = ()) -> str:
    """The page of one model: its measures, then samples, neighbours, charts, what the measures mean, protocol.

    report : of `metrics`, or what its `plain` gave. reliability : points (said, true, records). columns: values of a table,
    real and made, by the column's name. unusual: (usual records taken for unusual, unusual ones found), shares. Raises
    MissingExtra EXTRA where a chart is due without matplotlib.
    """
    rows = _rows(report)
    about = report.about if isinstance(report, Report) else report.get("about", {})
    page = Page(title, lead)
    page.section("Measures")
    for words in (*(report.warnings if isinstance(report, Report) else report.get("warnings", ())), *warnings):
        page.warning(words)
    _measures(page, rows)
    if real or made:
        page.section("Samples", "Not chosen: taken evenly from the first to the last.")
        _samples(page, real, "Real records, held out")
        _samples(page, made, "Made")
    if neighbours:
        page.section("Nearest neighbours", NEIGHBOURS).pairs(list(neighbours)[:PAIRS])
    if columns:
        page.section("Columns", "What is real beside what was made.")
        for name, (one, other) in columns.items():
            page.figure(plots.histogram(one, other, name), f"Shares of {name}, real and made")
    if len(reliability):
        page.section("Calibration").figure(plots.reliability(reliability), "Probabilities that the model stated, and how often "
                                           "it was right: on the dotted line, it can be believed")
    if unusual is not None:
        page.section("Unusual records").figure(plots.roc({"by probability": unusual}), "How many unusual records are found, "
                                               "against how many usual ones are taken for such: on the dotted line, by chance")
    _learning(page, {"": curves or {}})
    _meanings(page, [quantity for quantity, *_ in rows])
    _origin(page, {**_protocol(rows), **(protocol or {})}, {**about, **(provenance or {})})
    return page.html()


def curves_of(events: Iterable[Mapping[str, Any]]) -> dict[str, Line]:
    """The learning curves in a journal's events: loss against records seen, or the objective against sweeps of the data."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for event in events:
        if event.get("event") == "progress" and event.get("loss") is not None:
            name, x, y = "loss", event["samples"], event["loss"]
        elif event.get("event") == "sweep" and event.get("objective") is not None:
            name, x, y = "objective", event["sweep"], event["objective"]
        else:
            continue
        xs, ys = lines.setdefault(name, ([], []))
        while xs and xs[-1] >= x:  # begun anew, or taken up again from before
            xs.pop(), ys.pop()
        xs.append(float(x))
        ys.append(float(y))
    return dict(lines)


_Numbers = tuple[Quantity, Interval, Sequence[str], Mapping[str, Any]]


def _rows(report: Report | Mapping[str, Any]) -> list[_Numbers]:
    """Quantity, interval, notes and protocol of each number."""
    if isinstance(report, Report):
        return [(m.quantity, m.interval, m.notes, m.plain()["protocol"]) for m in report]
    def interval(m: Mapping[str, Any]) -> Interval:
        value = math.nan if m.get("value") is None else float(m["value"])  # JSON has no word for what is not finite
        return Interval(value, m.get("low"), m.get("high"), m.get("p_value"))
    return [(_quantity(m), interval(m), m.get("notes", ()), m.get("protocol", {})) for m in report.get("measured", ())]


def _quantity(said: Mapping[str, Any]) -> Quantity:
    """The quantity of a plain number, with its words where the shelf of measures has them."""
    metric = said.get("protocol", {}).get("metric", "")
    known = METRICS.load(metric).gives if metric in METRICS.names() else ()
    bare = Quantity(said["name"], said.get("better", "neither"), "", "", said.get("unit", ""))
    return next((quantity for quantity in known if quantity.name == bare.name), bare)


def _measures(page: Page, rows: Sequence[_Numbers]) -> None:
    heads = [Column("measure"), Column("value"), Column("good is"), Column("p-value")]
    cells: list[list[Cell]] = [
        [quantity.name, Noted(interval, quantity.unit),
         quantity.better if quantity.better != "neither" else None, _p(interval.p_value)] for quantity, interval, *_ in rows]
    kept = [j for j in range(len(heads)) if j < 2 or any(row[j] is not None for row in cells)]
    page.table([heads[j] for j in kept], [[row[j] for j in kept] for row in cells], "Each number with its 95 % interval")
    page.points(dict.fromkeys(f"{quantity.name}: {note}" for quantity, _, notes, _ in rows for note in notes))


def _p(p: float | None) -> str | None:
    return None if p is None else "below 0.001" if p < 0.001 else f"{p:.3f}"


def _chart(rows: Sequence[Row], column: Column) -> tuple[str, str] | None:
    """The intervals of a column's rows side by side, where two or more have one."""
    names: list[str] = []
    values: list[Interval] = []
    aside: set[int] = set()
    for row in rows:
        cell = row.numbers.get(column.name)
        value = cell.value if isinstance(cell, Noted) else cell
        if isinstance(value, Interval) and ends(cell, column):
            aside |= {len(names)} if row.baseline else set()
            names.append(row.name)
            values.append(value)
    if len(names) < 2 or column.cost:
        return None
    which = f", {column.better} is better" if column.better else ""
    if column.unit == "%":
        values = [Interval(100 * v.value, 100 * (v.low or 0.0), 100 * (v.high or 0.0)) for v in values]
    unit = f"{column.name}, {column.unit}" if column.unit else column.name
    return plots.intervals(names, values, unit, aside), f"{column.name[:1].upper()}{column.name[1:]} with 95 % intervals{which}"


def _samples(page: Page, made: Sequence[Image.Image] | Sequence[str], caption: str) -> None:
    """Pictures in a grid, or texts in boxes."""
    texts = [one for one in made if isinstance(one, str)]
    page.texts(texts[:TEXTS], caption)
    shown = [one for one in made[:SHOWN] if isinstance(one, Image.Image)]
    page.pictures([(one, f"{caption}, {i}") for i, one in enumerate(shown, 1)], caption, columns=16)


def _learning(page: Page, curves: Mapping[str, Mapping[str, Line]]) -> None:
    """A chart a model: losses of different models are not comparable."""
    known = {name: {line: v for line, v in lines.items() if len(v[0])} for name, lines in curves.items()}
    if not any(known.values()):
        return
    page.section("Learning", "" if len(known) == 1 else "Losses of different models are different things, not to be compared.")
    for name, lines in known.items():
        if lines:
            x = "sweeps of the data" if set(lines) == {"objective"} else "records seen"
            y = next(iter(lines)) if len(lines) == 1 else "loss"
            page.figure(plots.curve(lines, x, y), f"{name}: {y} against {x}" if name else f"{y} against {x}")


def _meanings(page: Page, quantities: Iterable[Quantity]) -> None:
    def words(q: Quantity) -> str:
        return f"{_sentence(q.means)} It misses: {q.misses.rstrip('.')}." if q.misses else _sentence(q.means)
    told = {q.name: words(q) for q in quantities if q.means}
    if told:
        page.section("What each measure means").definitions(told)


def _sentence(words: str) -> str:
    """Words with a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _protocol(rows: Sequence[_Numbers]) -> dict[str, Any]:
    """What the stamps of all numbers have in common, once; then what is each measure's own."""
    stamps = {stamp["metric"]: stamp for *_, stamp in rows if stamp.get("metric")}
    names = [name for name in next(iter(stamps.values()), {}) if name != "metric"]
    common = {name: first for name in names if name != "settings"
              for first in [next(iter(stamps.values())).get(name)] if all(s.get(name) == first for s in stamps.values())}
    own = {metric: {name: stamp.get(name) for name in names if name not in common and stamp.get(name) not in ("", {}, None)}
           for metric, stamp in stamps.items()}
    return {**{name: value for name, value in common.items() if value != ""}, **{m: s for m, s in own.items() if s}}


def _origin(page: Page, protocol: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    if protocol:
        page.section("Protocol", "Two numbers may be compared only where all of this is the same.").definitions(protocol)
    if provenance:
        page.section("Provenance").definitions(provenance)
