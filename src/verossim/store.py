"""What ships: a folder of four files, whole or not there at all.

    model.json           family, codec, spaces, settings: what to build
    weights.safetensors  the tensors, by name
    card.json            where it came from: data manifest, seed, history
    manifest.json        size and sha256 of each of these, and of itself: written last

A save collects in a hidden sibling folder and takes its place by renames (see `folders`), so that a power cut or kill -9 leaves
the old model or the new one. A load reads every byte against the manifest before it believes any; nothing is unpickled.
Equal models give equal bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import CannotWrite, CorruptStore, Refused, near, printable
from .folders import partial, previous, replace, write

__all__ = ["FORMAT", "Stored", "check_family", "check_shapes", "check_vacant", "identity", "load", "save"]

FORMAT = 1  # of the folder; one with a higher number is from a newer version
MODEL, WEIGHTS, CARD, MANIFEST = FILES = "model.json", "weights.safetensors", "card.json", "manifest.json"
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
PICKLE_STARTS = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
SHOWN = 5  # names listed in a message
AGAIN = "Copy the model again, or fit it again."


@dataclass(frozen=True)
class Stored:
    """What a folder holds: plain values of the model and of its card, tensors by name.

    sha256 : of model and weights, all that the model's answers follow from; the card, with its times, does not enter.
    """

    model: dict[str, Any]
    tensors: dict[str, Tensor]
    card: dict[str, Any]
    sha256: str


def save(folder: str | Path, model: Mapping[str, Any], tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """Writes the four files; `folder` then holds this model, or after an error still the one before. Returns its sha256.

    model, card : JSON-ready values; numbers that are not finite become null in the card and are refused in the model.
    Raises CannotWrite: OUT_EXISTS where `folder` is something else than a saved model, OUT_DENIED, DISK_FULL or IO_ERROR;
    CorruptStore CKPT_NONFINITE for tensors that are not finite.
    """
    place = check_vacant(folder)
    _check_finite(folder, tensors)
    contents = {
        MODEL: _json({"format": FORMAT, **model}),
        WEIGHTS: safetensors.torch.save({name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}),
        CARD: _json(_finite(card)),
    }
    contents[MANIFEST] = _sealed({name: {"bytes": len(c), "sha256": _sha256(c)} for name, c in contents.items()})
    with partial(place) as written:
        for name, content in contents.items():
            write(written / name, content)
        replace(written, place)
    return _identity(contents)


def load(folder: str | Path) -> Stored:
    """The model in `folder`, every byte verified; the one before it where a save was cut off between its two renames.

    Raises Refused PICKLE_REFUSED for pickles, CorruptStore CKPT_MISSING, CKPT_FORMAT, CKPT_VERSION, CKPT_CORRUPT naming the
    file, CKPT_NONFINITE or CKPT_KIND.
    """
    place = Path(os.path.realpath(folder))
    if place.suffix.lower() in PICKLES and not place.is_dir():
        raise Refused("PICKLE_REFUSED", f"{printable(folder)} is a kind of file that only unpickling could read, and that runs "
                      "whatever code the file names.", "Ask for the weights as safetensors; verossim models are folders.")
    try:
        return _loaded(place, folder)
    except CorruptStore as error:
        # A save that ends meanwhile leaves nothing under `previous` but a whole model at `place`: hence the third look.
        for look in (previous(place), place):
            try:
                return _loaded(look, folder)
            except CorruptStore:
                continue
        raise error


def identity(folder: str | Path) -> str:
    """The sha256 of a saved model and its weights. Raises as `load`."""
    return load(folder).sha256


def check_vacant(folder: str | Path) -> Path:
    """Where a save to `folder` goes, links followed. Raises CannotWrite OUT_EXISTS where something else than a model is."""
    place = Path(os.path.realpath(folder))
    if not os.path.lexists(place):
        return place
    foreign = sorted({entry.name for entry in place.iterdir()} - set(FILES)) if place.is_dir() else [place.name]
    if foreign:
        shown = ", ".join(printable(name) for name in foreign[:SHOWN]) + (", ..." if len(foreign) > SHOWN else "")
        raise CannotWrite("OUT_EXISTS", f"{printable(folder)} is there and is not a saved model: it holds {shown}.",
                          "Choose a folder that does not exist yet.")
    return place


def check_shapes(folder: str | Path, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises CorruptStore CKPT_SHAPE, listing up to five tensors that differ in name, shape or type from what is expected."""
    def kind(tensors: Mapping[str, Tensor], name: str) -> str:
        t = tensors.get(name)
        return "absent" if t is None else f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
    kinds = [(printable(name), kind(given, name), kind(expected, name)) for name in sorted({*expected, *given})]
    wrong = [f"'{name}' is {found}, not {wanted}" for name, found, wanted in kinds if found != wanted]
    if wrong:
        listed = "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        raise CorruptStore("CKPT_SHAPE", f"{printable(folder)}: the weights do not fit the model: {listed}.",
                           "The files of two models were mixed; save the model again.")


def check_family(folder: str | Path, name: str, known: list[str]) -> None:
    """Raises CorruptStore CKPT_KIND where the model's family is none of the `known` ones."""
    if name not in known:
        raise CorruptStore("CKPT_KIND", f"{printable(folder)} holds a model of family '{printable(name)}', which is not here.",
                           f"Install the package it came from. {near(name, known)}")


def _loaded(place: Path, folder: str | Path) -> Stored:
    """The verified content of `place`, called `folder` in messages."""
    contents = _read(place, folder)
    manifest = _manifest(contents[MANIFEST], folder)
    for name, entry in manifest["files"].items():
        _check_content(contents.get(name), entry, name, folder)
    model, card = json.loads(contents[MODEL]), json.loads(contents[CARD])
    _check_version(model.get("format", 1), folder)
    try:
        tensors = safetensors.torch.load(contents[WEIGHTS])
    except SafetensorError as error:
        raise CorruptStore("CKPT_FORMAT", f"{printable(folder)}/{WEIGHTS} is not a safetensors file: {error}.") from error
    _check_finite(folder, tensors)
    return Stored(model, tensors, card, _identity(contents))


def _read(place: Path, folder: str | Path) -> dict[str, bytes]:
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
            raise _not_a_model(names, folder)
        return {name: _content(here, name) for name in FILES if name in names}
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{printable(folder)} cannot be read: {error.strerror}.") from error
    finally:
        os.close(here)


def _content(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _not_a_model(names: set[str], folder: str | Path) -> CorruptStore:
    if "provenance.json" in names:
        return CorruptStore("CKPT_KIND", f"{printable(folder)} holds what a model made, not a model.",
                            "Give the folder that `fit` or `save` wrote.")
    if names & set(FILES):
        return CorruptStore("CKPT_MISSING", f"{printable(folder)} lacks {MANIFEST}: not all of the model is there.",
                            "Copy the whole folder again.")
    return CorruptStore("CKPT_FORMAT", f"{printable(folder)} is not a saved model: it has no {MANIFEST}.",
                        "Give the folder that `fit` or `save` wrote.")


def _manifest(content: bytes, folder: str | Path) -> dict[str, Any]:
    """The manifest, if it is what was written. Its own sha256 stays where it is in every format, so it is looked at first."""
    damaged = CorruptStore("CKPT_CORRUPT", f"{printable(folder)}/{MANIFEST} is damaged.", AGAIN)
    try:
        manifest = json.loads(content)
        seal = manifest.pop("sha256")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise damaged from error
    if seal != _sha256(_json(manifest)) or content != _json({**manifest, "sha256": seal}):
        raise damaged
    _check_version(manifest["format"], folder)
    return manifest


def _sealed(files: Mapping[str, Any]) -> bytes:
    manifest = {"files": files, "format": FORMAT}
    return _json({**manifest, "sha256": _sha256(_json(manifest))})


def _check_content(content: bytes | None, entry: Mapping[str, Any], name: str, folder: str | Path) -> None:
    where = f"{printable(folder)}/{name}"
    if content is None:
        raise CorruptStore("CKPT_MISSING", f"{where} is not there.", "Copy the whole folder again.")
    if _sha256(content) == entry["sha256"]:
        return
    # A safetensors file begins with eight bytes of length, then "{"; the length may look like the start of a pickle.
    if name == WEIGHTS and content.startswith(PICKLE_STARTS) and content[8:9] != b"{":
        raise CorruptStore("CKPT_FORMAT", f"{where} is a pickle under another name, not a safetensors file.",
                           "It was not opened, since unpickling runs code. Ask for the weights as safetensors.")
    size = f": it has {len(content):,} bytes and should have {entry['bytes']:,}" if len(content) != entry["bytes"] else ""
    raise CorruptStore("CKPT_CORRUPT", f"{where} is damaged or was changed{size}; its sha256 is not the manifest's.", AGAIN)


def _check_version(number: Any, folder: str | Path) -> None:
    if not isinstance(number, int) or number > FORMAT:
        raise CorruptStore("CKPT_VERSION", f"{printable(folder)} has format {printable(number)}; this version reads {FORMAT}.",
                           "Upgrade: pip install --upgrade verossim.")


def _check_finite(folder: str | Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name in sorted(tensors) if tensors[name].is_floating_point() and not tensors[name].isfinite().all()]
    if bad:
        raise CorruptStore("CKPT_NONFINITE", f"{printable(folder)}: {len(bad)} tensor(s) hold NaN or infinity: "
                           f"{', '.join(map(printable, bad[:SHOWN]))}.", "Such a model cannot be used; fit it again.")


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogatepass")


def _finite(value: Any) -> Any:
    """JSON-ready values with null for the numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _identity(contents: Mapping[str, bytes]) -> str:
    return _sha256(contents[MODEL] + contents[WEIGHTS])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
