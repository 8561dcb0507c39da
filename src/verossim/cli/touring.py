"""`verossim tour`: every family that fits the data, side by side, as a table and as a page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BadConfig, printable
from ..intervals import Interval
from ..metrics import Quantity, Report
from ..model.auditing import CLOSE
from ..pages import report as page
from ..pages.advice import advise
from ..pages.cells import Cell, Column, Noted, plainly
from ..pages.plots import require
from ..safety import Provenance, release_file
from ..safety.gate import check_vacant
from ..shelves import FEATURES
from ..training import Journal
from ..training.forecast import seconds_of
from ..training.journal import read_events
from ..uses.tour import Row, Tour
from ..uses.tour import tour as toured
from .console import Voice, first_rank
from .evaluating import closest, looks, nearest

__all__ = ["tour"]

#: Columns of the table that hold quantities of reports; the distance is the first that has an interval for every row.
HELD = {"coverage": "coverage", "accuracy": "accuracy", "calibration error": "calibration_error"}
DISTANCES = {"frechet_infinity": "Frechet distance, extrapolated to infinitely many records",
             "kernel": "kernel distance (unbiased MMD), for which few records are enough"}
FLOORS = ("noise", "one Gaussian")
WORDS = {"real records": "Other records of the same data: no model can be better, save by chance.",
         "copies": "Records learned from, given back: good numbers, and nothing new. Its copy rate tells.",
         "noise": "Every value drawn by itself.", "one Gaussian": "The simplest model there is."}
PAIRS = 8


def tour(voice: Voice, source: str, output: str, families: str | None, budget: str, label: str | None,
         target: str | None, seed: int, restart: bool, overwrite: bool) -> dict[str, Any]:
    """Learns, measures, prints the table and writes report.html into the folder."""
    if not first_rank():
        return {}
    folder = Path(output)
    asked = None if families is None else [name.strip() for name in families.split(",") if name.strip()]
    if asked == []:
        raise BadConfig("USAGE", "--families names none.", "For example --families gmm,vae.")
    check_vacant(str(folder / "report.html"), overwrite, file=True)  # before minutes are spent
    require()
    journal = Journal()
    journal.listen(lambda event: _follow(voice, event))

    def tell(words: str) -> None:
        voice.quiet_bars()
        voice.note(f"{words} ...", "dim")
    found = toured(source, folder=folder, families=asked, budget=seconds_of(budget), label=label, target=target, seed=seed,
                   restart=restart, journal=journal, tell=tell)
    voice.quiet_bars()
    close = FEATURES.load(CLOSE[found.about["modality"]])().fit(found.real.records, None, seed)
    distance = _distance(found.rows)
    rows = [_row(row, found, close, distance) for row in found.rows]
    here = f"; here the {DISTANCES[distance]}; near 0, and also below, where nothing differs"
    columns = [replace(c, help=c.help + here) if c.name == "distance" else c for c in page.COLUMNS]
    columns = [c for c in columns if any(row.numbers.get(c.name) is not None for row in rows)]
    voice.table(f"{printable(found.about['data'])}: all side by side", ["", *(c.name for c in columns)],
                ([row.name, *(_plain(row.numbers.get(c.name), c) for c in columns)] for row in rows))
    advice = advise(rows, columns)
    voice.say("")
    for words in advice:
        voice.say(words)
    for row in rows:
        for words in row.warnings:
            voice.warn(f"{row.name}: {words}")
    for words in found.warnings:
        voice.note(f"note: {words}", "dim")
    for learned in found.rows:
        if learned.failed:
            voice.warn(f"{learned.name} could not be learned: {learned.failed}")
    lead = (f"{found.about['data']}: learned from {100 * (1 - found.about['held_out']):.0f} % of the records, held against "
            f"{found.about['held_against']:,} that none has seen.")
    html = page.tour(rows, columns=columns, lead=lead, advice=advice, real=looks(found.real.records),
                     quantities=_quantities(found), protocol=found.about, warnings=found.warnings)
    place = folder / "report.html"
    settings = {"source": source, "budget": budget, "families": families}
    made_by = Provenance(verb="tour", model=None, data=None, seed=seed, settings=settings)
    with release_file(place, made_by, overwrite) as file:
        file.write_text(html, encoding="utf-8")
    voice.say(f"Look at {printable(place)}; the models are in {printable(folder / 'models')}.")
    return {**found.plain(), "advice": advice, "output": str(place)}


def _follow(voice: Voice, event: dict[str, Any]) -> None:
    if event["event"] == "progress":
        voice.bar("learning", event["samples"], event["total"], f"{event['samples']:,} of {event['total']:,} records")


def _distance(rows: Sequence[Row]) -> str:
    """The quantity that the column "distance" holds."""
    for name in DISTANCES:
        found = [m.interval for row in rows for m in row.report if m.name == name]
        if found and all(one.low is not None for one in found):
            return name
    return "frechet_infinity"


def _row(row: Row, tour: Tour, close: Any, distance: str) -> page.Row:
    """A row as the page shows it."""
    numbers: dict[str, Cell] = {}
    bits = _found(row.report, "bits")
    if bits is not None:
        kind = str(row.report.about.get("kind", ""))
        numbers["bits per dimension"] = Noted(bits, kind, bound=kind == "bound")
    for column, name in {"distance": distance, **HELD}.items():
        numbers[column] = _found(row.report, name)
    if row.audit is not None:
        numbers["copy rate"] = row.audit.copying.rate
    numbers["utility"] = row.utility
    if row.cost is not None:
        numbers |= {"train": row.cost.fit_seconds, "sample": 1000 * row.cost.sample_seconds, "size": row.cost.bytes / 1e6,
                    "energy": row.cost.watt_hours}
    made = None if row.made is None else row.made.records
    pairs: list[Any] = []
    if made is not None and row.kind == "family" and tour.about["modality"] != "table":
        few = made.take(range(min(PAIRS, len(made))))
        pairs = nearest(few, tour.seen, closest(close(few), close(tour.seen)))
    told = row.audit.words if row.audit is not None and row.audit.flagged and row.kind == "family" else ()
    return page.Row(name=row.name, numbers=numbers, words=WORDS.get(row.name, row.failed and f"Not learned: {row.failed}"),
                    baseline=row.kind == "baseline", floor=row.name in FLOORS,
                    flagged=None if row.audit is None else row.audit.flagged,
                    warnings=told, made=looks(made),
                    neighbours=pairs, provenance={"folder": row.folder} if row.folder else {},
                    curves={} if row.folder is None else _curves(Path(row.folder)))


def _curves(folder: Path) -> dict[str, Any]:
    """How a run in this folder learned; nothing of what left no journal."""
    events = folder / "events.jsonl"
    return page.curves_of(read_events(events)) if events.exists() else {}


def _found(report: Report, name: str) -> Interval | None:
    return next((m.interval for m in report if m.name == name), None)


def _plain(cell: Cell, column: Column) -> str:
    if cell is None:
        return "-"
    note = f" {cell.note}" if isinstance(cell, Noted) and cell.note else ""
    value = cell.value if isinstance(cell, Noted) else cell
    around = ""
    if isinstance(value, Interval) and value.low is not None and value.high is not None:
        around = f" ±{(value.high - value.low) / 2 * (100 if column.unit == '%' else 1):.2g}"
    return plainly(cell, column).removesuffix(" %") + around + (" %" if column.unit == "%" else "") + note


def _quantities(tour: Tour) -> list[Quantity]:
    """All that was measured, each once."""
    return list({m.name: m.quantity for row in tour.rows for m in row.report}.values())


