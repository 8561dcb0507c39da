"""What is true of every mixture: densities that integrate to one, EM that climbs, Bayes' rule, conditionals in closed form."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from verossim.errors import BadConfig
from verossim.families.gmm import GMM
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete

KINDS = ("full", "tied", "diag", "spherical", "factors")
PLAIN = KINDS[:4]


def space(D: int, **more) -> Continuous:
    return Continuous(shape=(D,), axes=("column",), **more)


def batch(x, condition=None, units=None) -> Batch:
    units = torch.ones(len(x), dtype=torch.float64) if units is None else units
    return Batch(x, condition, units, torch.arange(len(x)))


def build(D: int, condition=None, spaces=None, **settings) -> GMM:
    return GMM(GMM.Config(**settings), space(D, **(spaces or {})), condition)


def climb(family: GMM, data: Batch, updates: int = 30) -> list[float]:
    """Starts the family and returns the objective before each update."""
    family.start(data, Noise(0, len(data.x)))
    return [family.absorb(family.statistics(data)) for _ in range(updates)]


def blobs(n: int, D: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    """Three stretched groups around 2, 0 and -2."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(3, D, D, generator=g, dtype=torch.float64) / math.sqrt(D)
    which = torch.randint(3, (n,), generator=g)
    z = torch.randn(n, D, generator=g, dtype=torch.float64)
    return ((A[which] @ z[:, :, None])[:, :, 0] + 2.0 * (1 - which[:, None])).to(dtype)


def mixed(n: int, dtype=torch.float64, missing: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Five numbers, the fourth on a grid of step 0.1, and a category of three."""
    g = torch.Generator().manual_seed(seed)
    numbers = blobs(n, 5, seed=seed)
    numbers[:, 3] = (numbers[:, 3] / 0.1).round() * 0.1
    category = torch.randint(3, (n,), generator=g)
    x = torch.cat([numbers, torch.nn.functional.one_hot(category, 3).double()], dim=1)
    gone = torch.rand(n, 6, generator=g) < missing
    x[torch.cat([gone[:, :5], gone[:, 5:].expand(-1, 3)], dim=1)] = math.nan
    return x.to(dtype)


MIXED = {"widths": (0, 0, 0, 0.1, 0, 0, 0, 0), "simplexes": ((5, 8),)}


def anywhere(family: GMM, seed: int = 0) -> GMM:
    """The family at parameters drawn at random."""
    g = torch.Generator().manual_seed(seed)
    family.move(0.6 * torch.randn(len(family.coordinates()), generator=g, dtype=torch.float64))
    return family


def density(family: GMM, x: torch.Tensor) -> torch.Tensor:
    return family.log_prob(x).log_prob


def matrices(family: GMM) -> torch.Tensor:
    """Covariances (J, D, D) of any shape."""
    J, D = family.means.shape
    if family.config.covariance == "factors":
        L = family.covariance.loadings
        return L @ L.mT + family.covariance.psi.diag_embed()
    found = family.moments()[2]
    return {"tied": lambda: found.expand(J, D, D), "diag": found.diag_embed,
            "spherical": lambda: found[:, None, None] * torch.eye(D)}.get(family.config.covariance, lambda: found)()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prior", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_em_never_falls(kind, prior, missing):
    for conditional, dtype in itertools.product((False, True), (torch.float64, torch.float32)):
        n = 60 if prior else 120
        x = mixed(n, dtype, missing)
        g = torch.Generator().manual_seed(1)
        y = torch.randint(-1, 2, (n,), generator=g) if conditional else None
        units = torch.rand(n, generator=g, dtype=torch.float64) + 0.1
        condition = Discrete(shape=(), vocabulary=2, pad=-1) if conditional else None
        family = build(8, condition, MIXED, components=3, covariance=kind, prior=prior, rank=2, starts=1)
        objectives = climb(family, batch(x, y, units), 8)
        gains = np.diff(objectives)
        assert gains.min() > (-1e-9 if dtype == torch.float64 else -1e-5), (conditional, dtype, gains.min())
        assert objectives[-1] > objectives[0]
        assert family.log_prob(x, y).log_prob.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_em_never_falls_on_few_records_and_repeated_ones(kind):
    for n, D, repeats in ((3, 6, 1), (2, 4, 50), (1, 2, 30), (9, 1, 1)):
        x = blobs(n, D).repeat(repeats, 1)
        family = build(D, components=min(3, len(x)), covariance=kind, rank=2)
        objectives = climb(family, batch(x), 40)
        assert np.diff(objectives).min() > -1e-7
        assert density(family, x).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_where_em_stops_no_direction_climbs(kind):
    """The update is the exact maximum, prior and cells included: the objective's slope is zero at its fixed point."""
    cells = {"widths": (0, 0.7, 0, 0, 0), "simplexes": ((3, 5),)}
    g = torch.Generator().manual_seed(0)
    x = torch.cat([blobs(80, 3), torch.eye(2).double()[torch.randint(2, (80,), generator=g)]], dim=1)
    data = batch(x)
    family = build(5, None, cells, components=1, covariance=kind, rank=1, prior=7.0)
    climb(family, data, 500 if kind == "factors" else 5)
    there = family.coordinates()

    def objective(coordinates: torch.Tensor) -> float:
        family.move(coordinates)
        return family.absorb(family.statistics(data))
    slopes = [(objective(there + e) - objective(there - e)) / 2e-5 for e in 1e-5 * torch.eye(len(there)).double()]
    assert max(map(abs, slopes)) < (1e-3 if kind == "factors" else 1e-6)  # factors creep along a ridge


@pytest.mark.parametrize("kind", KINDS)
def test_em_climbs_into_singular_covariances_where_no_prior_forbids_it(kind):
    x = mixed(40)
    family = build(8, None, {"simplexes": ((5, 8),)}, components=4, covariance=kind, prior=0.0, rank=2, starts=1)
    objectives = climb(family, batch(x), 40)
    assert np.diff(objectives).min() > -1e-6
    assert density(family, x).isfinite().all()


@pytest.mark.parametrize("kind", PLAIN)
def test_log_prob_and_update_equal_scikit_learn(kind):
    x = blobs(400, 5)
    peer = GaussianMixture(3, covariance_type=kind, random_state=0, max_iter=3, tol=1e-2).fit(x.numpy())
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


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_incomplete_records_are_what_filling_in_by_draws_gives(kind):
    """The expected statistics over p(missing | observed), against the average over many draws from it."""
    family = anywhere(build(8, spaces=MIXED, components=2, covariance=kind, rank=2))
    x = mixed(6, missing=0.4, seed=3)
    exact = family.statistics(batch(x))
    draws = 20_000
    many = family.complete(x.repeat_interleave(draws, dim=0), None, Noise(0, 6 * draws))
    average = family.statistics(batch(many))
    # A cell's draw is rounded to its middle, which the expectation is not: the fourth number's second moment is looser.
    for name in ("count", "first", "categories", *(["latent", "cross"] if kind == "factors" else [])):
        np.testing.assert_allclose(exact[name], average[name] / draws, atol=0.12, err_msg=name)
    assert (exact["second"] - average["second"] / draws).abs().max() < 0.05 * exact["second"].abs().max() + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_missing_path_equals_the_complete_fit_when_nothing_is_missing(kind):
    """One record that lacks everything says nothing, but sends the batch through the incomplete path."""
    x = blobs(200, 4)
    empty = torch.full((1, 4), math.nan).double()
    family = build(4, components=2, covariance=kind, rank=2)
    family.start(batch(x), Noise(0, 200))
    begun = {name: value.clone() for name, value in family.state_dict().items()}
    for _ in range(10):
        family.absorb(family.statistics(batch(x)))
    expected = family.coordinates()
    family.load_state_dict(begun)
    units = torch.cat([torch.ones(200), torch.zeros(1)]).double()
    for _ in range(10):
        family.absorb(family.statistics(batch(torch.cat([x, empty]), None, units)))
    np.testing.assert_allclose(family.coordinates(), expected, atol=1e-10)


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


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_one_record_hold_the_conditional_covariance(kind):
    family = anywhere(build(4, components=2, covariance=kind, rank=2))
    x = blobs(1, 4)
    x[0, 1] = x[0, 3] = math.nan
    o, m = [0, 2], [1, 3]
    sums = family.statistics(batch(x))
    for k, S in enumerate(matrices(family)):
        mean = sums["first"][k] / sums["count"][k]
        second = sums["second"][k] / sums["count"][k]
        C = torch.zeros(4, 4).double()
        C[np.ix_(m, m)] = S[m][:, m] - S[m][:, o] @ S[o][:, o].inverse() @ S[o][:, m]
        expected = mean[:, None] * mean + C
        np.testing.assert_allclose(second, expected if second.ndim == 2 else expected.diagonal(), atol=1e-9)


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
def test_weights_equal_repetition_of_records(kind):
    x = mixed(60, missing=0.1)
    times = torch.arange(60) % 3 + 1
    family = anywhere(build(8, spaces=MIXED, components=2, covariance=kind, rank=2))
    weighted = family.statistics(batch(x, None, times.double()))
    repeated = family.statistics(batch(x.repeat_interleave(times, dim=0)))
    for name in weighted:
        np.testing.assert_allclose(weighted[name], repeated[name], atol=1e-8, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_do_not_depend_on_the_batches(kind):
    x, y = mixed(200, missing=0.1), torch.randint(-1, 2, (200,), generator=torch.Generator().manual_seed(0))
    condition = Discrete(shape=(), vocabulary=2, pad=-1)
    family = anywhere(build(8, condition, MIXED, components=2, covariance=kind, rank=2))
    whole = family.statistics(batch(x, y))
    parts = [family.statistics(batch(x[i:j], y[i:j])) for i, j in ((0, 3), (3, 3), (3, 120), (120, 200))]
    for name, value in whole.items():
        assert value.dtype == torch.float64
        np.testing.assert_allclose(sum(p[name] for p in parts), value, atol=1e-8, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_and_state_go_round(kind):
    x = mixed(200)
    condition = Discrete(shape=(), vocabulary=2, pad=-1)
    family = build(8, condition, MIXED, components=2, covariance=kind, rank=2)
    climb(family, batch(x, (x[:, 0] > 0).long()), 5)
    before = density(family, x)
    family.move(family.coordinates())
    np.testing.assert_allclose(density(family, x), before, atol=1e-9)
    other = build(8, condition, MIXED, components=2, covariance=kind, rank=2)
    other.load_state_dict(family.state_dict())
    assert torch.equal(density(other, x), density(family, x))
    assert torch.equal(other.sample(Noise(1, 20)), family.sample(Noise(1, 20)))


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


def test_variances_stay_positive_in_float32_far_from_the_origin():
    """A float32 peer computes a negative variance here (E[x^2] - E[x]^2), and stops."""
    g = torch.Generator().manual_seed(0)
    x = (1e3 + math.sqrt(0.1) * torch.randn(2_000, 3, generator=g)).float()
    for kind in PLAIN:
        family = build(3, components=2, covariance=kind, prior=0.0)
        objectives = climb(family, batch(x), 10)
        covariances = family.moments()[2]
        diagonal = covariances.diagonal(dim1=-2, dim2=-1) if kind in ("full", "tied") else covariances
        assert float(diagonal.min()) > 0.005 and float(diagonal.max()) < 0.3
        assert np.diff(objectives).min() > -1e-4


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


def test_bic_finds_the_number_of_stretched_groups():
    """Distances that ignore the stretch start EM wrong; whitened k-means++ and short runs do not."""
    g = torch.Generator().manual_seed(170)
    centres = torch.tensor([[-8.0, -6.0], [0.0, 4.0], [6.0, -3.0]]).double()
    x = centres[torch.arange(900) % 3] + torch.randn(900, 2, generator=g, dtype=torch.float64)
    x = x @ torch.tensor([[0.6, -0.6], [-0.4, 0.8]]).double()
    bic = []
    for components in range(1, 6):
        family = build(2, components=components, covariance="full")
        climb(family, batch(x), 60)
        bic.append(family.freedom * math.log(900) - 2 * float(density(family, x).sum()))
    assert int(np.argmin(bic)) + 1 == 3


def test_what_cannot_be_says_so():
    with pytest.raises(BadConfig) as caught:
        climb(build(2, components=12), batch(blobs(9, 2)))
    assert caught.value.code == "GMM_K" and "12" in str(caught.value) and "9 records" in str(caught.value)
    with pytest.raises(BadConfig):
        build(2, components="auto")


def test_shapes_settle_an_open_covariance_by_the_number_of_numbers():
    config = GMM.Config(components=2, covariance="auto")
    assert {c.covariance for c in GMM.shapes(config, space(4))} == set(PLAIN)
    wide = {c.covariance for c in GMM.shapes(config, space(80))}
    assert "factors" in wide and "full" not in wide
    for settled in GMM.shapes(config, space(4)):
        assert GMM(settled, space(4)).config == settled
    assert build(80, components=2).config.covariance == "factors" and build(20, components=2).config.covariance == "full"
