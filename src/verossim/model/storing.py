"""A model as plain values and tensors, and back: what `save` writes into model.json and the weights, what `load` makes of it.

A codec that goes through an autoencoder takes it along: its family, settings and spaces stand within the codec, its tensors
under PREFIX beside those of the model's own family. Low-rank adapters do not take along the model that they rest on: model.json
has its sha256, and the card says where it was.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import store
from ..codecs import Codec
from ..codecs.latent import Latent
from ..config import build, plain
from ..errors import CorruptStore, Refused, printable
from ..families import Family
from ..sealed import check_shapes
from ..shelves import CODECS, FAMILIES
from ..spaces import space_from, space_plain

__all__ = ["codec_from", "codec_plain", "codec_tensors", "family_from", "family_plain", "own", "stored_family"]

PREFIX = "codec."


def family_plain(family: Family, name: str | None = None) -> dict[str, Any]:
    """A family and its spaces as JSON-ready values; its name is looked up on the shelf where none is given."""
    name = name or next(name for name in FAMILIES.names() if FAMILIES.load(name) is type(family))
    condition = family.condition_space
    return {"family": {"name": name, "config": plain(family.config)}, "space": space_plain(family.space),
            "condition": condition and space_plain(condition)}


def family_from(shelved: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Any) -> Family:
    """The family that `family_plain` wrote down, with its tensors. Raises CorruptStore CKPT_KIND, CKPT_SHAPE."""
    name, condition = shelved["family"]["name"], shelved["condition"]
    store.check_family(path, name, FAMILIES.names())
    kind = FAMILIES.load(name)
    config = build(kind.Config, shelved["family"]["config"])
    family: Family = kind(config, space_from(shelved["space"]), condition and space_from(condition))
    check_shapes(path, family.state_dict(), tensors)
    family.load_state_dict(dict(tensors))
    return family.eval()


def codec_plain(codec: Codec) -> dict[str, Any]:
    """A codec as JSON-ready values, with what it goes through."""
    if isinstance(codec, Latent):
        return {"name": codec.shelf, "config": {}, "state": codec.state(), "codec": codec_plain(codec.codec),
                "autoencoder": family_plain(_family(codec))}
    return {"name": codec.shelf, "config": plain(codec.config), "state": codec.state()}


def codec_tensors(codec: Codec) -> dict[str, Tensor]:
    """The tensors that a codec goes through, by the names they are saved under."""
    if not isinstance(codec, Latent):
        return {}
    return {f"{PREFIX}{name}": value for name, value in {**_family(codec).state_dict(), **codec_tensors(codec.codec)}.items()}


def codec_from(shelved: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Any, device: str = "cpu") -> Any:
    """The codec that `codec_plain` wrote down, of all tensors of the model. Raises as `family_from`."""
    if "autoencoder" in shelved:
        inside = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        autoencoder = family_from(shelved["autoencoder"], own(inside), path).to(device)
        return Latent(codec_from(shelved["codec"], inside, path, device), autoencoder, shelved["state"])
    kind = CODECS.load(shelved["name"])
    return kind.restore(build(kind.Config, shelved["config"]), shelved["state"])


def own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the model's family, without those of its codec."""
    return {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}


def stored_family(stored: store.Stored, path: str | Path, base: str | Path | None = None, apart: bool = False) -> Any:
    """The family of a saved model. Adapters are merged into the model that they rest on (`base`, else where it is found), or
    stay `apart`. Raises as `family_from`, and CorruptStore CKPT_BASE where adapters lack their model."""
    family: Any = family_from(stored.model, own(stored.tensors), path)
    if "base" not in stored.model:
        return family
    place, under = _rested_on(stored, path, base)
    family.go_on(stored_family(under, place).state_dict())
    return family if apart else family.merged()


def _rested_on(stored: store.Stored, path: str | Path, base: str | Path | None) -> tuple[Path, store.Stored]:
    """Where the model is that the adapters at `path` rest on, and itself: at `base`, or where the card says that it was, or
    beside them under its name there."""
    wanted, noted, here = stored.model["base"], Path(stored.card.get("base") or "model"), Path(os.path.realpath(path))
    name = noted.parent.name if noted.name == store.RUN_MODEL and noted.parent.name else noted.name
    places = [noted, here.parent / name, here.parent.parent / name] if base is None else [Path(base)]
    others = []
    for place in places:
        try:
            found = store.load(place)
        except (CorruptStore, Refused):
            continue
        if found.sha256 == wanted:
            return place, found
        others.append(place)
    there = f"{printable(others[0])} is another one" if others else f"it is not at {printable(places[0])}"
    raise CorruptStore("CKPT_BASE", f"{printable(path)} holds adapters of the model with sha256 {wanted[:12]}..., and {there}.",
                       f"Put that model, or a link to it, beside {printable(here.name)} and name it {printable(name)}.")


def _family(codec: Latent) -> Family:
    """The autoencoder, which in a model is a family."""
    assert isinstance(codec.autoencoder, Family)
    return codec.autoencoder
