"""The average of the weights along the path of learning, which is what ships.

The power average of Karras et al., "Analyzing and improving the training dynamics of diffusion models", CVPR 2024, eq. 4: its
memory grows with the run, so that one setting, the width s of the averaging profile as a share of the run, fits any length.

    theta_n = beta_n theta_(n-1) + (1 - beta_n) theta        beta_n = (1 - 1 / n)^(gamma + 1)
    s = (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^(-1/2)

Late in a run weights hardly move within a few steps, so only every k-th step is taken in then, with (1 - k / n) in the place of
(1 - 1 / n): reading and writing every weight once more would be a sixth of the step of a large network on small batches. k is a
power of two, at most 16 and at most n / 50, so that an average has several steps in it.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Average", "averaged", "exponent"]

APART, PART = 16, 50  # steps between two that are taken in, at most, and as a part of all so far


def exponent(width: float) -> float:
    """gamma of the power profile of relative width s, by bisection; s falls from 0.289 at gamma = 0 towards 0."""
    low, high = 0.0, 1e6
    for _ in range(100):
        gamma = (low + high) / 2
        wider = (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5 > width
        low, high = (gamma, high) if wider else (low, gamma)
    return low


class Average:
    """The power average of parameters by name; width 0 keeps the last ones."""

    def __init__(self, parameters: Mapping[str, Tensor], width: float):
        self.tensors = {name: p.detach().clone() for name, p in parameters.items()}
        self.gamma = exponent(width) if width else None
        self._pair = list(self.tensors.values()), [p.detach() for p in parameters.values()]

    def update(self, step: int) -> None:
        """Takes in the parameters after step number `step`, counted from 1."""
        every = 1 if self.gamma is None else min(APART, 1 << (max(1, step // PART).bit_length() - 1))
        if step % every == 0:
            weight = 1.0 if self.gamma is None else 1 - (1 - every / step) ** (self.gamma + 1)
            torch._foreach_lerp_(*self._pair, weight)

    def give(self, parameters: Mapping[str, Tensor]) -> None:
        """Sets the parameters to their averages."""
        _set(parameters, self.tensors)


@contextlib.contextmanager
def averaged(family: nn.Module, parameters: Mapping[str, Tensor], average: Average) -> Iterator[None]:
    """Where the family has its averaged weights and does not learn; afterwards it has its own again."""
    own = {name: p.detach().clone() for name, p in parameters.items()}
    average.give(parameters)
    family.eval()
    try:
        yield
    finally:
        _set(parameters, own)
        family.train()


def _set(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)
