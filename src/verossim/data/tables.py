"""Binary tables: Parquet, Arrow IPC and NumPy files, and folders of parts with one schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadData, Refused, printable
from ..spaces import Records
from .arrays import array_kind, array_records, array_schema
from .paths import open_regular
from .reader import FileEntry, Reader, Report, TableFile, check_types, records_of

__all__ = ["ArrowReader", "NumpyReader", "ParquetReader", "Parts", "combined"]

#: A Parquet file may claim this many bytes for each of its own (a byte a cell at the least) before it is refused ...
CLAIM_RATIO = 1000
#: ... once the claim is beyond this many bytes.
CLAIM_BYTES = 1 << 30


def _corrupt(origin: str, kind: str, error: Exception) -> BadData:
    return BadData("TAB_CORRUPT", f"{origin}: the {kind} file is damaged or cut off: {printable(error)}.", "Write it again.")


class ParquetReader(TableFile):
    """Parquet, a stretch of a row group at a time. Sizes are judged by the metadata, before anything is decoded."""

    def __init__(self, path: Path, origin: str):
        try:
            with open_regular(path, origin) as file, pq.ParquetFile(file) as parquet:
                meta, schema = parquet.metadata, parquet.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(origin, "Parquet", error) from error
        size = path.stat().st_size
        stored = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        claim = max(meta.num_rows * meta.num_columns, stored)
        if claim > CLAIM_BYTES and claim > CLAIM_RATIO * size:
            raise BadData("TAB_TOO_LARGE", f"{origin}: {size:,} bytes that claim to hold {claim:,}.",
                          "If the claim is honest, write the table again without compression.")
        check_types(schema, origin)
        _some(meta.num_rows, origin)
        super().__init__(path, origin, schema)

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Typed blocks."""
        first = 0
        try:
            with open_regular(self.path, self.origin) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
                for batch in parquet.iter_batches(size, use_threads=False):
                    yield records_of(batch, self.origin, first)
                    first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(self.origin, "Parquet", error) from error


class ArrowReader(TableFile):
    """Arrow IPC, file or stream. Each batch is checked before use: a forged offset must not lead out of its buffer."""

    def __init__(self, path: Path, origin: str, stream: bool):
        self.stream = stream
        try:
            with open_regular(path, origin) as file:
                schema = self._open(file).schema
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(origin, "Arrow", error) from error
        check_types(schema, origin)
        super().__init__(path, origin, schema)

    def _open(self, file: Any) -> Any:
        return pa.ipc.open_stream(file) if self.stream else pa.ipc.open_file(file)

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Typed blocks; a batch of the file is read whole."""
        first = 0
        try:
            with open_regular(self.path, self.origin) as file:
                opened = self._open(file)
                batches = opened if self.stream else map(opened.get_batch, range(opened.num_record_batches))
                for batch in batches:
                    batch.validate(full=True)
                    for row in range(0, len(batch), size):
                        yield records_of(batch.slice(row, size), self.origin, first + row)
                    first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(self.origin, "Arrow", error) from error


class NumpyReader(TableFile):
    """A .npy file: (N,) or (N, D) numbers as a table, uint8 (N, H, W[, C]) as pictures. Arrays of objects are refused."""

    def __init__(self, path: Path, origin: str):
        try:
            with open_regular(path, origin) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                dtype = read(file)[2]
        except (ValueError, OSError) as error:
            raise _corrupt(origin, "NumPy", error) from error
        if dtype.hasobject:
            raise Refused("PICKLE_REFUSED", f"{origin} holds Python objects; reading them would unpickle, which runs code.",
                          "Save numbers or text instead: np.save(path, array.astype(float)).")
        self.path, self.origin = path, origin
        array = self._mapped()
        self.modality = array_kind(array.shape, array.dtype, origin)
        _some(len(array), origin)
        super().__init__(path, origin, array_schema(array.shape, array.dtype))
        self.shape, self.count = array.shape, len(array)

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Blocks of columns x0, x1, ... or of pictures."""
        for first in range(0, self.count, size):
            rows = np.array(self._mapped()[first:first + size])  # copied from a map that ends here: no page stays in memory
            yield array_records(rows, self.origin, first)

    def _mapped(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise _corrupt(self.origin, "NumPy", error) from error


class Parts(Reader):
    """Several tables of one schema, read one after the other. Raises BadData TAB_SCHEMA with the difference."""

    def __init__(self, parts: list[Reader], origin: str):
        super().__init__(origin, parts[0].schema)
        self.parts = parts
        wanted = _types(parts[0])
        for part in parts:
            self.notes.extend(part.notes)
            self.problems.extend(part.problems)
            if (found := _types(part)) != wanted:
                shown = "; ".join(f"'{printable(name)}' is {wanted.get(name, 'absent')} in {parts[0].origin} and "
                                  f"{found.get(name, 'absent')} in {part.origin}"
                                  for name in sorted(wanted | found) if wanted.get(name) != found.get(name))
                raise BadData("TAB_SCHEMA", f"{origin}: the tables of the folder differ: column {shown}.",
                              "Give one table at a time, or write them with one schema.")

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """The blocks of each part in turn, the columns in the order of the first."""
        before = 0
        for part in self.parts:
            count = 0
            for block in part.blocks(size, report):
                columns = {name: block.columns[name] for name in self.columns}
                count = block.first + len(block)
                yield Records(columns, block.origin, before + block.first)
            before += count

    def digests(self) -> Iterator[FileEntry]:
        """The files of each part in turn."""
        for part in self.parts:
            yield from part.digests()


class SideBySide(Reader):
    """NumPy arrays of one length as columns of one source: a table, or pictures and what is said about each.

    A vector gives the column of its file's name, a matrix `a` the columns a0, a1, ...; one vector beside pictures is "label".
    """

    def __init__(self, parts: list[NumpyReader], origin: str):
        pictures = [part for part in parts if part.modality == "image"]
        if len({part.count for part in parts}) > 1 or len(pictures) > 1:
            shapes = ", ".join(f"{printable(part.path.stem)} {part.shape}" for part in parts)
            raise BadData("TAB_SCHEMA", f"{origin}: the arrays do not go side by side: {shapes}.",
                          "Give arrays of one length, with at most one of pictures, or one array at a time.")
        self.parts, self.modality = parts, "image" if pictures else "table"
        vectors = [part for part in parts if part not in pictures]
        self.label = "label" if pictures and len(vectors) == 1 and len(vectors[0].shape) == 1 else None
        super().__init__(origin, pa.schema([(name, kind) for part in parts for name, kind in self._named(part).items()]))

    def _named(self, part: NumpyReader) -> dict[str, pa.DataType]:
        stem = self.label or part.path.stem
        if part.modality == "image":
            return {"image": pa.binary()}
        return {stem if len(part.shape) == 1 else f"{stem}{i}": field.type for i, field in enumerate(part.schema)}

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Blocks of all arrays' columns."""
        for blocks in zip(*(part.blocks(size, report) for part in self.parts), strict=True):
            columns: dict[str, Any] = {}
            for part, block in zip(self.parts, blocks, strict=True):
                columns.update(zip(self._named(part), block.columns.values(), strict=True))
            if self.label:
                columns["label"] = [None if value is None else str(value) for value in columns["label"].to_pylist()]
            yield Records(columns, self.origin, blocks[0].first)

    def digests(self) -> Iterator[FileEntry]:
        """The file of each array."""
        for part in self.parts:
            yield from part.digests()


def combined(tables: list[Reader], origin: str) -> Reader:
    """One reader of several tables: arrays of one length go side by side, anything else one after the other."""
    arrays = [table for table in tables if isinstance(table, NumpyReader)]
    if len(tables) == 1:
        return tables[0]
    return SideBySide(arrays, origin) if len(arrays) == len(tables) else Parts(tables, origin)


def _types(part: Reader) -> dict[str, str]:
    return {field.name: str(field.type) for field in part.schema}


def _some(records: int, origin: str) -> None:
    if not records:
        raise BadData("DATA_EMPTY", f"{origin} holds no record.", "Give at least one record.")
