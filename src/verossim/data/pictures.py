"""A folder of pictures, class by sub-folder or by a labels.csv, walked without following it anywhere it should not lead.

Pictures are delivered as the bytes that lie in the file, read once and hashed from the same bytes; decoding, and judging
what a header claims, is the image codec's.
"""

import csv
import hashlib
import io
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ..errors import BadData, printable
from ..folders import PROVENANCE
from ..spaces import Problem, Records
from .paths import failure, head, open_regular, read_regular
from .reader import FileEntry, Reader, Report, problem
from .sniff import PICTURE_SUFFIXES, encoding_of, is_picture

__all__ = ["LABELS", "Found", "PictureReader", "by_folder", "walk"]

LABELS = "labels.csv"
BLOCK_PICTURES = 256
BLOCK_BYTES = 64 << 20  # encoded bytes of a block, at most one picture more
GONE_SHARE = 0.01  # more of the pictures than this may not vanish while they are read


@dataclass
class Found:
    """What a walk met: regular files by their name under the root, in order, the targets of links among them, and what
    was passed over."""

    names: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def walk(root: Path) -> Found:
    """All regular files under a folder, by name. Hidden files are left out; a link is followed only inside the folder.

    Passed over: PATH_LOOP, PATH_ESCAPE, PATH_NOT_FILE, IO_DENIED, IO_GONE. Raises BadData where the folder itself
    cannot be read.
    """
    found = Found()
    _walk(root, "", os.path.realpath(root), (), found)
    found.names.sort()
    return found


def _walk(folder: Path | str, prefix: str, root: str, chain: tuple[tuple[int, int], ...], found: Found) -> None:
    try:
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in chain:
            found.problems.append(problem("PATH_LOOP", prefix.rstrip("/"), "the link leads back to a folder that holds it.",
                                          "Remove the link."))
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        told = failure(error, printable(prefix.rstrip("/") or folder))
        if not prefix:
            raise told from error
        found.problems.append(_passed_over(told, prefix.rstrip("/")))
        return
    for entry in entries:
        if not entry.name.startswith("."):
            _visit(entry, prefix + entry.name, root, (*chain, (here.st_dev, here.st_ino)), found)


def _visit(entry: os.DirEntry, name: str, root: str, chain: tuple[tuple[int, int], ...], found: Found) -> None:
    try:
        target = os.path.realpath(entry.path, strict=True) if entry.is_symlink() else None
        if target is not None and os.path.commonpath([root, target]) != root:
            found.problems.append(problem("PATH_ESCAPE", name, "the link leads out of the folder.", "Copy the file here."))
        elif entry.is_dir():
            _walk(entry.path, name + "/", root, chain, found)
        elif not entry.is_file():
            found.problems.append(problem("PATH_NOT_FILE", name, "it is a pipe, a socket or a device, not a file.",
                                          "Remove it from the folder."))
        elif entry.name != PROVENANCE and not entry.name.endswith(f".{PROVENANCE}"):  # what was made here, not data
            found.names.append(name)
            if target is not None:
                found.targets[name] = target
    except OSError as error:
        found.problems.append(_passed_over(failure(error, printable(name)), name))


def _passed_over(error: BadData, name: str) -> Problem:
    return Problem(error.code, name, error.message, error.hint)


class PictureReader(Reader):
    """Pictures of a folder by name: columns "image" (bytes) and, where there are classes, "label" (str or None)."""

    modality = "image"

    def __init__(self, root: Path, origin: str, found: Found, image_pixels: int):
        self.root, self.targets = root, found.targets
        self.names = [name for name in found.names if self._may_be_picture(name)]
        if not self.names:
            raise BadData("DATA_EMPTY", f"{origin} holds no picture.",
                          f"Accepted suffixes: {' '.join(sorted(PICTURE_SUFFIXES - {'.svg'}))}.")
        listed = _listed(root / LABELS, self.names, origin) if LABELS in found.names else None
        self.labels = listed if listed is not None else by_folder(self.names)
        super().__init__(origin, pa.schema([("image", pa.binary())] + ([("label", pa.string())] if self.labels else [])))
        self.label = "label" if self.labels else None
        self.problems.extend(found.problems)
        self.limit = 8 * image_pixels + (1 << 20)  # no picture within the cap takes more than 8 bytes a pixel
        self.sizes = array("q", [-1]) * len(self.names)
        self.hashes = bytearray(32 * len(self.names))
        self._note(found, listed is not None)

    def blocks(self, size: int, report: Report) -> Iterator[Records]:
        """Blocks of at most 256 pictures and about 64 MB of encoded bytes. Raises BadData IO_GONE where many vanish."""
        rows: list[int] = []
        held: list[bytes] = []
        first = gone = total = 0
        for row, name in enumerate(self.names):
            try:
                data = read_regular(self._path(name), printable(name), self.limit)
            except BadData as error:
                report(_passed_over(error, name))
                gone += error.code == "IO_GONE"
                if gone > max(10, GONE_SHARE * len(self.names)):
                    raise BadData("IO_GONE", f"{self.origin}: {gone} of {len(self.names)} pictures vanished while being read.",
                                  "Keep the data in place while it is read.") from error
                continue
            if data is None:
                report(problem("IMG_TOO_LARGE", name, f"the file has more than {self.limit:,} bytes.", "Make it smaller."))
                continue
            self.sizes[row], self.hashes[32 * row:32 * row + 32] = len(data), hashlib.sha256(data).digest()
            rows.append(row)
            held.append(data)
            total += len(data)
            if len(rows) == min(size, BLOCK_PICTURES) or total >= BLOCK_BYTES:
                yield self._block(rows, held, first)
                first, total, rows, held = first + len(rows), 0, [], []
        if rows:
            yield self._block(rows, held, first)

    def digests(self) -> Iterator[FileEntry]:
        """Every picture that could be read."""
        if max(self.sizes) < 0:
            for _ in self.blocks(BLOCK_PICTURES, lambda problem: None):
                pass
        for row, name in enumerate(self.names):
            if self.sizes[row] >= 0:
                yield FileEntry(name, self.sizes[row], self.hashes[32 * row:32 * row + 32].hex())

    def _block(self, rows: list[int], held: list[bytes], first: int) -> Records:
        columns: dict[str, list] = {"image": held}
        if self.labels:
            columns["label"] = [self.labels[row] for row in rows]
        return Records(columns, self.origin, first, [self.names[row] for row in rows])

    def _path(self, name: str) -> str:
        return self.targets.get(name) or f"{self.root}/{name}"

    def _may_be_picture(self, name: str) -> bool:
        if Path(name).suffix.lower() in PICTURE_SUFFIXES:
            return True
        try:
            return is_picture(head(self._path(name), printable(name), 16))
        except BadData:
            return False  # unreadable, and nothing says that it is a picture

    def _note(self, found: Found, listed: bool) -> None:
        others = len(found.names) - len(self.names) - listed
        if others:
            self.notes.append(f"{self.origin}: {others} file(s) that are not pictures were left alone")
        folded: dict[str, int] = {}
        for name in self.names:
            folded[name.casefold()] = folded.get(name.casefold(), 0) + 1
        if len(folded) < len(self.names):
            twins = [printable(name) for name in self.names if folded[name.casefold()] > 1]
            self.notes.append(f"{self.origin}: names that differ by case only, all kept: {', '.join(twins[:4])}")
        if self.labels and None in self.labels:
            self.notes.append(f"{self.origin}: {self.labels.count(None)} picture(s) have no class")


def by_folder(names: list[str]) -> list[str | None] | None:
    """The class of each file: the first folder in its name, less the folders that all share. None without classes."""
    shared = os.path.commonpath([name.rpartition("/")[0] for name in names])
    start = len(shared) + 1 if shared else 0
    known: dict[str, str] = {}
    labels = [known.setdefault(part, part) if slash else None for part, slash, _ in (n[start:].partition("/") for n in names)]
    return labels if known else None


def _listed(path: Path, names: list[str], origin: str) -> list[str | None]:
    """The class of each picture from labels.csv. Raises BadData LABEL_MISMATCH with counts and examples of both sides."""
    with open_regular(path, LABELS) as file:
        raw = file.readall()
    rows = csv.DictReader(io.StringIO(raw.decode(encoding_of(raw), "replace"), newline=""))
    if not {"file", "label"}.issubset(rows.fieldnames or ()):
        names_found = ", ".join(map(printable, rows.fieldnames or ()))
        raise BadData("LABEL_MISMATCH", f"{origin}: {LABELS} has the columns {names_found}.", "It needs 'file' and 'label'.")
    labels = {row["file"]: row["label"] or None for row in rows}
    without, absent = [name for name in names if name not in labels], sorted(labels.keys() - set(names))
    if without or absent:
        raise BadData("LABEL_MISMATCH", f"{origin}: {len(without)} picture(s) have no row in {LABELS}{_examples(without)} and "
                      f"{len(absent)} row(s) have no picture{_examples(absent)}.", "Make the list and the folder agree.")
    return [labels[name] for name in names]


def _examples(names: list[str]) -> str:
    return f" ({', '.join(printable(name, 60) for name in names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
