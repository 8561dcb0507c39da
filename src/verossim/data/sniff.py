"""What a file is, told by its content: magic numbers first, then whether it is text, in which encoding and which dialect.

A suffix is a promise that files often break (a saved error page named .jpg, a Parquet named .csv), so it is not asked.
"""

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass

from ..errors import BadData

__all__ = ["DOCUMENT_SUFFIXES", "PICTURE_SUFFIXES", "TEXT_SUFFIXES", "Dialect", "dialect_of", "encoding_of", "is_damaged",
           "is_picture", "kind_of"]

#: Suffixes of files that are handed to the image codec, which has the last word on their content.
PICTURE_SUFFIXES = frozenset({
    ".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".svg", ".tif", ".tiff", ".webp",
})

#: Suffixes that tell a text table from a README where a folder holds both.
TEXT_SUFFIXES = frozenset({".csv", ".dat", ".data", ".psv", ".tab", ".tsv"})

#: Suffixes of files that are text to be learned as text, where nothing else is asked for.
DOCUMENT_SUFFIXES = frozenset({".abc", ".md", ".smi", ".smiles", ".text", ".txt"})

_MAGIC = (
    (b"PAR1", "parquet"), (b"ARROW1\0\0", "arrow-file"), (b"\xff\xff\xff\xff", "arrow-stream"), (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"),
    (b"\x89PNG\r\n\x1a\n", "picture"), (b"\xff\xd8\xff", "picture"), (b"GIF87a", "picture"), (b"GIF89a", "picture"),
    (b"II*\0", "picture"), (b"MM\0*", "picture"), (b"\x89HDF", "HDF5"), (b"SQLite format 3", "an SQLite database"),
    (b"%PDF", "PDF"), (b"\xd0\xcf\x11\xe0", "an old Office document"), (b"\x28\xb5\x2f\xfd", "Zstandard"),
    *((b"\x80" + bytes([version]), "pickle") for version in range(2, 6)),
)
_PNM = re.compile(rb"P[1-6][\s#]+[\d#]")
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def kind_of(start: bytes) -> str:
    """The kind of a file from its first 4 kB: "parquet", "zip", "picture", "json", "text", or a name for people."""
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "tar"
    if _PNM.match(start) or start[8:12] == b"WEBP" or (start[:2] == b"BM" and start[6:10] == b"\0\0\0\0"):
        return "picture"
    text = start.decode(encoding_of(start), "replace").lstrip("\ufeff \t\r\n")
    if text[:200].lower().startswith(("<!doctype html", "<html", "<?xml", "<svg")):
        return "a web page or XML"
    if len(_CONTROL.findall(text)) > len(text) // 100:
        return "binary data"
    return "json" if text.startswith("{") else "a JSON array" if re.match(r"\[\s*\{", text) else "text"


def is_picture(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a picture."""
    return kind_of(start) == "picture"


def encoding_of(sample: bytes) -> str:
    """The encoding of a text from its beginning: a byte order mark, else UTF-8 if valid, else UTF-16 by its zero bytes,
    else Windows-1252, the rule of the Western web; only text mostly outside ASCII is put to `charset_normalizer`."""
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
                       (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if sample.startswith(mark):
            return name
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) > len(sample) // 8 and min(even, odd) <= max(even, odd) // 8:
        return "utf-16-be" if even > odd else "utf-16-le"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError:
        high = sum(byte > 127 for byte in sample[:65536])
        if high * 4 < len(sample[:65536]):
            return "cp1252"
    import charset_normalizer
    best = charset_normalizer.from_bytes(sample[:65536]).best()
    return best.encoding if best else "cp1252"


def is_damaged(sample: bytes) -> bool:
    """Whether bytes that are not UTF-8 are UTF-8 with some damage, rather than of another encoding: they hold at least as many
    characters of several bytes as invalid bytes, or a surrogate, which has no place in UTF-8."""
    kept = sample.decode(errors="ignore")
    wide = sum(character > "\x7f" for character in kept)
    return wide >= max(1, len(sample) - len(kept.encode())) or bool(_SURROGATE.search(sample))


@dataclass(frozen=True)
class Dialect:
    """How a text table is written. `names` are its columns, `header` whether the first row holds them, `decimal_comma`
    the columns whose numbers are written 1,5; `blank_lines` stand before the first row, `header_breaks` inside it."""

    delimiter: str
    names: tuple[str, ...]
    header: bool
    decimal_comma: tuple[str, ...]
    blank_lines: int
    header_breaks: int
    records: int

    def described(self) -> str:
        """The dialect in words."""
        names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
        comma = f"; decimal comma in {', '.join(self.decimal_comma)}" if self.decimal_comma else ""
        return f"cells parted by {names[self.delimiter]}; {'first row holds the names' if self.header else 'no header'}{comma}"


_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_COMMA_NUMBER = re.compile(r"\s*[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?([eE][+-]?\d+)?\s*")


def dialect_of(text: str, whole: bool, origin: str) -> Dialect:
    """The dialect of a text table from its beginning; `whole` says that nothing follows. Raises BadData DATA_EMPTY."""
    body = text.lstrip("\r\n")
    if not body.strip():
        raise BadData("DATA_EMPTY", f"{origin} is empty.", "Give a table with a header row and at least one record.")
    parsed = {delimiter: _rows(body, delimiter, whole) for delimiter in ",;\t|"}
    delimiter = max(parsed, key=lambda d: _likeness(parsed[d]))
    rows = parsed[delimiter]
    first = rows[0]
    header = not (all(_NUMBER.fullmatch(cell) for cell in first)
                  and (len(set(first)) < len(first) or not all(cell.strip().isdigit() for cell in first)))
    names = tuple(name.strip() or f"column{i + 1}" for i, name in enumerate(first)) if header else tuple(
        f"column{i + 1}" for i in range(len(first)))
    data = [row for row in rows[header:] if len(row) == len(names)]
    comma = tuple(name for i, name in enumerate(names) if delimiter != "," and _decimal_comma([row[i] for row in data]))
    blank = body_start.count("\n") or body_start.count("\r") if (body_start := text[: len(text) - len(body)]) else 0
    breaks = sum(len(re.findall(r"\r\n|\r|\n", cell)) for cell in first) if header else 0
    return Dialect(delimiter, names, header, comma, blank, breaks, len(rows) - header)


def _rows(text: str, delimiter: str, whole: bool) -> list[list[str]]:
    """The first rows under a delimiter; where more follows, the last row of the text is left out, for it may be cut."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) > 1000:
                return rows[:1000]
    except csv.Error:
        return rows or [[text]]  # a cell beyond the reader's limit; it is reported where the cells are read
    return rows if whole or len(rows) < 2 else rows[:-1]


def _likeness(rows: list[list[str]]) -> tuple[float, int]:
    """How much a delimiter makes a table of the text: the share of rows as wide as the first, then that width."""
    width = len(rows[0])
    alike = Counter(map(len, rows))[width] / len(rows)
    return (alike if width > 1 else 0.0, width)


def _decimal_comma(cells: list[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    return any("," in cell for cell in filled) and all(_COMMA_NUMBER.fullmatch(cell) for cell in filled)
