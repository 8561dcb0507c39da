"""One thread or several: which of the two is faster just now. Import this module only where numba is there."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Hashable
from typing import Any

import numba
import torch

__all__ = ["Pace", "pace"]

HERE = os.getpid()
SETTINGS: Any = numba.config
ALONE = threading.Lock()  # one call at a time takes several threads: not every way that numba has to share out can do with more
TRIED, RECENT = 5, 0.1  # calls that begin with trying both; how much the last one counts
GAP, COST = 16, 0.02  # calls from one trial to the next, at least; the share of the time that trials may lose


class Pace:
    """Whether one thread or several are faster just now: both are tried, and the slower one again from time to time.

    Threads that work on one layer wait for each other. Where another process holds a core that takes a hundred times as long
    as the layer; where none does, several threads read the weights at twice the rate. Results are the same.
    """

    def __init__(self) -> None:
        self.seconds, self.calls, self.since, self.lost = [0.0, 0.0], 0, 0.0, 0.0
        self.several, self.trial, self.start = False, False, 0.0

    def __enter__(self) -> int:
        """How many threads the call that comes is to take."""
        threads = min(torch.get_num_threads(), SETTINGS.NUMBA_NUM_THREADS)
        faster = self.seconds[1] < self.seconds[0]
        self.trial = self.calls >= TRIED and self.since >= max(GAP * self.seconds[faster], self.lost / COST)
        wanted = self.calls % 2 == 1 if self.calls < TRIED else faster != self.trial
        able = threads > 1 and os.getpid() == HERE  # threads do not follow into a fork
        if able and threads != KNOWN.threads:
            numba.set_num_threads(threads)
            KNOWN.threads = threads
        self.several = wanted and able and ALONE.acquire(blocking=False)
        self.trial = self.trial and self.several == wanted
        self.start = time.perf_counter()
        return threads if self.several else 1

    def __exit__(self, *_: object) -> None:
        took, mean = time.perf_counter() - self.start, self.seconds[self.several]
        if self.several:
            ALONE.release()
        if self.calls > 0:  # the first one may have loaded or compiled something
            first = self.calls < TRIED or self.trial or mean == 0
            self.seconds[self.several] = took if first else mean + RECENT * (took - mean)
        more = max(0.0, took - self.seconds[not self.several])
        if self.trial:
            self.since, self.lost = 0.0, more
        elif 0 < self.calls < TRIED and self.several:
            self.lost += more
        else:
            self.since += took
        self.calls += 1


class _Known(threading.local):
    def __init__(self) -> None:
        self.paces, self.threads = defaultdict[Hashable, Pace](Pace), 0


KNOWN = _Known()


def pace(kind: Hashable) -> Pace:
    """The pace of calls of a kind, as this thread knows it."""
    return KNOWN.paces[kind]
