"""Records parsed and encoded once, split by content, and kept as flat files that batches are cut from.

Each side of the split has its own files, one a quantity: x, condition, units, index, fingerprint; a record that is cut into
several points is on one side with all of them. A batch maps the stretch of
the file that it needs and the map goes with the batch, so that memory does not grow with the data; a side that is small is
held in memory instead. Pictures keep their 256 levels as bytes and become x = (level + 1/2) 2 / 256 - 1 on the way out.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..codecs import Codec
from ..config import plain
from ..errors import BadConfig, BadData, CannotWrite, printable
from ..folders import partial
from ..spaces import SIDE, Batch, Continuous, Discrete, Problem, Records
from .archives import Folder, is_full
from .documents import opened, together
from .fingerprints import duplicates, fingerprints, held_out_rows
from .manifest import Manifest
from .reader import problem
from .sources import Source

__all__ = ["IN_MEMORY_BYTES", "Encoded", "Split", "held", "prepare", "rows_of"]

IN_MEMORY_BYTES = 128 << 20  # a side of the split of up to this size is held in memory
SCATTERED = 256  # records picked under one map: each may bring in 64 kB around it
SIDES = ("train", "held_out")
_FORMAT = 3  # of the files; part of the key, so that an older layout is never read as this one
_MARK = "encoded.json"  # written last: a folder without it is not complete


@dataclass(frozen=True)
class _Quantity:
    """How one quantity lies in its file: dtype and shape of an event."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))


class Split:
    """One side of prepared data: `len`, and batches by stretch, by numbers, or all in turn."""

    def __init__(self, home: Folder, side: str, count: int, layout: dict[str, _Quantity], levels: int | None):
        self.home, self.path, self.count = home, home.path / side, count
        self.layout = {name: kind for name, kind in layout.items() if name != "fingerprint"}
        self.levels = levels if layout["x"].dtype == "uint8" else None
        self.unit = 1.0  # the weight that counts as one record
        small = count * sum(kind.bytes for kind in self.layout.values()) <= IN_MEMORY_BYTES
        self.held = {name: self._loaded(name) for name in self.layout} if small else {}

    def __len__(self) -> int:
        return self.count

    @property
    def in_memory(self) -> bool:
        """Whether batches are cut from memory; from files otherwise."""
        return bool(self.held)

    def slice(self, first: int, last: int) -> Batch:
        """Records from `first` to before `last`."""
        first, last, _ = slice(first, last).indices(self.count)
        return self._batch({name: self.held[name][first:last] if self.held else self._mapped(name, first, last)
                            for name in self.layout})

    def take(self, indices: Tensor | np.ndarray) -> Batch:
        """The records of these numbers, (B,) integers, in that order."""
        rows = torch.as_tensor(indices)
        if self.held:
            return self._batch({name: values[rows] for name, values in self.held.items()})
        return self._batch({name: torch.cat([self._picked(name, few.numpy()) for few in rows.split(SCATTERED)])
                            for name in self.layout})

    def sweep(self, batch: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The share of rank `rank` once over, at most `batch` at a time; the shares are stretches that cover all."""
        low, high = rank * self.count // ranks, (rank + 1) * self.count // ranks
        for first in range(low, high, batch):
            yield self.slice(first, min(first + batch, high))

    def _loaded(self, name: str) -> Tensor:
        kind = self.layout[name]
        return torch.from_numpy(np.fromfile(self.path / name, kind.dtype).reshape(self.count, *kind.shape))

    def _picked(self, name: str, rows: np.ndarray) -> Tensor:
        """A few records of a file, which is mapped for reading only: no memory is set aside for what might be written."""
        kind = self.layout[name]
        return torch.from_numpy(np.memmap(self.path / name, kind.dtype, "r", 0, (self.count, *kind.shape))[rows])

    def _mapped(self, name: str, first: int, last: int) -> Tensor:
        """A stretch of a file, mapped until the tensor goes; writing to it would change memory only."""
        kind = self.layout[name]
        if last <= first:
            return torch.from_numpy(np.empty((0, *kind.shape), kind.dtype))
        stretch = np.memmap(self.path / name, kind.dtype, "c", first * kind.bytes, (last - first, *kind.shape))
        return torch.from_numpy(np.asarray(stretch))

    def _batch(self, parts: dict[str, Tensor]) -> Batch:
        x = parts["x"]
        if self.levels:
            x = x.to(torch.float32).add_(0.5).mul_(2 / self.levels).sub_(1)
        elif not x.is_floating_point():
            x = x.to(torch.int64)
        units = parts["units"] if self.unit == 1 else parts["units"] / self.unit
        return Batch(x, parts.get("condition"), units, parts["index"])


@dataclass(frozen=True)
class Encoded:
    """Prepared data: the two sides of the split and the account of what they were made from."""

    train: Split
    held_out: Split
    manifest: Manifest


def prepare(source: Source, codec: Codec, label_codec: Codec | None = None, held_out: float = 0.1,
            folder: str | os.PathLike | None = None, strict: bool = False) -> Encoded:
    """Reads the source once: parse, encode, split by content, write. The codec has been fitted.

    held_out : the share of records kept apart, chosen by a hash of what they say, so that equal records are on one side and
        the order of the records never matters; a document goes as a whole where there are enough of them. Where fewer than
        two records would be, none are; train is never empty.
    folder : where the files are kept and, for the same data, codec and share, found again. Without one they go into a
        temporary folder that goes with the last of the splits.
    strict : raise BadData at the first problem, found now or when the files that are found again were made; nothing has been
        learned by then.

    Raises BadConfig SETTING_RANGE, BadData DATA_EMPTY, CannotWrite DISK_FULL or OUT_DENIED.
    """
    if not 0 <= held_out < 1:
        raise BadConfig("SETTING_RANGE", f"'held_out' is {held_out}.", "It should be from 0 to below 1.")
    if strict and source.problems:
        raise BadData(source.problems[0].code, source.problems[0].message, source.problems[0].hint)
    source.strict = source.strict or strict
    manifest = Manifest(origin=source.origin, modality=source.modality, columns=tuple(source.columns), label=source.label,
                        weight=source.weight, share=held_out, files=tuple(source.digests()), read=tuple(source.asked.items()))
    place = Path(folder) / _key(manifest, codec, label_codec) if folder is not None else None
    if place is not None and (mark := _marked(place)) is not None:
        _tell_again(mark, source)
        return _opened(Folder(place), manifest)
    if place is not None:
        with partial(place) as path:
            _encode(path, place.parent, manifest, source, codec, label_codec)
            return _opened(_settled(path, place), manifest)
    home = Folder()
    try:
        _encode(home.path, home.path.parent, manifest, source, codec, label_codec)
    except BaseException:
        home.remove()
        raise
    return _opened(home, manifest)


def _key(manifest: Manifest, codec: Codec, label_codec: Codec | None) -> str:
    """Names what the files hold: the data, the share, and the codecs with all they learned."""
    codecs = [[c.modality, plain(c.config), c.state()] for c in (codec, label_codec) if c is not None]
    return hashlib.sha256(json.dumps([_FORMAT, manifest.hash, codecs], sort_keys=True).encode()).hexdigest()[:32]


def _encode(path: Path, disk: Path, manifest: Manifest, source: Source, codec: Codec, label_codec: Codec | None) -> None:
    """`_write` into an empty folder; a full disk is told as one."""
    try:
        _write(path, manifest, source, codec, label_codec, manifest.share)
    except OSError as error:
        if is_full(error):
            raise CannotWrite("DISK_FULL", f"No room to write the encoded records in {disk}.",
                              "Free some space, or give a folder on a larger disk.") from error
        raise


def _settled(path: Path, place: Path) -> Folder:
    """Renames what is complete to its place; where another process was first, its files are as good."""
    if place.exists() and _marked(place) is None:
        shutil.rmtree(place)  # damaged since
    try:
        path.rename(place)
    except OSError:
        if _marked(place) is None:
            raise
    return Folder(place)


def _marked(place: Path) -> dict[str, Any] | None:
    """The mark of a folder whose files are all there in the sizes that it notes; None where something is amiss."""
    try:
        mark = json.loads((place / _MARK).read_text())
        return mark if mark["bytes"] == _sizes(place) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sizes(path: Path) -> dict[str, int]:
    """The bytes of each file of both sides."""
    return {f"{side}/{file.name}": file.stat().st_size for side in SIDES for file in sorted((path / side).iterdir())}


def _tell_again(mark: dict[str, Any], source: Source) -> None:
    """Reports to the source what was met when the files were made, under the name that the data has now."""
    for told in mark["problems"]:
        for part in ("where", "message"):
            if told[part].startswith(mark["origin"]):
                told[part] = source.origin + told[part].removeprefix(mark["origin"])
        source.report(Problem(**told))
    source.problem_count = max(source.problem_count, mark["counts"]["skipped"])


def _opened(home: Folder, manifest: Manifest) -> Encoded:
    mark = json.loads((home.path / _MARK).read_text())
    layout = {name: _Quantity(dtype, tuple(shape)) for name, (dtype, shape) in mark["layout"].items()}
    counted = replace(manifest, **mark["counts"])
    train, held_out = (Split(home, side, mark["counts"][side], layout, mark["levels"]) for side in SIDES)
    return Encoded(train, held_out, counted)


def _write(path: Path, manifest: Manifest, source: Source, codec: Codec, label_codec: Codec | None, share: float) -> None:
    """The one pass over the records, of which a share is held out, and the mark that it is complete."""
    again = False
    levels = codec.space.levels if isinstance(codec.space, Continuous) else None
    unused = _unused(codec) | {SIDE}
    with _Files(path) as files:
        for block in opened(source.blocks()) if codec.windowed and together(source.blocks, share) else source.blocks():
            kept, parsed, weights = _parsed(block, source, codec)
            if not kept:
                continue
            prints, unseen = fingerprints(parsed.without(*unused)), held(parsed, codec, share)
            quantities = {"units": weights, "index": block.first + np.array(kept), "fingerprint": prints}
            if label_codec is not None and source.label is not None:
                labels = Records({source.label: block.columns[source.label]}, block.origin, block.first)
                quantities["condition"] = label_codec.encode(labels).numpy()[kept]
            if not codec.windowed:
                x = codec.encode(parsed).numpy()
                quantities["x"] = ((x + 1) * (levels / 2) - 0.5).round().astype(np.uint8) if levels == 256 else x
            for side, rows in zip(SIDES, (~unseen, unseen), strict=True):
                chosen = {name: values[rows] for name, values in quantities.items()}
                if codec.windowed:
                    chosen = _windows(codec, parsed.take(np.flatnonzero(rows).tolist()), chosen, side == "train")
                files.add(side, chosen)
        if not sum(files.counts.values()):
            first = source.problems[0].message if source.problems else ""
            raise BadData("DATA_EMPTY", f"{source.origin}: not one record can be used.", first)
        if not files.counts["train"] or sum(files.counts.values()) * share < 2:
            if codec.windowed and files.counts["held_out"]:
                again = True  # what is judged by was cut in another way than what is learned from
            else:
                files.join()
    if again:
        for side in SIDES:
            shutil.rmtree(path / side)
        return _write(path, manifest, source, codec, label_codec, 0.0)
    counts = {**files.counts, "records": sum(files.counts.values()), "skipped": source.problem_count,
              "duplicates": sum(duplicates(path / side / "fingerprint") for side in SIDES)}
    layout = {name: (kind.dtype, kind.shape) for name, kind in files.layout.items()}
    mark = path / f"{_MARK}.new"
    mark.write_text(json.dumps({"layout": layout, "levels": levels, "counts": counts, "bytes": _sizes(path),
                                "origin": source.origin, "problems": [asdict(told) for told in source.problems]}))
    mark.rename(path / _MARK)


def held(parsed: Records, codec: Codec, share: float) -> np.ndarray:
    """Whether each parsed record is held out, (B,) bool: by what it says, or by what decides in its place, as
    a pair's condition does, or what its document begins with."""
    sided = parsed.columns.get(SIDE)
    return held_out_rows(fingerprints(parsed.without(*_unused(codec)) if sided is None else Records({SIDE: sided})), share)


def _unused(codec: Codec) -> set[str]:
    """The columns that are not learned, and so decide nothing."""
    return {row["column"] for row in codec.describe() if row["type"] == "identifier"}


def _windows(codec: Codec, records: Records, quantities: dict[str, np.ndarray], learning: bool) -> dict[str, np.ndarray]:
    """The quantities of the points that records are cut into, tokens in as few bytes as hold them; each has a fingerprint of
    its own, of its record's and of which it is."""
    x, of = codec.cut(records, learning)
    which = np.arange(len(of)) - np.searchsorted(of, of)
    cut = {name: values[of] for name, values in quantities.items()}
    assert isinstance(codec.space, Discrete)
    return {**cut, "x": x.numpy().astype(np.int16 if codec.space.vocabulary < 1 << 15 else np.int32),
            "units": cut["units"] * codec.units(x).numpy(), "fingerprint": cut["fingerprint"] + which.astype(np.uint64)}


def _parsed(block: Records, source: Source, codec: Codec) -> tuple[list[int], Records, np.ndarray]:
    """The usable records of a block: their rows, themselves as the codec parses them, and their weights (B,) float32."""
    weights, unusable = _weights(block, source.weight)
    problems: list[Problem] = []
    parsed = codec.parse(source.without_roles(block), problems)
    for told in [*problems, *unusable.values()]:
        source.report(told)
    rows = rows_of(block, parsed)
    if unusable:
        kept = [i for i, row in enumerate(rows) if row not in unusable]
        parsed, rows = parsed.take(kept), [rows[i] for i in kept]
    return rows, parsed, weights[rows]


def rows_of(block: Records, parsed: Records) -> list[int]:
    """Which rows of a block its parsed records were; those set aside are missing."""
    if len(parsed) == len(block):
        return list(range(len(block)))
    at = {block.where(row): row for row in range(len(block))}  # records that are taken keep their places as their names
    return [at[parsed.where(row)] for row in range(len(parsed))]


def _weights(block: Records, name: str | None) -> tuple[np.ndarray, dict[int, Problem]]:
    """Each record's weight (B,) float32, 1 without a weight column; and by row the problem TAB_WEIGHT of those without one."""
    if name is None:
        return np.ones(len(block), np.float32), {}
    column = block.columns[name]
    given = column.to_pylist() if isinstance(column, pa.Array | pa.ChunkedArray) else list(column)
    weights = np.fromiter(map(_number, given), np.float32, len(given))
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights > 0))).tolist()
    return weights, {row: problem("TAB_WEIGHT", block.where(row), f"the weight in column '{printable(name)}' is "
                                  f"{printable(given[row])!r}.", "A weight is a finite number above 0.") for row in bad}


def _number(value: Any) -> float:
    try:
        return float("nan" if value is None else value)
    except (TypeError, ValueError):
        return float("nan")


class _Files:
    """The files of both sides, appended to block by block."""

    def __init__(self, path: Path):
        self.path = path
        self.counts = dict.fromkeys(SIDES, 0)
        self.layout: dict[str, _Quantity] = {}
        self.open: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> "_Files":
        for side in SIDES:
            (self.path / side).mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.open.values():
            file.close()

    def add(self, side: str, quantities: dict[str, np.ndarray]) -> None:
        """Appends records to a side."""
        for name, values in quantities.items():
            self.layout.setdefault(name, _Quantity(values.dtype.name, values.shape[1:]))
            if (side, name) not in self.open:
                self.open[side, name] = (self.path / side / name).open("w+b")
            self.open[side, name].write(np.ascontiguousarray(values).data)
        self.counts[side] += len(quantities["x"])

    def join(self) -> None:
        """Appends what is held out to what is learned from."""
        for name in self.layout:
            held = self.open["held_out", name]
            held.seek(0)
            shutil.copyfileobj(held, self.open["train", name])
            held.seek(0)
            held.truncate()
        self.counts = {"train": sum(self.counts.values()), "held_out": 0}
