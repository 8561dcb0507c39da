"""Batches without end, shuffled anew each epoch, for ranks that never talk to each other.

Record number p of the stream is a pure function of (seed, p): p lies in epoch p // N at place p % N, and a permutation of
range(N) drawn from (seed, epoch) says which record stands there. So a run is resumed by saying how many records it has
seen, and the memory of the order is nothing at all.

The permutation is a Feistel network over the pairs (a, b) of Z_A x Z_B with A B >= N, walked on until it lands below N (Black
and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, methods 2 and 3). Each round adds a hash of one half to the
other, which can be undone, so every round is a bijection, and so is the walk. With A and B next to sqrt(N), fewer than one
number in sqrt(N) / 2 walks at all.
"""

import math
import queue
import threading
import weakref
from collections.abc import Generator, Iterator

import numpy as np

from ..seeds import GAMMA, check_seed, mixed
from ..spaces import Batch
from .cache import Split

__all__ = ["Loader", "Permutation"]

ROUNDS = 8
AHEAD = 8192  # places drawn at a time, to spread the cost of the calls


class Permutation:
    """A bijection of range(count), drawn from (seed, epoch); `permutation(p)` are the images of the places p, int64."""

    def __init__(self, count: int, seed: int, epoch: int):
        self.count = count
        self.A = math.isqrt(count - 1) + 1
        self.B = -(-count // self.A)
        key = mixed(np.array([seed], np.uint64)) + np.uint64(epoch * GAMMA & (1 << 64) - 1)
        self.keys = mixed(mixed(key) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(GAMMA))

    def __call__(self, places: np.ndarray) -> np.ndarray:
        out = self._scattered(places.astype(np.uint64))
        while (outside := out >= self.count).any():
            out[outside] = self._scattered(out[outside])
        return out.astype(np.int64)

    def _scattered(self, p: np.ndarray) -> np.ndarray:
        """One pass of the network over range(A B)."""
        A, B = np.uint64(self.A), np.uint64(self.B)
        a, b = np.divmod(p, B)
        for k_a, k_b in self.keys.reshape(-1, 2):
            a = (a + mixed(b + k_a) % A) % A
            b = (b + mixed(a + k_b) % B) % B
        return a * B + b


class Loader(Iterator[Batch]):
    """Batches of a split, endless; every record once an epoch; batches run on over the end of an epoch.

    batch : records of the global batch, of which rank r of R takes the slice [r batch / R, (r + 1) batch / R).
    samples : records seen so far, on all ranks together; a loader made with another's `samples` goes on where that stands.
    prefetch : batches made ahead by a background thread; 0 for none. The batches are the same for any number. Where nothing is
        said none are of a split in memory: to make one takes a tenth of a millisecond, and where all cores learn, a thread
        that wakes for it holds the others up for several.

    `close`, or leaving a `with`, ends the thread; so does losing the last reference.
    """

    def __init__(self, split: Split, batch: int, seed: int, samples: int = 0, rank: int = 0, ranks: int = 1,
                 prefetch: int | None = None):
        assert len(split) > 0 and batch >= ranks > rank >= 0
        self.batch, self.samples = batch, samples
        batches = _batches(split, batch, check_seed(seed), samples, rank, ranks)
        prefetch = (0 if split.in_memory else 2) if prefetch is None else prefetch
        self._made: _Ahead | Generator[Batch] = _Ahead(batches, prefetch) if prefetch else batches

    def __next__(self) -> Batch:
        made = next(self._made)
        self.samples += self.batch
        return made

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the background thread and drops what it made."""
        self._made.close()


def _batches(split: Split, batch: int, seed: int, samples: int, rank: int, ranks: int) -> Generator[Batch]:
    """The slices of rank `rank`, from record number `samples` of the stream on."""
    low, high = rank * batch // ranks, (rank + 1) * batch // ranks
    many = max(1, min(AHEAD, len(split)) // batch)
    while True:
        starts = samples + batch * np.arange(many, dtype=np.int64)
        places = (starts[:, None] + np.arange(low, high)).ravel()
        for rows in _records(places, len(split), seed).reshape(many, high - low):
            yield split.take(rows)
        samples += many * batch


def _records(places: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The record at each place of the endless stream over `count` records."""
    out = np.empty_like(places)
    epochs = places // count
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = Permutation(count, seed, int(epoch))(places[here] - epoch * count)
    return out


class _Ahead(Iterator[Batch]):
    """An iterator run ahead of its reader in a thread, which holds no reference to this object and so cannot keep it."""

    def __init__(self, items: Iterator[Batch], depth: int):
        self.ready: queue.Queue = queue.Queue(depth)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=_run_ahead, args=(items, self.ready, self.stop), daemon=True)
        self.end = weakref.finalize(self, _stop, self.thread, self.ready, self.stop)
        self.thread.start()

    def __next__(self) -> Batch:
        if self.stop.is_set():
            raise StopIteration
        item = self.ready.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """Ends the thread."""
        self.end()


def _run_ahead(items: Iterator[Batch], ready: queue.Queue, stop: threading.Event) -> None:
    try:
        for item in items:
            ready.put(item)
            if stop.is_set():
                return
    except BaseException as error:  # handed to the reader, who asked for the batch
        ready.put(error)


def _stop(thread: threading.Thread, ready: queue.Queue, stop: threading.Event) -> None:
    """Tells the thread to stop and makes room until it has."""
    stop.set()
    while thread.is_alive():
        try:
            ready.get_nowait()
        except queue.Empty:
            thread.join(0.01)
