"""A model from elsewhere that is to learn chats or pairs: it gets tokens for who speaks and for what stands between texts."""

from typing import Any

import torch

from ..codecs.text import Text
from ..families.autoregressive import Autoregressive
from .verbs import Model

__all__ = ["speaking"]

ROWS = ("first.weight", "last.weight", "values.weight")  # that have a row for each token


def speaking(model: Model) -> Model:
    """The model with such tokens, itself where it has them. A new token begins as the mean of all: nothing is known of it yet,
    and the others keep their probabilities among each other."""
    codec: Any = model.codec
    family: Any = model.family
    if not isinstance(codec, Text) or not isinstance(family, Autoregressive) or (spoken := codec.speaking()) is codec:
        return model
    grown = Autoregressive(family.config, spoken.space, family.condition_space)
    held = family.state_dict()
    vocabulary: Any = codec.vocabulary
    before, used = family.vocabulary, vocabulary.used
    for name, tensor in grown.state_dict().items():
        if tensor.ndim and len(held[name]) == before and name.endswith(ROWS):
            known = held[name][:used]
            held[name] = torch.cat([known, known.mean(dim=0, keepdim=True).expand(len(tensor) - len(known), *tensor.shape[1:])])
    grown.load_state_dict(held)
    found = Model(spoken, grown.eval(), model.label, model.card)
    found.sha256 = model.sha256
    return found
