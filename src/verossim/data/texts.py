"""Text as data: text files, JSON lines, columns of tables and Python objects, as records that `said` describes.

A reader is its parts in turn: files, tables or lists. Of a folder, a file that turns out to be no text is passed over from
there on; a file by itself is refused.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import BadConfig, BadData, printable
from ..spaces import Problem, Records
from .delimited import SAMPLE_BYTES, CsvReader
from .memory import from_memory
from .paths import open_regular
from .pictures import Found, by_folder
from .reader import FileEntry, Reader, Report, problem
from .said import COLUMNS, FOLDER, Asked, Row, nothing_named, wanted_of
from .sniff import DOCUMENT_SUFFIXES, TEXT_SUFFIXES, encoding_of, is_picture
from .tables import ArrowReader, ParquetReader
from .textfiles import JsonTexts, Part, TableTexts, TextFile
from .textlists import HeldRecords, HeldTexts, SpooledTexts

__all__ = ["TEXT_KINDS", "TextReader", "are_texts", "text_columns", "text_file", "text_folder", "texts_in_memory"]

BLOCK_BYTES = 4 << 20  # of text in a block, at most one record more
MANY = 100  # files of a folder beyond this many have their encoding told from their first 4 kB
JSON_SUFFIXES = (".jsonl", ".ndjson")
_TABLES = ("parquet", "arrow-file", "arrow-stream")
TEXT_KINDS = ("text", "json", "a JSON array", "a web page or XML")


class TextReader(Reader):
    """Parts of one kind, one after the other; `notes` gather theirs as they are read. label : the name of the column that says
    the class, where some part has it or `folders` do, one for each part."""

    modality = "text"

    def __init__(self, parts: list[Part], origin: str, label: str | None = None, folders: list[str | None] | None = None):
        kinds = {part.kind: part for part in parts}
        if len(kinds) > 1:
            shown = "; ".join(f"{part.origin} has {kind}" for kind, part in kinds.items())
            raise BadData("TAB_SCHEMA", f"{origin}: the files differ: {shown}.", "Give files of one kind at a time.")
        self.parts, self.kind = parts, parts[0].kind
        self.folders = folders or [None] * len(parts)
        self.labelled = label is not None and (folders is not None or any(part.labelled for part in parts))
        if self.labelled and label in {name for columns in COLUMNS.values() for name in columns}:
            raise BadConfig("SETTING_RANGE", f"'label' is '{label}', which is what texts themselves are called here.",
                            "Give the column another name.")
        super().__init__(origin, pa.schema({**COLUMNS[self.kind], **({label: pa.string()} if label and self.labelled else {})}))
        self._gather()

    def _gather(self) -> None:
        for part in self.parts:
            self.notes.extend(note for note in part.notes if note not in self.notes)

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Blocks of at most `size` records and about 4 MB of text."""
        names: list[str] = []
        held: list[tuple[Any, ...]] = []
        first = total = 0
        for where, values in self._rows(report):
            names.append(where)
            held.append(values)
            total += sum(map(_weight, values))
            if len(held) == size or total >= BLOCK_BYTES:
                yield self._block(held, names, first)
                first, total, names, held = first + len(held), 0, [], []
        if held:
            yield self._block(held, names, first)
        self._gather()

    def _rows(self, report: Report) -> Iterator[Row]:
        for part, folder in zip(self.parts, self.folders, strict=True):
            try:
                for where, values in part.rows(report):
                    yield where, (*values, folder) if self.labelled and not part.labelled else values
            except BadData as error:
                if len(self.parts) == 1:
                    raise
                report(Problem(error.code, part.origin, error.message, error.hint))

    def _block(self, held: list[tuple[Any, ...]], names: list[str], first: int) -> Records:
        columns = {name: list(values) for name, values in zip(self.columns, zip(*held, strict=True), strict=True)}
        return Records(columns, self.origin, first, names)

    def digests(self) -> Iterator[FileEntry]:
        """The files of each part in turn."""
        for part in self.parts:
            yield from part.digests()


def _weight(value: Any) -> int:
    """The bytes of text in a value of a column."""
    if isinstance(value, list | tuple):
        return sum(map(_weight, value))
    return len(value) if isinstance(value, str | bytes) else 0


def are_texts(data: Any) -> bool:
    """Whether a Python object is a list of texts, and not of pictures in their files' bytes."""
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(value, str | bytes) for value in data) \
        and not (isinstance(data[0], bytes) and is_picture(data[0][:64]))


def texts_in_memory(data: Any, asked: Asked) -> TextReader:
    """A reader of texts in Python. Raises BadData DATA_EMPTY, TAB_TYPE or COLUMN_UNKNOWN."""
    if isinstance(data, Records) and {"text", "messages"} & data.columns.keys() and asked.target is None:
        return TextReader([HeldRecords(data, asked.named)], data.origin, asked.named)
    if isinstance(data, list | tuple):
        if not data:
            raise BadData("DATA_EMPTY", "The list holds no text.", "Give at least one.")
        return TextReader([HeldTexts(data, asked)], "texts", asked.named)
    if isinstance(data, Iterator):
        return TextReader([SpooledTexts(data, asked)], "texts", asked.named)
    return text_columns(from_memory(data), asked)


def text_columns(table: Reader, asked: Asked) -> TextReader:
    """A reader of the columns of a table that are text. Raises BadData COLUMN_UNKNOWN."""
    return TextReader([TableTexts(table, asked)], table.origin, asked.named)


def text_file(path: Path, origin: str, kind: str, asked: Asked) -> TextReader:
    """A reader of one file of this kind, as `kind_of` tells it. Raises BadData DATA_EMPTY, DATA_FORMAT, TEXT_BINARY."""
    if not path.stat().st_size:
        raise BadData("DATA_EMPTY", f"{origin} is empty.", "Give a file with some text in it.")
    return TextReader([_part(path, origin, path.name, kind, asked, SAMPLE_BYTES)], origin, asked.named)


def text_folder(root: Path, origin: str, found: Found, kinds: Mapping[str, str], asked: Asked, suffixes: bool) -> TextReader:
    """A reader of the texts of a folder; with `suffixes`, of those that have the suffix of one. Files with the fields that
    are asked for are read where there are any asked for, JSON lines where there is no other text.

    Raises BadData DATA_EMPTY, TAB_SCHEMA, COLUMN_UNKNOWN.
    """
    chosen = {name: kind for name, kind in kinds.items() if kind in (*TEXT_KINDS, *(_TABLES if asked.tabular else ()))}
    lines = {name for name in chosen if Path(name).suffix.lower() in JSON_SUFFIXES}
    if asked.tabular:
        tables = {name for name, kind in chosen.items() if kind in _TABLES or Path(name).suffix.lower() in TEXT_SUFFIXES}
        chosen = {name: chosen[name] for name in chosen if name in lines | tables}
    elif suffixes:
        chosen = {name: kind for name, kind in chosen.items() if Path(name).suffix.lower() in DOCUMENT_SUFFIXES}
    problems = list(found.problems)
    parts: list[Part] = []
    read: list[str] = []
    for name, kind in kinds.items():
        shown = f"{origin}/{printable(name)}"
        if name in chosen:
            path, sample = Path(found.targets.get(name) or root / name), SAMPLE_BYTES if len(chosen) <= MANY else 4096
            parts.append(_part(path, shown, name, kind, asked, sample, lines >= chosen.keys() or asked.tabular))
            read.append(name)
        elif kind == "binary data":
            problems.append(problem("TEXT_BINARY", shown, "it holds binary data.", "Leave it out."))
    if not parts:
        raise BadData("DATA_EMPTY", f"{origin} holds no text.", "Give files with text in them.")
    reader = TextReader(parts, origin, asked.named, by_folder(read) if asked.named == FOLDER else None)
    reader.problems.extend(problems)
    if others := len(kinds) - len(chosen) - (len(problems) - len(found.problems)):
        reader.notes.append(f"{origin}: {others} file(s) that are not text, or empty, were left alone")
    return reader


def _part(path: Path, origin: str, name: str, kind: str, asked: Asked, sample: int, lines: bool = True) -> Part:
    """What one file is. `lines`: whether it may be JSON lines."""
    suffix = path.suffix.lower()
    if kind == "parquet":
        return TableTexts(ParquetReader(path, origin), asked)
    if kind in _TABLES:
        return TableTexts(ArrowReader(path, origin, kind == "arrow-stream"), asked)
    if kind not in TEXT_KINDS:
        code = "TEXT_BINARY" if kind == "binary data" else "DATA_FORMAT"
        raise BadData(code, f"{origin} holds {kind}, which is not text.", "Give text, JSON lines, CSV, Parquet, or an archive.")
    if lines and suffix not in DOCUMENT_SUFFIXES and (kind == "json" or suffix in JSON_SUFFIXES):
        record = _first_record(path, origin)
        wanted = wanted_of(record, asked, origin) if record is not None else None
        if wanted is not None and record is not None:
            return JsonTexts(path, origin, name, wanted)
        if suffix in JSON_SUFFIXES:
            raise nothing_named(record, origin) if record is not None else BadData(
                "DATA_EMPTY", f"{origin} holds no line that is a JSON object with a key.", "Write one object a line.")
    if asked.target is not None or (asked.named not in (None, FOLDER) and suffix in TEXT_SUFFIXES):
        return TableTexts(CsvReader(path, origin), asked)
    return TextFile(path, origin, name, asked, sample)


def _first_record(path: Path, origin: str) -> dict[str, Any] | None:
    """The first line of a file's beginning that is a JSON object, else None."""
    with open_regular(path, origin) as file:
        start = file.read(SAMPLE_BYTES) or b""
    for line in start.decode(encoding_of(start), "replace").removeprefix("\ufeff").split("\n")[:1000]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and record:
            return record
    return None
