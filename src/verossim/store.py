"""What ships: a folder of four files, whole or not there at all.

    model.json           family, codec, spaces, settings: what to build
    weights.safetensors  the tensors, by name
    card.json            where it came from: data manifest, seed, history
    manifest.json        size and sha256 of each of these, and of itself: written last

The folder is sealed (see `sealed`): a power cut or kill -9 leaves the old model or the new one, and a load reads every byte
against the manifest before it believes any. Equal models give equal bytes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import CannotWrite, CorruptStore, Refused, near, printable
from .folders import previous
from .sealed import FORMAT, MANIFEST, check_finite, check_version, finite, packed, read, sha256, to_json, unpacked, write_sealed

__all__ = ["RUN_MODEL", "Stored", "check_family", "check_vacant", "identity", "is_model", "load", "save"]

MODEL, WEIGHTS, CARD, _ = FILES = "model.json", "weights.safetensors", "card.json", MANIFEST
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
RUN_MODEL = "model"  # where the folder of a run keeps what ships
SHOWN = 5  # names listed in a message


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
    check_finite(folder, tensors)
    contents = {
        MODEL: to_json({"format": FORMAT, **model}),
        WEIGHTS: packed(tensors),
        CARD: to_json(finite(card)),
    }
    write_sealed(place, contents)
    return _identity(contents)


def load(folder: str | Path) -> Stored:
    """The model in `folder`, or in the folder of a run, every byte verified; the one before it where a save was cut off
    between its two renames.

    Raises Refused PICKLE_REFUSED for pickles, CorruptStore CKPT_MISSING, CKPT_FORMAT, CKPT_VERSION, CKPT_CORRUPT naming the
    file, CKPT_NONFINITE or CKPT_KIND.
    """
    place = Path(os.path.realpath(folder))
    if not (place / MANIFEST).exists() and any(at.exists() for at in (place / RUN_MODEL, previous(place / RUN_MODEL))):
        place, folder = place / RUN_MODEL, Path(folder) / RUN_MODEL
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


def is_model(folder: str | Path) -> bool:
    """Whether a folder looks like a saved model or a run, whole or damaged."""
    return any((place / name).is_file() for place in (Path(folder), Path(folder) / RUN_MODEL) for name in (MODEL, MANIFEST))


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


def check_family(folder: str | Path, name: str, known: list[str]) -> None:
    """Raises CorruptStore CKPT_KIND where the model's family is none of the `known` ones."""
    if name not in known:
        raise CorruptStore("CKPT_KIND", f"{printable(folder)} holds a model of family '{printable(name)}', which is not here.",
                           f"Install the package it came from. {near(name, known)}")


def _loaded(place: Path, folder: str | Path) -> Stored:
    """The verified content of `place`, called `folder` in messages."""
    contents = read(place, FILES, folder, lambda names: _not_a_model(names, folder))
    model, card = json.loads(contents[MODEL]), json.loads(contents[CARD])
    check_version(model.get("format", 1), folder)
    tensors = unpacked(contents[WEIGHTS], f"{printable(folder)}/{WEIGHTS}")
    check_finite(folder, tensors)
    return Stored(model, tensors, card, _identity(contents))


def _not_a_model(names: set[str], folder: str | Path) -> CorruptStore:
    if "provenance.json" in names:
        return CorruptStore("CKPT_KIND", f"{printable(folder)} holds what a model made, not a model.",
                            "Give the folder that `fit` or `save` wrote.")
    if "settings.json" in names:
        return CorruptStore("CKPT_MISSING", f"{printable(folder)} is a run that has not saved its model yet.",
                            "Wait for its first save, or go on with it by the command that began it.")
    if names & set(FILES):
        return CorruptStore("CKPT_MISSING", f"{printable(folder)} lacks {MANIFEST}: not all of the model is there.",
                            "Copy the whole folder again.")
    return CorruptStore("CKPT_FORMAT", f"{printable(folder)} is not a saved model: it has no {MANIFEST}.",
                        "Give the folder that `fit` or `save` wrote.")


def _identity(contents: Mapping[str, bytes]) -> str:
    return sha256(contents[MODEL] + contents[WEIGHTS])
