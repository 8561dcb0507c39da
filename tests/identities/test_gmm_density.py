"""What is true of any mixture: densities integrate to one, Bayes' rule, conditionals in closed form, samples that follow."""

import itertools
import math

import numpy as np
import pytest
import torch
from mixtures import KINDS, MIXED, PLAIN, anywhere, batch, blobs, build, climb, density, matrices, mixed
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from verossim.seeds import Noise
from verossim.spaces import Discrete


@pytest.mark.parametrize("kind", PLAIN)
def test_log_prob_and_update_equal_scikit_learn(kind):
    x = blobs(400, 5)
    peer = GaussianMixture(3, covariance_type=kind, random_state=0).fit(x.numpy())
    family = build(5, components=3, covariance=kind, prior=0.0, jitter=1e-6)
    family.place(*map(torch.from_numpy, (peer.weights_, peer.means_, peer.covariances_)))
    np.testing.assert_allclose(density(family, x), peer.score_samples(x.numpy()), atol=1e-8)
    np.testing.assert_allclose(family.assign(batch(x)), peer.predict_proba(x.numpy()), atol=1e-8)
    assert family.freedom == peer._n_parameters()
    objective = family.absorb(family.statistics(batch(x)))
    assert objective == pytest.approx(peer.score(x.numpy()), abs=1e-9)
    peer._m_step(x.numpy(), peer._e_step(x.numpy())[1])
    for mine, theirs in zip(family.moments(), (peer.weights_, peer.means_, peer.covariances_), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_density_integrates_to_one(kind):
    line = torch.linspace(-60, 60, 200_001, dtype=torch.float64)[:, None]
    family = anywhere(build(1, components=3, covariance=kind))
    assert torch.trapezoid(density(family, line).exp(), line[:, 0]) == pytest.approx(1, abs=1e-6)
    axis = torch.linspace(-25, 25, 801, dtype=torch.float64)
    family = anywhere(build(2, components=3, covariance=kind, rank=1))
    plane = density(family, torch.cartesian_prod(axis, axis)).exp().view(801, 801)
    assert torch.trapezoid(torch.trapezoid(plane, axis), axis) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_density_integrates_to_one_in_five_dimensions(kind):
    family = anywhere(build(5, components=3, covariance=kind, rank=2))
    x = family.sample(Noise(0, 50_000), dtype=torch.float64)
    wide = MultivariateNormal(x.mean(dim=0), 2 * x.T.cov())
    draws = Noise(1, 200_000).normal(5, dtype=torch.float64) @ wide.scale_tril.T + wide.mean
    ratios = (density(family, draws) - wide.log_prob(draws)).exp()
    stderr = ratios.std() / math.sqrt(len(ratios))
    assert abs(ratios.mean() - 1) < 5 * stderr < 0.2


def test_mixed_records_sum_to_one_over_categories():
    family = anywhere(build(6, spaces={"simplexes": ((0, 3), (4, 6))}, components=3))
    line = torch.linspace(-40, 40, 20_001, dtype=torch.float64)[:, None]
    total = 0.0
    for a, b in itertools.product(range(3), range(2)):
        first, second = torch.eye(3).double()[a], torch.eye(2).double()[b]
        x = torch.cat([first.expand(len(line), 3), line, second.expand(len(line), 2)], dim=1)
        total += float(torch.trapezoid(density(family, x).exp(), line[:, 0]))
    assert total == pytest.approx(1, abs=1e-6)
    assert family.freedom == 2 + 3 + 3 + 3 * (2 + 1)


def test_cells_are_a_bound_on_the_mass_and_a_close_one():
    width = 0.3
    family = anywhere(build(1, spaces={"widths": (width,)}, components=3))
    centres = (torch.arange(-100, 101, dtype=torch.float64) * width)[:, None]
    weights, means, covariances = family.moments()
    real = build(1, components=3)
    real.place(weights, means, covariances)
    fine = centres + torch.linspace(-width / 2, width / 2, 401, dtype=torch.float64)
    mass = torch.trapezoid(density(real, fine.reshape(-1, 1)).exp().view(fine.shape), fine, dim=1)
    bound = family.log_prob(centres)
    assert bound.kind == "bound"
    gap = mass.log() - bound.log_prob
    one = anywhere(build(2, spaces={"widths": (width, 0)}, components=1))
    u = ((torch.arange(2_000, dtype=torch.float64) + 0.5) / 2_000 - 0.5) * width
    plain = MultivariateNormal(one.means[0], one.moments()[2][0])
    jensen = plain.log_prob(torch.stack([u, torch.zeros(2_000)], dim=1)).mean() + math.log(width)
    assert float(one.log_prob(torch.zeros(1, 2).double()).log_prob) == pytest.approx(float(jensen), abs=1e-6)
    likely = mass > 1e-6
    assert gap[likely].min() > -1e-9
    assert float((mass * gap)[likely].sum()) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_affine_change_shifts_log_prob_by_the_log_determinant(kind):
    x = blobs(300, 4)
    scale, shift = 8.0, torch.tensor([3.0, -50.0, 0.0, 7.0]).double()
    settings = {"components": 2, "covariance": kind, "rank": 2}
    first, second = build(4, **settings), build(4, **settings)
    climb(first, batch(x))
    climb(second, batch(x * scale + shift))
    expected = density(first, x) - 4 * math.log(scale)
    np.testing.assert_allclose(density(second, x * scale + shift), expected, atol=1e-6)


def test_bayes_rule_and_the_joint_over_classes():
    x = mixed(300)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
    y[::7] = -1
    family = build(8, Discrete(shape=(), vocabulary=3, pad=-1), MIXED, components=2)
    climb(family, batch(x, y))
    prior = family.log_classes
    joint = torch.stack([family.log_prob(x, torch.full((300,), c)).log_prob + prior[c] for c in range(3)], dim=1)
    np.testing.assert_allclose(joint.logsumexp(dim=1), density(family, x), atol=1e-10)
    np.testing.assert_allclose(joint.softmax(dim=1), family.assign(batch(x)).view(300, 3, 2).sum(dim=2), atol=1e-10)
    given = torch.where(torch.arange(300) % 2 == 0, y, -1)
    of_class = (joint - prior).gather(1, given.clamp(min=0)[:, None])[:, 0]
    expected = torch.where(given < 0, density(family, x), of_class)
    np.testing.assert_allclose(family.log_prob(x, given).log_prob, expected, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_entries_are_summed_out(kind):
    family = anywhere(build(8, spaces={"simplexes": ((5, 8),)}, components=3, covariance=kind, rank=2))
    x = mixed(2)[:1]
    x[0, 2] = math.nan
    line = torch.linspace(-80, 80, 40_001, dtype=torch.float64)
    filled = x.repeat(len(line), 1)
    filled[:, 2] = line
    assert torch.trapezoid(density(family, filled).exp(), line) == pytest.approx(float(density(family, x).exp()), rel=1e-6)
    unknown = x.clone()
    unknown[0, 5:] = math.nan
    known = x.repeat(3, 1)
    known[:, 5:] = torch.eye(3)
    assert density(family, known).logsumexp(dim=0) == pytest.approx(float(density(family, unknown)), abs=1e-10)
    assert density(family, torch.full_like(x, math.nan)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("kind", ["full", "diag", "factors"])
def test_completion_is_the_conditional_in_closed_form(kind):
    family = anywhere(build(4, components=2, covariance=kind, rank=2))
    weights, means = family.log_weights[0].exp(), family.means
    covariances = matrices(family)
    o, m = [0, 2], [1, 3]
    x = blobs(50, 4)
    part = torch.stack([MultivariateNormal(means[k][o], covariances[k][o][:, o]).log_prob(x[:, o]) for k in range(2)], dim=1)
    r = (part + weights.log()).softmax(dim=1)
    expected = torch.zeros(50, 2).double()
    second = torch.zeros(2, 2).double()
    for k in range(2):
        S = covariances[k]
        A = S[m][:, o] @ S[o][:, o].inverse()
        mean = means[k][m] + (x[:, o] - means[k][o]) @ A.T
        expected += r[:, k:k + 1] * mean
        C = S[m][:, m] - A @ S[o][:, m]
        second += r[0, k] * (C + mean[0, :, None] * mean[0])
    given = x.clone()
    given[:, m] = math.nan
    filled = family.complete(given)
    np.testing.assert_allclose(filled[:, m], expected, atol=1e-10)
    assert torch.equal(filled[:, o], x[:, o])
    draws = family.complete(given[:1].repeat(40_000, 1), None, Noise(0, 40_000))[:, m]
    spread = (second - expected[0, :, None] * expected[0]).diagonal().sqrt()
    assert ((draws.mean(dim=0) - expected[0]).abs() < 5 * spread / 200).all()
    np.testing.assert_allclose(draws.T @ draws / 40_000, second, atol=0.05 * float(second.abs().max()))


def test_completed_categories_are_the_likeliest_and_in_proportion():
    family = anywhere(build(4, spaces={"simplexes": ((1, 4),)}, components=2))
    x = torch.tensor([[0.4, math.nan, math.nan, math.nan]]).double()
    known = x.repeat(3, 1)
    known[:, 1:] = torch.eye(3)
    p = density(family, known).softmax(dim=0)
    assert family.complete(x)[0, 1:].argmax() == p.argmax()
    draws = family.complete(x.repeat(20_000, 1), None, Noise(0, 20_000))[:, 1:]
    np.testing.assert_allclose(draws.mean(dim=0), p, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_sample_seven_is_sample_seven_in_any_batch(kind):
    condition = Discrete(shape=(), vocabulary=2, pad=-1)
    family = anywhere(build(8, condition, MIXED, components=3, covariance=kind, rank=2))
    y = torch.arange(400) % 3 - 1
    whole = family.sample(Noise(5, 400), y)
    for first, last in ((0, 1), (7, 8), (7, 40), (100, 400)):
        assert torch.equal(family.sample(Noise(5, last - first, first), y[first:last]), whole[first:last])


def test_samples_are_the_same_beyond_one_block_of_work():
    family = anywhere(build(2, components=3))
    many = family.sample(Noise(5, 140_000))
    assert torch.equal(family.sample(Noise(5, 100, 139_900)), many[-100:])
    noise = Noise(5, 140_000)
    family.sample(noise)
    assert not torch.equal(family.sample(noise), many)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_density(kind):
    family = anywhere(build(3, components=3, covariance=kind, rank=2))
    x = family.sample(Noise(0, 40_000), dtype=torch.float64)
    weights, means = family.log_weights[0].exp(), family.means
    covariances = matrices(family)
    truth = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))
    np.testing.assert_allclose(truth.log_prob(x), density(family, x), atol=1e-8)
    assert ((x.mean(dim=0) - truth.mean).abs() < 5 * truth.stddev / 200).all()
    entropy = -density(family, x)
    assert abs(float(entropy.mean() + truth.log_prob(truth.sample((40_000,))).mean())) < 10 * float(entropy.std()) / 200


def test_samples_of_a_class_and_of_a_grid():
    family = build(8, Discrete(shape=(), vocabulary=2, pad=-1), MIXED, components=2)
    x = mixed(400)
    x[:, 3] = x[:, 3] + 0.05  # the grid's anchor is wherever the data put it
    climb(family, batch(x, (x[:, 0] > 0).long()))
    ones = family.sample(Noise(0, 2_000), torch.ones(2_000, dtype=torch.int64), dtype=torch.float64)
    assert float((ones[:, 0] > -0.5).double().mean()) > 0.95
    steps = (ones[:, 3] - 0.05) / 0.1
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    assert (ones[:, 5:].sum(dim=1) == 1).all()
    pictures = build(4, spaces={"levels": 256}, components=1)
    climb(pictures, batch(torch.randint(0, 256, (50, 4)).double() / 128 - 1 + 1 / 256))
    drawn = pictures.sample(Noise(0, 500), dtype=torch.float64)
    levels = (drawn + 1) * 128 - 0.5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-9)
    assert levels.min() >= 0 and levels.max() <= 255


@pytest.mark.parametrize("factor", [1e300, 1e-300, 1e150, 0.0])
def test_extreme_units_neither_overflow_nor_underflow(factor):
    g = torch.Generator().manual_seed(0)
    plain = torch.randn(100, 3, generator=g, dtype=torch.float64) + torch.tensor([0.0, 5.0, 1e3])
    families = [build(3, components=2) for _ in range(2)]
    for family, x in zip(families, (plain, plain * factor), strict=True):
        climb(family, batch(x), 10)
        assert density(family, x).isfinite().all()
        assert family.sample(Noise(0, 5), dtype=torch.float64).isfinite().all()
    if factor:
        difference = density(families[0], plain) - density(families[1], plain * factor)
        np.testing.assert_allclose(difference, 3 * math.log(factor), atol=0.05)
