"""What happened while learning: an append-only file of events, the console's and the studio's only source.

One JSON object a line, written and flushed at once, so that a run that dies leaves all it said. A line cut short by such a
death is closed when the file is opened again and passed over when it is read. Numbers that are not finite are written as
null, since JSON has no word for them.
"""

import errno
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CannotWrite

__all__ = ["Journal", "read_events"]

Listener = Callable[[dict[str, Any]], None]


class Journal:
    """Events of one run, appended to `path` (nowhere when None) and told to each listener.

    Raises CannotWrite OUT_DENIED if the file cannot be opened. A line that cannot be written stops nothing: the listeners are
    told of the first, with the code DISK_FULL or IO_ERROR, and of every event as before.
    """

    def __init__(self, path: str | Path | None = None, *listeners: Listener):
        self.path = None if path is None else Path(path)
        self.listeners = list(listeners)
        self.file = None if self.path is None else _opened(self.path)
        self.failed = False

    def event(self, kind: str, **values: Any) -> None:
        """Says that something happened: {"event": kind, "time": seconds since 1970, **values}."""
        said = {"event": kind, "time": round(time.time(), 3), **{name: _plain(value) for name, value in values.items()}}
        if self.file is not None:
            try:
                self.file.write(json.dumps(said, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n")
            except OSError as error:
                first, self.failed = not self.failed, True
                if first:
                    code = "DISK_FULL" if error.errno == errno.ENOSPC else "IO_ERROR"
                    self.warn(code, f"{self.path}: cannot be written: {error.strerror}.",
                              "Events are lost to the file until it can be written again.")
        for listener in self.listeners:
            listener(said)

    def warn(self, code: str, message: str, hint: str = "") -> None:
        """An event for people to notice: kind "warning", with a stable code, what is wrong and what to do."""
        self.event("warning", code=code, message=message, hint=hint)

    def listen(self, listener: Listener) -> None:
        """Tells `listener` every event from now on."""
        self.listeners.append(listener)

    def close(self) -> None:
        """Closes the file; further events reach the listeners only."""
        if self.file is not None:
            self.file.close()
            self.file = None


def read_events(path: str | Path) -> list[dict[str, Any]]:
    """The events of a journal in order; lines cut short by a death while writing are passed over."""
    events = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def _opened(path: Path) -> Any:
    """The file, ready to append whole lines: a last line without its end gets one."""
    try:
        file = path.open("a+b", buffering=0)
        torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
    except OSError as error:
        raise CannotWrite("OUT_DENIED", f"{path}: cannot be opened for writing: {error.strerror}.",
                          "Choose a folder that you may write to.") from error
    if torn:
        file.write(b"\n")
    return file


def _plain(value: Any) -> Any:
    """A value as JSON can say it: non-finite numbers become None, numbers of other libraries Python's, the rest text."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None
