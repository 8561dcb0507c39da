"""What a model says of records: bits with their errors, calibration, unusual records, and whether it sums to one."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import verossim
from verossim.errors import BadData, Incompatible
from verossim.families.gmm import GMM
from verossim.scores import anomaly, calibration, likelihood, normalisation
from verossim.seeds import Noise
from verossim.spaces import Continuous, Discrete, Likelihood


def mixture(D: int) -> GMM:
    """Three stretched components of about unit scale."""
    g = torch.Generator().manual_seed(D)
    family = GMM(GMM.Config(components=3, covariance="full"), Continuous(shape=(D,), axes=("feature",)))
    A = 0.4 * torch.randn(3, D, D, generator=g, dtype=torch.float64) / math.sqrt(D)
    family.place(torch.tensor([0.5, 0.3, 0.2]), torch.randn(3, D, generator=g, dtype=torch.float64),
                 A @ A.mT + 0.03 * torch.eye(D, dtype=torch.float64))
    return family


def test_bits_are_those_of_the_likelihood_with_their_interval():
    log_p = torch.from_numpy(np.random.default_rng(0).normal(-10, 2, 500))
    found = likelihood.summary(Likelihood(log_p, "exact", 4))
    assert found.bits.value == pytest.approx(float(Likelihood(log_p, "exact", 4).bits.mean()))
    assert found.bits.low < 10 / (4 * math.log(2)) < found.bits.high
    reach = 1.965 * float(log_p.std()) / 500 ** 0.5 / 4 / math.log(2)
    assert found.bits.high - found.bits.low == pytest.approx(2 * reach, rel=1e-3)
    assert (found.kind, found.records, found.estimate_error) == ("exact", 500, None)


def test_the_error_of_an_estimate_is_told_apart_from_that_of_few_records():
    g = np.random.default_rng(1)
    stderr = torch.full((400,), 0.5, dtype=torch.float64)
    found = likelihood.summary(Likelihood(torch.from_numpy(g.normal(-8, 3, 400)), "estimate", 2, stderr))
    assert found.estimate_error == pytest.approx(0.5 / 20 / (2 * math.log(2)))
    assert (found.bits.high - found.bits.low) / 2 > 2 * found.estimate_error


def test_long_records_count_by_their_length():
    log_p, sizes = torch.tensor([-100.0, -2.0]), torch.tensor([100, 1])
    assert likelihood.summary(Likelihood(log_p, "exact", sizes)).bits.value == pytest.approx(102 / 101 / math.log(2))


def test_an_impossible_record_costs_infinitely_many_bits_and_numbers_that_are_none_are_refused():
    found = likelihood.summary(Likelihood(torch.tensor([-1.0, -math.inf]), "exact", 1))
    assert (found.bits.value, found.bits.high, found.impossible) == (math.inf, None, 1)
    with pytest.raises(BadData, match="record 2 is nan") as caught:
        likelihood.summary(Likelihood(torch.tensor([-1.0, math.nan]), "exact", 1))
    assert caught.value.code == "LIKELIHOOD_NAN"
    with pytest.raises(BadData) as caught:
        likelihood.summary(Likelihood(torch.zeros(0), "exact", 1))
    assert caught.value.code == "LIKELIHOOD_FEW"


@pytest.mark.parametrize(("stated", "word"), [(0.5, "too small"), (1.0, "honest"), (2.0, "too large")])
def test_standard_errors_are_held_against_the_spread_over_repeats(stated, word):
    g = torch.Generator().manual_seed(0)
    error = 0.2 + torch.rand(300, generator=g, dtype=torch.float64)
    repeats = -50 + error * torch.randn(20, 300, generator=g, dtype=torch.float64)
    found = likelihood.calibrated(repeats, (stated * error).expand(20, 300))
    assert found.verdict.startswith(word)
    assert found.honest == (word == "honest")
    assert found.ratio.value == pytest.approx(1 / stated, rel=0.05)


def test_repeats_that_cannot_be_judged_are_refused():
    with pytest.raises(Incompatible) as caught:
        likelihood.calibrated(torch.zeros(3, 4), torch.zeros(3))
    assert caught.value.code == "LIKELIHOOD_SHAPE"
    for repeats, stderr, code in ((torch.zeros(1, 4), torch.ones(1, 4), "LIKELIHOOD_FEW"),
                                  (torch.zeros(3, 4), torch.zeros(3, 4), "LIKELIHOOD_FEW"),
                                  (torch.full((3, 4), math.nan), torch.ones(3, 4), "LIKELIHOOD_NAN")):
        with pytest.raises(BadData) as caught:
            likelihood.calibrated(repeats, stderr)
        assert caught.value.code == code


def classified(seed: int, n: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 5) of a classifier that is as sure as `temperature` says, 1 being right, and classes (n,)."""
    g = np.random.default_rng(seed)
    logits = 2 * g.normal(size=(n, 5))
    p, q = (np.exp(t * logits) / np.exp(t * logits).sum(axis=1, keepdims=True) for t in (1.0, temperature))
    return q, (g.random((n, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)


def test_the_error_of_a_calibrated_classifier_is_zero_within_its_interval():
    found = [calibration.summary(*classified(seed, 600, 1.0)) for seed in range(20)]
    assert sum(f.error.low == 0 for f in found) >= 17
    assert np.mean([f.plain_error for f in found]) == pytest.approx(np.mean([f.calibrated_error for f in found]), rel=0.1)
    assert sum(f.error.p_value < 0.05 for f in found) <= 4


def test_the_error_of_one_that_is_too_sure_is_found_without_bias():
    q, y = classified(99, 200_000, 1.5)
    truth = calibration.summary(q, y).plain_error
    found = [calibration.summary(*classified(seed, 600, 1.5)) for seed in range(20)]
    assert sum(f.error.low <= truth <= f.error.high for f in found) >= 16
    assert np.mean([f.error.value for f in found]) == pytest.approx(truth, rel=0.1)
    assert all(f.error.low > 0 and f.error.p_value < 0.01 for f in found)


def test_accuracy_brier_score_and_curve_are_those_of_their_definitions():
    p = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
    found = calibration.summary(p, np.array([0, 1, 1, -1]))
    assert found.records == 3 and found.accuracy.value == pytest.approx(2 / 3)
    assert found.brier.value == pytest.approx((2 * 0.2 ** 2 + 2 * 0.6 ** 2 + 2 * 0.3 ** 2) / 3)
    assert found.curve == ((pytest.approx(0.7), pytest.approx(2 / 3), 3),)
    q, y = classified(0, 500, 1.0)
    curve = calibration.summary(q, y).curve
    assert sum(n for _, _, n in curve) == 500 and [said for said, _, _ in curve] == sorted(said for said, _, _ in curve)


@pytest.mark.parametrize(("p", "y", "code"), [
    (np.full((3, 2), 0.5), np.zeros(2, int), "CALIBRATION_SHAPE"), (np.ones((3, 1)), np.zeros(3, int), "CALIBRATION_SHAPE"),
    (np.full((3, 2), 0.6), np.zeros(3, int), "CALIBRATION_SUM"), (np.full((3, 2), np.nan), np.zeros(3, int), "CALIBRATION_SUM"),
    (np.full((3, 2), 0.5), np.array([0, 1, 2]), "CALIBRATION_LABEL"), (np.full((3, 2), 0.5), np.full(3, -1), "CALIBRATION_FEW"),
])
def test_probabilities_that_are_none_are_refused(p, y, code):
    with pytest.raises((BadData, Incompatible)) as caught:
        calibration.summary(p, y)
    assert caught.value.code == code


def test_unusual_records_are_found_by_their_likelihood():
    g = np.random.default_rng(0)
    found = anomaly.summary(g.normal(0, 1, 2000), g.normal(-3, 1, 300))
    assert found.auc.low <= 0.98305 <= found.auc.high
    assert found.one_percent.low <= 0.7496 <= found.one_percent.high
    assert found.one_per_mille.value < found.one_percent.value and found.notes == ()
    assert found.curve[0] == (0.0, 0.0) and found.curve[-1] == (1.0, 1.0)
    few = anomaly.summary(g.normal(-3, 1, 50), g.normal(0, 1, 50))
    assert "more probable than usual" in few.notes[0] and "1.0%" in few.notes[1] and "0.1%" in few.notes[2]


@pytest.mark.parametrize(("D", "method"), [(1, "quadrature"), (2, "quadrature"), (6, "importance"), (16, "importance")])
def test_a_mixture_sums_to_one_and_one_that_says_half_a_nat_more_does_not(D, method):
    family = mixture(D)
    examples = family.sample(Noise(1, 2000))
    found = normalisation.check(family.log_prob, family.space, examples)
    assert (found.verdict, found.method) == ("consistent with 1", method), found.words
    for more in (0.5, -0.5):
        told = normalisation.check(lambda x, more=more: family.log_prob(x).log_prob + more, family.space, examples)
        assert told.verdict == "not a distribution"
        assert told.total.value == pytest.approx(math.exp(more), rel=0.03)


def test_tokens_are_counted_where_they_are_few_and_sampled_where_they_are_many():
    log_p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    for shape, method in (((), "enumeration"), ((4,), "enumeration"), ((25,), "importance")):
        space = Discrete(shape=shape, vocabulary=3)

        def honest(x: Tensor) -> Tensor:
            return log_p[x.reshape(len(x), -1)].sum(dim=1)

        def twice(x: Tensor) -> Tensor:
            return honest(x) + math.log(2) * (x.reshape(len(x), -1)[:, 0] == 0)
        examples = torch.multinomial(log_p.exp(), 2000 * space.dims, True).reshape(2000, *shape)
        found = normalisation.check(honest, space, examples)
        assert (found.verdict, found.method) == ("consistent with 1", method), found.words
        told = normalisation.check(twice, space, examples)
        assert told.verdict == "not a distribution" and told.total.value == pytest.approx(1.5, rel=0.03)


def cells_of(space: Continuous, x: Tensor) -> Tensor:
    """log p of independent standard normals, as masses where entries have widths, times 0.7, 0.2 and 0.1 for a simplex."""
    out = torch.zeros(len(x), dtype=torch.float64)
    for n, width in enumerate(space.cells().tolist()):
        if any(first <= n < last for first, last in space.simplexes):
            continue
        v = x[:, n].double()
        mass = torch.special.ndtr(v + width / 2) - torch.special.ndtr(v - width / 2)
        out += mass.log() if width else -v.square() / 2 - math.log(2 * math.pi) / 2
    for first, last in space.simplexes:
        out += x[:, first:last].double() @ torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()
    return out


@pytest.mark.parametrize(("widths", "method"), [((0.5, 0.0), "quadrature"), ((0.5, 0.25, 0.0, 1.0), "importance")])
def test_a_table_with_steps_and_categories_sums_to_one(widths, method):
    D = len(widths)
    space = Continuous(shape=(D + 3,), axes=("feature",), widths=(*widths, 0, 0, 0), simplexes=((D, D + 3),))
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1500, D + 3, generator=g)
    step = torch.tensor(widths)
    x[:, :D] = torch.where(step > 0, 0.1 + (x[:, :D] / step.clamp(min=1e-9)).round() * step, x[:, :D])
    chosen = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 1500, replacement=True, generator=g)
    x[:, D:] = torch.nn.functional.one_hot(chosen, 3).float()
    found = normalisation.check(lambda x: cells_of(space, x), space, x)
    assert (found.verdict, found.method) == ("consistent with 1", method), found.words
    assert normalisation.check(lambda x: cells_of(space, x) + 0.3, space, x).verdict == "not a distribution"
    less = normalisation.check(lambda x: cells_of(space, x) - 0.3, space, x, kind="bound")
    assert less.verdict == "less than 1, as a bound may be"
    assert normalisation.check(lambda x: cells_of(space, x) + 0.3, space, x, kind="bound").verdict == "not a distribution"


def test_levels_are_counted():
    space = Continuous(shape=(2, 2), axes=("a", "b"), levels=8)
    seen: set[float] = set()

    def even(x: Tensor) -> Tensor:
        seen.update(x.unique().tolist())
        return torch.full((len(x),), -4 * math.log(8))
    found = normalisation.check(even, space)
    assert (found.verdict, found.method, found.points) == ("consistent with 1", "enumeration", 4096)
    assert sorted(seen) == [(2 * k + 1) / 8 - 1 for k in range(8)]


def test_what_importance_sampling_cannot_tell_is_not_told():
    family = mixture(16)
    found = normalisation.check(family.log_prob, family.space)
    assert found.verdict == "cannot tell" and found.effective < 200 and "too few to know the total" in found.words


def test_an_estimate_is_freed_of_the_bias_of_its_exponential():
    family, g = mixture(6), torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Likelihood:
        noise = 0.8 * torch.randn(len(x), generator=g, dtype=torch.float64)
        return Likelihood(family.log_prob(x).log_prob + noise, "estimate", 6, torch.full((len(x),), 0.8, dtype=torch.float64))
    found = normalisation.check(noisy, family.space, family.sample(Noise(1, 2000)))
    assert found.verdict == "consistent with 1", found.words


@pytest.mark.parametrize("stderr", [0.02, 0.2])
def test_an_estimate_of_every_point_is_no_more_certain_than_its_errors(stderr):
    log_p, g = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), torch.Generator().manual_seed(0)

    def noisy(x: Tensor, more: float = 0.0) -> Likelihood:
        errors = torch.full((len(x),), stderr, dtype=torch.float64)
        return Likelihood(log_p[x].sum(dim=1) + more + errors * torch.randn(len(x), generator=g, dtype=torch.float64),
                          "estimate", 4, errors)
    space = Discrete(shape=(4,), vocabulary=3)
    for _ in range(20):
        found = normalisation.check(noisy, space)
        assert (found.verdict, found.method) == ("consistent with 1", "enumeration"), found.words
    assert normalisation.check(lambda x: noisy(x, 0.5), space).verdict == "not a distribution"


@pytest.mark.parametrize("D", [1, 2])
def test_a_spike_between_the_nodes_of_a_quadrature_is_not_missed(D):
    spread, part, normal = torch.tensor([1.0, 0.003]), torch.tensor([0.9, 0.1]), torch.distributions.Normal
    middle = torch.tensor([0.0, 0.37])

    def log_prob(x: Tensor) -> Tensor:
        return (part.log() + normal(middle, spread).log_prob(x[:, :, None]).sum(dim=1)).logsumexp(dim=1)
    chosen = torch.multinomial(part, 2000, True, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2000, D, generator=torch.Generator().manual_seed(1))
    examples = middle[chosen][:, None] + spread[chosen][:, None] * noise
    space = Continuous(shape=(D,), axes=("feature",))
    found = normalisation.check(log_prob, space, examples)
    assert found.verdict == "consistent with 1", found.words
    less = normalisation.check(lambda x: log_prob(x) - 0.3, space, examples)
    assert less.verdict == "not a distribution", less.words


def test_a_fitted_model_of_flowers_sums_to_one():
    from sklearn.datasets import load_iris
    model = verossim.fit(load_iris(as_frame=True).frame, family="gmm", components=3)
    examples = model.family.sample(Noise(1, 2000))
    found = normalisation.check(model.family.log_prob, model.family.space, examples)
    assert found.verdict in ("consistent with 1", "less than 1, as a bound may be"), found.words
    more = normalisation.check(lambda x: model.family.log_prob(x).log_prob + 0.5, model.family.space, examples)
    assert more.verdict == "not a distribution"


def test_a_model_that_cannot_be_asked_is_refused():
    space = Continuous(shape=(3,), axes=("feature",))
    for log_prob, examples, over, code in (
            (lambda x: torch.full((len(x),), math.nan), None, space, "NORMALISATION_NAN"),
            (lambda x: x.sum(dim=1), torch.zeros(5, 2), space, "NORMALISATION_SHAPE"),
            (lambda x: x.sum(dim=1), None, Continuous(shape=(3,), axes=("feature",), widths=(1.0, 0.0, 0.0)),
             "NORMALISATION_EXAMPLES")):
        with pytest.raises((BadData, Incompatible)) as caught:
            normalisation.check(log_prob, over, examples)
        assert caught.value.code == code
