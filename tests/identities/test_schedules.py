"""Schedules are one thing in several notations: clocks that can be read both ways, and outputs that say the same."""

import itertools

import pytest
import torch

from verossim.families.diffusion.levels import Even, Levels
from verossim.families.diffusion.schedule import SCHEDULES, output
from verossim.seeds import Noise

LOW, HIGH = 0.002, 80.0
T = torch.linspace(0, 1, 101, dtype=torch.float64)
OUTPUTS = ("x", "noise", "velocity")


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param](LOW, HIGH)


def test_it_runs_from_the_least_noise_to_the_most(schedule):
    ratio = schedule.at(T).ratio
    assert torch.allclose(ratio[[0, -1]], torch.tensor([LOW, HIGH], dtype=torch.float64), rtol=1e-9)
    assert (ratio.diff() > 0).all() and (schedule.at(T).log_snr.diff() < 0).all()


def test_its_clock_is_read_both_ways(schedule):
    assert (schedule.when(schedule.at(T).ratio) - T).abs().max() < 1e-9


def test_slopes_are_derivatives(schedule):
    t = T.clone().requires_grad_()
    point = schedule.at(t)
    for value, slope in ((point.alpha, point.alpha_slope), (point.sigma, point.sigma_slope),
                         (point.log_snr, point.log_snr_slope)):
        found = torch.autograd.grad(value.sum() + 0 * t.sum(), t, retain_graph=True)[0]  # alpha may not depend on t
        assert torch.allclose(found, slope.detach(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_variance_is_preserved(name):
    point = SCHEDULES[name](LOW, HIGH).at(T)
    assert (point.alpha.square() + point.sigma.square() - 1).abs().max() < 1e-12


def test_known_values():
    half = torch.tensor([0.5], dtype=torch.float64)
    for name, ratio in (("cosine", 1.0), ("flow", 1.0)):  # where their own time is a half
        schedule = SCHEDULES[name](LOW, HIGH)
        point = schedule.at((half - schedule.first) / schedule.length)
        assert abs(float(point.ratio) - ratio) < 1e-12
    karras = [(HIGH ** (1 / 7) + i / 17 * (LOW ** (1 / 7) - HIGH ** (1 / 7))) ** 7 for i in range(18)]
    found = SCHEDULES["ve"](LOW, HIGH).at(torch.linspace(1, 0, 18, dtype=torch.float64)).sigma
    assert torch.allclose(found, torch.tensor(karras, dtype=torch.float64))
    preserving = SCHEDULES["vp"](LOW, HIGH)
    end = preserving.own_path(torch.ones(1, dtype=torch.float64))
    assert abs(float(end.log_snr) + 10.05) < 1e-3  # alpha^2 = exp(-(0.1 + 19.9 / 2)) at the end of its own time


@pytest.mark.parametrize("kind, into", list(itertools.permutations(OUTPUTS, 2)))
def test_outputs_say_the_same(schedule, kind, into):
    point = schedule.at(T)
    noise = Noise(0, len(T))
    x, eps = noise.normal(dtype=torch.float64), noise.normal(dtype=torch.float64)
    x_t = point.alpha * x + point.sigma * eps
    said = {"x": x, "noise": eps, "velocity": point.alpha_slope * x + point.sigma_slope * eps}
    is_said, is_asked = output(kind, point), output(into, point)
    found = (is_said.keep * x_t + is_said.gain * said[kind] - is_asked.keep * x_t) / is_asked.gain
    middle = (point.ratio > 0.01) & (point.ratio < 20)  # beyond, rounding is what is seen
    assert ((found - said[into]).abs() / (1 + said[into].abs()))[middle].max() < 1e-10


@pytest.mark.parametrize("spread", [0.2, 1.0])
@pytest.mark.parametrize("name", [*SCHEDULES, "even"])
def test_levels_are_drawn_from_their_density(name, spread):
    schedule = SCHEDULES["ve" if name == "even" else name](LOW, HIGH)
    levels = Even(schedule, spread) if name == "even" else Levels(name, schedule, spread)
    logs = torch.linspace(*torch.tensor([LOW, HIGH]).log().tolist(), 20_001, dtype=torch.float64)
    density = levels.density(logs.exp())
    assert abs(float(torch.trapezoid(density, logs)) - 1) < 2e-3
    drawn = levels.ratio((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000).log()
    assert drawn.min() > logs[0] - 1e-6 and drawn.max() < logs[-1] + 1e-6
    for edge in (-4.0, -1.5, 0.0, 1.5):
        expected = float(torch.trapezoid(density * (logs < edge), logs))
        assert abs(float((drawn < edge).double().mean()) - expected) < 3e-3
