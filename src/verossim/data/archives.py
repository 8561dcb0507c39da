"""Archives, unpacked into a temporary folder under limits that count what comes out, never what the headers claim.

A member may only be a plain file under a relative name. Links, devices, `..`, drive letters and encrypted members are
refused, and so is what unpacks to far more than it is (bombs: deep compression, entries that share their bytes, archives
in archives, entries beyond count). On any failure the folder is removed, so that nothing is kept.
"""

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import BadData, CannotWrite, printable
from .paths import failure, open_regular
from .sniff import kind_of

__all__ = ["ENTRIES", "FREE_BYTES", "PACKED", "RATIO", "Folder", "is_full", "unpack"]

PACKED = ("zip", "tar", "gzip", "bzip2", "xz")
#: An archive may unpack to this many times its own size ...
RATIO = 200
#: ... and to this many bytes whatever its size.
FREE_BYTES = 32 << 20
ENTRIES = 500_000  # and hold this many files and folders
DEPTH = 64  # folders one inside the other
NAME_BYTES = 2048  # of a member's whole name; with the target folder's it must stay below what the system takes, 4096
CHUNK = 1 << 20
_DIRECTORY_BYTES = 256 * ENTRIES  # of a zip's table of contents

_OPENERS: dict[str, Any] = {"gzip": lambda file: gzip.GzipFile(fileobj=file), "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, struct.error)


class Folder:
    """A temporary folder that goes with the last object that holds it, or with the process."""

    def __init__(self, keep: Path | None = None):
        self.path = keep or Path(tempfile.mkdtemp(prefix="verossim-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True) if keep is None else lambda: None


def is_full(error: OSError) -> bool:
    """Whether the error says that there is no room to write (full disk, quota, file size limit)."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unpack(path: Path, origin: str, kind: str) -> Folder:
    """A temporary folder with the archive's files. `kind` as `kind_of` tells it.

    Raises BadData ARC_PATH, ARC_BOMB, ARC_LOCKED or ARC_CORRUPT and CannotWrite DISK_FULL; then nothing is kept.
    """
    folder = Folder()
    try:
        with open_regular(path, origin) as file:
            _Unpacking(folder.path, origin, os.fstat(file.fileno()).st_size).run(file, kind, path.name)
    except BaseException as error:
        folder.remove()
        if isinstance(error, OSError) and is_full(error):
            raise CannotWrite("DISK_FULL", f"{origin}: no room to unpack it in {folder.path.parent}.",
                              "Free some space, or set TMPDIR to a larger disk.") from error
        if isinstance(error, _DAMAGE) or (isinstance(error, OSError) and error.errno is None):
            raise BadData("ARC_CORRUPT", f"{origin}: the archive is damaged or cut off: {printable(error)}.",
                          "Pack it again.") from error
        if isinstance(error, OSError):
            raise failure(error, origin) from error
        raise
    return folder


class _Unpacking:
    """One unpacking: where to, and how many bytes may still come out."""

    def __init__(self, target: Path, origin: str, packed: int):
        self.target, self.origin = target, origin
        self.left = max(FREE_BYTES, RATIO * packed)
        self.entries = 0
        self.counted = False  # whether the stream below counts the bytes already

    def run(self, file: BinaryIO, kind: str, name: str) -> None:
        if kind == "zip":
            self._zip(file)
        elif kind == "tar":
            self._tar(file)
        else:
            self.counted = True
            self._single(_Counted(_OPENERS[kind](file), self), re.sub(r"\.(gz|bz2|xz)$", "", name) or "data")

    def bomb(self, why: str) -> BadData:
        return BadData("ARC_BOMB", f"{self.origin}: {why}.", "If you trust it, unpack it yourself and give the folder.")

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise self.bomb(f"it unpacks to more than {RATIO} times its size")

    def _single(self, stream: "_Counted", name: str) -> None:
        start = stream.read(1024)
        if kind_of(start) == "tar":
            self._tar(_Again(start, stream))
        else:
            self._write(name, _Again(start, stream))

    def _zip(self, file: BinaryIO) -> None:
        self._check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            end = 0
            for member in members:
                if member.header_offset < end:
                    raise self.bomb("entries share the same bytes")
                end = member.header_offset + 30 + member.compress_size
                if member.flag_bits & 1:
                    raise BadData("ARC_LOCKED", f"{self.origin}: '{printable(member.filename)}' is encrypted.",
                                  "Unpack it with its password and give the folder.")
                if member.compress_type not in _METHODS:
                    raise BadData("ARC_CORRUPT", f"{self.origin}: '{printable(member.filename)}' is packed in an unknown way.",
                                  "Pack it again, with deflate.")
                mode = member.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self._bad_path(member.filename, "is a link or a device")
            for member in members:
                if member.is_dir():
                    self._count()
                else:
                    with archive.open(member) as source:
                        self._write(member.orig_filename, source)

    def _check_directory(self, file: BinaryIO) -> None:
        """Refuses a table of contents that would be long to read: its size stands in the record at the end of the file."""
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 65_557 - 20))
        tail = file.read(65_577)
        at = tail.rfind(b"PK\x05\x06")
        count, size = struct.unpack_from("<HI", tail, at + 10) if 0 <= at <= len(tail) - 22 else (0, 0)
        if count == 0xFFFF or size == 0xFFFFFFFF:
            count, size = ENTRIES if length < _DIRECTORY_BYTES else 0, min(size, length)
            at = tail.rfind(b"PK\x06\x06")
            if 0 <= at <= len(tail) - 56:
                count, size = struct.unpack_from("<QQ", tail, at + 32)
        if count > ENTRIES or size > _DIRECTORY_BYTES:
            raise self.bomb(f"it holds {count:,} entries and {ENTRIES:,} are the limit")
        file.seek(0)

    def _tar(self, stream: Any) -> None:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    self._count()
                    continue
                if not member.isreg():
                    raise self._bad_path(member.name, "is a link or a device")
                source = archive.extractfile(member)
                assert source is not None
                self._write(member.name, source, member.issparse())

    def _count(self) -> None:
        self.entries += 1
        if self.entries > ENTRIES:
            raise self.bomb(f"it holds more than {ENTRIES:,} entries")

    def _make(self, folder: Path) -> None:
        """The folder of a member. Each that is new is an entry too: a name of few bytes can ask for many."""
        absent = []
        while not folder.exists():
            absent.append(folder)
            folder = folder.parent
        for folder in reversed(absent):
            self._count()
            folder.mkdir()

    def _write(self, name: str, source: Any, sparse: bool = False) -> None:
        """One member as a file; its bytes are counted as they come. The holes of a sparse one are in no stream."""
        self._count()
        path = self.target / self._safe(name)
        try:
            self._make(path.parent)
            with path.open("xb") as out:
                for chunk in iter(lambda: source.read(CHUNK), b""):
                    if out.tell() == 0 and self._nested(chunk, name):
                        raise self.bomb(f"'{printable(name)}' is an archive inside the archive")
                    if sparse or not self.counted:
                        self.spend(len(chunk))
                    out.write(chunk)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._bad_path(name, "stands there twice") from error

    def _nested(self, chunk: bytes, name: str) -> bool:
        kind = kind_of(chunk[:4096])
        return kind in PACKED and not (kind == "zip" and name.lower().endswith(".npz"))

    def _safe(self, name: str) -> str:
        parts = name.split("/")
        if "\0" in name or "\\" in name or name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
            raise self._bad_path(name, "leads out of the target folder")
        if not name or len(os.fsencode(name)) > NAME_BYTES or any(len(os.fsencode(part)) > 255 for part in parts):
            raise self._bad_path(name, "is not a name that a file can have")
        if len(parts) > DEPTH + 1:
            raise self._bad_path(name, f"lies more than {DEPTH} folders deep")
        return name

    def _bad_path(self, name: str, why: str) -> BadData:
        return BadData("ARC_PATH", f"{self.origin}: the member '{printable(name)}' {why}.",
                       "Pack plain files under relative names.")


class _Counted:
    """A decompressed stream whose bytes are counted against the limit as they come out."""

    def __init__(self, stream: Any, unpacking: _Unpacking):
        self.stream, self.unpacking = stream, unpacking

    def read(self, count: int = CHUNK) -> bytes:
        data = self.stream.read(min(count, CHUNK))
        self.unpacking.spend(len(data))
        return data


class _Again:
    """A stream whose beginning has been read, from the beginning."""

    def __init__(self, start: bytes, rest: Any):
        self.start, self.rest = start, rest

    def read(self, count: int = CHUNK) -> bytes:
        if self.start:
            data, self.start = self.start[:count], self.start[count:]
            return data
        return self.rest.read(count)
