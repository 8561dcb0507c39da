"""Models to exchange, with weights away from where they begin, and what is asked of them."""

from dataclasses import replace

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from verossim.errors import VerossimError
from verossim.exchange import Imported
from verossim.nn.language import LanguageModel, Shape

V, LENGTH = 61, 64
OURS = Shape(vocabulary=V, length=LENGTH, width=32, blocks=2, heads=4, groups=2, head=16, inside=48)
LLAMA = replace(OURS, normed_heads=False, head=8, eps=1e-5)
GPT2 = replace(LLAMA, groups=4, positions="learned", norm="layer", activation="gelu_tanh", biases="all")


def random(module: torch.nn.Module) -> torch.nn.Module:
    """A network with every parameter away from where it begins."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) + (1.0 if parameter.dim() == 1 else 0.0)
    return module.eval()


def model(shape: Shape, **besides) -> Imported:
    return Imported(shape, dict(random(LanguageModel(shape)).state_dict()), **besides)


def same(one: Imported, other: Imported) -> None:
    assert one.shape == other.shape
    assert set(one.tensors) == set(other.tensors)
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    assert (one.tokenizer, one.start, one.stop, one.pad) == (other.tokenizer, other.start, other.stop, other.pad)


def words(steps=None, merges: int = 20) -> Tokenizer:
    """A byte-level tokenizer with three special tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = steps or pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    made.train_from_iterator(["To be, or not to be, that is the question: 1600 it's the the the"] * 3, trainer)
    made.add_special_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in ("start", "stop", "pad")])
    return made


def refused(made, *said: str) -> str:
    """The code of the error of a call, whose message says all of `said`."""
    with pytest.raises(VerossimError) as error:
        made()
    assert all(word in str(error.value) for word in said), str(error.value)
    assert error.value.hint
    return error.value.code
