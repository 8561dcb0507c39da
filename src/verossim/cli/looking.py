"""`verossim describe` and `verossim list`: what a model is, and what there is to choose from."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import knobs
from ..errors import BadConfig, near, printable
from ..shelves import CODECS, FAMILIES, FEATURES, METRICS, Shelf
from .console import Voice, told

__all__ = ["describe", "shelves"]

SHOWN = 50  # columns of a table that are shown
COLUMN = ("column", "type", "missing", "distinct", "range", "note")


def describe(voice: Voice, path: str) -> dict[str, Any]:
    """Family, space, settings, columns, data and history of a saved model."""
    from .. import store
    from ..model import Model
    model = Model.load(path)
    document = {"model": path, "sha256": store.identity(path), **model.describe()}
    manifest, history, held_out = document.get("manifest", {}), document.get("history", {}), document.get("held_out")
    space = document["space"]
    voice.table(printable(path), ["", ""], ([name, told(value)] for name, value in (
        ("family", document["family"]), ("likelihood", document["likelihood"]),
        ("space", f"{space['kind']} {tuple(space['shape'])}"), ("made by", f"verossim {document.get('verossim')}"),
        ("sha256", document["sha256"]), ("learned over", document.get("over", {}).get("model")),
        ("classes", _listed(document["classes"])))))
    voice.say("")
    voice.table("Settings", ["", ""], ([name, told(value)] for name, value in document["settings"].items()))
    voice.say("")
    voice.table("Columns", COLUMN, ([row[name] for name in COLUMN] for row in document["columns"][:SHOWN]))
    voice.more(len(document["columns"]) - SHOWN, " columns.")
    voice.say("")
    voice.table("Data", ["", ""], ([name, told(manifest.get(name))] for name in (
        "origin", "records", "train", "held_out", "duplicates", "skipped", "hash")))
    objectives = history.get("objectives") or [None]
    voice.say("")
    voice.table("Learning", ["", ""], ([name, told(value)] for name, value in (
        ("seed", document.get("seed")), ("objective, nats a scaled record", objectives[-1]), *_scalars(history),
        *((f"held out: {name.replace('_', ' ')}", value) for name, value in (held_out or {}).items()))))
    return document


def shelves(voice: Voice, what: str, name: str | None) -> dict[str, Any]:
    """The names on a shelf, or the settings of one of its members."""
    members = {"families": FAMILIES, "codecs": CODECS, "metrics": METRICS, "features": FEATURES}
    if what == "settings":
        return _settings(voice, name)
    if what not in members:
        raise BadConfig("USAGE", f"There is no list of '{printable(what)}'.", near(what, [*members, "settings"]))
    names = members[what].names()
    summaries = {name: _summary(members[what], name) for name in names}
    voice.table("", [what, ""], summaries.items())
    return {what: [{"name": name, "summary": summary} for name, summary in summaries.items()]}


def _settings(voice: Voice, name: str | None) -> dict[str, Any]:
    """One row a knob, of a family and of learning, or of a codec; of all where no name is given."""
    from ..model import learning_of
    shelf = {**dict.fromkeys(FAMILIES.names(), FAMILIES), **dict.fromkeys(CODECS.names(), CODECS)}
    if name is not None and name not in shelf:
        raise BadConfig("USAGE", f"There is no family or codec '{printable(name)}'.", near(name, shelf))
    document: dict[str, Any] = {}
    for member in [name] if name else shelf:
        loaded: Any = shelf[member].load(member)
        document[member] = _knobs(loaded.Config)
    for member in [name] if name else shelf:
        if shelf[member] is FAMILIES:
            document[f"learning of {member}"] = _knobs(learning_of(FAMILIES.load(member)))
    for member, rows in document.items():
        voice.table(f"{member}: --NAME VALUE of verossim fit", ["name", "default", "values", "meaning"],
                    ([row["name"], told(row["default"]), row["values"], row["meaning"]] for row in rows))
        voice.say("")
    return {"settings": document}


def _knobs(kind: type) -> list[dict[str, Any]]:
    """The knob lines of a config class."""
    return [{"name": name, "default": field.default, "values": _values(field.metadata), "meaning": field.metadata["meaning"],
             **{bound: field.metadata[bound] for bound in ("low", "high", "choices")}} for name, field in knobs(kind).items()]


def _values(bounds: Mapping[str, Any]) -> str:
    low, high, choices = bounds["low"], bounds["high"], bounds["choices"] or ()
    numbers = [f"{told(low)} to {told(high)}"] if low is not None else []
    return ", ".join([*numbers, *map(str, choices)])


def _summary(shelf: Shelf, name: str) -> str:
    """The first sentence of a member's own words, read without loading it; empty for members of other packages."""
    import ast
    folder = Path(__file__).parent.parent / shelf.package
    source = next((f for f in (folder / f"{name}.py", folder / name / "__init__.py") if f.exists()), None)
    words = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) if source else None
    return (words or "").split("\n\n")[0].replace("\n", " ")


def _scalars(history: Mapping[str, Any]) -> list[tuple[str, Any]]:
    told = {**history, "interrupted": history.get("interrupted") and signal.Signals(history["interrupted"]).name}
    return [(name.replace("_", " "), value) for name, value in told.items()
            if name in history and not isinstance(value, list | tuple | dict)]


def _listed(values: list[Any] | None) -> str | None:
    if values is None:
        return None
    more = f" and {len(values) - 20} more" if len(values) > 20 else ""
    return ", ".join(printable(value, 30) for value in values[:20]) + more
