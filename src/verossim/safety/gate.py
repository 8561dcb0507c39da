"""The gate: every file that leaves is written here, marked as made, and appears whole or not at all.

A release collects in a hidden sibling of its place. When all is written, its provenance is: `provenance.json` in a folder,
`NAME.provenance.json` beside a single file; then it moves into place. Pictures carry the mark in the file as well.
What is there already is replaced only if its own provenance shows that it was made here and has not been added to.
"""

import contextlib
import csv as python_csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps, PngImagePlugin
from pyarrow import csv

from ..errors import BadData, CannotWrite, printable
from ..folders import PROVENANCE, partial, replace, write
from .provenance import MADE_BY, Provenance, document

__all__ = ["Release", "Verified", "check_vacant", "contact_sheet", "csv_block", "guard", "png", "release", "release_file",
           "sidecar", "verify"]

FORMULA = r"^[=+\-@\t\r]"  # how a cell starts that spreadsheets run as a formula
NUMBER = r"^[+-]?[0-9.,]*([eE][+-]?[0-9]+)?$"  # and those of them that are harmless
SHEET_PIXELS = 2048  # a contact sheet's sides are kept about here
SHOWN = 5


class Release:
    """A folder on its way out: outputs are added by name, in any order; names may have folders."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.aside: Path | None = None  # where the folder that stood in the way was moved to

    def add(self, name: str, content: bytes) -> None:
        """One more file."""
        self.path(name).write_bytes(content)

    def path(self, name: str) -> Path:
        """Where to write a file, for writers that want a path."""
        path = self.folder / name
        assert self.folder in path.parents and ".." not in path.parts, f"{name} leads out of the release"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Verified:
    """Outputs looked at against their provenance: how many are as they were made, and the names of those that are not."""

    good: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every output is as it was made."""
        return not self.changed and not self.missing


@contextlib.contextmanager
def release(place: str | Path, provenance: Provenance, overwrite: bool = False) -> Iterator[Release]:
    """A folder of outputs, moved to `place` at the end of the `with` block; after an error nothing of it is left.

    overwrite : a folder of other things at `place` is moved aside to NAME.old instead of being an error.
    Raises CannotWrite: OUT_EXISTS, OUT_DENIED, DISK_FULL or IO_ERROR.
    """
    target = check_vacant(place, overwrite)
    with partial(target) as folder:
        made = Release(folder)
        yield made
        outputs = {str(p.relative_to(folder)): _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        write(folder / PROVENANCE, document(provenance, outputs))
        made.aside = _aside(target) if _foreign(target) else None
        replace(folder, target, keep=made.aside)


@contextlib.contextmanager
def release_file(place: str | Path, provenance: Provenance, overwrite: bool = False) -> Iterator[Path]:
    """One output: the `with` block writes the path it is given; at the end that file and its provenance move to `place`.

    Raises CannotWrite as `release` does; `overwrite` replaces a file that was not made here.
    """
    target = check_vacant(place, overwrite, file=True)
    with partial(target) as folder:
        made = folder / target.name
        yield made
        before = _sha256(target) if target.is_file() else None
        write(folder / PROVENANCE, document(provenance, {target.name: _sha256(made)}, before))
        (folder / PROVENANCE).replace(sidecar(target))  # first: no output is ever there without its provenance
        made.replace(target)


def check_vacant(place: str | Path, overwrite: bool = False, file: bool = False) -> Path:
    """Where outputs for `place` go, links followed. Raises CannotWrite OUT_EXISTS where something is that was not made here, or
    is not as it was made."""
    target = Path(os.path.realpath(place))
    if file and target.is_dir():
        raise CannotWrite("OUT_EXISTS", f"{printable(place)} is a folder, and the output is one file.", "Give a file's name.")
    if not file and target.is_file():
        raise CannotWrite("OUT_EXISTS", f"{printable(place)} is a file, and the output is a folder.", "Give a folder's name.")
    foreign = _foreign(target)
    if foreign and not overwrite:
        shown = ", ".join(map(printable, foreign[:SHOWN])) + (", ..." if len(foreign) > SHOWN else "")
        held = f"it holds {shown}, which was" if target.is_dir() else "it was"
        raise CannotWrite("OUT_EXISTS", f"{printable(place)} is there already, and {held} not made by verossim or was changed.",
                          "Choose another name, or say --overwrite.")
    return target


def verify(place: str | Path) -> Verified:
    """Looks at the outputs in a folder, or at a single one, against their provenance. Raises BadData PROVENANCE_MISSING."""
    path = Path(place)
    base, listed = (path, _listed(path / PROVENANCE)) if path.is_dir() else (path.parent, _listed(sidecar(path)))
    if listed is None:
        raise BadData("PROVENANCE_MISSING", f"{printable(place)} has no provenance that can be read.",
                      "It was not made by verossim, or was moved without its provenance.")
    missing = tuple(name for name in listed if not (base / name).is_file())
    changed = tuple(name for name, sha256 in listed.items() if name not in missing and _sha256(base / name) != sha256)
    return Verified(len(listed) - len(missing) - len(changed), changed, missing)


def sidecar(file: Path) -> Path:
    """Where the provenance of a single output lies."""
    return file.with_name(f"{file.name}.{PROVENANCE}")


def png(image: Image.Image) -> bytes:
    """A picture as a PNG that says who made it."""
    mark = PngImagePlugin.PngInfo()
    mark.add_text("made-by", MADE_BY)
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=mark)
    return out.getvalue()


def contact_sheet(pictures: Sequence[Image.Image], labels: Sequence[Any] | None = None) -> Image.Image:
    """Many pictures on one, a row a label in order of label, or in about a square; as many as keep it of a handy size."""
    widest, highest = max(p.width for p in pictures), max(p.height for p in pictures)
    scale = max(1, min(4, SHEET_PIXELS // (widest * 16)))
    width, height = widest * scale + 2, highest * scale + 2
    columns, rows = max(1, SHEET_PIXELS // width), max(1, SHEET_PIXELS // height)
    lines = _lines(pictures, labels, columns)[:rows]
    sheet = Image.new("RGB", (max(map(len, lines)) * width + 2, len(lines) * height + 2), "white")
    for y, line in enumerate(lines):
        for x, picture in enumerate(line):
            shown = picture.convert("RGBA") if "A" in picture.getbands() else picture.convert("RGB")
            shown = ImageOps.scale(shown, scale, Image.Resampling.NEAREST) if scale > 1 else shown
            sheet.paste(shown, (x * width + 2, y * height + 2), shown if shown.mode == "RGBA" else None)
    return sheet


def guard(column: pa.ChunkedArray | pa.Array) -> tuple[pa.ChunkedArray | pa.Array, int]:
    """A column whose text cells that spreadsheets would run have a leading ', and how many these are; others as they are."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column, 0
    runs = pc.and_not(pc.match_substring_regex(column, FORMULA), pc.match_substring_regex(column, NUMBER))
    quote, nothing = (pa.scalar(text, column.type) for text in ("'", ""))
    return pc.if_else(runs, pc.binary_join_element_wise(quote, column, nothing), column), pc.sum(runs).as_py() or 0


def csv_block(table: pa.Table, header: bool, delimiter: str = ",", line_end: str = "\n") -> bytes:
    """A block of records as CSV in UTF-8, quoted only where a cell holds a delimiter, a quote or a line end."""
    cells = pa.table([column.cast(pa.string()) for column in table.columns], names=table.column_names)
    text = io.StringIO(newline="")
    writer = python_csv.writer(text, delimiter=delimiter, lineterminator=line_end)
    if header:
        writer.writerow(table.column_names)
    out = pa.BufferOutputStream()
    try:
        csv.write_csv(cells, out, csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none"))
    except pa.ArrowInvalid:  # a cell needs quotes, and Arrow would put them around every one
        writer.writerows(zip(*(column.to_pylist() for column in cells.columns), strict=True))
        return text.getvalue().encode("utf-8", "surrogatepass")
    return text.getvalue().encode() + out.getvalue().to_pybytes().replace(b"\n", line_end.encode())


def _lines(pictures: Sequence[Image.Image], labels: Sequence[Any] | None, most: int) -> list[list[Image.Image]]:
    if labels is None or len(set(labels)) < 2:
        side = min(most, math.ceil(math.sqrt(len(pictures))))
        return [list(pictures[i:i + side]) for i in range(0, len(pictures), side)]
    rows: dict[Any, list[Image.Image]] = {label: [] for label in sorted(set(labels), key=str)}
    for picture, label in zip(pictures, labels, strict=True):
        rows[label].append(picture)
    return [row[:most] for row in rows.values()]


def _foreign(target: Path) -> list[str]:
    """What is at `target` and no provenance there lists, or lists as something else."""
    if target.is_dir():
        listed = _listed(target / PROVENANCE) or {}
        files = ((p, str(p.relative_to(target))) for p in target.rglob("*") if not p.is_dir())
        return sorted(name for p, name in files if not _made(p, name, listed) and not (name == PROVENANCE and listed))
    if not os.path.lexists(target):
        return []
    own = _said(sidecar(target))
    unfinished = own.get("replaces") is not None and target.is_file() and _sha256(target) == own["replaces"]
    return [] if unfinished or _made(target, target.name, own.get("outputs", {})) else [target.name]


def _made(file: Path, name: str, listed: Mapping[str, str]) -> bool:
    """Whether a file is as it was made."""
    return name in listed and file.is_file() and _sha256(file) == listed[name]


def _listed(path: Path) -> dict[str, str] | None:
    """The outputs that a provenance lists, name -> sha256; None where it is not there or not ours."""
    return _said(path).get("outputs")


def _said(path: Path) -> dict[str, Any]:
    """What a provenance says; nothing where it is not there or not ours."""
    try:
        said = json.loads(path.read_bytes())
        return said if said["made_by"].startswith("verossim ") and isinstance(said["outputs"], dict) else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _aside(target: Path) -> Path:
    """The first of NAME.old, NAME.old-2, ... that is free."""
    names = (target.with_name(f"{target.name}.old" + (f"-{number}" if number > 1 else "")) for number in range(1, 1 << 31))
    return next(name for name in names if not os.path.lexists(name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
