"""Folders of files that are believed only when every byte is what was written: a manifest of sizes and sha256 seals them.

    manifest.json    the format's number, bytes and sha256 of each file, and its own sha256: written last

A folder collects in a hidden sibling and takes its place by renames (see `folders`), so that a power cut or kill -9 leaves the
old one or the new one. Nothing is unpickled; tensors are safetensors. Equal contents give equal bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import CorruptStore, near, printable
from .folders import partial, replace, write

__all__ = ["FORMAT", "MANIFEST", "check_finite", "check_shapes", "check_version", "finite", "packed", "read", "sha256",
           "to_json", "unpacked", "write_sealed"]

FORMAT = 1  # of the folder; one with a higher number is from a newer version
MANIFEST = "manifest.json"
TENSORS = ".safetensors"
PICKLE_STARTS = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
SHOWN = 5  # names listed in a message
AGAIN = "Copy it again, or fit again."


def write_sealed(place: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files by name and their manifest; `place` then holds these, or after an error still what it held before.

    Raises CannotWrite OUT_DENIED, DISK_FULL or IO_ERROR.
    """
    manifest = {"files": {name: {"bytes": len(c), "sha256": sha256(c)} for name, c in contents.items()}, "format": FORMAT}
    seal = to_json({**manifest, "sha256": sha256(to_json(manifest))})
    with partial(place) as written:
        for name, content in (*contents.items(), (MANIFEST, seal)):
            write(written / name, content)
        replace(written, place)


def read(place: Path, names: Collection[str], shown: str | Path,
         foreign: Callable[[set[str]], CorruptStore]) -> dict[str, bytes]:
    """The files of `place` by name, every byte verified. `shown` is what messages call the folder; `foreign` makes the error
    for a folder without a manifest from the names that it holds.

    Raises CorruptStore CKPT_MISSING, CKPT_FORMAT, CKPT_VERSION or CKPT_CORRUPT naming the file.
    """
    contents = _read(place, {*names, MANIFEST}, shown, foreign)
    for name, entry in _manifest(contents.pop(MANIFEST), shown)["files"].items():
        _check_content(contents.get(name), entry, name, shown)
    return contents


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a safetensors file, in the order of their names. Only what shares its memory is copied."""
    apart: dict[str, Tensor] = {}
    seen = set[int]()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        apart[name] = tensor.clone() if memory.data_ptr() in seen or memory.nbytes() != tensor.nbytes else tensor
        seen.add(memory.data_ptr())
    return safetensors.torch.save(apart)


def unpacked(content: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CorruptStore CKPT_FORMAT."""
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise CorruptStore("CKPT_FORMAT", f"{where} is not a safetensors file: {error}.") from error


def _read(place: Path, wanted: set[str], folder: str | Path,
          foreign: Callable[[set[str]], CorruptStore]) -> dict[str, bytes]:
    """The files by name, all of one folder though another may take its name meanwhile."""
    try:
        here = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        there = [printable(entry.name) for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        hint = f"In {printable(place.parent)}: {near(place.name, there)}" if there else ""
        raise CorruptStore("CKPT_MISSING", f"{printable(folder)} does not exist.", hint) from error
    except NotADirectoryError as error:
        raise CorruptStore("CKPT_FORMAT", f"{printable(folder)} is a file; a saved model is a folder.",
                           "Give the folder that `fit` or `save` wrote.") from error
    try:
        with os.scandir(here) as entries:
            names = {entry.name for entry in entries}
        if MANIFEST not in names:
            raise foreign(names)
        return {name: _content(here, name) for name in wanted if name in names}
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{printable(folder)} cannot be read: {error.strerror}.") from error
    finally:
        os.close(here)


def _content(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _manifest(content: bytes, folder: str | Path) -> dict[str, Any]:
    """The manifest, if it is what was written. Its own sha256 stays where it is in every format, so it is looked at first."""
    damaged = CorruptStore("CKPT_CORRUPT", f"{printable(folder)}/{MANIFEST} is damaged.", AGAIN)
    try:
        manifest = json.loads(content)
        seal = manifest.pop("sha256")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise damaged from error
    if seal != sha256(to_json(manifest)) or content != to_json({**manifest, "sha256": seal}):
        raise damaged
    check_version(manifest["format"], folder)
    return manifest


def _check_content(content: bytes | None, entry: Mapping[str, Any], name: str, folder: str | Path) -> None:
    where = f"{printable(folder)}/{name}"
    if content is None:
        raise CorruptStore("CKPT_MISSING", f"{where} is not there.", "Copy the whole folder again.")
    if sha256(content) == entry["sha256"]:
        return
    # A safetensors file begins with eight bytes of length, then "{"; the length may look like the start of a pickle.
    if name.endswith(TENSORS) and content.startswith(PICKLE_STARTS) and content[8:9] != b"{":
        raise CorruptStore("CKPT_FORMAT", f"{where} is a pickle under another name, not a safetensors file.",
                           "It was not opened, since unpickling runs code. Ask for the weights as safetensors.")
    size = f": it has {len(content):,} bytes and should have {entry['bytes']:,}" if len(content) != entry["bytes"] else ""
    raise CorruptStore("CKPT_CORRUPT", f"{where} is damaged or was changed{size}; its sha256 is not the manifest's.", AGAIN)


def check_version(number: Any, folder: str | Path) -> None:
    """Raises CorruptStore CKPT_VERSION where a format's number is not one that can be read."""
    if not isinstance(number, int) or number > FORMAT:
        raise CorruptStore("CKPT_VERSION", f"{printable(folder)} has format {printable(number)}; this version reads {FORMAT}.",
                           "Upgrade: pip install --upgrade verossim.")


def check_shapes(folder: str | Path, expected: Mapping[str, Tensor], given: Mapping[str, Tensor],
                 hint: str = "The files of two models were mixed; save the model again.") -> None:
    """Raises CorruptStore CKPT_SHAPE, listing up to five tensors that differ in name, shape or type from what is expected."""
    def kind(tensors: Mapping[str, Tensor], name: str) -> str:
        t = tensors.get(name)
        return "absent" if t is None else f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
    kinds = [(printable(name), kind(given, name), kind(expected, name)) for name in sorted({*expected, *given})]
    wrong = [f"'{name}' is {found}, not {wanted}" for name, found, wanted in kinds if found != wanted]
    if wrong:
        listed = "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        raise CorruptStore("CKPT_SHAPE", f"{printable(folder)}: the weights do not fit the model: {listed}.",
                           hint)


def check_finite(folder: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises CorruptStore CKPT_NONFINITE naming the tensors that hold NaN or infinity."""
    bad = [name for name in sorted(tensors) if tensors[name].is_floating_point() and not tensors[name].isfinite().all()]
    if bad:
        raise CorruptStore("CKPT_NONFINITE", f"{printable(folder)}: {len(bad)} tensor(s) hold NaN or infinity: "
                           f"{', '.join(map(printable, bad[:SHOWN]))}.", "Such a model cannot be used; fit it again.")


def to_json(value: Any) -> bytes:
    """Equal values as equal bytes, keys in order. Raises ValueError for numbers that are not finite."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogatepass")


def finite(value: Any) -> Any:
    """JSON-ready values with null for the numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(content: bytes) -> str:
    """The sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
