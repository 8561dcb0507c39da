"""A batch taken apart into pieces that one matrix product can serve: records of one class that lack the same entries.

A record of known class is explained by the components of its class alone; one of unknown class by all of them. What a record
lacks is left out of the mixture (the marginal of a Gaussian is a Gaussian), never filled in with a guess.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .entries import Entries
from .missing import patterns

__all__ = ["Part", "parts"]


@dataclass(frozen=True)
class Part:
    """Records `rows` of a batch that share their class and their unknown entries.

    components: the slice of components that may explain them. label: their class, -1 unknown.
    numbers (b, o): the observed ones; onehots (b, S): zeros in unknown blocks, or None where the space has none.
    observed (D,) bool, unknown (blocks,) bool: which numbers are there, and which blocks are not; whole: nothing is unknown.
    """

    rows: Any
    components: slice
    label: int
    numbers: Tensor
    onehots: Tensor | None
    observed: Tensor
    unknown: Tensor
    whole: bool

    def prepared(self, covariance: Any, mixture: Any, noise: Tensor) -> tuple[Any, Any, Tensor]:
        """The conditional of what is unknown (None for whole records), the components of what is observed, and the
        variances of dequantisation of what is observed."""
        components = mixture.part(self.components)
        if self.whole:
            return None, covariance.dequantised(components, noise), noise
        conditional = covariance.conditional(components, self.observed)
        noise = noise[self.observed]
        return conditional, covariance.dequantised(conditional.marginal, noise), noise


def parts(entries: Entries, numbers: Tensor, onehots: Tensor | None, labels: Tensor | None, K: int, J: int) -> Iterator[Part]:
    """The pieces of a batch of numbers (B, D) and one-hot entries (B, S) with labels (B,) in [-1, J / K), or None."""
    none = torch.zeros(numbers.shape[1] + len(entries.blocks), dtype=torch.bool)
    for rows, components, label in _by_class(labels, K, J):
        x, s = numbers[rows], None if onehots is None else onehots[rows]
        if not (x.sum().isnan() or (s is not None and s.sum().isnan())):
            yield _part(rows, components, label, x, s, none)
            continue
        for among, lacking in patterns(entries.missing(x, s)):
            kept = None if s is None else torch.where(entries.known(lacking[x.shape[1]:]), s[among], 0.0)
            yield _part(among if isinstance(rows, slice) else rows[among], components, label, x[among], kept, lacking)


def _part(rows: Any, components: slice, label: int, x: Tensor, s: Tensor | None, lacking: Tensor) -> Part:
    D = x.shape[1]
    whole = not lacking.any()
    return Part(rows, components, label, x if whole else x[:, ~lacking[:D]], s, ~lacking[:D], lacking[D:], whole)


def _by_class(labels: Tensor | None, K: int, J: int) -> Iterator[tuple[Any, slice, int]]:
    if labels is None or (labels < 0).all():
        yield slice(None), slice(0, J), -1
        return
    order = labels.argsort(stable=True)
    kinds, counts = labels[order].unique_consecutive(return_counts=True)
    for label, rows in zip(kinds.tolist(), order.split(counts.tolist()), strict=True):
        yield rows, slice(0, J) if label < 0 else slice(label * K, (label + 1) * K), label
