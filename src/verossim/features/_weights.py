"""Weights of public networks from files: found, read and hashed, never unpickled.

What is read are safetensors. One older file is read besides: the official weights of MobileNetV2 as torchvision published them
in 2020. Its sha256 is known, so its content is; its words and numbers are listed without running any of it, and the tensors lie
behind them one after the other.
"""

import hashlib
import importlib.util
import io
import json
import pickletools
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CorruptStore, Incompatible, MissingExtra, Refused, printable

__all__ = ["OFFICIAL_MOBILENET", "Weights", "inside", "json_of", "placed", "setting", "tensors"]

#: mobilenet_v2-b0353104.pth, 14,212,972 bytes.
OFFICIAL_MOBILENET = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
TENSORS = ".safetensors"


class Weights:
    """Tensors by name. `hash` is the sha256 of the file they came in."""

    def __init__(self, found: dict[str, Tensor], digest: str, origin: str):
        self.found, self.hash, self.origin = found, digest, origin

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in float32. Raises CorruptStore CKPT_SHAPE where it is not there or of another shape; -1 fits all."""
        tensor = self.found.get(name)
        if tensor is None or not _fits(tensor, shape):
            has = "is not there" if tensor is None else f"has shape {tuple(tensor.shape)}"
            raise CorruptStore("CKPT_SHAPE", f"{self.origin}: '{name}' {has}; it should have {shape}.",
                               "These are the weights of another network.")
        return tensor.float()


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return tensor.ndim == len(shape) and all(a in (-1, b) for a, b in zip(shape, tensor.shape, strict=True))


def inside(package: str, path: str) -> Path | None:
    """The place of a file or folder in an installed package, whose code is not run; None where it is not installed."""
    found = importlib.util.find_spec(package)
    places = (Path(place) / path for place in (found.submodule_search_locations or ())) if found else ()
    return next((place for place in places if place.exists()), None)


def placed(weights: str, package: str, path: str, name: str, hint: str) -> Path:
    """Where weights lie: at the setting `weights`, or else in a package. Raises MissingExtra EXTRA, CorruptStore
    CKPT_MISSING."""
    place = Path(weights).expanduser() if weights else inside(package, path) if package else None
    if place is None:
        raise MissingExtra("EXTRA", f"The features '{name}' need weights, and there are none on this machine.", hint)
    if not place.exists():
        raise CorruptStore("CKPT_MISSING", f"{printable(place)} does not exist.", hint)
    return place


def tensors(place: Path) -> Weights:
    """The tensors of a safetensors file, or of the official MobileNetV2. Raises Refused PICKLE_REFUSED, CorruptStore."""
    try:
        content = place.read_bytes()
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{printable(place)} cannot be read: {error.strerror}.", "Give a file.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest == OFFICIAL_MOBILENET:
        return Weights(_legacy(content), digest, printable(place))
    if place.suffix.lower() != TENSORS:
        raise Refused("PICKLE_REFUSED", f"{printable(place)} is not a safetensors file, and reading weights of another kind "
                      "may run whatever code the file names.", "Where you trust the file, save its tensors with "
                      "safetensors.torch.save_file under the same names, and give that file.")
    try:
        return Weights(safetensors.torch.load(content), digest, printable(place))
    except SafetensorError as error:
        raise CorruptStore("CKPT_FORMAT", f"{printable(place)} is damaged: {error}.", "Get the file again.") from error


def json_of(place: Path) -> dict[str, Any]:
    """The values of a JSON file. Raises CorruptStore CKPT_MISSING or CKPT_FORMAT."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{printable(place)} cannot be read: {error.strerror}.",
                           "Give the whole folder of the model.") from error
    except ValueError as error:
        raise CorruptStore("CKPT_FORMAT", f"{printable(place)} is not JSON: {error}.", "Get the file again.") from error
    if not isinstance(found, dict):
        raise CorruptStore("CKPT_FORMAT", f"{printable(place)} holds no settings.", "Get the file again.")
    return found


def setting(found: dict[str, Any], name: str, wanted: Any, origin: Path) -> None:
    """Raises Incompatible FEATURES_NETWORK where a setting of a network is not `wanted`, which is all that is built here."""
    if found.get(name, wanted) != wanted:
        raise Incompatible("FEATURES_NETWORK", f"{printable(origin)}: '{name}' is {found[name]!r}; only {wanted!r} can be "
                           "read.", "Give weights of a network of the usual kind.")


def _legacy(content: bytes) -> dict[str, Tensor]:
    """Tensors of a file of torch before 1.6: five lists of words and numbers (the fourth names tensors and their places, the
    fifth orders these), then at each place the number of values and the values. Only for content whose sha256 is known."""
    stream = io.BytesIO(content)
    lists: list[list[tuple[str, Any]]] = [
        [(code.name, value) for code, value, _ in pickletools.genops(stream)] for _ in range(5)]
    named = [value for code, value in lists[3] if code == "BINUNICODE" and value not in ("storage", "cpu")]
    name_of = {place: name for name, place in pairwise(named) if place.isdigit()}
    shapes = _shapes(lists[3])
    found = {}
    for place in (value for code, value in lists[4] if code == "BINUNICODE"):
        kind = np.dtype("<i8" if name_of[place].endswith("num_batches_tracked") else "<f4")
        count = int.from_bytes(stream.read(8), "little")
        values = np.frombuffer(stream.read(count * kind.itemsize), kind).copy()
        found[name_of[place]] = torch.from_numpy(values).reshape(shapes[name_of[place]])
    return found


def _shapes(listed: list[tuple[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Shapes by name: the numbers between a tensor's place and the next tensor are its count, offset, shape and strides."""
    out: dict[str, tuple[int, ...]] = {}
    name = ""
    numbers: list[int] = []
    for code, value in [*listed, ("BINUNICODE", "")]:
        if code == "BINUNICODE" and value not in ("storage", "cpu") and not value.isdigit():
            if name and name not in out and numbers:
                axes = (len(numbers) - 2) // 2
                out[name] = tuple(numbers[2:2 + axes])
            name, numbers = value, []
        elif code.startswith("BININT"):
            numbers.append(value)
    return out

