"""Arrays as records: rows of numbers become the columns x0, x1, ...; stacks of bytes become pictures."""

import numpy as np
import pyarrow as pa

from ..errors import BadData
from ..spaces import Records

__all__ = ["array_kind", "array_records", "array_schema"]


def array_kind(shape: tuple[int, ...], dtype: np.dtype, origin: str) -> str:
    """"table" for (N,) and (N, D) numbers or text, "image" for uint8 (N, H, W), (N, H, W, C) and (N, C, H, W) with C of
    1, 3 or 4. Raises BadData TAB_TYPE or IMG_SHAPES for anything else."""
    if dtype.kind not in "biufUMm" and not dtype.names:
        raise BadData("TAB_TYPE", f"{origin} is an array of {dtype}, which has no cells of a table.",
                      "Give real numbers, booleans, dates or text.")
    if len(shape) in (1, 2):
        return "table"
    if len(shape) == 3 or (len(shape) == 4 and (_channels_last(shape) or _channels_first(shape))):
        if dtype == np.uint8:
            return "image"
        raise BadData("IMG_RANGE", f"{origin} has the shape {shape} of pictures and holds {dtype}, not uint8.",
                      "Scale them: (255 * array).round().astype('uint8').")
    raise BadData("IMG_SHAPES", f"{origin} has the shape {shape}.",
                  "A table is (N, D); pictures are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels.")


def array_schema(shape: tuple[int, ...], dtype: np.dtype) -> pa.Schema:
    """The columns that `array_records` gives."""
    if len(shape) > 2:
        return pa.schema([("image", pa.binary())])
    empty = array_records(np.zeros((0, *shape[1:]), dtype), "", 0)
    return pa.schema([(name, pa.array(column).type) for name, column in empty.columns.items()])


def array_records(rows: np.ndarray, origin: str, first: int) -> Records:
    """A block of Records from rows (B,), (B, D), (B, H, W[, C]) or (B, C, H, W)."""
    if rows.ndim > 2:
        if rows.ndim == 4 and not _channels_last(rows.shape):
            rows = rows.transpose(0, 2, 3, 1)
        return Records({"image": list(np.ascontiguousarray(rows if rows.ndim == 4 else rows[..., None]))}, origin, first)
    if rows.dtype.names:
        return Records({name: _column(rows[name]) for name in rows.dtype.names}, origin, first)
    rows = rows[:, None] if rows.ndim == 1 else rows
    return Records({f"x{i}": _column(rows[:, i]) for i in range(rows.shape[1])}, origin, first)


def _column(values: np.ndarray) -> pa.Array:
    """One column; masked entries are missing, half floats widened, the byte order this machine's."""
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    plain = np.asarray(values)
    plain = plain.astype(np.float32 if plain.dtype == np.float16 else plain.dtype.newbyteorder("="))
    return pa.array(np.ascontiguousarray(plain), mask=mask)


def _channels_last(shape: tuple[int, ...]) -> bool:
    return shape[-1] in (1, 3, 4)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return shape[1] in (1, 3, 4)
