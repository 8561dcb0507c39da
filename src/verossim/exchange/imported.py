"""What travels between a language model and a file: its shape, its tensors by name, its tokenizer."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CannotWrite, CorruptStore, Incompatible, printable
from ..nn.language import LanguageModel, Shape

__all__ = ["CHAT", "SHOWN", "Imported", "check_tensors", "check_vacant", "check_whole", "listed", "sizes"]

SHOWN = 5  # names listed in a message
#: How messages become a text, in the language of templates that other programs read.
CHAT = ("{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}")


@dataclass(frozen=True)
class Imported:
    """A language model without what is above it.

    tensors : those of LanguageModel(shape), by name. tokenizer : the text of a tokenizer.json, None where there is none that
    can be written as one. start, stop, pad : the tokens that begin and end a document and that mark what is not there, if any.
    end : the token that ends what somebody says in a chat, of models whose chats are written as CHAT says.
    """

    shape: Shape
    tensors: dict[str, Tensor]
    tokenizer: str | None = None
    start: int | None = None
    stop: int | None = None
    pad: int | None = None
    end: int | None = None


def sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The sizes of the tensors of LanguageModel(shape), by name; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in LanguageModel(shape).state_dict().items()}


def check_tensors(where: str, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], hint: str) -> None:
    """Raises CorruptStore CKPT_SHAPE that lists the first five tensors that are absent, unknown or of another size."""
    wrong = [f"'{printable(name)}' is {found.get(name, 'absent')}, not {wanted.get(name, 'known')}"
             for name in sorted({*wanted, *found}) if found.get(name) != wanted.get(name)]
    if wrong:
        raise CorruptStore("CKPT_SHAPE", f"{where}: the weights do not fit the model: {listed(wrong, '; ')}.", hint)


def check_vacant(path: str | Path) -> Path:
    """Where something can be written, links followed. Raises CannotWrite OUT_EXISTS where there is something already."""
    place = Path(os.path.realpath(path))
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CannotWrite("OUT_EXISTS", f"{printable(path)} is there already.", "Choose a place where nothing is yet.")
    return place


def check_whole(model: Imported) -> None:
    """Raises Incompatible EXPORT_SHAPE where the tensors are not those of the shape."""
    wanted, found = sizes(model.shape), {name: tuple(tensor.shape) for name, tensor in model.tensors.items()}
    if wanted != found:
        names = [f"'{printable(name)}'" for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
        raise Incompatible("EXPORT_SHAPE", f"The tensors are not those of the shape: {listed(names)} differ.",
                           "Give those of LanguageModel(shape).state_dict().")


def listed(names: list[str], between: str = ", ") -> str:
    """The first five of some names, and how many more there are."""
    return between.join(names[:SHOWN]) + (f"{between}and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
