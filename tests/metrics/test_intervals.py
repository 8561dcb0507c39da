"""Intervals cover what they should, p-values are valid, areas under the curve are those of scikit-learn."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from verossim.errors import BadData
from verossim.intervals import Interval, auc, bootstrap, clopper_pearson, of_mean, p_value, rate_at


def covered(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_the_bootstrap_covers_the_mean_of_a_skewed_distribution():
    def one(r: int) -> bool:
        x = np.random.default_rng([7, r]).exponential(size=100)
        return covered(bootstrap(lambda i: x[i].mean(), (100,), np.random.default_rng([8, r]), rounds=200), 1.0)
    assert 0.93 <= np.mean([one(r) for r in range(400)]) <= 0.97


def test_the_bootstrap_of_two_samples_is_the_known_interval_where_all_is_normal():
    g = np.random.default_rng(0)
    x, y = g.normal(3, 1, 400), g.normal(1, 2, 600)
    found = bootstrap(lambda i, j: x[i].mean() - y[j].mean(), (400, 600), g, rounds=2000)
    reach = 1.96 * (x.var() / 400 + y.var() / 600) ** 0.5
    assert found.value == x.mean() - y.mean()
    assert found.low == pytest.approx(found.value - reach, abs=0.08 * reach)
    assert found.high == pytest.approx(found.value + reach, abs=0.08 * reach)


def test_the_bootstrap_leans_towards_the_long_tail():
    x = np.random.default_rng(1).exponential(size=40)
    found = bootstrap(lambda i: x[i].mean(), (40,), np.random.default_rng(2), rounds=2000)
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_the_bootstrap_is_the_same_twice_and_whole_where_nothing_varies():
    x = np.random.default_rng(1).normal(size=50)
    a, b = (bootstrap(lambda i: float(np.median(x[i])), (50,), np.random.default_rng(3)) for _ in range(2))
    assert a == b
    assert bootstrap(lambda i: 2.0, (50,), np.random.default_rng(0)) == Interval(2.0, 2.0, 2.0)


def test_a_mean_has_the_interval_of_student():
    found = of_mean(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.value == 2.5
    assert found.high - 2.5 == pytest.approx(3.182446 * 1.290994 / 2, rel=1e-6)
    assert of_mean(np.array([1.0])) == Interval(1.0)


def test_a_p_value_by_permutation_is_never_zero():
    assert p_value(9.0, np.zeros(99)) == 0.01
    assert p_value(-1.0, np.zeros(99)) == 1.0


def test_clopper_and_pearson_cover_at_least_as_often_as_they_say():
    for n, p in ((10, 0.1), (30, 0.5), (200, 0.01)):
        ks = [k for k in range(n + 1) if covered(clopper_pearson(k, n), p)]
        assert binom.pmf(ks, n, p).sum() >= 0.95
    assert clopper_pearson(0, 100).high == pytest.approx(1 - 0.025 ** 0.01)
    assert clopper_pearson(100, 100).low == pytest.approx(0.025 ** 0.01)


def test_the_area_under_the_curve_is_that_of_scikit_learn_also_with_ties():
    g = np.random.default_rng(0)
    for rounded in (False, True):
        a, b = g.normal(1, 1, 70), g.normal(0, 1, 130)
        a, b = (np.round(a), np.round(b)) if rounded else (a, b)
        peer = roc_auc_score(np.repeat([1, 0], [70, 130]), np.concatenate([a, b]))
        assert auc(a, b).value == pytest.approx(peer, abs=1e-12)
        assert auc(b, a).value == pytest.approx(1 - peer, abs=1e-12)


def test_the_interval_of_delong_is_about_that_of_the_bootstrap():
    g = np.random.default_rng(4)
    a, b = g.normal(1, 1, 150), g.normal(0, 2, 250)
    found = auc(a, b)
    peer = bootstrap(lambda i, j: auc(a[i], b[j]).value, (150, 250), g, rounds=200)
    assert found.high - found.low == pytest.approx(peer.high - peer.low, rel=0.15)
    assert found.low == pytest.approx(peer.low, abs=0.015)


def test_the_interval_of_the_area_covers_it_and_its_p_value_is_valid():
    g = np.random.default_rng(5)
    known = [auc(g.normal(1, 1, 60), g.normal(0, 1, 80)) for _ in range(400)]
    assert 0.93 <= np.mean([covered(found, 0.7602499389) for found in known]) <= 0.98
    null = [auc(g.normal(size=60), g.normal(size=80)).p_value for _ in range(200)]
    assert 0.01 <= np.mean(np.array(null) < 0.05) <= 0.09


def test_scores_that_part_wholly_do_not_claim_certainty():
    found = auc(np.arange(10.0) + 100, np.arange(50.0))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** 0.1)
    alike = auc(np.zeros(10), np.zeros(50))
    assert alike.value == 0.5 and alike.low < 0.3 and alike.p_value == 1.0


def test_the_rate_is_at_a_threshold_that_no_more_negatives_exceed():
    negative = np.arange(1000.0)
    positive = np.array([989.0, 989.5, 990.0, 999.5])
    assert rate_at(positive, negative, 0.01).value == 0.75
    assert rate_at(positive, negative, 0.001).value == 0.25
    assert rate_at(np.full(7, 5.0), np.full(100, 5.0), 0.1).value == 0.0, "ties are not found"
    assert rate_at(positive, negative[:50], 0.001).value == 1.0, "fewer than 1 / share negatives: the largest is the threshold"


def test_the_p_value_of_a_rate_knows_that_its_threshold_is_estimated():
    g = np.random.default_rng(6)
    rejected = [rate_at(g.normal(size=500), g.normal(size=200), 0.01).p_value < 0.05 for _ in range(400)]
    assert np.mean(rejected) <= 0.07
    assert rate_at(g.normal(3, 1, 100), g.normal(size=200), 0.01).p_value < 1e-6


def test_scores_that_cannot_be_compared_are_refused():
    with pytest.raises(BadData, match="no positive score") as caught:
        auc(np.zeros(0), np.zeros(3))
    assert caught.value.code == "SCORES_FEW"
    with pytest.raises(BadData, match="negative score 2 of 2 is not a number") as caught:
        rate_at(np.zeros(3), np.array([1.0, np.nan]), 0.01)
    assert caught.value.code == "SCORES_NAN"
    assert auc(np.array([-np.inf, -3.0]), np.array([-1.0, 0.0])).value == 0.0, "a log-probability may be minus infinity"
