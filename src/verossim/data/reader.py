"""What each kind of source offers: its columns, its records in blocks, and the digests of what it was read from.

A reader can be read any number of times, each time from the start, and holds one block at a time. What it passes over it
reports, once a pass; `Source` sees to it that a person hears of each problem once.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ..errors import BadData, printable
from ..spaces import Problem, Records
from .paths import open_regular

__all__ = ["FileEntry", "Reader", "Report", "TableFile", "check_columns", "check_types", "problem", "records_of"]

Report = Callable[[Problem], None]


class FileEntry(NamedTuple):
    """One file of a source, or the records held in memory as one: name, size in bytes, sha256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


class Reader(ABC):
    """One source, opened. `label` is the label's column where the layout itself names it (sub-folders, labels.csv)."""

    modality: str = "table"
    label: str | None = None

    def __init__(self, origin: str, schema: pa.Schema):
        self.origin, self.schema = origin, schema
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self.home: object = None  # what must live as long as the reader: the folder that an archive was unpacked to

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return self.schema.names

    @abstractmethod
    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """The records from the start, at most `size` a block; what is passed over goes to `report`."""

    @abstractmethod
    def digests(self) -> Iterator[FileEntry]:
        """Every file with its sha256, in order; taken from the bytes already read where there was a whole pass."""


class TableFile(Reader):
    """A reader of one file."""

    def __init__(self, path: Path, origin: str, schema: pa.Schema):
        super().__init__(origin, schema)
        self.path = path
        self.entry: FileEntry | None = None

    def digests(self) -> Iterator[FileEntry]:
        """The one file."""
        if self.entry is None:
            with open_regular(self.path, self.origin) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                self.entry = FileEntry(self.path.name, os.fstat(file.fileno()).st_size, digest)
        yield self.entry


def records_of(data: pa.RecordBatch | pa.Table, origin: str, first: int) -> Records:
    """A block of Records from Arrow columns; `first` is the number of its first record in the source."""
    if isinstance(data, pa.Table):
        data = next(iter(data.unify_dictionaries().combine_chunks().to_batches()), pa.RecordBatch.from_pylist([], data.schema))
    return Records(dict(zip(data.schema.names, data.columns, strict=True)), origin, first)


def check_columns(names: list[str], origin: str) -> None:
    """Raises BadData TAB_DUPCOL naming the columns that stand there twice."""
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        shown = ", ".join(repr(printable(name)) for name in twice[:5])
        raise BadData("TAB_DUPCOL", f"{origin}: {len(twice)} column name(s) stand there more than once: {shown}.",
                      "Give each column its own name.")


def check_types(schema: pa.Schema, origin: str) -> None:
    """Raises BadData TAB_TYPE naming a column that holds lists, structures or an extension type, which have no cells."""
    check_columns(schema.names, origin)
    for field in schema:
        extension = isinstance(field.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (field.metadata or {})
        if extension or pa.types.is_nested(field.type) or _is_bytes(field.type):
            kind = "an extension type" if extension else str(field.type)
            raise BadData("TAB_TYPE", f"{origin}: column '{printable(field.name)}' holds {printable(kind)}, not single values.",
                          "Drop the column, or spread it over columns of numbers, text, booleans or dates.")


def _is_bytes(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
                                       pa.types.is_binary_view))


def problem(code: str, where: str, what: str, hint: str = "") -> Problem:
    """A problem whose message says the place and what is wrong there."""
    return Problem(code, where, f"{printable(where)}: {what}", hint)
