"""How a text is cut into documents, and a long document into stretches, in bounded memory.

A stretch is what one record holds: at most 64 KiB, cut after a newline where there is one in its second half, else after a
whole character. Lines of any length are read piece by piece.
"""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..spaces import SIDE, Records
from .fingerprints import fingerprints, held_out_rows

__all__ = ["DOCUMENTS", "STRETCH", "Stretch", "documents", "stretches", "together", "whole"]

STRETCH = 1 << 16
PLAIN = ("text", "begins", "ends")  # what a stretch is
WHOLE = 1 << 26  # bytes of a document that is put together again
ENOUGH = 2  # documents that a share comes to, below which stretches are held out in place of documents
#: Ways to cut a text file into documents; "auto" is "line" or "tune" by the file's suffix, else "file".
DOCUMENTS = ("auto", "file", "line", "blank", "tune")


class Stretch(NamedTuple):
    """A stretch of a document in UTF-8; whether the document begins and ends with it; the line of the file that that is at."""

    text: bytes
    begins: bool
    ends: bool
    line: int = 1


def stretches(pieces: Iterable[bytes], line: int = 1) -> Iterator[Stretch]:
    """One document, which comes in pieces of any size, in stretches; an empty document is one empty stretch."""
    held, begins = b"", True
    for piece in pieces:
        held = held + piece if held else piece
        first = 0
        while len(held) - first > STRETCH:
            cut = held.rfind(b"\n", first + STRETCH // 2, first + STRETCH) + 1
            if not cut:
                cut = first + STRETCH
                cut -= next((back for back in range(4) if held[cut - back] & 0xC0 != 0x80), 0)
            yield Stretch(held[first:cut], begins, False, line)
            first, begins = cut, False
        held = held[first:] if first else held
    yield Stretch(held, begins, True, line)


def documents(file: io.BufferedReader, how: str) -> Iterator[Stretch]:
    """The documents of a text in UTF-8, in stretches. `how` is one of DOCUMENTS, less "auto".

    file : the whole is one document, byte for byte. line : each line that is not blank. blank : what blank lines part.
    tune : each begins at a line "X:", save the first, which has what stands before. Line ends around documents are no part
    of them, and within them they are \\n.
    """
    if how == "file":
        if file.peek(1):
            yield from stretches(iter(lambda: file.read(STRETCH), b""))
        return
    for line, pieces in itertools.groupby(_by_lines(file, how), lambda piece: piece[0]):
        yield from stretches((text for _, text in pieces), line)


def _by_lines(file: io.BufferedReader, how: str) -> Iterator[tuple[int, bytes]]:
    """Pieces of lines with the number of the line that their document begins at."""
    number = document = breaks = 0
    fresh, tuned = True, False
    while piece := file.readline(STRETCH):
        whole = piece.endswith(b"\n")
        text = piece[:-1].removesuffix(b"\r") if whole else piece
        if fresh:
            number += 1
            blank = whole and not text.strip()
            if how == "tune":
                opens = text.startswith(b"X:") and tuned
                tuned = tuned or text.startswith(b"X:")
            else:
                opens = how == "line" or blank
            document = 0 if opens else document
            breaks = breaks + 1 if document else 0
            if blank:
                continue
        fresh = whole
        document = document or number
        yield document, b"\n" * breaks + text
        breaks = 0


def together(blocks: Callable[[], Iterable[Records]], share: float) -> bool:
    """Whether documents are held out as a whole: where a share comes to ENOUGH of them, and by `opened` some are held out and
    some are not. Reads no further than needed to know."""
    count, seen = 0, set[bool]()
    if not share:
        return False
    for block in opened(blocks()):
        if SIDE not in block.columns:
            return False
        began = Records({SIDE: [block.columns[SIDE][row] for row in np.flatnonzero(block.columns["begins"]).tolist()]})
        seen |= {*held_out_rows(fingerprints(began), share).tolist()}
        count += len(began)
        if count * share >= ENOUGH and len(seen) == 2:
            return True
    return False


def opened(blocks: Iterable[Records]) -> Iterator[Records]:
    """Blocks in which every stretch has a SIDE, which is the same in all of a document, and in documents that begin alike;
    what is no document passes by."""
    side = ""
    for block in blocks:
        if "begins" not in block.columns:
            yield block
            continue
        sides: list[str] = []
        for text, begins in zip(block.columns["text"], block.columns["begins"], strict=True):
            side = hashlib.blake2b(text, digest_size=16).hexdigest() if begins else side
            sides.append(side)
        yield replace(block, columns={**block.columns, SIDE: sides})


class _Joined:
    """Stretches of one document on their way to one record."""

    def __init__(self, name: str, begins: bool, beside: tuple[Any, ...]):
        self.name, self.begins, self.ends, self.size, self.beside = name, begins, False, 0, beside
        self.texts: list[bytes] = []

    def add(self, text: bytes, ends: bool) -> None:
        """The next stretch."""
        self.texts.append(text)
        self.ends, self.size = ends, self.size + len(text)


def whole(blocks: Iterable[Records]) -> Iterator[Records]:
    """Blocks of records in which documents that were handed out in stretches are whole; those of over WHOLE bytes stay cut, and
    records of another kind pass by."""
    held: _Joined | None = None
    for block in blocks:
        if "begins" not in block.columns:
            yield block
            continue
        done: list[_Joined] = []
        columns = (block.columns[name] for name in (*PLAIN, *_beside(block)))
        for row, (text, begins, ends, *beside) in enumerate(zip(*columns, strict=True)):
            if held is not None and begins:  # what stood before never came to its end
                done.append(held)
                held = None
            held = held or _Joined(block.where(row).removesuffix(", part 1"), begins, tuple(beside))
            held.add(text, ends)
            if ends or held.size >= WHOLE:
                done.append(held)
                held = None
        if done:
            yield _record(done, block)
    if held is not None:
        yield _record([held], block)


def _beside(block: Records) -> list[str]:
    """The columns of documents that are no part of their text."""
    return [name for name in block.columns if name not in PLAIN]


def _record(done: list[_Joined], block: Records) -> Records:
    columns: dict[str, list[Any]] = {"text": [b"".join(one.texts) for one in done], "begins": [one.begins for one in done],
               "ends": [one.ends for one in done]}
    columns |= {name: list(values) for name, values in zip(_beside(block), zip(*(one.beside for one in done), strict=True),
                                                           strict=True)}
    return Records(columns, block.origin, block.first, [one.name for one in done])
