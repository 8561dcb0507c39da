"""The two sides of a source as records: those that `prepare` lets be learned from, and those that it holds out.

The side of a record follows from what the record says, or its document begins with, so that it is found again without what
was prepared: whoever judges a model by the records that it has not seen needs only the source, the codec and the share. Where
documents are too few to be held out whole, records are their stretches.
"""

from collections.abc import Iterator

import numpy as np

from ..codecs import Codec
from ..seeds import mixed
from ..spaces import SIDE, Problem, Records
from .cache import held, rows_of
from .documents import opened, together, whole
from .people import joined
from .sources import Source

__all__ = ["Chosen", "few", "lots", "sides"]


def sides(source: Source, codec: Codec, share: float, most: int = 10_000, seed: int = 0) -> tuple[Records, Records]:
    """The raw records that are learned from and those that are held out by this share, with their labels; of each side at
    most `most`, chosen by a hash of their numbers. The codec has been fitted to the source."""
    kept = Chosen(most, seed), Chosen(most, seed)
    for block, side in _sided(source, codec, share):
        for place in (0, 1):
            kept[place].add(block.take(np.flatnonzero(side == place).tolist()))
    return kept[0].records(), kept[1].records()


class Chosen:
    """Of all records that it is given, block by block, at most `most`, in order: those whose number has the least hash, so that
    each is as likely as any other wherever it stood. It holds no more than twice as many and a block."""

    def __init__(self, most: int, seed: int = 0):
        self.most, self.seed, self.given = most, seed, 0
        self.blocks: list[Records] = []
        self.numbers: list[np.ndarray] = []

    def add(self, block: Records) -> None:
        """Takes the next records, all of the same columns."""
        self.numbers.append(np.arange(self.given, self.given + len(block)))
        self.blocks.append(block)
        self.given += len(block)
        if sum(map(len, self.blocks)) > 2 * self.most:
            self._cut()

    def records(self) -> Records:
        """Those that are chosen so far; none, without columns, where none was given."""
        if len(self.blocks) > 1 or self.given > self.most:
            self._cut()
        return self.blocks[0] if self.blocks else Records({})

    def _cut(self) -> None:
        numbers, records = np.concatenate(self.numbers), joined([block for block in self.blocks if len(block)] or self.blocks)
        if len(numbers) > self.most:
            rows = lots(numbers, self.most, self.seed)
            numbers, records = numbers[rows], records.take(rows.tolist())
        self.numbers, self.blocks = [numbers], [records]


def lots(numbers: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """The places, rising, of the `most` numbers (N,) that have the least hash, or of all."""
    keys = mixed(numbers.astype(np.uint64) ^ mixed(np.array([seed + 1], np.uint64)))
    return np.sort(np.argsort(keys, kind="stable")[:most])


def few(records: Records, most: int, seed: int = 0) -> Records:
    """At most `most` of the records, chosen by a hash of their number, in order."""
    chosen = Chosen(most, seed)
    chosen.add(records)
    return chosen.records()


def _sided(source: Source, codec: Codec, share: float) -> Iterator[tuple[Records, np.ndarray]]:
    """Blocks of usable records, and 1 for each that is held out, else 0."""
    problems: list[Problem] = []
    apart = codec.windowed and together(source.blocks, share)
    for block in whole(opened(source.blocks())) if apart else source.blocks():
        parsed = codec.parse(source.without_roles(block), problems)
        if len(parsed):
            yield block.take(rows_of(block, parsed)).without(SIDE), held(parsed, codec, share).astype(np.int64)
