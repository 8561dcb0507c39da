"""Labels: the class of each record, as a number; what the label is in the data comes back in its own type.

The classes are those that occur in training, in order: by size where all are numbers, else by alphabet. Their shares are the
class prior P(y), which Bayes' rule needs. A label that is missing or was never seen is -1: class unknown.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..config import knob
from ..errors import BadConfig, BadData, near, printable
from ..spaces import Discrete, Problem, Records
from . import Codec

__all__ = ["MEMBER", "Label", "LabelConfig"]

UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Settings of the label codec."""

    column: str = knob("label", "the column that holds the label")
    classes: int = knob(1000, "most classes that a label may have", low=2, high=1_000_000)


class Label(Codec):
    """Records with one label column <-> class numbers (B,) int64. `classes` are the labels in order, `prior` (C,) float64 their
    shares of the labelled training records."""

    Config = LabelConfig
    modality = "label"

    def __init__(self, config: LabelConfig):
        self.config = config
        self.notes: list[str] = []
        self.seen: Counter[Any] = Counter()
        self.rows, self.kind = 0, ""

    def fit(self, blocks: Iterable[Records]) -> "Label":
        """Counts the classes.

        Raises BadData LABEL_MISSING where there is no such column, LABEL_MANY where there are more classes than allowed,
        LABEL_SINGLE where there are fewer than two.
        """
        for _ in self.observing(blocks):
            pass
        return self.settled()

    def observing(self, blocks: Iterable[Records]) -> Iterator[Records]:
        """The blocks as they are, their classes counted as they pass by; then `settled`. Raises as `fit` does."""
        column, most = self.config.column, self.config.classes
        for block in blocks:
            if column not in block.columns:
                raise BadData("LABEL_MISSING", f"{block.origin}: there is no column '{printable(column)}'.",
                              near(column, block.columns))
            labels = block.columns[column]
            self.kind = self.kind or _kind(labels)
            self.seen.update(value for value in _values(labels) if value is not None)
            self.rows += len(labels)
            if len(self.seen) > most:
                examples = ", ".join(repr(printable(value, 20)) for value in list(self.seen)[:3])
                raise BadData("LABEL_MANY",
                              f"Column '{printable(column)}' has over {most} labels in {self.rows:,} records ({examples}).",
                              "A label should be a class; leave a measure in the table, or raise the limit on classes.")
            yield block

    def settled(self) -> "Label":
        """Itself, with the classes that were counted. Raises as `fit` does."""
        column, counts = self.config.column, self.seen
        if len(counts) < 2:
            only = ", ".join(repr(printable(value, 40)) for value in counts) or "none"
            raise BadData("LABEL_SINGLE",
                          f"Column '{printable(column)}' has {len(counts)} classes ({only}) in {self.rows:,} rows.",
                          "A label needs at least two classes; fit without a label.")
        unlabelled = self.rows - counts.total()
        self.notes = [f"LABEL_UNKNOWN: {unlabelled:,} of {self.rows:,} records have no label"] if unlabelled else []
        classes = sorted(counts, key=_order(counts))
        self._lay_out(classes, [counts[value] for value in classes], self.kind)
        return self

    def _lay_out(self, classes: list[Any], counts: list[int], kind: str) -> None:
        self.classes, self.kind = tuple(classes), kind
        self.counts: tuple[float, ...] = tuple(counts)
        self.numbers = {value: number for number, value in enumerate(classes)}
        self.written = {str(value).strip(): number for number, value in enumerate(classes)}
        self.space = Discrete(shape=(), vocabulary=len(classes), pad=UNKNOWN)

    @property
    def prior(self) -> Tensor:
        """P(y), (C,) float64."""
        counts = torch.tensor(self.counts, dtype=torch.float64)
        return counts / counts.sum()

    def parse(self, records: Records, problems: list[Problem], unknown: bool = False) -> Records:
        """All records; a label that was not seen in training becomes missing, and is named in `problems` as LABEL_UNKNOWN."""
        if self.config.column not in records.columns:
            return records
        labels = _values(records.columns[self.config.column])
        found = [None if value is None else self._find(value) for value in labels]
        for row, (number, value) in enumerate(zip(found, labels, strict=True)):
            if value is not None and number is None:
                problems.append(Problem("LABEL_UNKNOWN", records.where(row), f"{printable(records.where(row))}: the label "
                                        f"'{printable(value, 40)}' did not occur in training and is taken as unknown.",
                                        near(printable(value), map(printable, self.classes))))
        return records.with_columns(**{self.config.column: [None if n is None else self.classes[n] for n in found]})

    def encode(self, records: Records, unknown: bool = False) -> Tensor:
        """Class numbers (B,) int64, -1 where the label is missing, new, or there is no such column."""
        labels = _values(records.columns.get(self.config.column, [None] * len(records)))
        numbers = (UNKNOWN if value is None or (n := self._find(value)) is None else n for value in labels)
        return torch.from_numpy(np.fromiter(numbers, np.int64, len(labels)))

    def decode(self, x: Tensor, first: int = 0, known: Records | None = None) -> Records:
        """Labels of class numbers (B,), in their own type; None for -1. With `known`, labels that are there stand."""
        values = [None if n == UNKNOWN else self.classes[n] for n in x.tolist()]
        if known is not None:
            given = _values(known.columns[self.config.column])
            values = [new if old is None else old for old, new in zip(given, values, strict=True)]
        column = pa.array(values).cast(pa.type_for_alias(self.kind)) if self.kind else values
        return Records({self.config.column: column}, "decoded", first)

    def index(self, value: Any) -> int:
        """The class number of a label, also where it is given as text. Raises BadConfig LABEL_UNKNOWN with near names."""
        number = self._find(value)
        if number is None:
            raise BadConfig("LABEL_UNKNOWN", f"'{printable(self.config.column)}' has no class '{printable(value, 60)}'.",
                            near(printable(value), map(printable, self.classes)))
        return number

    def _find(self, value: Any) -> int | None:
        """The class of a label as it stands, or of one that is written the same."""
        number = self.numbers.get(value)
        return number if number is not None else self.written.get(str(value).strip())

    def log_volume(self, x: Tensor) -> Tensor:
        """Zero, (B,) float64: classes are masses."""
        return torch.zeros(len(x), dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """The classes, how often each occurred, their Arrow type ("" where they were plain values), and the notes."""
        return {"classes": list(self.classes), "counts": list(self.counts), "kind": self.kind, "notes": self.notes}

    @classmethod
    def restore(cls, config: LabelConfig, state: dict[str, Any]) -> "Label":
        """The codec that `state` was taken from."""
        codec = cls(config)
        codec._lay_out(state["classes"], state["counts"], state["kind"])
        codec.notes = list(state["notes"])
        return codec

    def describe(self) -> list[dict[str, Any]]:
        """One row: the classes and their shares."""
        shares = [f"{printable(value, 20)} {share:.0%}" for value, share in zip(self.classes, self.prior.tolist(), strict=True)]
        more = f" and {len(shares) - 8} more" if len(shares) > 8 else ""
        return [{"column": self.config.column, "type": "label", "missing": None, "distinct": len(self.classes),
                 "range": ", ".join(shares[:8]) + more, "note": "; ".join(self.notes)}]


def _values(labels: Any) -> list[Any]:
    """Labels as strings, integers, floats or booleans; None for null, "" and NaN. Other types become text."""
    if isinstance(labels, pa.Array | pa.ChunkedArray):
        labels = labels.cast(_plain_type(labels.type)).to_pylist()
    plain = (value.item() if isinstance(value, np.generic) else value for value in labels)
    return [None if value is None or value == "" or value != value else value for value in plain]


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    kept = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return kind if kept else pa.string()


def _kind(labels: Any) -> str:
    """The Arrow type that decode gives, or "" for plain values."""
    return str(_plain_type(labels.type)) if isinstance(labels, pa.Array | pa.ChunkedArray) else ""


def _order(values: Iterable[Any]) -> Any:
    """A key that sorts by size where every value is a number, also as text; else by alphabet."""
    try:
        sizes = {value: float(value) for value in values}
    except (TypeError, ValueError):
        return str
    return lambda value: (sizes[value], str(value))


MEMBER = Label
