"""Data that is already in Python: arrays, tensors, frames, Arrow tables, lists of pictures, records one by one.

A thing that can be cut is cut, block by block, and never copied whole. An iterator can be read once only, so it is spooled
to a temporary Arrow file and read from there.
"""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from ..errors import BadData, printable
from ..spaces import Records
from .archives import Folder
from .arrays import array_kind, array_records, array_schema
from .reader import FileEntry, Reader, Report, check_columns, check_types, records_of

__all__ = ["RowsReader", "SpoolReader", "from_memory"]

SPOOL_RECORDS = 16_384
Cut = Callable[[int, int], Records]


class RowsReader(Reader):
    """Anything that gives its records from `first` to before `last` on demand."""

    def __init__(self, origin: str, schema: pa.Schema, count: int, cut: Cut, modality: str = "table", label: str | None = None):
        super().__init__(origin, schema)
        if not count:
            raise BadData("DATA_EMPTY", f"{origin} holds no record.", "Give at least one record.")
        self.count, self.cut, self.modality, self.label = count, cut, modality, label

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Cuts of `size` records."""
        for first in range(0, self.count, size):
            yield self.cut(first, min(first + size, self.count))

    def digests(self) -> Iterator[FileEntry]:
        """One entry for all that is held, over names, types and values."""
        digest, size = hashlib.sha256(repr(self.schema).encode()), 0
        for first in range(0, self.count, 8192):
            for values in self.cut(first, min(first + 8192, self.count)).columns.values():
                for piece in _bytes_of(values):
                    digest.update(piece)
                    size += len(piece)
        yield FileEntry(self.origin, size, digest.hexdigest())


def _bytes_of(values: Any) -> Iterator[Any]:
    if isinstance(values, pa.Array):
        yield pa.record_batch([values], ["values"]).serialize()
        return
    for value in values:
        yield repr((getattr(value, "shape", None), type(value).__name__)).encode()
        yield value if isinstance(value, bytes) else value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()


def from_memory(data: Any) -> Reader:
    """A reader of a Python object. Raises BadData: TAB_TYPE or IMG_SHAPES for what has no records, DATA_EMPTY for none."""
    library = type(data).__module__.split(".")[0]
    if isinstance(data, Records):
        return _from_records(data)
    if library == "torch":
        data = data.detach().cpu().numpy()
    if library == "pandas":
        return _from_pandas(data if data.ndim == 2 else data.to_frame())
    if library == "polars":
        return _from_polars(data)
    if library == "scipy":
        raise BadData("TAB_TYPE", "A sparse matrix has no streaming form here.", "Give matrix.toarray().")
    if isinstance(data, pa.RecordBatch | pa.Table):
        return _from_arrow(data if isinstance(data, pa.Table) else pa.Table.from_batches([data]), "Arrow table")
    if isinstance(data, pa.RecordBatchReader):
        return SpoolReader((row for batch in data for row in batch.to_pylist()), "Arrow batches")
    if isinstance(data, Mapping):
        return _from_columns(data)
    if isinstance(data, np.ndarray):
        return _from_array(data)
    if isinstance(data, list | tuple) and data and not isinstance(data[0], Mapping):
        return _from_list(data)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return SpoolReader(data, "records")
    raise BadData("TAB_TYPE", f"Cannot read records from {type(data).__name__}.",
                  "Give a path, an array, a data frame, a list of pictures or an iterator of dictionaries.")


def _from_array(data: np.ndarray) -> Reader:
    kind = array_kind(data.shape, data.dtype, "The array")
    return RowsReader("array", array_schema(data.shape, data.dtype), len(data),
                      lambda first, last: array_records(data[first:last], "array", first), kind)


def _from_records(data: Records) -> Reader:
    if "image" not in data.columns:
        return _from_columns(data.columns)
    fields = [(name, pa.binary() if name == "image" else pa.string()) for name in data.columns]

    label = "label" if "label" in data.columns else None

    def cut(first: int, last: int) -> Records:
        columns = {name: column[first:last] for name, column in data.columns.items()}
        return Records(columns, data.origin, first, data.names[first:last])
    return RowsReader(data.origin, pa.schema(fields), len(data), cut, "image", label)


def _from_columns(data: Mapping[str, Any]) -> Reader:
    try:
        table = pa.table({str(name): column if isinstance(column, pa.Array | pa.ChunkedArray) else _typed(list(column))
                          for name, column in data.items()})
    except (pa.ArrowInvalid, TypeError) as error:
        raise BadData("TAB_TYPE", f"The columns make no table: {printable(error)}.", "Give columns of one length.") from error
    return _from_arrow(table, "columns")


def _from_arrow(data: pa.Table, origin: str) -> Reader:
    check_types(data.schema, origin)
    return RowsReader(origin, data.schema, len(data), lambda first, last: records_of(data[first:last], origin, first))


def _from_pandas(frame: Any) -> Reader:
    names = ["/".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    check_columns(names, "data frame")
    frame = frame.set_axis(names, axis="columns")
    mixed = set()
    fields = []
    for name in names:
        try:
            fields.append(pa.field(name, pa.array(frame[name], from_pandas=True).type))
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # several types in one column are told apart as text, as in a text table
            mixed.add(name)
            fields.append(pa.field(name, pa.string()))
    schema = pa.schema(fields)
    check_types(schema, "data frame")

    def column(values: Any, kind: pa.DataType) -> pa.Array:
        if values.name in mixed:
            return pa.array([None if gap else str(value) for value, gap in zip(values, values.isna(), strict=True)], kind)
        array = pa.array(values, from_pandas=True)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        return array if array.type == kind else array.cast(kind)

    def cut(first: int, last: int) -> Records:
        rows = frame.iloc[first:last]
        return Records({field.name: column(rows[field.name], field.type) for field in schema}, "data frame", first)
    return RowsReader("data frame", schema, len(frame), cut)


def _from_polars(frame: Any) -> Reader:
    import polars
    if isinstance(frame, polars.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, polars.Series):
        frame = frame.to_frame()
    schema = frame.head(0).to_arrow().schema
    check_types(schema, "data frame")
    return RowsReader("data frame", schema, len(frame),
                      lambda first, last: records_of(frame.slice(first, last - first).to_arrow(), "data frame", first))


def _from_list(data: list | tuple) -> Reader:
    if all(isinstance(value, Image.Image | bytes) or (isinstance(value, np.ndarray) and value.ndim > 1) for value in data):
        def cut(first: int, last: int) -> Records:
            return Records({"image": [_picture(value) for value in data[first:last]]}, "pictures", first)
        return RowsReader("pictures", pa.schema([("image", pa.binary())]), len(data), cut, "image")
    try:
        return _from_array(np.asarray(data))
    except ValueError as error:
        raise BadData("TAB_TYPE", f"The list makes no array: {printable(error)}.", "Give rows of one length.") from error


def _picture(value: Any) -> Any:
    """A picture as the image codec takes it: uint8 (H, W, C), or encoded bytes where the mode needs the codec's rules."""
    if isinstance(value, Image.Image):
        value = ImageOps.exif_transpose(value)
        return np.atleast_3d(np.asarray(value)) if value.mode in ("L", "RGB", "RGBA") else _encoded(value)
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim not in (2, 3):
            raise BadData("IMG_RANGE", f"A picture is {value.shape} of {value.dtype}; it should be uint8 (H, W) or (H, W, C).",
                          "Scale it: (255 * array).round().astype('uint8').")
        return np.atleast_3d(value)
    return value


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "TIFF" if picture.mode in ("CMYK", "F", "I", "YCbCr", "LAB") else "PNG")
    return file.getvalue()


class SpoolReader(Reader):
    """Records that come one by one, written to temporary Arrow files of a few thousand and read from there.

    A column is of one type over all files: the common one of its values, text where they have none in common.
    """

    def __init__(self, records: Iterable[Any], origin: str):
        self.folder = Folder()
        self.counts: list[int] = []
        schemas = []
        rows = iter(records)
        while chunk := list(itertools.islice(rows, SPOOL_RECORDS)):
            table = self._table(chunk, sum(self.counts))
            with pa.OSFile(str(self._part(len(self.counts))), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            self.counts.append(len(chunk))
            schemas.append(table.schema)
        if not schemas:
            raise BadData("DATA_EMPTY", "The iterator gave no record.", "Give at least one record, as a dictionary.")
        super().__init__(origin, _common(schemas))
        self.modality = "image" if ("image", pa.binary()) in {(field.name, field.type) for field in self.schema} else "table"
        if self.modality == "table":
            check_types(self.schema, origin)
        self.label = "label" if self.modality == "image" and "label" in self.schema.names else None

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Typed blocks, or pictures as bytes."""
        first = 0
        for part, count in enumerate(self.counts):
            with pa.OSFile(str(self._part(part))) as file:
                table = pa.ipc.open_stream(file).read_all()
            missing = [name for name in self.columns if name not in table.column_names]
            for name in missing:
                table = table.append_column(name, pa.nulls(count, self.schema.field(name).type))
            table = table.select(self.columns).cast(self.schema)
            for row in range(0, count, size):
                yield self._block(table[row:row + size], first + row)
            first += count

    def digests(self) -> Iterator[FileEntry]:
        """One entry over all spooled files."""
        digest, size = hashlib.sha256(), 0
        for part in range(len(self.counts)):
            data = self._part(part).read_bytes()
            digest.update(data)
            size += len(data)
        yield FileEntry(self.origin, size, digest.hexdigest())

    def _block(self, table: pa.Table, first: int) -> Records:
        if self.modality == "table":
            return records_of(table, self.origin, first)
        columns = {name: table[name].to_pylist() for name in table.column_names}
        if self.label:
            columns[self.label] = [value if value is None else str(value) for value in columns[self.label]]
        return Records(columns, self.origin, first)

    def _part(self, number: int) -> Any:
        return self.folder.path / f"{number:06}.arrow"

    def _table(self, chunk: list[Any], first: int) -> pa.Table:
        names: dict[str, None] = {}
        for row, record in enumerate(chunk):
            if not isinstance(record, Mapping):
                raise BadData("TAB_TYPE", f"Record {first + row + 1} is {type(record).__name__}, not a dictionary.",
                              "Give dictionaries from column names to values.")
            names.update(dict.fromkeys(map(str, record)))
        return pa.table({name: _typed([_stored(record.get(name)) for record in chunk]) for name in names})


def _stored(value: Any) -> Any:
    if isinstance(value, Image.Image):
        return _encoded(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        return _encoded(Image.fromarray(value if value.ndim == 2 or value.shape[2] > 1 else value[..., 0]))
    return value.item() if isinstance(value, np.generic) else value


def _typed(values: list[Any]) -> pa.Array:
    """An Arrow array of the values' own type; text where they are of several."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([value if value is None else str(value) for value in values], pa.string())


def _common(schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for all: each column's types promoted to a common one, or to text."""
    kinds: dict[str, dict[pa.DataType, None]] = {}
    for schema in schemas:
        for field in schema:
            kinds.setdefault(field.name, {})[field.type] = None
    fields = []
    for name, found in kinds.items():
        try:
            merged = pa.unify_schemas([pa.schema([(name, kind)]) for kind in found], promote_options="permissive")
            fields.append(merged.field(name))
        except pa.ArrowTypeError:
            fields.append(pa.field(name, pa.string()))
    return pa.schema(fields)
