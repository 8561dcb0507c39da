"""From noise to data in few steps: pure functions `step(denoiser, state, leg, y) -> state` along a schedule.

The probability-flow ODE has the same marginals as the diffusion (Song et al., arXiv:2011.13456). In x / alpha and r = sigma /
alpha it reads dx = eps dr, eps = (x - D) / r, so that a step at constant eps is

    x_s = a x_t + b D,     a = sigma_s / sigma_t,     b = alpha_s - alpha_t a

exact where D is constant: DDIM (arXiv:2010.02502), and Euler's method in r. Heun's averages eps over both ends (second order,
Karras et al., arXiv:2206.00364). DPM-Solver++(2M) extrapolates D linearly in ln r from the step before, at no cost (second
order, Lu et al., arXiv:2211.01095). The ancestral step draws from q(x_s | x_t, x = D) and follows the reverse SDE.

The last leg of a path goes from t = 0 to the data themselves, r = 0, where every solver returns D.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...seeds import Noise
from .denoiser import Denoiser
from .schedule import Schedule

__all__ = ["STEPS", "Leg", "State", "ancestral", "dpm", "euler", "evenly", "evenly_in_log_snr", "heun", "legs", "solve"]


@dataclass(frozen=True)
class State:
    """Where a solver stands: x_t (B, *event), and what the denoiser last said of it (before the first leg, anything)."""

    x: Tensor
    denoised: Tensor


@dataclass(frozen=True)
class Leg:
    """One step from t to s, with all that depends on times alone.

    alpha, ratio: at t and at s, as plain numbers; times, times_next (1,): the ratios as the denoiser takes them; a, b as above;
    former: ln r travelled on the leg before over that of this one, 0 where there is no such or r_s = 0.
    """

    alpha: float
    alpha_next: float
    ratio: float
    ratio_next: float
    a: float
    b: float
    former: float
    at: Tensor
    at_next: Tensor


def evenly(steps: int) -> Tensor:
    """Times from 1 to 0 that are even in t, (steps,) float64; with the schedule "ve" those of Karras et al."""
    return torch.linspace(1, 0, steps, dtype=torch.float64)


def evenly_in_log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Times from 1 to 0 that are even in the log-SNR, (steps,) float64."""
    ends = torch.tensor([schedule.high, schedule.low], dtype=torch.float64).log()
    return schedule.when(ends[0].lerp(ends[1], torch.linspace(0, 1, steps, dtype=torch.float64)).exp())


def legs(schedule: Schedule, times: Tensor, like: Tensor, finish: bool = True) -> tuple[Leg, ...]:
    """The legs between successive times (N,), and one more to the data where `finish`; ratios in the manner of `like`."""
    point = schedule.at(times)
    alphas, ratios = point.alpha.tolist(), point.ratio.tolist()
    logs = point.ratio.log().tolist()
    at = point.ratio.to(like)
    if finish:
        alphas, ratios = [*alphas, 1.0], [*ratios, 0.0]
        at = torch.cat([at, at.new_zeros(1)])
    path = []
    for i in range(len(ratios) - 1):
        a = alphas[i + 1] * ratios[i + 1] / (alphas[i] * ratios[i])
        extrapolates = i > 0 and ratios[i + 1] > 0
        former = (logs[i] - logs[i - 1]) / (logs[i + 1] - logs[i]) if extrapolates else 0.0
        path.append(Leg(alphas[i], alphas[i + 1], ratios[i], ratios[i + 1], a, alphas[i + 1] - alphas[i] * a, former,
                        at[i:i + 1], at[i + 1:i + 2]))
    return tuple(path)


def solve(denoiser: Denoiser, x: Tensor, path: tuple[Leg, ...], step: str = "heun", y: Tensor | None = None,
          noise: Noise | None = None) -> Iterator[State]:
    """The state after each leg, from x (B, *event) at the path's first time; `noise` is for "ancestral"."""
    state = State(x, x)
    for leg in path:
        state = STEPS[step](denoiser, state, leg, y, noise)
        yield state


def euler(denoiser: Denoiser, state: State, leg: Leg, y: Tensor | None = None, noise: Noise | None = None) -> State:
    """First order, one evaluation: x_s = a x_t + b D."""
    D = _denoised(denoiser, state.x, leg.alpha, leg.at, y)
    return State(torch.add(leg.a * state.x, D, alpha=leg.b), D)


def heun(denoiser: Denoiser, state: State, leg: Leg, y: Tensor | None = None, noise: Noise | None = None) -> State:
    """Second order, two evaluations; one on the last leg, where r = 0."""
    guess = euler(denoiser, state, leg, y)
    if leg.ratio_next == 0:
        return guess
    D_t, D_s = guess.denoised, _denoised(denoiser, guess.x, leg.alpha_next, leg.at_next, y)
    eps = (state.x / leg.alpha - D_t) / leg.ratio + (guess.x / leg.alpha_next - D_s) / leg.ratio_next
    x = torch.add(state.x / leg.alpha, eps, alpha=(leg.ratio_next - leg.ratio) / 2)
    return State(leg.alpha_next * x, D_s)


def dpm(denoiser: Denoiser, state: State, leg: Leg, y: Tensor | None = None, noise: Noise | None = None) -> State:
    """Second order, one evaluation: D extrapolated to the middle of the leg in ln r, D + (D - D_before) / (2 former)."""
    D = _denoised(denoiser, state.x, leg.alpha, leg.at, y)
    middle = D if leg.former == 0 else torch.lerp(state.denoised, D, 1 + 0.5 / leg.former)
    return State(torch.add(leg.a * state.x, middle, alpha=leg.b), D)


def ancestral(denoiser: Denoiser, state: State, leg: Leg, y: Tensor | None = None, noise: Noise | None = None) -> State:
    """x_s ~ q(x_s | x_t, x = D): mean alpha_s ((1 - k) D + k x_t / alpha_t), variance sigma_s^2 (1 - k), k = (r_s / r_t)^2."""
    D = _denoised(denoiser, state.x, leg.alpha, leg.at, y)
    k = (leg.ratio_next / leg.ratio) ** 2
    x = torch.add(leg.alpha_next * k / leg.alpha * state.x, D, alpha=leg.alpha_next * (1 - k))
    if leg.ratio_next and noise is not None:
        eps = noise.normal(*x.shape[1:], dtype=x.dtype).to(x)
        x = torch.add(x, eps, alpha=leg.alpha_next * leg.ratio_next * (1 - k) ** 0.5)
    return State(x, D)


STEPS: dict[str, Callable[..., State]] = {"heun": heun, "euler": euler, "dpm": dpm, "ancestral": ancestral}


@torch.no_grad()
def _denoised(denoiser: Denoiser, x_t: Tensor, alpha: float, at: Tensor, y: Tensor | None) -> Tensor:
    """D at ratios `at`. No graph is kept from step to step; a denoiser that asks for gradients of its own turns them on."""
    return denoiser(x_t if alpha == 1 else x_t / alpha, at.expand(len(x_t)), y)
