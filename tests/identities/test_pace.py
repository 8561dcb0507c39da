"""One thread or several: the faster is used, whichever it is just now, and asking costs little."""

import time

import pytest

from verossim.nn import pace
from verossim.nn.pace import Pace


class Calls:
    """Calls that take so many seconds on one thread and on several, by a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, alone: float, several: float):
        self.now, self.alone, self.several, self.pace = 0.0, alone, several, Pace()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(pace.torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(pace, "SETTINGS", type("Settings", (), {"NUMBA_NUM_THREADS": 2}))
        monkeypatch.setattr(pace.numba, "set_num_threads", lambda threads: None)

    def took(self, count: int) -> tuple[float, int]:
        """Of so many calls, the seconds, and how many of them had several threads."""
        began, shared = self.now, 0
        for _ in range(count):
            with self.pace as threads:
                self.now += self.several if threads > 1 else self.alone
            shared += threads > 1
        return self.now - began, shared


def test_the_faster_way_is_used(monkeypatch):
    assert Calls(monkeypatch, 1.0, 0.5).took(1000)[1] > 900
    assert Calls(monkeypatch, 0.5, 1.0).took(1000)[1] < 100


def test_where_threads_cost_a_hundred_times_as_much_trying_them_costs_a_few_hundredths(monkeypatch):
    assert Calls(monkeypatch, 1.0, 100.0).took(20_000)[0] < 1.05 * 20_000


def test_that_a_core_is_free_again_is_found(monkeypatch):
    calls = Calls(monkeypatch, 1.0, 100.0)
    calls.took(10_000)
    calls.several = 0.5
    calls.took(11_000)  # 198 lost in the first trials, of which two hundredths are allowed
    assert calls.took(1000)[1] > 900
