"""A batch in pieces: a step that is cut into rounds takes one after the other, and records are the same in any."""

from ..spaces import Batch

__all__ = ["cuts", "piece"]


def cuts(count: int, rounds: int) -> list[slice]:
    """`rounds` nearly equal slices of `count` records."""
    return [slice(r * count // rounds, (r + 1) * count // rounds) for r in range(rounds)]


def piece(batch: Batch, rows: slice) -> Batch:
    """The records of a slice, each with its own stream of noise."""
    condition = None if batch.condition is None else batch.condition[rows]
    noise = None if batch.noise is None else batch.noise.part(rows.start, rows.stop)
    return Batch(batch.x[rows], condition, batch.units[rows], batch.index[rows], noise)
