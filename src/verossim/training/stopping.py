"""Signals that ask a run to stop: they set a flag, and the loop stops at the end of its step, having saved.

Ctrl-C a second time stops at once, by the handler that was there before.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["SIGNALS", "Stop", "stopping"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether, and by which signal, a run was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def status(self) -> int:
        """The exit status that tells which signal it was: 128 + its number."""
        return 128 + (self.signal or 0)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """A Stop that SIGINT and SIGTERM set while the `with` block runs; in other threads than the main one, none does."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        signal.signal(number, before[number])
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
