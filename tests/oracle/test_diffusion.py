"""What a diffusion model says of records, with the exact denoiser of a known distribution in place of its network."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from ruler import Ruler, mixture

from verossim.families.diffusion.completion import Completion
from verossim.families.diffusion.denoiser import Standard
from verossim.families.diffusion.likelihood import Judge, _widening, gaussian_nats
from verossim.families.diffusion.schedule import SCHEDULES
from verossim.families.diffusion.values import Values
from verossim.seeds import Noise
from verossim.spaces import Continuous

HIGH = 80.0


def vector(D, **more):
    return Continuous(shape=(D,), axes=("entry",), **more)


def judge(ruler, space, standard=None) -> Judge:
    values = Values(space)
    return Judge(ruler, standard or ruler.standard(), SCHEDULES["ve"](values.finest, HIGH), values)


def covered(error, stderr) -> int:
    return int((error.abs() < 1.96 * stderr).sum())


def within_95_percent(hits: int, n: int) -> bool:
    """Whether 95 % coverage is possible: within 3.5 standard deviations of a binomial; more is no fault of an error bar."""
    return hits > 0.95 * n - 3.5 * math.sqrt(0.95 * 0.05 * n)


def not_too_wide(error, stderr, draws: int, beside: float = 0.0) -> bool:
    """Whether error bars are no wider than `draws` draws make them: those of a normal error whose deviation is told from its
    draws, widened by Student's t, are median |error| times this ratio of medians; a quarter more is granted, and what stands
    `beside` the draws in them."""
    chi = 1 - 2 / (9 * (draws - 1))  # the median of chi square over its degrees of freedom, to the power 1/3
    ratio = _widening(draws - 1) * chi ** 1.5 / 0.6745
    return float(stderr.median()) < 1.25 * ratio * float(error.abs().median()) + beside


# ---- real entries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D, seed", [(1, 0), (2, 1), (3, 2), (8, 3), (16, 4)])
def test_the_flow_gives_the_density(D, seed):
    ruler = mixture(D, seed=seed)
    x = ruler.sample(250, seed)
    found = judge(ruler, vector(D)).flow(x, Noise(0, 250))
    error = found.log_prob - ruler.log_density(x)
    assert float(error.square().mean().sqrt()) < 0.01 and (error.abs() < 0.01).double().mean() > 0.98
    assert within_95_percent(covered(error, found.stderr), 250)
    far = math.sqrt(2 * D) * (ruler.standard().spread / HIGH) ** 2  # nothing is drawn: the error of the steps, and of this end
    assert found.stderr.median() < 3 * error.abs().median() + far


def test_the_flow_in_single_precision():
    ruler = mixture(8, seed=3)
    x = ruler.sample(100).float()
    found = judge(ruler, vector(8), Standard(ruler.standard().centre.float(), ruler.standard().spread)).flow(x, Noise(0, 100))
    assert found.log_prob.dtype == torch.float32
    assert (found.log_prob - ruler.log_density(x)).abs().median() < 0.005


def test_estimated_traces_are_unbiased_and_say_how_sure_they_are():
    ruler, n = mixture(66, K=2, seed=2), 220
    x = ruler.sample(n)
    found = judge(ruler, vector(66)).flow(x, Noise(0, n), steps=24)
    error = found.log_prob - ruler.log_density(x)
    assert error.abs().median() > 0.02  # it is an estimate
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(n) + 0.02
    assert within_95_percent(covered(error, found.stderr), n) and not_too_wide(error, found.stderr, 4)


@pytest.mark.parametrize("D, seed", [(2, 1), (16, 4)])
def test_the_bound_is_met_by_the_exact_denoiser_and_not_passed(D, seed):
    ruler, n = mixture(D, seed=seed), 300
    x = ruler.sample(n, seed)
    found, flow = judge(ruler, vector(D)).bound(x, Noise(0, n)), judge(ruler, vector(D)).flow(x, Noise(0, n))
    error = found.log_prob - ruler.log_density(x)
    noise = 4 * float(error.std()) / math.sqrt(n)
    assert abs(float(error.mean())) < noise
    assert float((found.log_prob - flow.log_prob).mean()) < noise
    assert within_95_percent(covered(error, found.stderr), n) and not_too_wide(error, found.stderr, 16)


def test_the_bound_is_below_the_truth_for_any_other_denoiser():
    ruler, n = mixture(3, seed=2), 300
    standard, x = ruler.standard(), ruler.sample(300)

    def blurred(x_r, ratio, y=None):
        """What the Gaussian of the same moments would say, and the truth, in equal parts."""
        form = standard.output(ratio)
        return (ruler(x_r, ratio) + standard.centre + form.keep[:, None] * (x_r - standard.centre)) / 2
    error = judge(blurred, vector(3), standard).bound(x, Noise(0, n)).log_prob - ruler.log_density(x)
    assert float(error.mean()) < -0.1 - 4 * float(error.std()) / math.sqrt(n)


def test_a_gaussian_costs_what_it_should():
    ruler = Ruler(torch.ones(1).double(), torch.tensor([[0.5, -1.0]]).double(), 0.49 * torch.eye(2).double()[None])
    standard, x, low = ruler.standard(), ruler.sample(50), 0.3
    eps = Noise(0, 50).normal(20_000, 2, dtype=torch.float64)
    sampled = ruler.log_density((x[:, None] + low * eps).reshape(-1, 2), low).view(50, -1).mean(dim=1)
    exact = -gaussian_nats(standard, low, x, torch.ones_like(x, dtype=torch.bool))
    assert (exact - sampled).abs().max() < 0.05
    found = judge(ruler, vector(2)).flow(x, Noise(0, 50), steps=4)
    assert (found.log_prob - ruler.log_density(x, 0.002)).abs().max() < 1e-9  # nothing is left to integrate


# ---- discrete values, and both together ----------------------------------------------------------------------------------


@dataclass
class Case:
    """A distribution over values: its ruler, its space, records, and their true log mass (or mass times density)."""

    ruler: Ruler
    space: Continuous
    x: torch.Tensor
    truth: torch.Tensor


def dice(p: torch.Tensor, values: torch.Tensor, space: Any, variances=None, n: int = 250) -> Case:
    """Values (V, D) of probabilities p (V,), Gaussian about them where `variances` (D,) are not zero."""
    D = values.shape[1]
    variances = torch.zeros(D, dtype=torch.float64) if variances is None else variances
    ruler = Ruler(p, values, variances.diag().expand(len(p), D, D))
    g = torch.Generator().manual_seed(1)
    which = torch.multinomial(p, n, replacement=True, generator=g)
    x = values[which] + variances.sqrt() * torch.randn(n, D, generator=g, dtype=torch.float64)
    real = variances > 0
    exact = ((x[:, None] - values)[:, :, ~real].abs() < 1e-9).all(dim=2)
    density = torch.distributions.Normal(values[:, real], variances[real].sqrt()).log_prob(x[:, None, real]).sum(dim=2)
    return Case(ruler, space, x, (p.log() + density).masked_fill(~exact, -math.inf).logsumexp(dim=1))


def binary(n=250):
    p = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.tensor(list(product((-0.5, 0.5), repeat=4)), dtype=torch.float64)
    return dice(p / p.sum(), values, vector(4, levels=2), n=n)


def counts(n=250):
    p = torch.rand(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = torch.tensor(list(product((-1.2, -0.7, -0.2, 0.3), (-0.1, 0.2, 0.5))), dtype=torch.float64)
    return dice(p / p.sum(), values, vector(2, widths=(0.5, 0.3)), n=n)


def category(n=250):
    p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    return dice(p, torch.eye(4, dtype=torch.float64), vector(4, simplexes=((0, 4),)), n=n)


def fine(n=250):
    """256 levels, of a smooth distribution."""
    values = torch.arange(256, dtype=torch.float64)[:, None] * 2 / 256 - 1 + 1 / 256
    p = torch.exp(-((values[:, 0] - 0.3) / 0.2).square()) + 0.3 * torch.exp(-((values[:, 0] + 0.9) / 0.1).square())
    return dice(p / p.sum(), values, vector(1, levels=256), n=n)


def mixed(n=250):
    """A real number, a count and a category, none of them independent of the others."""
    blocks = [[m, c, *e] for (m, c), e in zip([(0.9, -0.5), (-0.4, 0.0), (0.0, 0.5)], torch.eye(3).tolist(), strict=True)]
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    space = vector(5, widths=(0.0, 0.5, 0, 0, 0), simplexes=((2, 5),))
    return dice(p, torch.tensor(blocks, dtype=torch.float64), space, torch.tensor([0.1, 0, 0, 0, 0], dtype=torch.float64), n)


CASES = [binary, counts, category, fine, mixed]


@pytest.mark.parametrize("case", CASES)
def test_the_flow_gives_the_mass_of_discrete_values(case):
    case = case(100)
    found = judge(case.ruler, case.space).flow(case.x, Noise(0, len(case.x)), steps=48)
    error = found.log_prob - case.truth
    assert float(error.abs().median()) < 0.02 and abs(float(error.mean())) < 0.02


@pytest.mark.parametrize("case", CASES)
def test_the_bound_gives_the_mass_of_discrete_values(case):
    case = case(400)
    found = judge(case.ruler, case.space).bound(case.x, Noise(0, len(case.x)))
    error = found.log_prob - case.truth
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(len(error)) + 0.01
    assert within_95_percent(covered(error, found.stderr), len(error)) and not_too_wide(error, found.stderr, 16)


@pytest.mark.parametrize("levels, width", [(2, 0), (256, 0), (70_000, 0), (None, 0.3), (None, 0.001)])
def test_the_flat_measure_sums_all_values(levels, width):
    space = vector(1, levels=levels) if levels else vector(1, widths=(width,))
    values, n = Values(space), 41
    step = 2 / levels if levels else width
    places = torch.arange(levels, dtype=torch.float64) * step - 1 + step / 2 if levels else \
        torch.arange(-5000, 5000, dtype=torch.float64) * step
    x = places[torch.linspace(0, len(places) - 1, n).long()] if levels else places[4980:5021]
    eps = torch.linspace(-3, 3, n, dtype=torch.float64)
    z = x + values.finest * eps
    log_r = torch.distributions.Normal(places, values.finest).log_prob(z[:, None]).logsumexp(dim=1)
    assert (values.log_flat(x[:, None], eps[:, None]) - log_r).abs().max() < (1e-9 if levels != 70_000 else 2e-2)


def test_samples_are_values():
    values = Values(vector(6, widths=(0.0, 0.5, 0.25, 0, 0, 0), simplexes=((3, 6),)))
    x = Noise(0, 100).normal(6)
    anchor = torch.tensor([0.3, 0.1, -0.05, 0, 0, 0])
    snapped = values.nearest(x, anchor)
    assert torch.equal(snapped[:, 0], x[:, 0]) and torch.equal(snapped[:, 3:].sum(dim=1), torch.ones(100))
    assert torch.equal(snapped[:, 3:].argmax(dim=1), x[:, 3:].argmax(dim=1))
    for entry, width in ((1, 0.5), (2, 0.25)):
        steps = (snapped[:, entry] - anchor[entry]) / width
        assert (steps - steps.round()).abs().max() < 1e-5 and (snapped[:, entry] - x[:, entry]).abs().max() <= width / 2 + 1e-6
    levels = Values(vector(6, levels=4))
    assert set(levels.nearest(3 * x, torch.full((6,), -0.75)).unique().tolist()) == {-0.75, -0.25, 0.25, 0.75}


# ---- completion ----------------------------------------------------------------------------------------------------------


def completed(ruler, space, x, n, **more):
    values = Values(space)
    fill = Completion(ruler, ruler.standard(), values, torch.zeros(space.shape), values.finest, **more)
    return fill(x.expand(n, -1).clone(), Noise(2, n))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_completion_of_a_gaussian_is_its_conditional(correlation):
    D, n = 4, 3000
    C = correlation ** (torch.arange(D)[:, None] - torch.arange(D)).abs().double()
    ruler = Ruler(torch.ones(1).double(), torch.tensor([[0.3, -0.2, 0.1, 0.5]]).double(), C[None])
    x = torch.tensor([1.5, math.nan, -0.5, math.nan], dtype=torch.float64)
    k, u = ~x.isnan(), x.isnan()
    G = C[u][:, k] @ torch.linalg.inv(C[k][:, k])
    mean = ruler.means[0, u] + G @ (x[k] - ruler.means[0, k])
    V = C[u][:, u] - G @ C[k][:, u]
    found = completed(ruler, vector(D), x, n, levels=32)
    assert torch.equal(found[:, k], x[k].expand(n, -1))
    deviation = V.diagonal().sqrt()
    assert ((found[:, u].mean(dim=0) - mean).abs() < 4 * deviation / math.sqrt(n) + 0.01 * deviation).all()
    scale = deviation[:, None] * deviation
    assert ((torch.cov(found[:, u].T) - V).abs() / scale).max() < 4 * math.sqrt(2 / n) + 0.04


def test_completion_weighs_the_modes_of_a_mixture():
    eye = 0.04 * torch.eye(2, dtype=torch.float64)
    ruler = Ruler(torch.tensor([0.3, 0.7]).double(), torch.tensor([[-0.3, 1.0], [0.3, -1.0]]).double(), eye.expand(2, 2, 2))
    x = torch.tensor([-0.05, math.nan], dtype=torch.float64)
    p = (ruler.weights.log() - (x[0] - ruler.means[:, 0]).square() / 0.08).softmax(dim=0)
    found = completed(ruler, vector(2), x, 1500, rounds=8)
    assert (torch.minimum((found[:, 1] - 1).abs(), (found[:, 1] + 1).abs()) < 0.8).all()
    assert abs(float((found[:, 1] > 0).double().mean()) - float(p[0])) < 0.1  # modes at some distance are weighed about


def test_completion_of_categories_given_numbers():
    case = mixed()
    x = torch.tensor([[0.9, -0.5, *[math.nan] * 3], [-0.4, 0.0, *[math.nan] * 3], [math.nan, math.nan, 0, 0, 1]],
                     dtype=torch.float64)
    values = Values(case.space)
    anchor = torch.tensor([0, -0.5, 0, 0, 0], dtype=torch.float64)
    fill = Completion(case.ruler, case.ruler.standard(), values, anchor, values.finest)
    found = fill(x.repeat(50, 1), Noise(0, 150)).view(50, 3, 5)
    assert (found[:, 0, 2:] == torch.tensor([1.0, 0, 0])).all() and (found[:, 1, 2:] == torch.tensor([0, 1.0, 0])).all()
    assert (found[:, 2, 1] - 0.5).abs().max() < 1e-9 and found[:, 2, 0].abs().max() < 4.5 * math.sqrt(0.1)
