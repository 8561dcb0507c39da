"""What the verbs share: a loaded model, the provenance of what it makes, records as tables and pictures on their way out."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import store
from ..errors import BadConfig, near, printable
from ..model import Model
from ..safety import Provenance, gate
from .arguments import assignment
from .console import Voice

__all__ = ["class_of", "folder_names", "provenance", "write_table"]


def provenance(verb: str, path: str, model: Model, seed: int | None = None, **settings: Any) -> Provenance:
    """Where the outputs of a verb come from."""
    data = model.card.get("manifest", {}).get("hash")
    return Provenance(verb=verb, model=store.identity(path), data=data, seed=seed,
                      settings={name: value for name, value in settings.items() if value is not None})


def class_of(model: Model, condition: str | None) -> Any:
    """The class that label=VALUE asks for, or None. Raises BadConfig USAGE, or as the model does for an unknown class."""
    if condition is None or model.label is None:
        return condition
    name, value = assignment(condition, "--condition")
    column = model.label.config.column
    if name not in (column, "label"):
        raise BadConfig("USAGE", f"--condition names '{printable(name)}'; the model's label is '{printable(column)}'.",
                        near(name, [column]))
    model.label.index(value)
    return value


def write_table(voice: Voice, path: Path, blocks: Iterable[pa.Table], kind: str) -> int:
    """Writes blocks of one schema as CSV or Parquet and returns how many records there were; one block is held at a time."""
    if kind == "parquet":
        return _write_parquet(path, blocks)
    count = guarded = 0
    with path.open("wb") as file:
        for block in blocks:
            content, cells = gate.csv_block(block, header=not count)
            file.write(content)
            count, guarded = count + len(block), guarded + cells
    if guarded:
        voice.warn(f"CSV_FORMULA: {guarded:,} cells that a spreadsheet would run as a formula were given a leading '.")
    return count


def _write_parquet(path: Path, blocks: Iterable[pa.Table]) -> int:
    count, writer = 0, None
    try:
        for block in blocks:
            writer = writer or pq.ParquetWriter(path, block.schema)
            writer.write_table(block)
            count += len(block)
    finally:
        if writer is not None:
            writer.close()
    return count


def folder_names(labels: Iterable[Any]) -> dict[Any, str]:
    """A folder's name for each label: the label where that can be one, else what of it can; no two are the same."""
    names: dict[Any, str] = {}
    for label in labels:
        name = re.sub(r"[^\w.+\- ]", "_", str(label)).strip(". ")[:80] or "_"
        while name in names.values():
            name += "_"
        names[label] = name
    return names
