"""Work on slabs of records, a thread a slab: no thread waits for another but at the end.

Torch shares out each operation over its threads and waits for all of them at the end of it. Where operations are as small as
a cache that costs up to a third of the time, and where another process holds a core all threads wait for the one that sleeps:
ten times slower and more. Here each thread works through its own slab with operations of its own.

Slabs depend on the number of records alone and their results come in order, so results do not depend on the threads.
"""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["over_slabs", "slabs"]

T = TypeVar("T")
MOST = 8  # threads over slabs: beyond, Python's lock is in the way, and each slab's operations get several threads
SHARED_OUT_OVER = 4  # the number of slabs is a multiple of it, so that threads end together


def slabs(B: int, rows: int) -> list[slice]:
    """Slices of B records into nearly equal slabs of at most about `rows`, in order."""
    count = -(-B // rows)
    if count > 1:
        rows = -(-B // (-(-count // SHARED_OUT_OVER) * SHARED_OUT_OVER * 64)) * 64
    return [slice(first, min(first + rows, B)) for first in range(0, B, rows)]


def over_slabs(work: Callable[[slice], T], rows: list[slice]) -> Iterator[T]:
    """What `work` returns for each slab, in order; on as many threads as torch uses in the thread that asks."""
    threads = torch.get_num_threads()
    if min(len(rows), threads) < 2:
        yield from map(work, rows)
        return
    inference = torch.is_inference_mode_enabled()

    def one(slab: slice) -> T:
        with torch.inference_mode(inference):  # modes belong to threads
            return work(slab)
    yield from _pool(threads).map(one, rows)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that share out `threads` among them: each has torch do its operations with its part of them."""
    workers = min(threads, MOST)
    ready = threading.Barrier(workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first question makes torch set up the thread; what is set before it is lost
        torch.set_num_threads(threads // workers)
        ready.wait()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="slab", initializer=begin)
    for _ in range(workers):
        pool.submit(math.sqrt, 0.0)
    ready.wait()
    torch.set_num_threads(threads)  # it is also what threads yet to come begin with
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not follow into a fork
