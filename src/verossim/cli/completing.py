"""`verossim complete`: missing cells and masked pixels filled in; all that was there is written as it was.

A table is read twice side by side, once as text and once through the model, and only its missing cells are replaced: what a
person wrote stays as written. Records that cannot be used are written unchanged.
"""

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from .. import data
from ..codecs.image.picture import Refusal, upright
from ..codecs.table import Table
from ..data.delimited import CsvReader
from ..data.paths import read_regular
from ..data.people import to_pictures
from ..data.reader import FileEntry, Reader, Report, problem
from ..errors import BadConfig, BadData, Incompatible, printable
from ..model import Model
from ..safety import gate, release, release_file
from ..spaces import Problem, Records
from .arguments import SUFFIXES, table_format
from .console import Voice, first_rank
from .records import provenance, tell_aside, warn_of_formulas, write_table

__all__ = ["complete"]

BLOCK = 8192


def complete(voice: Voice, path: str, source: str, output: str, mask: str | None, seed: int | None,
             overwrite: bool) -> dict[str, Any]:
    """Fills in and writes: a table as .csv or .parquet, pictures as PNG under their own names."""
    if not first_rank():
        return {}
    model = Model.load(path)
    pictures = model.codec.modality == "image"
    if model.codec.modality == "text":
        raise Incompatible("TEXT_GAPS", "Texts are not completed by this verb.",
                           "Say: verossim sample MODEL --prompt BEFORE --after AFTER, of a model that learned with --gaps.")
    if mask is not None and not pictures:
        raise BadConfig("USAGE", "--mask is for pictures; this is a model of tables.", "Leave the cells to be filled in empty.")
    if pictures == output.lower().endswith(tuple(SUFFIXES)):
        raise BadConfig("USAGE", f"The output is named {printable(output)}.",
                        "Pictures go into a folder." if pictures else "Name it .csv or .parquet.")
    opened = data.open_source(source, modality=model.codec.modality)
    if mask is not None:
        opened = data.Source(masked := _Masked(opened.reader, Path(mask), model.codec.config.pixels))
    made = provenance("complete", path, model, seed, mask=mask)
    filled = _Filled()
    if pictures:
        with release(output, made, overwrite) as out:
            for name, picture in filled.pictures(model, opened, seed):
                out.add(name, gate.png(picture))
            if mask is not None:
                masked.check_used()
        tell_aside(voice, out)
    else:
        kind = table_format(output, None)
        with release_file(output, made, overwrite) as file:
            write_table(file, filled.tables(model, opened, seed), kind, **_manner(opened.reader))
        warn_of_formulas(voice, filled.guarded)
    voice.quiet_bars()
    voice.problems(model.problems)
    how, values = "draws" if seed is not None else "means", "pixels" if pictures else "cells"
    voice.say(f"{filled.records:,} records, {filled.values:,} {values} filled in with {how}: {printable(output)}")
    if not filled.values and not filled.left:
        voice.note("Nothing was unknown. " + ("Make what is to be filled in transparent, or give --mask FOLDER, white there."
                                             if pictures else "Leave the cells that are to be filled in empty."))
    if filled.left:
        voice.warn(f"LEFT_AS_IT_WAS: {filled.left:,} of the records could not be used and are written unchanged.")
    return {"output": output, "records": filled.records, "filled": filled.values, "left": filled.left, "how": how,
            "problems": [vars(problem) for problem in model.problems]}


class _Filled:
    """Completed records as they pass, and how many: records, values filled in and guarded, records left as they were."""

    def __init__(self) -> None:
        self.records = self.values = self.left = self.guarded = 0

    def tables(self, model: Model, opened: data.Source, seed: int | None) -> Iterator[pa.Table]:
        """Blocks of the source as it is, missing cells replaced."""
        commas = {column.name for column in cast(Table, model.codec).columns if getattr(column, "form", "") == "comma"}
        completed = model.fill(opened, seed)
        known, filled = next(completed, (None, None))
        for block in opened.blocks(BLOCK):
            self.records += len(block)
            columns: dict[str, Any] = dict(block.columns)
            if known is not None and filled is not None and known.first == block.first and known.origin == block.origin:
                rows = np.asarray(data.rows_of(block, known))
                self.left += len(block) - len(rows)
                for name in known.columns.keys() & columns.keys():
                    made: Any = filled.columns[name]
                    if name in commas and pa.types.is_string(columns[name].type):
                        made = pc.replace_substring(made.cast(pa.string()), ".", ",")
                    columns[name] = self._patched(columns[name], rows, known.columns[name], made)
                known, filled = next(completed, (None, None))
            else:
                self.left += len(block)
            yield pa.table(columns)

    def _patched(self, raw: Any, rows: np.ndarray, known: Any, filled: Any) -> Any:
        """The raw column with what is missing in `known` taken from `filled`; `rows` are the places of their records."""
        gaps = pc.and_(pc.is_null(known), pc.is_valid(filled))
        count = pc.sum(gaps).as_py() or 0
        if not count:
            return raw
        mask = np.zeros(len(raw), bool)
        mask[rows[gaps.to_numpy(zero_copy_only=False)]] = True
        self.values += count
        made, guarded = gate.guard(filled.filter(gaps))
        self.guarded += guarded
        return pc.replace_with_mask(raw, pa.array(mask), made.cast(raw.type, safe=False))

    def pictures(self, model: Model, opened: data.Source, seed: int | None) -> Iterator[tuple[str, Image.Image]]:
        """Completed pictures with the names they had, as PNG."""
        for known, filled in model.fill(opened, seed):
            for row, picture in enumerate(to_pictures(filled)):
                mask = known.columns["known"][row] if "known" in known.columns else None
                self.values += 0 if mask is None else int((~mask).sum())
                self.records += 1
                yield _png_name(known, row), picture


def _manner(reader: Reader) -> dict[str, str]:
    """How a text table parts its cells and ends its lines, so that what is written looks like what was read."""
    if not isinstance(reader, CsvReader):
        return {}
    return {"delimiter": reader.dialect.delimiter, "line_end": "\r\n" if "\r\n" in reader.sample else "\n"}


def _png_name(records: Records, row: int) -> str:
    """The picture's own name under the output folder, with the suffix .png; never one that leads elsewhere."""
    name = PurePosixPath(records.names[row] if records.names else f"{records.first + row:06d}")
    parts = [part for part in name.parts if part not in ("/", "..", ".")]
    return str(PurePosixPath(*parts).with_suffix(".png"))


class _Masked(Reader):
    """The pictures of another reader, transparent where their mask is white; cap: most pixels of a picture or a mask."""

    modality = "image"

    def __init__(self, reader: Reader, masks: Path, cap: int):
        super().__init__(reader.origin, reader.schema)
        self.reader, self.label, self.cap = reader, reader.label, cap
        self.problems, self.notes = reader.problems, reader.notes
        self.masks = {str(p.relative_to(masks).with_suffix("")): p for p in sorted(masks.rglob("*")) if p.is_file()}
        self.used = 0
        if not self.masks:
            raise BadData("DATA_EMPTY", f"{printable(masks)} holds no mask.", "Give a folder of masks named as the pictures.")

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """The other reader's blocks, masked."""
        for block in self.reader.blocks(size, report):
            images = [self._masked(image, block.where(row), report) for row, image in enumerate(block.columns["image"])]
            yield block.with_columns(image=images)

    def digests(self) -> Iterator[FileEntry]:
        """Those of the other reader."""
        return self.reader.digests()

    def check_used(self) -> None:
        """Raises BadData DATA_EMPTY where no mask was for any of the pictures."""
        if not self.used:
            raise BadData("DATA_EMPTY", f"No mask is named as a picture is; the first one is {printable(min(self.masks))}.",
                          "Name each mask as its picture, below the same folders.")

    def _masked(self, image: Any, where: str, report: Report) -> Any:
        """A PNG with transparency. A picture that cannot be opened is left for the codec to report."""
        mask = self.masks.get(str(PurePosixPath(where).with_suffix("")))
        if mask is None:
            return image
        self.used += 1
        try:
            picture = upright(image, self.cap, "RGBA")
        except Refusal:
            return image
        holes = self._holes(mask, report)
        if holes is None:
            return image
        holes = holes.resize(picture.size, Image.Resampling.NEAREST)
        picture.putalpha(holes.point(lambda level: 0 if level > 127 else 255))
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()

    def _holes(self, mask: Path, report: Report) -> Image.Image | None:
        """A mask as a grey picture; None for one that cannot be used, which is reported: its picture stays as it is."""
        name = printable(mask)
        try:
            content = read_regular(mask.resolve(), name, 8 * self.cap + (1 << 20))  # none within the cap takes more
            if content is not None:
                return upright(content, self.cap, "L")
            told = problem("IMG_TOO_LARGE", str(mask), "the mask has too many bytes.", "Make it smaller.")
        except BadData as error:
            told = Problem(error.code, str(mask), error.message, error.hint)
        except Refusal as refusal:
            told = Problem(refusal.code, str(mask), f"{name} {refusal.message}", refusal.hint)
        report(told)
        return None
