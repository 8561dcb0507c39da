"""Opening what a person points at, when it may be anything: a pipe that never answers, a link that leads away, nothing.

A path is opened without following links and without blocking, and what was opened is asked what it is: a check before
the opening could be outrun.
"""

import errno
import io
import os
import stat
from pathlib import Path

from ..errors import BadData, near, printable

__all__ = ["failure", "head", "missing", "open_regular", "read_regular"]

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC

_FAILURES = {
    errno.ENOENT: ("IO_GONE", "the file is no longer there.", "Keep the data in place while it is read."),
    errno.EACCES: ("IO_DENIED", "there is no permission to read it.", "Change its mode, or read it as its owner."),
    errno.EPERM: ("IO_DENIED", "there is no permission to read it.", "Change its mode, or read it as its owner."),
    errno.ELOOP: ("PATH_LOOP", "the link leads back to itself.", "Remove the link."),
    errno.ENXIO: ("PATH_NOT_FILE", "it is a socket or a device, not a file.", "Remove it from the folder."),
}


def failure(error: OSError, where: str) -> BadData:
    """What an operating system error means to a person: IO_GONE, IO_DENIED, PATH_LOOP, PATH_NOT_FILE or IO_ERROR."""
    code, message, hint = _FAILURES.get(error.errno or 0, ("IO_ERROR", f"it cannot be read: {error.strerror}.", ""))
    return BadData(code, f"{where}: {message}", hint)


def open_regular(path: Path | str, where: str) -> io.FileIO:
    """The regular file at `path`, open for reading, unbuffered. Raises BadData as `failure`, PATH_NOT_FILE for the rest."""
    try:
        descriptor = os.open(path, _OPEN)
    except OSError as error:
        raise failure(error, where) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadData("PATH_NOT_FILE", f"{where}: it is a pipe, a device or a folder, not a file.", "Remove it.")
    return io.FileIO(descriptor, "rb")


def read_regular(path: Path | str, where: str, limit: int) -> bytes | None:
    """The whole file, or None where it holds more than `limit` bytes: then nothing is read."""
    with open_regular(path, where) as file:
        if os.fstat(file.fileno()).st_size > limit:
            return None
        try:
            return file.readall()
        except OSError as error:
            raise failure(error, where) from error


def head(path: Path | str, where: str, count: int = 4096) -> bytes:
    """The first bytes of a regular file."""
    with open_regular(path, where) as file:
        return file.read(count) or b""


def missing(path: Path) -> BadData:
    """DATA_MISSING for a path that is not there, with near names from the folder it should be in."""
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = [printable(entry.name) for entry in folder.iterdir()] if os.access(folder, os.R_OK) else []
    there = f"In {printable(folder)}: {near(path.name, names)}" if names else f"{printable(folder)} is empty."
    return BadData("DATA_MISSING", f"{printable(path)} does not exist.", there)
