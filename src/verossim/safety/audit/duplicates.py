"""Records that are there twice: in the training data, and in training and held-out data alike.

A held-out record that was learned from is no measure of what was not: it is left out, and said first. Where records coincide by
nature (a table of few categories has many equal rows), as often within the training data as across, they stay.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...intervals import Interval, clopper_pearson
from .neighbours import POINTS, Frame, nearest

__all__ = ["Distinct", "Duplicates", "deviations", "distinct", "find_duplicates", "spread"]

NEAR = 0.02  # of the records' spread, the root of their summed variances: the distance of near duplicates
NATURAL = 0.1  # share of held-out records that are training records, from which on they may be so by nature


@dataclass(frozen=True)
class Duplicates:
    """Records that are there twice.

    exact : training records that repeat an earlier one; most : how often the commonest is there; near : share of the different
    training records, of `looked` drawn from them, that have another within NEAR of the spread; near_held_out : the same of
    held-out records; overlap : held-out records that are training records; natural : whether records coincide by nature.
    """

    exact: int
    most: int
    near: Interval
    near_held_out: Interval
    looked: int
    overlap: int
    natural: bool


@dataclass(frozen=True)
class Distinct:
    """train : places of the different training records (first occurrences); both : which of them (of these places) are held out
    as well; held_out : places of the held-out records that count; fresh : of those, the different ones that are no training
    records; exact, most, overlap, natural : as in Duplicates."""

    train: np.ndarray
    both: np.ndarray
    held_out: np.ndarray
    fresh: np.ndarray
    exact: int
    most: int
    overlap: int
    natural: bool


def distinct(train: np.ndarray, held_out: np.ndarray) -> Distinct:
    """Tells records apart by a hash of their values: train (N, D), held_out (M, D)."""
    mine, its = _prints(train), _prints(held_out)
    times = Counter(mine)
    firsts: dict[bytes, int] = {}
    for place, key in enumerate(mine):
        firsts.setdefault(key, place)
    known = np.array([key in times for key in its])
    shared = set(its) & set(times)
    twins = sum(n for n in times.values() if n > 1) / len(mine)
    natural = bool(known.mean() >= NATURAL and twins >= known.mean() / 2)
    fresh = {key: place for place, key in reversed(list(enumerate(its))) if key not in times}
    return Distinct(train=np.array(list(firsts.values())), both=np.array([key in shared for key in firsts]),
                    held_out=np.arange(len(its)) if natural else np.flatnonzero(~known),
                    fresh=np.array(sorted(fresh.values()), dtype=np.int64), exact=len(mine) - len(times),
                    most=max(times.values()), overlap=int(known.sum()), natural=natural)


def find_duplicates(train: np.ndarray, found: Distinct, nearest_held_out: np.ndarray, frame: Frame, most: int,
                    rng: np.random.Generator) -> Duplicates:
    """Near duplicates among the different training records (N, D), against the nearest distances (M,) of held-out ones; at most
    `most` of these are looked at."""
    N = len(train)
    looked = np.sort(rng.choice(N, most, replace=False)) if most < N else np.arange(N)
    own = nearest(train[looked], train, 1, frame, looked).distance[:, 0]
    near = NEAR * spread(train, frame)
    return Duplicates(found.exact, found.most, clopper_pearson(int((own <= near).sum()), len(own)),
                      clopper_pearson(int((nearest_held_out <= near).sum()), len(nearest_held_out)), len(looked), found.overlap,
                      found.natural)


def spread(records: np.ndarray, frame: Frame) -> float:
    """The root of the summed variances of records (N, D), in the frame."""
    return float(np.linalg.norm(deviations(records, frame)))


def deviations(records: np.ndarray, frame: Frame) -> np.ndarray:
    """The standard deviation (D,) of each entry of records (N, D), in the frame."""
    mean = records.mean(axis=0, dtype=np.float64)
    squares = sum(((records[i:i + POINTS] - mean) ** 2).sum(axis=0) for i in range(0, len(records), POINTS))
    return np.sqrt(squares / len(records)) / frame.scale


def _prints(records: np.ndarray) -> list[bytes]:
    """A hash of each record (N, D) by its values as float64; -0 is 0."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for i in range(0, len(records), POINTS)
            for row in np.ascontiguousarray(records[i:i + POINTS], dtype=np.float64) + 0.0]
