"""Files of text as parts of a source: text cut into documents, JSON lines, and columns of a table.

What is no text is named where it is met: a part raises BadData, and what was read before that stands.
"""

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import BadData
from .delimited import SAMPLE_BYTES, Utf8Stream
from .documents import STRETCH, documents
from .jsonlines import json_lines
from .paths import open_regular
from .reader import FileEntry, Reader, Report, problem
from .said import Asked, Row, Wanted, nothing_named, wanted_of
from .sniff import encoding_of, is_damaged

__all__ = ["JsonTexts", "Part", "TableTexts", "TextFile"]

LINE_BYTES = 16 << 20  # of one line of JSON
_BY_SUFFIX = {".abc": "tune", ".smi": "line", ".smiles": "line"}


class Part(ABC):
    """One file, table or list of texts. `kind` as in `Wanted`; `labelled`: whether rows end with a label."""

    kind: str = "plain"
    labelled: bool = False

    def __init__(self, origin: str):
        self.origin = origin
        self.notes: list[str] = []
        self.entry: FileEntry | None = None

    @abstractmethod
    def rows(self, report: Report) -> Iterator[Row]:
        """The records from the start; what is passed over is reported. Raises BadData where there is no going on."""

    @abstractmethod
    def digests(self) -> Iterator[FileEntry]:
        """Each file with its sha256."""


class _File(Part):
    """A part that is a text file: its encoding, told from its beginning, and its digest."""

    def __init__(self, path: Path, origin: str, name: str, sample: int = SAMPLE_BYTES):
        super().__init__(origin)
        self.path, self.name = path, name
        with open_regular(path, origin) as file:
            start = file.read(sample) or b""
        told = encoding_of(start)
        self.encoding = "utf-8" if not told.startswith("utf") and is_damaged(start) else told
        if self.encoding != "utf-8":
            self.notes.append(f"{origin}: encoding {self.encoding}")

    def opened(self) -> "_Text":
        """The text from the start, in UTF-8."""
        return _Text(Utf8Stream(self.path, self.origin, self.encoding, strict=True))

    def done(self, text: "_Text") -> None:
        """Notes what was learned from a whole pass."""
        stream = text.stream
        self.entry = stream.entry._replace(name=self.name) if stream.entry else self.entry
        if stream.mended and not self.notes:
            self.notes.append(f"{self.origin}: encoding {stream.encoding}")

    def digests(self) -> Iterator[FileEntry]:
        """The one file."""
        if self.entry is None:
            with open_regular(self.path, self.origin) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                self.entry = FileEntry(self.name, file.tell(), digest)
        yield self.entry


class _Text(io.BufferedReader):
    """The text of a file in UTF-8; `stream` is what it comes through."""

    def __init__(self, stream: Utf8Stream):
        super().__init__(stream, STRETCH)
        self.stream = stream


class TextFile(_File):
    """A text file, cut into documents. Raises BadData TEXT_BINARY, when it is read, for one with a zero byte."""

    def __init__(self, path: Path, origin: str, name: str, asked: Asked, sample: int = SAMPLE_BYTES):
        super().__init__(path, origin, name, sample)
        self.how = _BY_SUFFIX.get(path.suffix.lower(), "file") if asked.documents == "auto" else asked.documents

    def rows(self, report: Report) -> Iterator[Row]:
        """Stretches of documents."""
        part = before = 0
        with self.opened() as file:
            for text, begins, ends, line in documents(file, self.how):
                where = self.origin if self.how == "file" else f"{self.origin}, line {line}"
                if (at := text.find(b"\0")) >= 0:
                    there = f"at byte {before + at:,} of its text" if self.how == "file" else "in the document there"
                    raise BadData("TEXT_BINARY", f"{where}: a zero byte stands {there}, so it is not a text.",
                                  "Take it out, or leave the file out.")
                part, before = 1 if begins else part + 1, before + len(text)
                yield where if begins and ends else f"{where}, part {part}", (text, begins, ends)
            self.done(file)


class JsonTexts(_File):
    """JSON lines: one object a line, of which `wanted` says what is the text."""

    def __init__(self, path: Path, origin: str, name: str, wanted: Wanted):
        super().__init__(path, origin, name)
        self.wanted, self.kind, self.labelled = wanted, wanted.kind, wanted.label is not None

    def rows(self, report: Report) -> Iterator[Row]:
        """The record of each line; lines that are no objects are reported."""
        with self.opened() as file:
            for where, record in json_lines(file, self.origin, LINE_BYTES, json.loads, report):
                if isinstance(record, dict):
                    yield from self.wanted.rows(record, where, report)
                else:
                    report(problem("TAB_RAGGED", where, "it has no keys.", "Write one JSON object a line."))
            self.done(file)


class TableTexts(Part):
    """Columns of a table that another reader opened."""

    def __init__(self, table: Reader, asked: Asked):
        super().__init__(table.origin)
        names = table.columns
        others = [name for name in names if name != asked.named]
        alone = Wanted("plain", (others[0],), asked.named if len(names) > 1 else None) if len(others) == 1 else None
        wanted = wanted_of(names, asked, table.origin) or alone
        if wanted is None:
            raise nothing_named(names, table.origin)
        self.table, self.wanted, self.kind, self.notes = table, wanted, wanted.kind, table.notes
        self.labelled = wanted.label is not None

    def rows(self, report: Report) -> Iterator[Row]:
        """The record of each row."""
        for block in self.table.blocks(1024, report):
            names = (*self.wanted.fields, *([self.wanted.label] if self.wanted.label else []))
            columns = [_plain(block.columns[name]) for name in names]
            for row, values in enumerate(zip(*columns, strict=True)):
                record = dict(zip(names, values, strict=True))
                yield from self.wanted.rows(record, block.where(row), report)

    def digests(self) -> Iterator[FileEntry]:
        """Those of the table."""
        yield from self.table.digests()


def _plain(column: Any) -> list[Any]:
    return column.to_pylist() if isinstance(column, pa.Array | pa.ChunkedArray) else list(column)
