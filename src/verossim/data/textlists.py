"""Texts that are already in Python: lists and iterators of str, bytes or dictionaries, and Records."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import BadData
from ..spaces import Records
from .archives import Folder
from .reader import FileEntry, Report, problem
from .said import COLUMNS, Asked, Row, Wanted, document, nothing_named, wanted_of
from .textfiles import Part

__all__ = ["HeldRecords", "HeldTexts", "SpooledTexts"]

BYTES = "\0bytes"  # the name of bytes among spooled values, which no field has


class HeldTexts(Part):
    """Texts (str or bytes) or records (mappings) of a list."""

    def __init__(self, values: list[Any] | tuple[Any, ...], asked: Asked, origin: str = "texts"):
        super().__init__(origin)
        self.values, self.wanted = values, _wanted_here(values[0], asked, origin)
        self.kind = self.wanted.kind if self.wanted else "plain"
        self.labelled = self.wanted is not None and self.wanted.label is not None

    def rows(self, report: Report) -> Iterator[Row]:
        """The record of each value."""
        yield from _said(self.values, self.wanted, self.origin, report)

    def digests(self) -> Iterator[FileEntry]:
        """One entry for all that is held."""
        digest, size = hashlib.sha256(), 0
        for value in self.values:
            plain = value if isinstance(value, bytes) else repr(value).encode(errors="surrogatepass")
            digest.update(f"{type(value).__name__} {len(plain)} ".encode() + plain)
            size += len(plain)
        yield FileEntry(self.origin, size, digest.hexdigest())


class SpooledTexts(Part):
    """The same from an iterator, which can be read once only: written to a temporary file, one line of JSON each."""

    def __init__(self, values: Iterable[Any], asked: Asked, origin: str = "texts"):
        super().__init__(origin)
        self.folder, self.asked = Folder(), asked
        digest, size, first = hashlib.sha256(), 0, None
        with (self.folder.path / "texts").open("wb") as file:
            for number, value in enumerate(values):
                _check(value, number, origin)
                first = value if first is None else first
                line = json.dumps(value, default=_as_json).encode() + b"\n"
                digest.update(line)
                size += file.write(line)
        if first is None:
            raise BadData("DATA_EMPTY", "The iterator gave no text.", "Give at least one.")
        self.entry = FileEntry(origin, size, digest.hexdigest())
        self.wanted = _wanted_here(first, asked, origin)
        self.kind = self.wanted.kind if self.wanted else "plain"
        self.labelled = self.wanted is not None and self.wanted.label is not None

    def rows(self, report: Report) -> Iterator[Row]:
        """The record of each value."""
        with (self.folder.path / "texts").open("rb") as file:
            yield from _said((json.loads(line, object_hook=_as_it_was) for line in file), self.wanted, self.origin, report)

    def digests(self) -> Iterator[FileEntry]:
        """One entry for all that was spooled."""
        if self.entry is not None:
            yield self.entry


def _as_json(value: Any) -> Any:
    """What JSON has no word for: bytes as an object of one letter a byte, anything else as the text that it is."""
    return {BYTES: value.decode("latin-1")} if isinstance(value, bytes) else str(value)


def _as_it_was(value: dict[str, Any]) -> Any:
    return value[BYTES].encode("latin-1") if value.keys() == {BYTES} else value


def _wanted_here(first: Any, asked: Asked, origin: str) -> Wanted | None:
    """What to take from values that are records; None for texts."""
    if not isinstance(first, Mapping):
        return None
    wanted = wanted_of(first, asked, origin)
    if wanted is None:
        raise nothing_named(first, origin)
    return wanted


def _check(value: Any, number: int, origin: str) -> None:
    if not isinstance(value, str | bytes | Mapping):
        raise BadData("TAB_TYPE", f"{origin}: record {number + 1} is {type(value).__name__}, not a text.",
                      "Give str, bytes, or dictionaries with the field 'text' or 'messages'.")


def _said(values: Iterable[Any], wanted: Wanted | None, origin: str, report: Report) -> Iterator[Row]:
    for number, value in enumerate(values):
        where = f"{origin}, record {number + 1}"
        _check(value, number, origin)
        if isinstance(value, Mapping) != (wanted is not None):
            report(problem("TAB_RAGGED", where, f"it is {type(value).__name__}, unlike the first.", "Give records of a kind."))
        elif wanted is not None:
            yield from wanted.rows(value, where, report)
        else:
            yield from document(value, where, report)


class HeldRecords(Part):
    """Records that are as a reader of texts gives them, or have only the column "text", and a label if it is there."""

    def __init__(self, records: Records, label: str | None = None):
        super().__init__(records.origin)
        self.records, self.labelled = records, label in records.columns
        self.label = (label,) if label is not None and self.labelled else ()
        self.kind = "chats" if "messages" in records.columns else "pairs" if "given" in records.columns else "plain"

    def rows(self, report: Report) -> Iterator[Row]:
        """The records as they are."""
        whole = [True] * len(self.records)
        columns = [self.records.columns.get(name, whole) for name in (*COLUMNS[self.kind], *self.label)]
        for row, values in enumerate(zip(*columns, strict=True)):
            if self.kind == "plain" and values[1] and values[2]:
                for where, stretch in document(values[0], self.records.where(row), report):
                    yield where, (*stretch, *values[3:])
            else:
                yield self.records.where(row), values

    def digests(self) -> Iterator[FileEntry]:
        """One entry over all columns."""
        digest = hashlib.sha256(repr({name: list(column) for name, column in self.records.columns.items()}).encode())
        yield FileEntry(self.origin, len(self.records), digest.hexdigest())
