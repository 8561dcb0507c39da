"""One thread or several: which of the two is faster just now. Import this module only where numba is there."""

import os
import threading
import time
from typing import Any

import numba
import torch

__all__ = ["Pace"]

HERE = os.getpid()
SETTINGS: Any = numba.config
ALONE = threading.Lock()  # one call at a time takes several threads: not every way that numba has to share out can do with more
TRIED, GAP, RECENT = 5, 16, 0.1  # calls that begin with trying both; from then to trying again; how much the last one counts


class Pace:
    """Whether one thread or several are faster just now: both are tried, and the slower one again from time to time.

    Threads that share out a product wait for each other. Where another process holds a core that takes a hundred times as long
    as the product; where none does, several threads read the weights at twice the rate. Results are the same.
    """

    def __init__(self) -> None:
        self.seconds, self.calls, self.gap, self.again, self.several, self.start = [0.0, 0.0], 0, GAP, GAP, False, 0.0

    def __enter__(self) -> bool:
        """Whether the call that comes is to take several threads."""
        threads = min(torch.get_num_threads(), SETTINGS.NUMBA_NUM_THREADS)
        if threads < 2 or os.getpid() != HERE:  # threads do not follow into a fork
            self.several = False
        elif self.calls < TRIED:
            self.several = self.calls % 2 == 1
        else:
            self.several = (self.seconds[1] < self.seconds[0]) != (self.calls == self.again)
        self.several = self.several and ALONE.acquire(blocking=False)
        if self.several:
            numba.set_num_threads(threads)
        self.start = time.perf_counter()
        return self.several

    def __exit__(self, *_: object) -> None:
        took, mean = time.perf_counter() - self.start, self.seconds[self.several]
        if self.several:
            ALONE.release()
        if self.calls > 0:  # the first one may have loaded or compiled something
            alone = self.calls < TRIED or self.calls == self.again
            self.seconds[self.several] = took if alone else mean + RECENT * (took - mean)
        if self.calls == self.again:
            lost = took > self.seconds[not self.several]
            self.gap = 4 * self.gap if lost else GAP
            self.again += self.gap
        self.calls += 1
