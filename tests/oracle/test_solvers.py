"""Solvers and guidance against the exact denoiser of a mixture: orders of convergence, and identities that hold exactly."""

import math

import pytest
import torch
from ruler import mixture

from verossim.families.diffusion.denoiser import reexpressed, wide
from verossim.families.diffusion.flow import FlowMap
from verossim.families.diffusion.guidance import Guided, Unconditional
from verossim.families.diffusion.schedule import SCHEDULES
from verossim.families.diffusion.solver import STEPS, evenly, evenly_in_log_snr, legs, solve
from verossim.seeds import Noise

RULER = mixture(2, seed=1)
LOW, HIGH = 0.002, 80.0
B = 24


def path_of(name, times):
    return legs(SCHEDULES[name](LOW, HIGH), times, torch.zeros(0, dtype=torch.float64), finish=False)


def run(path, step, denoiser=RULER, y=None, B=B, noise=None):
    """x / alpha at the end of a path, from fixed noise."""
    z = Noise(3, B).normal(2, dtype=torch.float64)
    x = path[0].alpha * RULER.standard().start(z, HIGH)
    *_, end = solve(denoiser, x, path, step, y, noise)
    return end.x / path[-1].alpha_next


@pytest.fixture(scope="module")
def exact():
    return run(path_of("ve", evenly(4097)), "heun")


def even_in_log_snr(name, n):
    return evenly_in_log_snr(SCHEDULES[name](LOW, HIGH), n)


@pytest.mark.parametrize("name, times", [*((name, even_in_log_snr) for name in SCHEDULES), ("ve", lambda name, n: evenly(n))])
@pytest.mark.parametrize("step, order", [("euler", 1), ("heun", 2), ("dpm", 2)])
def test_solvers_converge_at_their_order(name, times, step, order, exact):
    errors = [float((run(path_of(name, times(name, n + 1)), step) - exact).norm()) for n in (200, 400)]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25, errors


def test_the_multistep_solver_extrapolates_to_the_middle_of_each_leg():
    def linear(x_r, ratio, y=None):
        return ratio.log()[:, None].expand_as(x_r)
    path = legs(SCHEDULES["vp"](LOW, HIGH), evenly(9), torch.zeros(0, dtype=torch.float64))
    x = torch.zeros(1, 2, dtype=torch.float64)
    for i, state in enumerate(solve(linear, x, path, "dpm")):
        leg, first_order = path[i], i == 0 or path[i].ratio_next == 0
        D = math.log(leg.ratio) if first_order else math.log(leg.ratio * leg.ratio_next) / 2
        assert (state.x - (leg.a * x + leg.b * D)).abs().max() < 1e-9
        x = state.x


@pytest.mark.parametrize("name", SCHEDULES)
def test_even_times_converge_to_the_same_samples(name, exact):
    assert (run(path_of(name, evenly(1001)), "heun") - exact).abs().max() < 2e-2


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", STEPS)
def test_a_schedule_in_another_gives_the_same_samples(name, step):
    other, plain = SCHEDULES[name](LOW, HIGH), SCHEDULES["ve"](LOW, HIGH)
    times = evenly(19)
    expected = run(path_of("ve", times), step, noise=Noise(1, B))
    found = run(path_of(name, other.when(plain.at(times).ratio)), step, noise=Noise(1, B))
    assert (found - expected).abs().max() < 1e-9


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_denoiser_for_one_schedule_serves_any_other(name):
    schedule = SCHEDULES[name](LOW, HIGH)

    def native(x_t, t, y=None):
        """E[x | x_t] from the schedule's own marginals, N(alpha mu, alpha^2 Sigma + sigma^2 I)."""
        means = []
        for i in range(len(t)):
            point = schedule.at(t[i])
            S = point.alpha ** 2 * RULER.covariances + point.sigma ** 2 * torch.eye(2, dtype=torch.float64)
            r = x_t[i] - point.alpha * RULER.means
            solved = torch.linalg.solve(S, r[:, :, None])[:, :, 0]
            p = (RULER.weights.log() - torch.logdet(S) / 2 - (r * solved).sum(dim=1) / 2).softmax(dim=0)
            means.append(p @ (RULER.means + point.alpha * (RULER.covariances @ solved[:, :, None])[:, :, 0]))
        return torch.stack(means)
    ratio = torch.logspace(-2, 1, B, dtype=torch.float64)
    x_r = RULER.sample(B) + wide(ratio, torch.zeros(B, 2)) * Noise(0, B).normal(2, dtype=torch.float64)
    assert (reexpressed(native, schedule)(x_r, ratio) - RULER(x_r, ratio)).abs().max() < 1e-6


def test_a_path_ends_at_the_denoised():
    path = legs(SCHEDULES["ve"](LOW, HIGH), evenly(8), torch.zeros(0, dtype=torch.float64))
    assert len(path) == 8 and path[-1].ratio_next == 0
    for step in STEPS:
        states = list(solve(RULER, RULER.standard().start(Noise(3, B).normal(2, dtype=torch.float64), HIGH), path, step, None,
                            Noise(0, B)))
        assert (states[-1].x - RULER(states[-2].x, torch.full((B,), LOW, dtype=torch.float64))).abs().max() < 1e-9


def test_the_ancestral_solver_draws_from_the_mixture():
    n, path = 4000, path_of("ve", evenly(121))
    z = Noise(5, n)
    x = RULER.standard().start(z.normal(2, dtype=torch.float64), HIGH)
    *_, end = solve(RULER, x, path, "ancestral", None, z)
    nearest = torch.cdist(end.x, RULER.means).argmin(dim=1)
    truth = torch.cdist(RULER.sample(200_000), RULER.means).argmin(dim=1)
    for k in range(3):
        share = float((truth == k).double().mean())
        assert abs(float((nearest == k).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / n) + 0.01
    standard = RULER.standard()
    assert ((end.x.mean(dim=0) - standard.centre).abs() < 4 * end.x.std(dim=0) / math.sqrt(n) + 0.01).all()
    assert abs(float((end.x - standard.centre).square().mean().sqrt()) / standard.spread - 1) < 0.04


def test_samples_do_not_depend_on_their_batch():
    path, whole = path_of("ve", evenly(12)), None
    for step in STEPS:
        x = RULER.standard().start(Noise(3, 8).normal(2, dtype=torch.float64), HIGH)
        *_, whole = solve(RULER, x, path, step, None, Noise(9, 8))
        *_, half = solve(RULER, x[4:], path, step, None, Noise(9, 8).part(4, 8))
        assert (whole.x[4:] - half.x).abs().max() < 1e-9


# ---- guidance ------------------------------------------------------------------------------------------------------------


def test_weight_one_is_the_conditional_model_exactly():
    y, path = torch.arange(B) % 3, path_of("ve", evenly(18))
    guided = Guided(RULER, Unconditional(RULER), 1.0)
    assert torch.equal(run(path, "heun", guided, y), run(path, "heun", RULER, y))


def test_guidance_is_linear_and_keeps_to_its_interval():
    x, y = RULER.sample(B), torch.zeros(B, dtype=torch.int64)
    for ratio, inside in ((0.05, False), (0.1, False), (0.5, True), (2.0, True), (3.0, False)):
        r = torch.full((B,), ratio, dtype=torch.float64)
        with_y, without = RULER(x, r, y), RULER(x, r)
        expected = without + 2.5 * (with_y - without) if inside else with_y
        assert (Guided(RULER, Unconditional(RULER), 2.5, 0.1, 2.0)(x, r, y) - expected).abs().max() < 1e-12


def test_autoguidance_leans_away_from_the_worse():
    class Worse:
        def __call__(self, x_r, ratio, y=None):
            return 0.5 * RULER(x_r, ratio, y)
    x, r = RULER.sample(B), torch.full((B,), 0.3, dtype=torch.float64)
    D = RULER(x, r)
    assert (Guided(RULER, Worse(), 1.5)(x, r) - 1.25 * D).abs().max() < 1e-12


# ---- the flow as a map ---------------------------------------------------------------------------------------------------


def test_encode_then_decode_returns_the_data():
    x, flow = RULER.sample(200), FlowMap(RULER, RULER.standard(), SCHEDULES["ve"](LOW, HIGH))
    z = flow.encoded(x, 48)
    assert (flow.decoded(z, 48) - x).abs().max() < 5e-3
    assert (flow.decoded(flow.encoded(x, 96), 96) - x).abs().max() < 5e-4


def test_latents_are_standard_normal():
    n = 4000
    z = FlowMap(RULER, RULER.standard(), SCHEDULES["ve"](LOW, HIGH)).encoded(RULER.sample(n, seed=4), 32)
    assert z.mean(dim=0).abs().max() < 4 / math.sqrt(n)
    assert (torch.cov(z.T) - torch.eye(2)).abs().max() < 4 * math.sqrt(2 / n)
    assert abs(float((z.abs() < 0.6745).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(2 * n)


def test_the_flow_meets_the_solvers(exact):
    z = Noise(3, B).normal(2, dtype=torch.float64)
    found = FlowMap(RULER, RULER.standard(), SCHEDULES["ve"](LOW, HIGH)).decoded(z, 128)
    assert (found - exact).abs().max() < 1e-3
