"""The two sides of a source as records: those that `prepare` lets be learned from, and those that it holds out.

The side of a record follows from what the record says, so that it is found again without what was prepared: whoever judges a
model by the records that it has not seen needs only the source, the codec and the share.
"""

from collections.abc import Iterator

import numpy as np

from ..codecs import Codec
from ..seeds import mixed
from ..spaces import Problem, Records
from .cache import held, rows_of
from .documents import whole
from .people import joined
from .sources import Source

__all__ = ["few", "sides"]


def sides(source: Source, codec: Codec, share: float, most: int = 10_000, seed: int = 0) -> tuple[Records, Records]:
    """The raw records that are learned from and those that are held out by this share, with their labels; of each side at
    most about `most`, chosen by a hash of their numbers. The codec has been fitted to the source."""
    kept: tuple[list[Records], list[Records]] = ([], [])
    counts = [0, 0]
    for block, side in _sided(source, codec, share):
        for place in (0, 1):
            part = block.take(np.flatnonzero(side == place).tolist())
            if len(part):
                kept[place].append(part)
                counts[place] += len(part)
            if sum(map(len, kept[place])) > 2 * most:
                kept[place][:] = [few(joined(kept[place]), most, seed)]
    empty = next((block.take([]) for blocks in kept for block in blocks), Records({}))
    learned, unseen = (few(joined(blocks), most, seed) if blocks else empty for blocks in kept)
    return learned, unseen


def few(records: Records, most: int, seed: int = 0) -> Records:
    """At most `most` of the records, chosen by a hash of their number, in order."""
    if len(records) <= most:
        return records
    keys = mixed(np.arange(len(records), dtype=np.uint64) ^ mixed(np.array([seed + 1], np.uint64)))
    return records.take(np.sort(np.argsort(keys, kind="stable")[:most]).tolist())


def _sided(source: Source, codec: Codec, share: float) -> Iterator[tuple[Records, np.ndarray]]:
    """Blocks of usable records, and 1 for each that is held out, else 0."""
    problems: list[Problem] = []
    for block in whole(source.blocks()):
        parsed = codec.parse(source.without_roles(block), problems)
        if len(parsed):
            yield block.take(rows_of(block, parsed)), held(parsed, codec, share).astype(np.int64)
