"""The three sets that utility speaks of, made, train and test, read alike: points of one space and numbers of their classes.

The space is settled on the train records alone, by the codec of their modality; pictures come to the smaller of the sizes that
train and made have. Records of test that are also in train are left out of test.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ... import data
from ...codecs import Codec
from ...codecs.image import ImageConfig, Pictures
from ...codecs.label import Label, LabelConfig
from ...codecs.table import Table, TableConfig
from ...errors import BadData, Incompatible, near, printable
from ...spaces import Continuous, Problem, Records

__all__ = ["Labelled", "Sets", "labels_of", "opened", "read"]

FEWEST = 2  # records of a class
SIDE = 32  # pixels of a picture's shorter side at most


@dataclass(frozen=True)
class Labelled:
    """Points x (N, *event) float32, what is not known of them 0, and their classes y (N,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> "Labelled":
        """The records at `rows`."""
        return Labelled(self.x[rows], self.y[rows])

    def keys(self) -> list[bytes]:
        """A digest of each record, classes aside: equal where the records are."""
        return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.x]

    def digest(self) -> str:
        """16 hex digits of a sha256 of all."""
        return hashlib.sha256(repr(self.x.shape).encode() + self.x.tobytes() + self.y.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Sets:
    """Made, train and test records of one space, the labels in the order of their classes, the modality, the slices of a row
    that are categories, and words of warning."""

    made: Labelled
    train: Labelled
    test: Labelled
    labels: tuple[Any, ...]
    modality: str
    simplexes: Sequence[tuple[int, int]] = ()
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Opened:
    """A source with the column of its label."""

    name: str
    source: data.Source
    label: str

    def bare(self) -> Iterator[Records]:
        """Its records without their labels."""
        return self.source.features()


def opened(source: Any, name: str, label: str | None, modality: str | None = None, weight: str | None = None) -> Opened:
    """Anything that holds records of tables or pictures with labels: what `data.open_source` opens with a label column, or a
    pair (records, labels (N,)). weight: a column to leave out.
    Raises BadData LABEL_MISSING, LABEL_COUNT, Incompatible UTILITY_MODALITY, and as that does."""
    if isinstance(source, Opened):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        source, label = _paired(*source, name, label), label or "label"
    found = data.open_source(source, label=label, weight=weight, modality=modality)
    if found.modality not in ("table", "image"):
        raise Incompatible("UTILITY_MODALITY", f"The {name} records are {found.modality}; utility is of tables and pictures.",
                           "Give a table, or pictures.")
    if found.label is None:
        raise BadData("LABEL_MISSING", f"The {name} records ({found.origin}) come without a label.",
                      f"Name its column: label=COLUMN, or --label. {near('label', map(printable, found.columns))}")
    return Opened(name, found, found.label)


def _paired(records: Any, labels: Any, name: str, label: str | None) -> Records:
    whole = data.joined(list(data.open_source(records).blocks()))
    values = [value.item() if isinstance(value, np.generic) else value for value in labels]
    if len(values) != len(whole):
        raise BadData("LABEL_COUNT", f"There are {len(whole)} {name} records and {len(values)} labels of them.",
                      "Give a label a record.")
    return whole.with_columns(**{label or "label": values})


def labels_of(train: Opened) -> Label:
    """The classes that train records have. Raises BadData LABEL_SINGLE, LABEL_MANY."""
    try:
        return Label(LabelConfig(column=train.label)).fit(train.source.blocks())
    except BadData as error:
        if error.code != "LABEL_SINGLE":
            raise
        raise BadData(error.code, f"The {train.name} records: {error.message}",
                      "Utility is how well classes are told apart; give records of at least two.") from error


def read(made: Any, train: Any, test: Any, label: str | None) -> Sets:
    """The three sets, checked. Raises as `opened` and `labels_of` do; Incompatible TAB_SCHEMA where columns differ; BadData
    UTILITY_CLASSES for classes that are not in all three, UTILITY_FEW for classes of one record, UTILITY_OVERLAP where all
    records of test are in train."""
    learned = opened(train, "train", label)
    modality, column = learned.source.modality, learned.label
    others = [opened(source, name, column, modality) for source, name in ((made, "made"), (test, "test"))]
    classes = labels_of(learned)
    warnings: list[str] = []
    codec = _codec(learned, others[0])
    sides = {side.name: _points(side, codec, classes, warnings) for side in (others[0], learned, others[1])}
    for name, points in sides.items():
        _check_classes(points, name, classes.classes)
    sets = Sets(sides["made"], sides["train"], sides["test"], tuple(classes.classes), modality, _simplexes(codec))
    sets = _apart(sets, warnings)
    return replace(sets, warnings=tuple(warnings))


def _codec(train: Opened, made: Opened) -> Codec:
    if train.source.modality == "table":
        return Table(TableConfig()).fit(train.bare())
    own, theirs = (Pictures(ImageConfig()).fit(side.bare()) for side in (train, made))
    side = min(min(own.look.height, own.look.width), min(theirs.look.height, theirs.look.width), SIDE)
    return own if side == min(own.look.height, own.look.width) else Pictures(ImageConfig(size=side)).fit(train.bare())


def _simplexes(codec: Codec) -> tuple[tuple[int, int], ...]:
    assert isinstance(codec.space, Continuous)
    return codec.space.simplexes


def _points(side: Opened, codec: Codec, label: Label, warnings: list[str]) -> Labelled:
    """Points and classes of a set; what cannot be used, or has no label, is passed over and said."""
    xs, ys, found, unlabelled = [], [], list[Problem](), 0
    for block in side.source.blocks():
        strangers: list[Problem] = []
        label.parse(block, strangers)
        if strangers:
            raise BadData("UTILITY_CLASSES", f"The {side.name} records have a class that the train records have not: "
                          f"{strangers[0].message}", f"{strangers[0].hint} Leave it out, or add such records to train.")
        parsed = codec.parse(side.source.without_roles(block), found)
        y = label.encode(block).numpy()[data.rows_of(block, parsed)]
        known = y >= 0
        unlabelled += int((~known).sum())
        xs.append(np.nan_to_num(codec.encode(parsed).numpy()[known]))
        ys.append(y[known])
    if found:
        warnings.append(f"{len(found):,} {side.name} records were passed over; the first: {found[0].message}")
    if unlabelled:
        warnings.append(f"{unlabelled:,} {side.name} records have no label and were passed over.")
    return Labelled(np.concatenate(xs), np.concatenate(ys))


def _check_classes(side: Labelled, name: str, labels: Sequence[Any]) -> None:
    counts = np.bincount(side.y, minlength=len(labels))
    absent = [repr(printable(label, 40)) for label, count in zip(labels, counts, strict=True) if not count]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise BadData("UTILITY_CLASSES", f"The {name} records have none of the classes {', '.join(absent[:5])}{more}.",
                      "Make records of each class, by a condition." if name == "made" else "Give records of each class.")
    if counts.min() < FEWEST:
        raise BadData("UTILITY_FEW", f"The {name} records have {int(counts.min())} of the class "
                      f"{printable(labels[int(counts.argmin())], 40)!r}; {FEWEST} are needed.",
                      "Give or make more of them, or leave the class out of all three sets.")


def _apart(sets: Sets, warnings: list[str]) -> Sets:
    """The same, less the records of test that are in train, classes aside; and words on copies."""
    keys = {name: side.keys() for name, side in (("made", sets.made), ("train", sets.train), ("test", sets.test))}
    twice = _among(keys["test"], keys["train"])
    if twice.all():
        raise BadData("UTILITY_OVERLAP", f"All {len(twice):,} test records are also train records.",
                      "Give test records that nothing was learned from.")
    if twice.any():
        warnings.insert(0, f"TRAIN AND TEST OVERLAP: {int(twice.sum()):,} of {len(twice):,} test records are also train "
                           "records, and were left out of test.")
        sets = replace(sets, test=sets.test.take(np.flatnonzero(~twice)))
        _check_classes(sets.test, "test", sets.labels)
    for name in ("test", "train"):
        copies = int(_among(keys["made"], keys[name]).sum())
        if copies:
            warnings.append(f"{copies:,} of {len(keys['made']):,} made records are copies of {name} records"
                            + (": what made them may have learned from test." if name == "test" else "."))
    return sets




def _among(keys: list[bytes], others: list[bytes]) -> np.ndarray:
    """Which of the keys (N,) are also others."""
    there = set(others)
    return np.array([key in there for key in keys])
