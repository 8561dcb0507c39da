"""`verossim sample`: new records, as pictures in folders or as a table; one block of them is held at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..config import knobs
from ..data.people import to_pictures, to_table
from ..errors import BadConfig, printable
from ..model import Model
from ..safety import Release, contact_sheet, gate, release, release_file
from ..seeds import check_seed
from ..spaces import Records
from .arguments import SUFFIXES, table_format
from .console import Voice, first_rank
from .records import class_of, folder_names, guarded, provenance, tell_aside, write_table

__all__ = ["sample"]

BLOCK = {"image": 1024, "table": 65_536}  # records drawn at a time
STEPWISE = 64  # the same where each takes many steps, so that progress is seen
SHEET = 1024  # pictures of a contact sheet at most
STRANGERS = {".xlsx", ".xls", ".ods", ".json", ".jsonl", ".tsv", ".txt", ".feather", ".arrow", ".npy", ".npz", ".zip", ".png"}
SAMPLES = 16  # where nothing is said
SHOWN = 40  # rows of a table on a terminal


def sample(voice: Voice, path: str, n: int | None, output: str | None, conditions: list[str], seed: int, format: str | None,
           overwrite: bool, settings: dict[str, Any], asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Draws n records; without an output, those of a table or texts are shown. asked: what is for texts only, which may also
    have two conditions, a text and a class."""
    if not first_rank():
        return {}
    if n is not None and n < 1:
        raise BadConfig("SETTING_RANGE", f"-n is {n}.", "It should be at least 1.")
    check_seed(seed)
    model, given = Model.load(path), {name: value for name, value in (asked or {}).items() if value not in (None, [])}
    if model.codec.modality == "text":
        from .texts import sample
        return sample(voice, path, model, n or 1, output, conditions, seed, overwrite, settings, given)
    n = n or SAMPLES
    if given:
        raise BadConfig("USAGE", f"--{next(iter(given))} is for texts, and this model makes none.", "Leave it out.")
    if len(conditions) > 1:
        raise BadConfig("USAGE", f"--condition is given {len(conditions)} times, and this model has one.", "Give it once.")
    condition = conditions[0] if conditions else None
    wanted = class_of(model, condition)
    pictures = model.codec.modality == "image"
    if pictures and (format or Path(output or "").suffix.lower() in SUFFIXES):
        raise BadConfig("USAGE", "This is a model of pictures, which go into a folder.", "Give a folder: -o FOLDER.")
    kind = table_format(output, format)
    if not pictures and Path(output or "").suffix.lower() in STRANGERS:
        raise BadConfig("USAGE", f"The output is named {printable(output)}.", "Name it .csv or .parquet, or give a folder.")
    blocks = _drawn(voice, model, n, wanted, seed, settings)
    tables = guarded(voice, map(to_table, blocks)) if kind == "csv" else map(to_table, blocks)
    source = provenance("sample", path, model, seed, n=n, condition=condition, **settings)
    if output is None:
        return _shown(voice, blocks, pictures)
    if pictures:
        with release(output, source, overwrite) as out:
            _write_pictures(out, model, blocks)
        tell_aside(voice, out)
    elif Path(output).suffix.lower() in SUFFIXES:
        with release_file(output, source, overwrite) as file:
            write_table(file, tables, kind)
    else:
        with release(output, source, overwrite) as out:
            write_table(out.path(f"samples.{kind}"), tables, kind)
        tell_aside(voice, out)
    voice.quiet_bars()
    voice.say(f"{n:,} records: {printable(output)}")
    return {"output": output, "count": n, "provenance": vars(source)}


def _drawn(voice: Voice, model: Model, n: int, condition: Any, seed: int, settings: dict[str, Any]) -> Iterator[Records]:
    """The samples in blocks; sample 7 is sample 7 whatever the block."""
    size = STEPWISE if knobs(model.family.Sampling) else BLOCK[model.codec.modality]
    for first in range(0, n, size):
        voice.bar("sampling", first, n)
        yield model.draw(min(size, n - first), condition, seed, first, **settings)


def _write_pictures(out: Release, model: Model, blocks: Iterator[Records]) -> None:
    """number.png, in a folder a class where there are classes, and sheet.png with the first of them."""
    folders = folder_names(model.classes) if model.label is not None else {}
    number, sheet, kinds = 0, list[Image.Image](), list[Any]()
    for block in blocks:
        labels = block.columns[model.label.config.column] if model.label is not None else [None] * len(block)
        for picture, label in zip(to_pictures(block), labels, strict=True):
            value = getattr(label, "as_py", lambda label=label: label)()
            out.add(f"{folders[value]}/{number:06d}.png" if folders else f"{number:06d}.png", gate.png(picture))
            number += 1
            if len(sheet) < SHEET:
                sheet.append(picture)
                kinds.append(value)
    out.add("sheet.png", gate.png(contact_sheet(sheet, kinds if folders else None)))


def _shown(voice: Voice, blocks: Iterator[Records], pictures: bool) -> dict[str, Any]:
    """The records themselves: on the terminal the first of them, as JSON all."""
    if pictures:
        raise BadConfig("USAGE", "Pictures need a place to go.", "Give a folder: -o FOLDER.")
    rows = [row for block in blocks for row in block.rows()]
    voice.quiet_bars()
    voice.table("", list(rows[0]), (list(row.values()) for row in rows[:SHOWN]))
    voice.more(len(rows) - SHOWN, "; write all of them with -o FILE.csv.")
    return {"count": len(rows), "records": rows}
