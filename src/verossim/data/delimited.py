"""Text tables: CSV with any delimiter and encoding, and JSON lines, in bounded blocks.

Every cell is delivered as text; what it means is for the table codec to say, which sees the whole column. The parsing is
Arrow's; this module gives it UTF-8, keeps count of the lines, and passes over rows that do not fit the header.
"""

import codecs
import hashlib
import io
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..errors import BadData, printable
from ..spaces import Problem, Records
from .jsonlines import json_lines
from .paths import open_regular
from .reader import FileEntry, Report, TableFile, check_columns, problem, records_of
from .sniff import dialect_of, encoding_of, is_damaged

__all__ = ["CELL_BYTES", "CsvReader", "JsonLinesReader"]

#: A cell with more bytes than this is taken for damage (a quote that never closes) and its record is passed over.
CELL_BYTES = 100_000
BLOCK_BYTES = 1 << 20  # read at a time: the bound of memory, and above any record that cells of CELL_BYTES make sense of
SAMPLE_BYTES = 1 << 20  # what encoding, dialect and keys are told from


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are not valid in the text's encoding are read as Windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start:error.end].decode("cp1252", "replace"), error.end


codecs.register_error("verossim-windows", _as_windows)


class Utf8Stream(io.RawIOBase):
    """A file's text as UTF-8, whatever its encoding; takes the file's sha256 from the same bytes.

    `quoted` says that a quote has been read, `mended` that bytes were not valid and were read as Windows-1252, `entry`
    is the file's digest once the end has been reached. Where it is `strict`, only a text that is ASCII up to there goes on as
    Windows-1252, and other bytes that are not valid raise BadData TEXT_ENCODING. Arrow reads ahead in a thread of its own:
    `close` waits for the read that it is in, which would else take its bytes from whatever file is opened next under the
    same descriptor.
    """

    def __init__(self, path: Path, origin: str, encoding: str, strict: bool = False):
        self.file, self.name = open_regular(path, origin), path.name
        self.origin, self.encoding, self.strict, self.ascii = origin, encoding, strict, True
        self.decoder = codecs.getincrementaldecoder(encoding)("strict")
        self.digest, self.size = hashlib.sha256(), 0
        self.pending = memoryview(b"")
        self.quoted = self.mended = False
        self.entry: FileEntry | None = None
        self.use = threading.RLock()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, out: Any) -> int:
        """Fills `out` with UTF-8; 0 at the end."""
        with self.use:
            while not self.pending and self.entry is None:
                raw = self.file.read(len(out)) or b""
                self.digest.update(raw)
                self.size += len(raw)
                self.quoted = self.quoted or b'"' in raw
                self.pending = memoryview(self._decoded(raw).encode())
                if not raw:
                    self.entry = FileEntry(self.name, self.size, self.digest.hexdigest())
            count = min(len(out), len(self.pending))
            out[:count], self.pending = self.pending[:count], self.pending[count:]
            return count

    def close(self) -> None:
        """Closes the file, once nobody reads from it."""
        with self.use:
            self.file.close()
            super().close()

    def _decoded(self, raw: bytes) -> str:
        try:
            text = self.decoder.decode(raw, not raw)
        except UnicodeDecodeError as error:
            if self.strict:
                return self._gone_on(error, not raw)
            self.mended, self.decoder.errors = True, "verossim-windows"
            return self.decoder.decode(raw, not raw)
        self.ascii = self.ascii and text.isascii()
        return text

    def _gone_on(self, error: UnicodeDecodeError, last: bool) -> str:
        """What has been read, up to the invalid byte as it was and from there as Windows-1252, if that can be."""
        before, rest = error.object[:error.start], error.object[error.start:]
        if self.encoding == "utf-8" and self.ascii and before.isascii() and not is_damaged(rest):
            self.mended, self.ascii, self.encoding = True, False, "cp1252"
            self.decoder = codecs.getincrementaldecoder("cp1252")("strict")
            try:
                return before.decode() + self.decoder.decode(rest, last)
            except UnicodeDecodeError as further:
                error = further
        offset = self.size - len(error.object) + error.start
        raise BadData("TEXT_ENCODING", f"{self.origin}: byte 0x{error.object[error.start]:02x} at offset {offset:,} is not "
                      f"valid {self.encoding}.", "Mend it there, or convert the text to UTF-8 from what it was written in.")


class _TextTable(TableFile):
    """What CSV and JSON lines share: the sample, the encoding, the note of mended bytes, the file's digest."""

    def __init__(self, path: Path, origin: str):
        with open_regular(path, origin) as file:
            self.encoding = encoding_of(file.read(SAMPLE_BYTES) or b"")
        with Utf8Stream(path, origin, self.encoding) as stream:
            raw = io.BufferedReader(stream, SAMPLE_BYTES).read(SAMPLE_BYTES)
            self.whole = stream.entry is not None and not stream.pending
        self.sample = raw.decode(errors="ignore")
        super().__init__(path, origin, self._schema(origin))
        if self.encoding != "utf-8":
            self.notes.append(f"{origin}: encoding {self.encoding}")

    def _schema(self, origin: str) -> pa.Schema:
        raise AssertionError("each kind of text table says its columns")

    def _finish(self, stream: Utf8Stream) -> None:
        self.entry = stream.entry or self.entry
        note = f"{self.origin}: bytes that are not {self.encoding} were read as Windows-1252"
        if stream.mended and note not in self.notes:
            self.notes.append(note)


class CsvReader(_TextTable):
    """CSV, TSV and their kin. Notes the dialect; rows of another width than the header are TAB_RAGGED with their line."""

    def _schema(self, origin: str) -> pa.Schema:
        self.dialect = dialect_of(self.sample, self.whole, origin)
        if self.whole and not self.dialect.records:
            raise BadData("DATA_EMPTY", f"{origin} holds a header and no record.", "Give at least one record.")
        check_columns(list(self.dialect.names), origin)
        return pa.schema([(name, pa.string()) for name in self.dialect.names])

    def __init__(self, path: Path, origin: str):
        super().__init__(path, origin)
        self.notes.insert(0, f"{origin}: {self.dialect.described()}")

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Blocks of text columns; records with no value in any cell are left out, as blank lines are."""
        with Utf8Stream(self.path, self.origin, self.encoding) as stream:
            ragged = _Ragged(self, report)
            first = 0
            for batch in self._batches(stream, ragged):
                ragged.pass_on(batch, first, stream.quoted)
                for start, last in _runs(self._unusable(batch, first, report), len(batch)):
                    for row in range(start, last, size):
                        yield records_of(batch.slice(row, min(size, last - row)), self.origin, first + row)
                first += len(batch)
            ragged.pass_on(None, first, False)
            self._finish(stream)

    def _batches(self, stream: Utf8Stream, ragged: "_Ragged") -> Iterator[pa.RecordBatch]:
        names = list(self.dialect.names)
        try:
            yield from csv.open_csv(
                stream,
                csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names,  # one thread keeps row numbers
                                skip_rows=self.dialect.blank_lines, skip_rows_after_names=int(self.dialect.header)),
                csv.ParseOptions(delimiter=self.dialect.delimiter, newlines_in_values=True, ignore_empty_lines=False,
                                 invalid_row_handler=ragged.set_aside),
                csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False))
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error):
                raise BadData("TAB_CORRUPT", f"{self.origin}: {printable(error)}.", "Write the table again.") from error
            raise BadData("TAB_CELL", f"{self.origin}: a record is longer than {BLOCK_BYTES:,} bytes.",
                          "A quote that is opened and never closed is the usual cause.") from error

    def _unusable(self, batch: pa.RecordBatch, first: int, report: Report) -> list[int]:
        """Rows without any value, and rows with a cell beyond CELL_BYTES; these are reported."""
        lengths = [pc.binary_length(column) for column in batch.columns]
        blank = pc.equal(lengths[0], 0)
        for length in lengths[1:]:
            if not pc.any(blank).as_py():
                break
            blank = pc.and_(blank, pc.equal(length, 0))
        rows = set(pc.indices_nonzero(blank).to_pylist())
        for name, length in zip(batch.schema.names, lengths, strict=True):
            if (pc.max(length).as_py() or 0) > CELL_BYTES:
                for row in pc.indices_nonzero(pc.greater(length, CELL_BYTES)).to_pylist():
                    rows.add(row)
                    report(_too_long(f"{self.origin}, record {first + row + 1}", name, length[row].as_py()))
        return sorted(rows)


class _Ragged:
    """Rows of the wrong width: set aside by the parser with their row numbers, passed on with their lines.

    A line is a row's number plus the line breaks that stand inside cells before it; these are counted only in the blocks
    that have a ragged row or a quote.
    """

    def __init__(self, reader: CsvReader, report: Report):
        self.reader, self.report = reader, report
        self.waiting: list[csv.InvalidRow] = []
        self.rows = reader.dialect.blank_lines + reader.dialect.header  # rows passed that gave no record
        self.breaks = reader.dialect.header_breaks

    def set_aside(self, row: csv.InvalidRow) -> str:
        """Called by the parser, ahead of the block that the row would have been in."""
        self.waiting.append(row)
        return "skip"

    def pass_on(self, batch: pa.RecordBatch | None, first: int, quoted: bool) -> None:
        """Reports the rows that come before the end of this block, whose first record has the number `first`."""
        done = 0
        while self.waiting and (batch is None or self.waiting[0].number - self.rows - 1 <= first + len(batch)):
            row = self.waiting.pop(0)
            records = row.number - self.rows - 1 - first
            if batch is not None and quoted:
                self.breaks += _breaks(batch.slice(done, records - done))
                done = records
            wanted = len(self.reader.columns)
            self.report(problem("TAB_RAGGED", f"{self.reader.origin}, line {row.number + self.breaks}",
                                f"it has {row.actual_columns} cells and the header has {wanted}.",
                                "Quote cells that hold the delimiter, or complete the row."))
            self.rows += 1
            self.breaks += row.text.count("\n")
        if batch is not None and quoted:
            self.breaks += _breaks(batch.slice(done))


def _breaks(batch: pa.RecordBatch) -> int:
    return sum(pc.sum(pc.count_substring(column, "\n")).as_py() or 0 for column in batch.columns)


def _runs(gaps: list[int], length: int) -> Iterator[tuple[int, int]]:
    """The stretches (first, last) of range(length) between the gaps."""
    for before, after in itertools.pairwise([-1, *gaps, length]):
        if after - before > 1:
            yield before + 1, after


def _too_long(where: str, column: str, length: int) -> Problem:
    return problem("TAB_CELL", where, f"the cell in column '{printable(column)}' has {length:,} bytes and {CELL_BYTES:,} are "
                   "the limit.", "Shorten the text or drop the column.")


class JsonLinesReader(_TextTable):
    """One JSON object a line. Numbers keep the text they were written with; the columns are the keys of the first lines."""

    def _schema(self, origin: str) -> pa.Schema:
        lines = self.sample.split("\n")
        keys: dict[str, None] = {}
        for line in lines if self.whole else lines[:-1]:
            try:
                record = _decoder.decode(line)
            except (ValueError, RecursionError):
                continue  # reported with its line when the records are read
            keys.update(dict.fromkeys(record) if isinstance(record, dict) else {})
        if not keys:
            raise BadData("DATA_EMPTY", f"{origin} holds no line that is a JSON object with a key.",
                          "Write one object a line, each in one line.")
        return pa.schema([(key, pa.string()) for key in keys])

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Blocks of text columns; a key that a line lacks, and null, are missing."""
        with Utf8Stream(self.path, self.origin, self.encoding) as stream:
            usable = self._records(io.BufferedReader(stream, BLOCK_BYTES), report)
            first = 0
            while block := list(itertools.islice(usable, size)):
                arrays = [pa.array([record.get(name) for record in block], pa.string()) for name in self.columns]
                yield records_of(pa.record_batch(arrays, schema=self.schema), self.origin, first)
                first += len(block)
            self._finish(stream)

    def _records(self, file: io.BufferedReader, report: Report) -> Iterator[dict[str, str | None]]:
        known = set(self.columns)
        for where, record in json_lines(file, self.origin, BLOCK_BYTES, _decoder.decode, report):
            if not isinstance(record, dict) or not known.issuperset(record):
                extra = sorted(map(printable, record.keys() - known))[:5] if isinstance(record, dict) else "no keys"
                report(problem("TAB_RAGGED", where, f"unlike the first lines it has {extra}.", "Give all lines the same keys."))
                continue
            texts = {key: _cell(value, key, where) for key, value in record.items()}
            long = next((key for key, text in texts.items() if text and len(text) > CELL_BYTES), None)
            if long is not None:
                report(_too_long(where, long, len(texts[long] or "")))
                continue
            yield texts


_decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # text, so that no digit is lost


def _cell(value: Any, key: str, where: str) -> str | None:
    if isinstance(value, dict | list):
        raise BadData("TAB_TYPE", f"{where}: column '{printable(key)}' holds {type(value).__name__}s, not single values.",
                      "Drop the column, or spread it over columns of numbers, text, booleans or dates.")
    return value if value is None or isinstance(value, str) else str(value).lower()
