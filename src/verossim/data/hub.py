"""Data sets of the `datasets` library, by "hf:NAME": a folder that it saved, or a name that it knows."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import BadData, MissingExtra, near, printable
from ..spaces import Records
from .memory import RowsReader
from .reader import Reader, check_types, records_of

__all__ = ["from_hub"]


def from_hub(name: str) -> Reader:
    """A reader of "NAME" or "NAME#split" ("train" unless said). Pictures come as their encoded bytes, class numbers as names.

    Raises MissingExtra without the library, BadData DATA_MISSING where it cannot get the data set.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("EXTRA", "Reading 'hf:' data needs the package 'datasets'.",
                           "Install it with: pip install 'verossim[hub]'.") from error
    name, _, split = name.partition("#")
    try:
        found = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
    except (OSError, ValueError) as error:
        raise BadData("DATA_MISSING", f"hf:{printable(name)}: the datasets library cannot load it: {printable(error)}.",
                      "Check the name and the connection, or give a folder written by save_to_disk.") from error
    if isinstance(found, dict):
        split = split or ("train" if "train" in found else next(iter(found)))
        if split not in found:
            raise BadData("DATA_MISSING", f"hf:{printable(name)} has no split '{printable(split)}'.", near(split, found))
        found = found[split]
    return _reader(datasets, found, f"hf:{name}" + (f"#{split}" if split else ""))


def _reader(datasets: Any, data: Any, origin: str) -> Reader:
    features = data.features
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    classes = {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for name in pictures:
        data = data.cast_column(name, datasets.Image(decode=False))
    data = data.with_format("arrow")
    if not pictures:
        schema = features.arrow_schema.remove_metadata()
        for name in classes:
            schema = schema.set(schema.names.index(name), pa.field(name, pa.string()))
        check_types(schema, origin)
        return RowsReader(origin, schema, len(data), lambda first, last: _named(
            records_of(data[first:last], origin, first), classes))
    label = next(iter(classes), None)
    fields = [("image", pa.binary()), *([("label", pa.string())] if label else [])]

    def cut(first: int, last: int) -> Records:
        table = data[first:last]
        columns = {"image": [cell["bytes"] for cell in table[pictures[0]].to_pylist()]}
        if label:
            columns["label"] = _names(table[label], classes[label]).to_pylist()
        return Records(columns, origin, first)
    return RowsReader(origin, pa.schema(fields), len(data), cut, "image", "label" if label else None)


def _named(records: Records, classes: dict[str, list[str]]) -> Records:
    return records.with_columns(**{name: _names(records.columns[name], names) for name, names in classes.items()})


def _names(numbers: Any, names: list[str]) -> pa.Array:
    """Class numbers as class names; -1, which that library writes for an unknown class, is missing."""
    plain = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    return pa.array([None if number is None or number < 0 else names[number] for number in plain.to_pylist()], pa.string())
