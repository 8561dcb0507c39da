"""What is true of learning any mixture: EM climbs to where no direction climbs, and its sums add up."""

import math

import numpy as np
import pytest
import torch
from mixtures import KINDS, MIXED, PLAIN, anywhere, batch, blobs, build, climb, density, matrices, mixed, space

from verossim.errors import BadConfig
from verossim.families.gmm import GMM
from verossim.seeds import Noise
from verossim.spaces import Discrete


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prior", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_em_never_falls(kind, prior, missing):
    for conditional, dtype in ((False, torch.float32), (True, torch.float64)):
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


@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_cells_are_the_average_over_the_cell(kind):
    """A sum of squares sees of a uniform draw its mean and variance only, so two points stand for the cell."""
    widths = torch.tensor([0.0, 0.7, 0.3, 0.0], dtype=torch.float64)
    celled = anywhere(build(4, spaces={"widths": tuple(widths.tolist())}, components=1, covariance=kind, rank=2))
    real = build(4, components=1, covariance=kind, rank=2)
    real.load_state_dict(celled.state_dict())
    x = blobs(20, 4)
    expected = celled.statistics(batch(x))
    corners = torch.tensor([[a, b] for a in (-1, 1) for b in (-1, 1)]).double() / math.sqrt(12)
    for name, value in expected.items():
        average = 0.0
        for corner in corners:
            u = torch.zeros(4).double()
            u[1:3] = corner * widths[1:3]
            average = average + real.statistics(batch(x + u))[name] / 4
        if name == "log_likelihood":
            average = average + 20 * widths[1:3].log().sum()
        np.testing.assert_allclose(value, average, atol=1e-9, err_msg=name)


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
