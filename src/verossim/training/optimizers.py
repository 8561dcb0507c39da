"""Optimizers and their rate: a pure function of the samples seen, so that a run resumed stands where it stood.

AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019) for everything, or Muon (Jordan et al.,
"Muon: an optimizer for hidden layers in neural networks", 2024) for the matrices inside and AdamW for the rest: kernels of
convolutions, vectors, and, as Jordan et al. have it, first and last layers and embeddings, which are known by the names in
OUTSIDE. Decay per step is rate times `decay` in either, for Muon's larger rate is that of its updates.

    rate(n) = peak * min(1, (n + batch) / warm-up, (total - n) / cool-down)        n: records seen before the step
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..families import Turn
from .engine import Engine
from .muon import Muon

__all__ = ["Optimizers", "rate"]

COOL_DOWN = 0.3  # share of a run over which the rate goes to zero
WARM_UP = 0.02  # share of a run, at most WARM_UP_STEPS steps
WARM_UP_STEPS = 500
MUON = 20.0  # rate of Muon over that of AdamW: its updates have unit spectral norm
OUTSIDE = {"first", "last", "classes", "time", "places", "values"}  # modules whose matrices lie outside: end layers, embeddings


def rate(samples: int, total: int, batch: int) -> float:
    """The share of the peak rate at which the step from `samples` on is taken, in (0, 1]."""
    warm = max(batch, min(WARM_UP * total, WARM_UP_STEPS * batch))
    cool = max(batch, COOL_DOWN * total)
    return min(1.0, (samples + batch) / warm, (total - samples) / cool)


class Optimizers:
    """One set of optimizers a turn, over the parameters of the turn's networks; state by parameter name."""

    def __init__(self, turns: Sequence[Turn], parameters: Mapping[str, nn.Parameter], kind: str, peak: float, decay: float,
                 moments: tuple[float, float]):
        self.names = {parameter: name for name, parameter in parameters.items()}
        self.of: dict[str, list[torch.optim.Optimizer]] = {}
        self.parameters: dict[str, list[nn.Parameter]] = {}
        for turn in turns:
            learning = {n: p for n, p in parameters.items() if not turn.networks or n.partition(".")[0] in turn.networks}
            self.parameters[turn.name] = list(learning.values())
            self.of[turn.name] = _made(learning, kind, peak, decay, moments)

    def each(self) -> Iterator[torch.optim.Optimizer]:
        """Every optimizer."""
        for optimizers in self.of.values():
            yield from optimizers

    def set_rate(self, share: float) -> None:
        """The rate of the next step, as a share of the peak."""
        for optimizer in self.each():
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share

    def forget(self) -> None:
        """The state as it was before the first step."""
        for optimizer in self.each():
            optimizer.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """The state, "parameter/quantity" -> tensor."""
        return {f"{name}/{quantity}": value for optimizer in self.each() for parameter, name in self.names.items()
                for quantity, value in optimizer.state.get(parameter, {}).items()}

    def restore(self, tensors: Mapping[str, Tensor], engine: Engine) -> None:
        """Sets the state from what `tensors` returned, whole; the engine gives each rank its part."""
        parameters = {name: parameter for parameter, name in self.names.items()}
        owner = {p: optimizer for optimizer in self.each() for group in optimizer.param_groups for p in group["params"]}
        self.forget()
        for name, value in sorted(tensors.items()):  # the same order on every rank
            parameter = parameters[name.rpartition("/")[0]]
            placed = value.to(parameter.device, copy=True) if value.ndim == 0 else engine.part(value, parameter)
            owner[parameter].state[parameter][name.rpartition("/")[2]] = placed


def _made(parameters: Mapping[str, nn.Parameter], kind: str, peak: float, decay: float,
          moments: tuple[float, float]) -> list[torch.optim.Optimizer]:
    inside = {name for name, p in parameters.items()
              if kind == "muon" and p.ndim == 2 and min(p.shape) > 1 and not OUTSIDE & {*name.split(".")}}
    inner = [p for name, p in parameters.items() if name in inside]
    outer = [p for name, p in parameters.items() if name not in inside]
    made: list[torch.optim.Optimizer] = []
    if outer:
        made.append(torch.optim.AdamW([{"params": outer, "peak": peak}], lr=peak, betas=moments, weight_decay=0.0, fused=True))
        made[0].register_step_pre_hook(_decaying([p.detach() for p in outer if p.ndim > 1], decay))
    if inner:
        made.append(Muon([{"params": inner, "peak": MUON * peak}], MUON * peak, decay / MUON))
    return made


def _decaying(weights: list[Tensor], decay: float) -> Callable[..., None]:
    """Matrices and kernels decay, before each step; biases, scales and the like do not. A second group of parameters would do
    the same, and add a tenth to the step of a small network."""
    def before(optimizer: torch.optim.Optimizer, given: Any, named: Any) -> None:
        if weights and decay:
            torch._foreach_mul_(weights, 1 - optimizer.param_groups[0]["lr"] * decay)
    return before
