"""Folders that appear whole or not at all: what is written collects in a hidden sibling and takes its place by a rename.

    .NAME.partial-PID-RANDOM    being written; locked by its writer, so that one without a living writer can be told and removed
    .NAME.previous              what NAME was, from the first of two renames until the second is on the disk

At every moment NAME, or else `.NAME.previous`, is one whole folder: the old or the new.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import CannotWrite, printable

__all__ = ["PROVENANCE", "cannot_write", "partial", "previous", "replace", "rewrite", "vacate", "writable", "write"]

PROVENANCE = "provenance.json"  # of what was made, in its folder; of a single file, behind its name and a dot
PARTIAL = re.compile(r"\..+\.partial-\d+-[0-9a-f]{8}", re.DOTALL)
_CODES = {errno.ENOSPC: "DISK_FULL", errno.EDQUOT: "DISK_FULL", errno.EIO: "IO_ERROR"}
_HINTS = {
    "DISK_FULL": "Free some space, or choose a place on another disk.",
    "IO_ERROR": "The disk or its connection may be failing; choose another place.",
    "OUT_DENIED": "Choose a place that you may write to.",
}
_DENIED = {errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM,
           errno.EROFS}


def cannot_write(error: OSError, place: Path | str) -> CannotWrite:
    """What an operating system error while writing means to a person: DISK_FULL, OUT_DENIED or IO_ERROR."""
    code = _CODES.get(error.errno or 0, "OUT_DENIED" if error.errno in _DENIED else "IO_ERROR")
    return CannotWrite(code, f"{printable(place)} cannot be written: {error.strerror}.", _HINTS[code])


def previous(place: Path) -> Path:
    """Where the folder that stood at `place` lies while another takes its place."""
    return place.with_name(f".{place.name}.previous")


def write(path: Path, content: bytes) -> None:
    """A new file that is on the disk when this returns. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest):]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rewrite(path: Path, content: bytes) -> None:
    """A file that is the old one or the new one, whatever happens. Raises CannotWrite."""
    beside = path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write(beside, content)
        beside.replace(path)
        _on_disk(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise cannot_write(error, path) from error


@contextlib.contextmanager
def partial(place: Path) -> Iterator[Path]:
    """An empty folder beside `place` to write into; it is gone afterwards, unless `replace` has moved it.

    Raises CannotWrite for any OSError, from within the `with` block too.
    """
    folder = place.with_name(f".{place.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            with _locked(place.parent):
                _remove_abandoned(place.parent)
                folder.mkdir()
                held.callback(shutil.rmtree, folder, ignore_errors=True)
                held.enter_context(_locked(folder))
            yield folder
    except OSError as error:
        raise cannot_write(error, place) from error


def replace(folder: Path, place: Path, keep: Path | None = None) -> None:
    """Moves `folder`, made by `partial`, to `place`. What stood there is removed once that is on the disk, or moved to `keep`.

    Raises OSError; then `place` is what it was, or `load` finds it under `previous`.
    """
    old = previous(place)
    with _locked(place.parent):
        if place.exists():
            vacate(old)
            place.rename(old)
        try:
            folder.rename(place)
        except OSError:
            with contextlib.suppress(OSError):
                old.rename(place)
            raise
        _on_disk(place.parent)
        if keep is not None:
            old.rename(keep)
        shutil.rmtree(old, ignore_errors=True)


def vacate(path: Path) -> None:
    """Removes a folder if it is there. Raises OSError."""
    if path.exists():
        shutil.rmtree(path)


def writable(place: Path) -> None:
    """Tries whether something can be written at `place`, before work begins, and leaves nothing. Raises CannotWrite."""
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        with partial(place) as folder:
            write(folder / "probe", b"\0")
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _on_disk(folder: Path) -> None:
    """Names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock, which the system gives back when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Removes what writers in a folder left that are no more: their locks can be had. What cannot be removed is let lie."""
    for left in folder.iterdir():
        if PARTIAL.fullmatch(left.name):
            with contextlib.suppress(OSError):
                _remove_unlocked(left)


def _remove_unlocked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
