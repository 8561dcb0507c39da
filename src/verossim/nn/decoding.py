"""Writing tokens one after another with a `LanguageModel`: keys and values of what stands are kept, so that a token costs one
pass over the weights whatever stands before it.

    p(x_(n+1) | x_1 ... x_n) = softmax(step(x_n))

`Plain` is the reference: the model itself with its `Cache`, on any device. `Compiled` (numba, for float32 on the CPU) does the
whole stack of blocks in one call; a sample's logits there have the same bits whatever else is in the batch.
"""

from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .language import Cache, LanguageModel

__all__ = ["Decoder", "Plain", "decoder"]


def decoder(model: LanguageModel, count: int, length: int, beside: Tensor | None = None) -> "Decoder":
    """The fastest decoder there is for the model where it is: `count` samples of at most `length` tokens each.

    beside (count, width) : a vector for each sample that is added to the embeddings of its tokens. The weights are those that
    the model has now.
    """
    weight = model.first.weight
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and find_spec("numba") is not None:
        from .decoding_compiled import Compiled
        return Compiled(model, count, length, beside)
    return Plain(model, count, length, beside)


class Decoder(ABC):
    """What has been written of B samples, as keys and values in one allocation, and what comes next."""

    length: int  #: how many tokens a sample may have
    lengths: Tensor  #: (B,) int64: how many tokens each sample has; it may change in place

    @abstractmethod
    def feed(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Adds `counts` (B,) tokens to each sample, those at the front of its row of `tokens` (B, N); returns the logits (B, V)
        after its last one, zeros where the count is 0."""

    @abstractmethod
    def step(self, tokens: Tensor, active: Tensor | None = None) -> Tensor:
        """Adds a token (B,) to each sample that is active (B,) bool; returns the logits (B, V) after it, zeros for others."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Sample b becomes a copy of sample rows[b], for rows (B,)."""


class Plain(Decoder):
    """The model itself with its cache."""

    def __init__(self, model: LanguageModel, count: int, length: int, beside: Tensor | None = None):
        self.model, self.beside, self.length = model, beside, min(length, model.shape.length)
        self.cache = Cache(model.shape, count, self.length, model.first.weight)

    @property
    def lengths(self) -> Tensor:  # type: ignore[override]
        """(B,) int64."""
        return self.cache.lengths

    @torch.inference_mode()
    def feed(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """As Decoder says. Rows are filled up with tokens that count for nothing; where there is no room for these, tokens come
        one by one."""
        B, N = tokens.shape
        counts = counts.to(tokens.device)
        fits(self.lengths, counts, self.length)
        before, logits = self.cache.lengths.clone(), self.cache.tensor.new_zeros(B, self.model.shape.vocabulary)
        if int(before.max()) + N > self.length:
            for n in range(N):
                logits = torch.where((n < counts)[:, None], self.step(tokens[:, n], n < counts), logits)
            return logits
        found = self.model(tokens, self.beside, self.cache)
        self.cache.lengths = before + counts
        some = counts > 0
        logits[some] = found[some, counts[some] - 1]
        return logits

    @torch.inference_mode()
    def step(self, tokens: Tensor, active: Tensor | None = None) -> Tensor:
        """As Decoder says. Samples that are not active write their key over one of theirs, which is put back."""
        if active is None:
            fits(self.lengths, torch.ones_like(self.lengths), self.length)
            return self.model(tokens[:, None], self.beside, self.cache)[:, 0]
        fits(self.lengths, active.long(), self.length)
        before, still = self.cache.lengths, (~active).nonzero()[:, 0]
        at = before[still].clamp(max=self.length - 1)
        kept = self.cache.tensor[:, :, still, :, at]
        self.cache.lengths = before.clamp(max=self.length - 1)
        logits = self.model(tokens[:, None], self.beside, self.cache)[:, 0]
        self.cache.tensor[:, :, still, :, at] = kept
        self.cache.lengths = before + active
        return logits.where(active[:, None], logits.new_zeros(()))

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        """As Decoder says."""
        longest = int(self.lengths[rows].max())
        self.cache.tensor[:, :, :, :, :longest] = self.cache.tensor[:, :, rows, :, :longest]
        self.cache.lengths = self.cache.lengths[rows]
        self.beside = None if self.beside is None else self.beside[rows]


def fits(lengths: Any, more: Any, length: int) -> None:
    """Raises ValueError where samples of these lengths (B,) have no room for so many more tokens (B,), tensors or arrays."""
    if len(lengths) and int((lengths + more).max()) > length:
        raise ValueError(f"samples would have {int((lengths + more).max())} tokens, and there is room for {length}")
