"""What the verbs share: a loaded model, the provenance of what it makes, records as tables and pictures on their way out."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import store
from ..errors import BadConfig, near, printable
from ..model import Model
from ..safety import Provenance, Release, gate
from .arguments import assignment
from .console import Voice

__all__ = ["class_of", "folder_names", "guarded", "provenance", "warn_of_formulas", "write_table"]


def tell_aside(voice: Voice, out: Release) -> None:
    """Says where the folder that an --overwrite was for has gone."""
    if out.aside is not None:
        voice.warn(f"MOVED_ASIDE: what was there and not made by verossim is now in {printable(out.aside)}.")


def provenance(verb: str, path: str, model: Model, seed: int | None = None, **settings: Any) -> Provenance:
    """Where the outputs of a verb come from."""
    data = model.card.get("manifest", {}).get("hash")
    return Provenance(verb=verb, model=store.identity(path), data=data, seed=seed,
                      settings={name: value for name, value in settings.items() if value is not None})


def class_of(model: Model, condition: str | None) -> Any:
    """The class that label=VALUE asks for, or None. Raises BadConfig USAGE, or as the model does for an unknown class."""
    label: Any = model.label
    if condition is None or label is None:
        return condition
    name, value = assignment(condition, "--condition")
    column = label.config.column
    if name not in (column, "label"):
        raise BadConfig("USAGE", f"--condition names '{printable(name)}'; the model's label is '{printable(column)}'.",
                        near(name, [column]))
    label.index(value)
    return value


def write_table(path: Path, blocks: Iterable[pa.Table], kind: str, **manner: str) -> None:
    """Writes blocks of one schema as CSV (in the `manner` of gate.csv_block) or Parquet; one block is held at a time."""
    if kind == "parquet":
        _write_parquet(path, blocks)
        return
    with path.open("wb") as file:
        for number, block in enumerate(blocks):
            file.write(gate.csv_block(block, header=not number, **manner))


def guarded(voice: Voice, blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The blocks with no cell and no column's name that a spreadsheet would run as a formula; at the end a word on how many
    there were."""
    count = 0
    for number, block in enumerate(blocks):
        names, headers = gate.guard(pa.array(block.column_names, pa.string()))
        count += 0 if number else headers  # the names are written once
        columns = [gate.guard(column) for column in block.columns]
        count += sum(cells for _, cells in columns)
        yield pa.table([column for column, _ in columns], names=names.to_pylist())
    warn_of_formulas(voice, count)


def warn_of_formulas(voice: Voice, count: int) -> None:
    """Says that cells were changed so that a spreadsheet does not run them."""
    if count:
        voice.warn(f"CSV_FORMULA: {count:,} cells that a spreadsheet would run as a formula were given a leading '.")


def _write_parquet(path: Path, blocks: Iterable[pa.Table]) -> None:
    writer = None
    try:
        for block in blocks:
            writer = writer or pq.ParquetWriter(path, block.schema)
            writer.write_table(block)
    finally:
        if writer is not None:
            writer.close()


def folder_names(labels: Iterable[Any]) -> dict[Any, str]:
    """A folder's name for each label: the label where that can be one, else what of it can; no two are the same."""
    names: dict[Any, str] = {}
    for label in labels:
        name = re.sub(r"[^\w.+\- ]", "_", str(label)).strip(". ")[:80] or "_"
        while name in names.values():
            name += "_"
        names[label] = name
    return names
