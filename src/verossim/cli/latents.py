"""`verossim encode`, `decode`, `interpolate`, `mix` and `edit`: records to their latents and back, and ways through them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.people import to_pictures, to_table
from ..errors import BadConfig, BadData, printable
from ..model import Model
from ..safety import contact_sheet, gate, release, release_file
from ..spaces import Records
from .arguments import SUFFIXES
from .console import Voice, first_rank
from .records import class_of, guarded, provenance, tell_aside, write_table

__all__ = ["decode", "edit", "encode", "interpolate", "mix"]

STRENGTHS = 7  # of a range
SAMPLES = 4  # that are edited, where nothing is said


def encode(voice: Voice, path: str, source: str, output: str, overwrite: bool) -> dict[str, Any]:
    """Writes the latents (B, *latent) of the records as float32."""
    if not first_rank():
        return {}
    if Path(output).suffix.lower() != ".npy":
        raise BadConfig("USAGE", f"The output is named {printable(output)}.", "Name it .npy.")
    model = Model.load(path)
    z = model.encode(source)
    with release_file(output, provenance("encode", path, model), overwrite) as file, file.open("wb") as out:
        np.save(out, z.float().numpy(), allow_pickle=False)
    voice.problems(model.problems)
    voice.say(f"{len(z):,} latents of shape {tuple(z.shape[1:])}: {printable(output)}")
    return {"output": output, "count": len(z), "shape": list(z.shape[1:])}


def decode(voice: Voice, path: str, latents: str, output: str, condition: str | None, overwrite: bool) -> dict[str, Any]:
    """Writes the records of latents."""
    if not first_rank():
        return {}
    model = Model.load(path)
    records = model.decoded(_latents(latents), class_of(model, condition))
    return _written(voice, model, records, output, provenance("decode", path, model, condition=condition), overwrite)


def interpolate(voice: Voice, path: str, source: str, output: str, n: int, condition: str | None,
                overwrite: bool) -> dict[str, Any]:
    """Writes n records on the way from the first of the source to the second."""
    if not first_rank():
        return {}
    model = Model.load(path)
    records = model.between(source, n, class_of(model, condition))
    voice.problems(model.problems)
    return _written(voice, model, records, output, provenance("interpolate", path, model, n=n, condition=condition), overwrite)


def mix(voice: Voice, path: str, coarse: int, fine: int, layer: int | None, condition: str | None, seed: int, output: str,
        overwrite: bool) -> dict[str, Any]:
    """Writes the layout of one sample in the styles of another, from each layer on or from one."""
    if not first_rank():
        return {}
    model = Model.load(path)
    records = model.crossed(coarse, fine, layer, class_of(model, condition), seed)
    source = provenance("mix", path, model, coarse=coarse, fine=fine, layer=layer, condition=condition, seed=seed)
    return _written(voice, model, records, output, source, overwrite)


def edit(voice: Voice, path: str, direction: int, strength: str, source: str | None, n: int | None, condition: str | None,
         seed: int, output: str, overwrite: bool) -> dict[str, Any]:
    """Writes a strip for each record, moved along a direction by each strength."""
    if not first_rank():
        return {}
    strengths = _strengths(strength)
    if source is not None and n is not None:
        raise BadConfig("USAGE", "-n is for samples, and with --source there are none.", "Leave one of them out.")
    n = SAMPLES if n is None else n
    model = Model.load(path)
    records = model.moved(direction, strengths, source, n, class_of(model, condition), seed)
    voice.problems(model.problems)
    made = provenance("edit", path, model, direction=direction, strength=strengths, source=source, n=n, condition=condition,
                      seed=seed)
    return _written(voice, model, records, output, made, overwrite, len(strengths))


def _strengths(text: str) -> list[float]:
    """-3..3 as seven numbers from the one to the other, or numbers with commas between. Raises BadConfig."""
    low, dots, high = text.partition("..")
    try:
        if dots:
            return torch.linspace(float(low), float(high), STRENGTHS).tolist()
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BadConfig("USAGE", f"'strength' is {printable(text)!r}.",
                        "Give a range such as -3..3, or numbers: -2,0,2.") from error


def _latents(path: str) -> torch.Tensor:
    """The numbers of a .npy file, float32. Raises BadData."""
    try:
        z = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise BadData("DATA_MISSING", f"{printable(path)} does not exist.") from error
    except (OSError, ValueError, EOFError) as error:
        raise BadData("DATA_FORMAT", f"{printable(path)} is no .npy file of numbers.",
                      "Give a .npy file as `verossim encode` writes it.") from error
    with np.errstate(over="ignore"):  # beyond float32 a number is not finite
        fits = isinstance(z, np.ndarray) and z.dtype.kind == "f" and bool(np.isfinite(z.astype(np.float32)).all())
    if not fits:
        raise BadData("DATA_FORMAT", f"{printable(path)} does not hold finite numbers.",
                      "Give a .npy file as `verossim encode` writes it.")
    if not z.size:
        raise BadData("DATA_EMPTY", f"{printable(path)} holds no latents.", "Give at least one row.")
    return torch.from_numpy(z.astype(np.float32))


def _written(voice: Voice, model: Model, records: Records, output: str, source: Any, overwrite: bool,
             columns: int | None = None) -> dict[str, Any]:
    """Pictures as a folder with a strip of all of them, or one of so many columns under another; other records as a table."""
    named = Path(output).suffix.lower() in SUFFIXES
    if model.codec.modality == "image":
        if named:
            raise BadConfig("USAGE", "This is a model of pictures, which go into a folder.", "Give a folder: -o FOLDER.")
        pictures = to_pictures(records)
        rows = None if columns is None else [number // columns for number in range(len(pictures))]
        with release(output, source, overwrite) as out:
            for number, picture in enumerate(pictures):
                out.add(f"{number:06d}.png", gate.png(picture))
            out.add("strip.png", gate.png(contact_sheet(pictures, rows)))
        tell_aside(voice, out)
    elif named:
        with release_file(output, source, overwrite) as file:
            write_table(file, guarded(voice, [to_table(records)]), SUFFIXES[Path(output).suffix.lower()])
    else:
        with release(output, source, overwrite) as out:
            write_table(out.path("records.csv"), guarded(voice, [to_table(records)]), "csv")
        tell_aside(voice, out)
    voice.say(f"{len(records):,} records: {printable(output)}")
    return {"output": output, "count": len(records)}
