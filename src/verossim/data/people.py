"""Records as people hold them: pictures as PIL images, tables in the frame library that they came in with.

The way in, from such objects to Records, is `sources`; this is the way out.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from ..errors import MissingExtra
from ..spaces import Records

__all__ = ["frame_of", "joined", "to_people", "to_pictures", "to_table"]


def frame_of(source: Any) -> str:
    """The frame library that a table came in with: "pandas", "polars", "numpy", "torch", else "arrow"."""
    library = type(source).__module__.split(".")[0]
    return library if library in ("pandas", "polars", "numpy", "torch") else "arrow"


def joined(blocks: Sequence[Records]) -> Records:
    """One block of all records of several that have the same columns."""
    first = blocks[0]
    if isinstance(next(iter(first.columns.values())), pa.Array | pa.ChunkedArray):
        table = pa.concat_tables([to_table(block) for block in blocks])
        return Records({name: table[name].combine_chunks() for name in table.column_names}, first.origin, first.first)
    columns = {name: [value for block in blocks for value in block.columns[name]] for name in first.columns}
    return Records(columns, first.origin, first.first, [block.where(i) for block in blocks for i in range(len(block))])


def to_table(records: Records) -> pa.Table:
    """The records as an Arrow table."""
    return pa.table({name: column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
                     for name, column in records.columns.items()})


def to_pictures(records: Records) -> list[Image.Image]:
    """The column "image", uint8 arrays (H, W, C), as PIL images."""
    return [Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels) for pixels in records.columns["image"]]


def to_people(records: Records, frame: str) -> Any:
    """A list of PIL images, or a table of the library `frame`. Raises MissingExtra where that is not installed."""
    if "image" in records.columns:
        return to_pictures(records)
    table = to_table(records)
    try:
        if frame == "pandas":
            return table.to_pandas()
        if frame == "polars":
            import polars
            return polars.from_arrow(table)
    except ImportError as error:
        raise MissingExtra("EXTRA", f"The data came in as a {frame} frame, and {frame} is not installed.",
                           "Install it with: pip install 'verossim[frames]'.") from error
    if frame in ("numpy", "torch"):
        import numpy
        array = numpy.column_stack([column.to_numpy() for column in table.columns])
        if frame == "numpy":
            return array
        import torch
        return torch.from_numpy(array)
    return table
