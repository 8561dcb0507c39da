"""Tables: rows of mixed columns become vectors, and come back with the same names, types, order and missing cells.

`fit` reads the data once, settles each column's type (rule.py states the rule) and lays the columns side by side in one vector
(column.py has the formula of each kind): numbers scaled to mean 0 and deviation 1, words as one-hot blocks, and beside every
column that had missing cells a block (present, missing). Cells that are missing are NaN, so a family can sum them out.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ...config import knob
from ...errors import BadConfig, BadData, Incompatible, near, printable
from ...spaces import Continuous, Problem, Records
from .. import Codec
from . import cells, rule
from .column import Column, Fault
from .evidence import Evidence
from .number import Number
from .words import Constant, Identifier, Words

__all__ = ["MEMBER", "Table", "TableConfig"]


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Settings of the table codec."""

    types: tuple[str, ...] = knob((), f"types that you set, such as age=integer,zip=category; of {', '.join(rule.KINDS)}")
    missing: str = knob("value", "whether gaps are learned and made anew, or only unknown", choices=("value", "unknown"))
    categories: int = knob(256, "most categories of a column; rarer ones are pooled", low=2, high=16_384)
    bounds: str = knob("observed", "whether new numbers are cut to the range of training", choices=("observed", "none"))


class Table(Codec):
    """Records with Arrow columns <-> x (B, D) float32. `notes` holds words of warning from `fit`, each with a stable code."""

    Config = TableConfig
    modality = "table"

    def __init__(self, config: TableConfig):
        self.config = config
        self.columns: tuple[Column, ...] = ()
        self.notes: list[str] = []
        self.asked = _asked(config.types)

    def fit(self, blocks: Iterable[Records]) -> "Table":
        """One pass over Arrow columns, memory bounded.

        Raises BadConfig CONFIG_KEY for a type set on a column that is not there; BadData DATA_EMPTY without rows, TAB_TYPE for
        cells that are no table's, TAB_NOTHING where no column can be learned; Incompatible TAB_SCHEMA where blocks differ.
        """
        seen: dict[str, Evidence] = {}
        for block in blocks:
            if not seen:
                for name in self.asked.keys() - block.columns.keys():
                    raise BadConfig("CONFIG_KEY", f"types: there is no column '{printable(name)}'.", _near(name, block.columns))
                seen = {name: Evidence(name, self.asked.get(name)) for name in block.columns}
            _same_names(list(seen), block)
            for name, evidence in seen.items():
                evidence.add(cells.flat(block.columns[name], name), block.first)
        if not any(evidence.rows for evidence in seen.values()):
            raise BadData("DATA_EMPTY", "The table has no rows.", "Give a table with a header and at least one row.")
        settings = self.config.missing, self.config.categories, self.config.bounds
        self._lay_out([rule.settle(evidence, *settings) for evidence in seen.values()])
        self.notes = [note for column in self.columns for note in rule.notes(column, seen[column.name])]
        if not self.space.dims:
            kinds = ", ".join(f"{printable(c.name)}: {c.kind}" for c in self.columns[:8])
            raise BadData("TAB_NOTHING", f"No column of the table can be learned from ({kinds}).",
                          "Add columns that vary, or set types=COLUMN=category where a column was taken for an identifier.")
        return self

    def _lay_out(self, columns: Iterable[Column]) -> None:
        """Gives each column its place in x: the value's entries, then (present, missing) where indicated."""
        self.columns = tuple(columns)
        widths: list[float] = []
        simplexes: list[tuple[int, int]] = []
        self.places: list[tuple[int, int]] = []
        for column in self.columns:
            first, last = len(widths), len(widths) + column.entries
            self.places.append((first, last))
            simplexes += [(first, last)] * column.simplex + [(last, last + 2)] * column.indicated
            widths += [column.width] * column.entries + [0.0, 0.0] * column.indicated
        self.space = Continuous(shape=(len(widths),), axes=("feature",), widths=tuple(widths) if any(widths) else (),
                                simplexes=tuple(simplexes))

    def parse(self, records: Records, problems: list[Problem], unknown: bool = False) -> Records:
        """Typed columns, in the order of training. A record with an unusable cell is left out and named in `problems`.

        Numbers become float64, whole numbers and dates int64 (dates in their own steps since 1970), all else text; missing
        cells are null, with `unknown` or without. Raises Incompatible TAB_SCHEMA where the columns are not those of training.
        """
        _same_names([column.name for column in self.columns], records, {c.name for c in self.columns if c.kind == "identifier"})
        faults: dict[int, Fault] = {}
        parsed: dict[str, pa.Array] = {}
        for column in self.columns:
            given = records.columns.get(column.name, pa.nulls(len(records)))
            parsed[column.name], found = column.parse(cells.flat(given, column.name))
            for fault in found:
                faults.setdefault(fault.row, fault)
        for row, fault in sorted(faults.items()):
            problems.append(Problem(fault.code, records.where(row), f"{records.where(row)}, {fault.message}", fault.hint))
        whole = Records(parsed, records.origin, records.first, records.names)
        return whole.take([row for row in range(len(records)) if row not in faults]) if faults else whole

    def encode(self, records: Records, unknown: bool = False) -> Tensor:
        """x (B, D) float32 of parsed records. A missing cell is NaN and its indicator says so; with `unknown` the indicator
        says "present" instead, which asks a family for the value that should stand there."""
        x = np.zeros((len(records), self.space.dims), np.float32)
        for column, (first, last) in zip(self.columns, self.places, strict=True):
            values: Any = records.columns[column.name]
            x[:, first:last] = column.encode(values)
            if column.indicated:
                missing = values.is_null().to_numpy(zero_copy_only=False) & (not unknown)
                x[:, last:last + 2] = np.stack([~missing, missing], axis=1)
        return torch.from_numpy(x)

    def decode(self, x: Tensor, first: int = 0, known: Records | None = None) -> Records:
        """Records of x (B, D) in the Arrow types of training. `first` is the number of the first record, from which identifiers
        count on. With `known`, parsed records, x gives only the cells that are missing there, identifiers aside; all others
        stay as they are."""
        entries = x.detach().cpu().numpy()
        out: dict[str, pa.Array] = {}
        for column, (start, last) in zip(self.columns, self.places, strict=True):
            values = column.decode(entries[:, start:last], first)
            if column.indicated:
                missing = pa.array(entries[:, last + 1] > entries[:, last])
                values = pc.if_else(missing, pa.scalar(None, values.type), values)
            if known is not None:  # an identifier that is missing is not to be guessed
                given = known.columns[column.name]
                values = given if column.kind == "identifier" else pc.coalesce(given, values)
            out[column.name] = column.render(values)
        return Records(out, "decoded", first)

    def log_volume(self, x: Tensor) -> Tensor:
        """log |dx / d raw| (B,) float64 nats: minus the log deviation of every real entry that is there, and minus log v where
        v is on a log scale. Whole numbers, dates and words are masses and add nothing."""
        entries = x.detach().cpu().numpy()
        placed = zip(self.columns, self.places, strict=True)
        return torch.from_numpy(sum((column.log_slope(entries[:, first:last]) for column, (first, last) in placed),
                                    start=np.zeros(len(entries))))

    def state(self) -> dict[str, Any]:
        """The settled columns and the notes; no cell of any record but ranges and the words of categories."""
        return {"columns": [_plain(column) for column in self.columns], "notes": self.notes}

    @classmethod
    def restore(cls, config: TableConfig, state: dict[str, Any]) -> "Table":
        """The codec that `state` was taken from."""
        codec = cls(config)
        codec._lay_out(_column(plain) for plain in state["columns"])
        codec.notes = list(state["notes"])
        return codec

    def describe(self) -> list[dict[str, Any]]:
        """A row a column: column, type, missing (cells in training), distinct (None where not counted), range, note."""
        said = {c.name: [note for note in self.notes if f"column '{printable(c.name)}'" in note] for c in self.columns}
        return [{"column": c.name, "type": c.kind, "missing": c.gaps, "distinct": c.distinct, "range": c.range,
                 "note": " ".join(said[c.name])} for c in self.columns]


def _plain(column: Column) -> dict[str, Any]:
    """A column as JSON-ready values; `_column` reads them back."""
    return {"class": type(column).__name__, **vars(column)}


def _column(plain: dict[str, Any]) -> Column:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    kinds: dict[str, type[Column]] = {kind.__name__: kind for kind in (Number, Words, Constant, Identifier)}
    return kinds[values.pop("class")](**values)


def _asked(types: tuple[str, ...]) -> dict[str, str]:
    """Column -> type from "column=type" settings. Raises BadConfig SETTING_RANGE."""
    asked = {}
    for setting in types:
        name, equals, kind = setting.rpartition("=")
        if not equals or kind not in rule.KINDS:
            raise BadConfig("SETTING_RANGE", f"types: '{printable(setting)}' is not COLUMN=TYPE.", _near(kind, rule.KINDS))
        asked[name] = kind
    return asked


def _same_names(expected: list[str], records: Records, optional: Collection[str] = ()) -> None:
    """Raises Incompatible TAB_SCHEMA with the difference, if columns are missing, less the optional ones, or too many."""
    missing = [name for name in expected if name not in records.columns and name not in optional]
    extra = [name for name in records.columns if name not in expected]
    if missing or extra:
        told = "; ".join(f"{word} {_listed(names)}" for word, names in (("missing", missing), ("not known", extra)) if names)
        hint = f"Leave out what was not there in training. {_near(extra[0], missing or expected)}" if extra else (
            "Add the missing columns.")
        raise Incompatible("TAB_SCHEMA", f"{records.origin}: the columns are not those of training: {told}.", hint)


def _near(name: str, known: Iterable[str]) -> str:
    return near(printable(name), map(printable, known))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{printable(name, 40)}'" for name in names[:5]) + more


MEMBER = Table
