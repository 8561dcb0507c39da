"""Open anything: a path, a name or a Python object becomes a `Source` of Records.

What a file is, its content says. Archives and compressed files are unpacked once, under limits, into a temporary folder
that goes with the source.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BadData, Refused, near, printable
from ..spaces import Problem, Records
from .archives import PACKED, unpack
from .delimited import CsvReader, JsonLinesReader
from .hub import from_hub
from .memory import from_memory
from .paths import failure, head, missing
from .pictures import LABELS, Found, PictureReader, walk
from .reader import FileEntry, Reader
from .sniff import DOCUMENT_SUFFIXES, PICTURE_SUFFIXES, TEXT_SUFFIXES, kind_of
from .tables import ArrowReader, NumpyReader, ParquetReader, combined
from .texts import TEXT_KINDS, Asked, are_texts, text_columns, text_file, text_folder, texts_in_memory

__all__ = ["PROBLEMS", "Source", "open_source"]

#: Problems kept in words; beyond this many they are counted only.
PROBLEMS = 1000
_TABLES = ("parquet", "arrow-file", "arrow-stream", "npy", "json", "text")

WANTED = {"image": "pictures: a folder, an archive or an array of them", "table": "a table",
          "text": "text: a file, a folder of files, JSON lines, or a list of texts"}


class Source:
    """Records that can be read again and again, a block at a time.

    modality "image", "table" or "text"; origin in words; label, weight: column names or None; columns: all names in order;
    problems: what was passed over so far, each once; problem_count: how many, where there are too many to keep;
    notes: what a person should know (dialect, encoding, files left alone).
    """

    def __init__(self, reader: Reader, label: str | None = None, weight: str | None = None, strict: bool = False):
        self.reader, self.strict = reader, strict
        self.modality, self.origin, self.columns = reader.modality, reader.origin, reader.columns
        self.label, self.weight = label or reader.label, weight
        for role, name in (("label", self.label), ("weight", weight)):
            if name is not None and name not in self.columns:
                hint = near(name, map(printable, self.columns)) if self.modality != "text" else \
                    "Classes of texts are the folders of files, or a column beside that of the text."
                raise BadData("COLUMN_UNKNOWN", f"{self.origin} has no column '{printable(name)}' for the {role}.", hint)
        self.asked: dict[str, str] = {}  # how texts are to be read: condition, target, documents, where that was said
        self.problems: list[Problem] = []
        self.problem_count = 0
        self._known: set[tuple[str, str]] = set()
        for problem in reader.problems:
            self.report(problem)

    @property
    def notes(self) -> list[str]:
        """What a person should know about how the data was read."""
        return self.reader.notes

    def blocks(self, size: int = 8192) -> Iterator[Records]:
        """The records from the start, at most `size` a block, label and weight columns among them.

        Raises BadData: DATA_EMPTY where not one can be read, and the first problem where the source is strict.
        """
        met = len(self.reader.problems)

        def report(problem: Problem) -> None:
            nonlocal met
            met += 1
            self.report(problem)
            self.problem_count = max(self.problem_count, met)
        count = 0
        for block in self.reader.blocks(size, report):
            count += len(block)
            yield block
        if not count:
            first = self.problems[0] if self.problems else None
            raise BadData("DATA_EMPTY", f"{self.origin}: not one record can be read."
                          + (f" The first: {first.message}" if first else ""), first.hint if first else "")

    def features(self, size: int = 8192) -> Iterator[Records]:
        """`blocks` without the label and weight columns: what the codec of the records sees."""
        return map(self.without_roles, self.blocks(size))

    def without_roles(self, block: Records) -> Records:
        """A block without the label and weight columns."""
        return block.without(*(name for name in (self.label, self.weight) if name is not None))

    def report(self, problem: Problem) -> None:
        """Takes note of a problem, once however often it is met; raises it as BadData where the source is strict."""
        if self.strict:
            raise BadData(problem.code, problem.message, problem.hint)
        key = (problem.code, problem.where)
        if key not in self._known and len(self.problems) < PROBLEMS:
            self._known.add(key)
            self.problems.append(problem)
            self.problem_count = max(self.problem_count, len(self.problems))

    def digests(self) -> list[FileEntry]:
        """Every file of the source with its size and sha256, by name."""
        return sorted(self.reader.digests())


def open_source(data: Any, label: str | None = None, weight: str | None = None, modality: str | None = None,
                strict: bool = False, image_pixels: int = 64_000_000, condition: str | None = None, target: str | None = None,
                documents: str = "auto", beside: str | None = None) -> Source:
    """The source of records that `data` is.

    data : a path (folder of pictures or tables; CSV, JSON lines, Parquet, Arrow, NumPy; an archive of these), "hf:NAME",
        an array or tensor (N, D) or uint8 (N, H, W[, C]), a pandas or polars frame, an Arrow table, columns by name, a list
        of pictures, an iterator of dictionaries, Records; a text file or a folder of them, a list of str or bytes.
    label, weight : columns that are not learned as features: the class of each record, and its weight (finite, above 0).
    modality : "image", "table" or "text" where a folder holds several, or for text that is not told by its suffix: any file,
        JSON lines with the field "text" or "messages", an iterator of texts.
    strict : raise at the first problem instead of passing over the record.
    image_pixels : the largest picture taken; a file that must hold more is not read.
    condition, target : the columns of pairs of texts in a table or JSON lines; target alone: the column that is the text.
    documents : how a text file is cut into documents: "file" (each is one), "line", "blank" (by blank lines), "tune" (each
        begins with "X:"), or "auto": tunes of .abc files, lines of .smi files, else the file.
    beside : a column to read beside texts where it is there, such as the label of texts that may have none. A label "folder"
        is the folder that a text file is in.

    Raises BadData (DATA_MISSING, DATA_EMPTY, DATA_FORMAT, COLUMN_UNKNOWN, the codes of each format), Refused
    PICKLE_REFUSED, MissingExtra.
    """
    if isinstance(data, Source):
        return data
    asked = Asked(condition, target, documents, label, beside).check()
    modality = "text" if modality is None and target is not None else modality
    if isinstance(data, str) and data.startswith("hf:"):
        reader = text_columns(from_hub(data[3:]), asked) if modality == "text" else from_hub(data[3:])
    elif isinstance(data, str | os.PathLike):
        if not os.fspath(data):
            raise BadData("DATA_MISSING", "The path of the data is empty.", "Name a file or a folder; '.' is this one.")
        reader = _from_path(Path(data).expanduser(), printable(data), modality, image_pixels, asked)
    elif modality == "text" or (modality is None and are_texts(data)):
        reader = texts_in_memory(data, asked)
    else:
        reader = from_memory(data)
    if modality is not None and reader.modality != modality:
        raise BadData("DATA_FORMAT", f"{reader.origin} is a source of modality '{reader.modality}', not '{modality}'.",
                      f"Give {WANTED.get(modality, modality)} here.")
    source = Source(reader, label, weight, strict)
    said = {"condition": condition, "target": target, "documents": None if documents == "auto" else documents}
    source.asked = {name: value for name, value in said.items() if value is not None}
    return source


def _from_path(path: Path, origin: str, modality: str | None, image_pixels: int, asked: Asked) -> Reader:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a zero byte in the name
        raise missing(path) from error
    except OSError as error:
        raise failure(error, origin) from error
    path = path.resolve()
    if stat.S_ISDIR(mode):
        return _from_folder(path, origin, modality, image_pixels, asked)
    start = head(path, origin)
    kind = kind_of(start)
    if kind in PACKED:
        folder = unpack(path, origin, kind)
        reader = _from_folder(folder.path, origin, modality, image_pixels, asked)
        reader.home = folder
        return reader
    named = path.suffix.lower() in DOCUMENT_SUFFIXES and kind in (*TEXT_KINDS, "binary data")
    if modality == "text" or (modality is None and named):
        return text_file(path, origin, kind, asked)
    if kind == "picture" or path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureReader(path.parent, origin, Found([path.name]), image_pixels)
    return _table(path, origin, kind)


def _table(path: Path, origin: str, kind: str) -> Reader:
    """The reader of one table file. Raises BadData DATA_FORMAT or Refused PICKLE_REFUSED for what is none."""
    if kind == "pickle":
        raise Refused("PICKLE_REFUSED", f"{origin} is a pickle, and reading one runs code.", "Save the data as Parquet or CSV.")
    if kind not in _TABLES:
        raise BadData("DATA_FORMAT", f"{origin} holds {kind}, which is not a table or a picture that can be read.",
                      "Give CSV, JSON lines, Parquet, Arrow, .npy, pictures, or an archive of these.")
    if kind == "parquet":
        return ParquetReader(path, origin)
    if kind == "npy":
        return NumpyReader(path, origin)
    if kind == "json":
        return JsonLinesReader(path, origin)
    return CsvReader(path, origin) if kind == "text" else ArrowReader(path, origin, kind == "arrow-stream")


def _from_folder(root: Path, origin: str, modality: str | None, image_pixels: int, asked: Asked) -> Reader:
    found = walk(root)
    kinds = {name: _kind(root, name, found) for name in found.names}
    if modality == "text":
        return text_folder(root, origin, found, kinds, asked, False)
    if modality == "image" or (modality is None and "picture" in kinds.values()):
        return PictureReader(root, origin, found, image_pixels)
    named = {name: kind for name, kind in kinds.items() if _is_table(name, kind, len(kinds) == 1)}
    if not named and modality is None and any(_is_document(name, kind) for name, kind in kinds.items()):
        return text_folder(root, origin, found, kinds, asked, True)
    if not named:
        return PictureReader(root, origin, found, image_pixels)
    tables = [_table(Path(found.targets.get(name) or root / name), f"{origin}/{printable(name)}", kind)
              for name, kind in named.items()]
    reader = combined(tables, origin)
    reader.problems.extend(found.problems)
    if len(named) < len(kinds):
        reader.notes.append(f"{origin}: {len(kinds) - len(named)} file(s) that are not tables were left alone")
    return reader


def _kind(root: Path, name: str, found: Found) -> str:
    if Path(name).suffix.lower() in PICTURE_SUFFIXES:
        return "picture"
    try:
        start = head(found.targets.get(name) or root / name, printable(name))
        return kind_of(start) if start else "nothing"
    except BadData as error:
        found.problems.append(Problem(error.code, name, error.message, error.hint))
        return "unreadable"


def _is_table(name: str, kind: str, alone: bool) -> bool:
    """Whether a file of a folder is one of its tables: a text is one by its suffix too, for a README is also text."""
    if kind == "text":
        return name != LABELS and ((alone and not _is_document(name, kind)) or Path(name).suffix.lower() in TEXT_SUFFIXES)
    return (kind in _TABLES and not _is_document(name, kind)) or kind == "pickle"


def _is_document(name: str, kind: str) -> bool:
    """Whether a file of a folder is text by its content and by its suffix."""
    return kind in TEXT_KINDS and Path(name).suffix.lower() in DOCUMENT_SUFFIXES
