"""What a model costs: seconds of learning and of sampling, bytes on disk, and an estimate of the energy.

The energy is the processor time of this process and of those that it has started and waited for, times WATTS a busy core: a
round figure for servers and laptops alike, stated so that it can be replaced. Energy of accelerators is not in it.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WATTS", "Clock", "Cost"]

WATTS = 10.0  # of one busy core


@dataclass(frozen=True)
class Cost:
    """fit_seconds: of learning; sample_seconds: a record; bytes: of the saved model; watt_hours: of learning, estimated."""

    fit_seconds: float
    sample_seconds: float
    bytes: int
    watt_hours: float


class Clock:
    """Seconds, and seconds of processor time, since it was made."""

    def __init__(self) -> None:
        self.began, self.busy = time.perf_counter(), _busy()

    @property
    def seconds(self) -> float:
        """Seconds since."""
        return time.perf_counter() - self.began

    @property
    def watt_hours(self) -> float:
        """Energy since, estimated."""
        return (_busy() - self.busy) * WATTS / 3600


def size_of(folder: Path) -> int:
    """The bytes of the files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _busy() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
