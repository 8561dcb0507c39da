"""A 64-bit fingerprint of each parsed record, and what is decided by it: which side of the split, and who is a duplicate.

The fingerprint is a sum over columns of mix(value ^ hash(name)), so it depends on what the record says and not on where it
stands or in which order its columns come. mix is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014); text and pixels are hashed by BLAKE2b, text once per distinct value.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..seeds import mixed
from ..spaces import Records

__all__ = ["duplicates", "fingerprints", "held_out_rows"]

_MISSING = np.uint64(0x9E3779B97F4A7C15)
_PARTITION = 1 << 20  # fingerprints sorted at a time: 8 MB


def fingerprints(records: Records) -> np.ndarray:
    """One uint64 a record, (B,), over all columns of the block: Arrow arrays, arrays of numbers, or lists of arrays."""
    total = np.zeros(len(records), np.uint64)
    for name, values in records.columns.items():
        total += mixed(_words(values) ^ _hashed(name.encode()))
    return mixed(total)


def held_out_rows(prints: np.ndarray, share: float) -> np.ndarray:
    """Whether each record is held out, (B,) bool: where its fingerprint, mixed once more, lies in the lowest `share`."""
    return mixed(prints ^ _MISSING) < np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def duplicates(path: Path) -> int:
    """How many fingerprints of a file of uint64 occurred before: total less distinct, sorted a partition at a time."""
    count = path.stat().st_size // 8
    parts = -(-count // _PARTITION)
    distinct = 0
    for part in range(parts):
        chosen = []
        with path.open("rb") as file:
            while data := file.read(8 * _PARTITION):
                values = np.frombuffer(data, np.uint64)
                chosen.append(values[values % np.uint64(parts) == part])
        ordered = np.sort(np.concatenate(chosen))
        distinct += int(np.count_nonzero(ordered[1:] != ordered[:-1])) + bool(len(ordered))
    return count - distinct


def _words(values: Sequence[Any]) -> np.ndarray:
    """64 bits that say each value of a column, (B,)."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _arrow_words(values)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf":
        return _number_words(values)
    return np.fromiter((_value_word(value) for value in values), np.uint64, len(values))


def _arrow_words(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind) or not (pa.types.is_primitive(kind) and not pa.types.is_decimal(kind)):
        coded = column if pa.types.is_dictionary(kind) else pc.cast(column, pa.string()).dictionary_encode()
        table = np.fromiter((_value_word(value) for value in coded.dictionary.to_pylist()), np.uint64, len(coded.dictionary))
        codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        words = table[codes] if len(table) else np.zeros(len(column), np.uint64)
    else:
        if pa.types.is_temporal(kind):
            column = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        plain = column.fill_null(0 if not pa.types.is_boolean(column.type) else False)
        words = _number_words(plain.to_numpy(zero_copy_only=False))
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, _MISSING, words) if missing.any() else words


def _number_words(values: np.ndarray) -> np.ndarray:
    """The bits of numbers as float64, or as int64 where they are whole; one word for zero, and one for NaN."""
    if values.dtype.kind != "f":
        return values.astype(np.int64).view(np.uint64)
    wide = values.astype(np.float64) + 0.0  # -0.0 + 0.0 is 0.0
    return np.where(np.isnan(wide), _MISSING, wide.view(np.uint64))


def _value_word(value: Any) -> np.uint64:
    if isinstance(value, np.ndarray):
        return _hashed(str(value.shape).encode(), np.ascontiguousarray(value))
    if isinstance(value, bool):
        return _BOOLEANS[value]
    return _MISSING if value is None else _hashed(str(value).encode(errors="surrogatepass"))


def _hashed(*pieces: Any) -> np.uint64:
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece)
    return np.uint64(int.from_bytes(digest.digest(), "little"))


_BOOLEANS = {value: _hashed(str(value).encode()) for value in (False, True)}  # each text has two
