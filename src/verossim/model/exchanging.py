"""Models of other programs as ours, and ours as theirs: glue between `exchange` and a model.

    Hugging Face folder or GGUF  <->  shape, tensors, tokenizer.json  <->  family autoregressive over the codec of texts
    PEFT folder  <-  low-rank adapters apart from the model that they rest on
"""

from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..codecs.text import Text, TextConfig
from ..codecs.text.adopted import Adopted
from ..config import build
from ..errors import BadConfig, Incompatible, near, printable
from ..exchange import Imported, read_folder, read_gguf, write_adapters, write_folder, write_gguf
from ..families.autoregressive import Autoregressive
from ..nn.low_rank import LowRank
from .verbs import Model

__all__ = ["FORMATS", "export", "imported"]

FORMATS = ("hf", "gguf", "peft")
LONGEST = 4096  # tokens of a window, of models that could see more: what rotary positions allow is long
GGUF = b"GGUF"


def imported(path: str | Path) -> Model:
    """The model of a Hugging Face folder or of a GGUF file. Raises as `exchange.read_folder` and `read_gguf` do, and
    Incompatible IMPORT_KIND where there is no tokenizer or no token that a text can begin with."""
    place = Path(path)
    if place.is_file():
        with place.open("rb") as file:
            found = read_gguf(path) if file.read(4) == GGUF else read_folder(path)
    else:
        found = read_folder(path)
    shape = found.shape
    first = found.stop if found.start is None else found.start
    if found.tokenizer is None or first is None:
        lacking = "tokenizer.json" if found.tokenizer is None else "token that a text begins or ends with"
        raise Incompatible("IMPORT_KIND", f"{printable(path)} has no {lacking}.", "Save the model with its tokenizer.")
    special = {"start": first} | ({} if found.stop is None else {"stop": found.stop})
    vocabulary = Adopted(found.tokenizer, special, shape.vocabulary)
    context = shape.length if shape.positions == "learned" else min(shape.length, LONGEST)
    codec = Text.over(TextConfig(tokens="imported", context=context), vocabulary)
    names = {name for name in vars(shape) if name not in ("vocabulary", "length")}
    config = build(Autoregressive.Config, {name: getattr(shape, name) for name in names}, printable(path))
    family = Autoregressive(config, codec.space)
    family.net.load_state_dict(found.tensors)
    card: dict[str, Any] = {"family": "autoregressive", "verossim": __version__, "manifest": {}, "frame": "arrow",
                            "held_out": None, "notes": [], "imported": {"from": str(path), "shape": vars(shape)}, "history": {}}
    return Model(codec, family.eval(), None, card)


def export(model: Model, path: str | Path, format: str = "hf") -> None:
    """Writes the weights, with adapters merged in, and the tokenizer as a Hugging Face folder ("hf") or a GGUF file ("gguf");
    or adapters alone ("peft"), of a model that was loaded with them `apart`. Raises Incompatible NOT_TEXT, NO_ADAPTERS,
    EXPORT_SHAPE, EXPORT_TOKENIZER, BadConfig SETTING_RANGE, CannotWrite."""
    if format not in FORMATS:
        raise BadConfig("SETTING_RANGE", f"'format' is '{printable(format)}'.", near(format, FORMATS))
    codec: Any = model.codec
    family: Any = model.family
    if not isinstance(codec, Text) or not isinstance(family, Autoregressive) or family.condition_space is not None:
        raise Incompatible("NOT_TEXT", "Only models of family autoregressive over texts, without labels, can be written for "
                           "other programs.", "Their samples can be saved: verossim sample.")
    if format == "peft":
        pairs = {name: list(layer.pairs()) for name, layer in family.net.named_modules() if isinstance(layer, LowRank)}
        if not pairs:
            raise Incompatible("NO_ADAPTERS", "This model has no low-rank adapters.", "Learn some: fit --from MODEL "
                               "--adapter-rank 8; or write all of it: --format hf.")
        return write_adapters(path, family.shape, pairs, family.config.adapter_rank, family.config.adapter_alpha)
    family = family.merged()
    tensors = {name: value.detach().to("cpu", torch.float32) for name, value in family.net.state_dict().items()}
    out = Imported(family.shape, tensors, codec.tokenizer_json(), codec.space.start, codec.space.stop, None,
                   codec.special.get("end") if "messages" in model.card["manifest"].get("columns", ()) else None)
    (write_folder if format == "hf" else write_gguf)(path, out)
