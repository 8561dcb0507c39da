"""The classifier two-sample test and the statistically different bins: calm where all is alike, awake where it is not."""

import numpy as np
import pytest

from verossim.errors import BadConfig, BadData, Incompatible
from verossim.metrics import measure
from verossim.metrics.bins import divergence


def drawn(seed: int, n: int, D: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (n, D))


def test_the_null_is_rejected_as_often_as_said():
    p = [measure("two_sample", drawn(2 * r, 60, 3), drawn(2 * r + 1, 60, 3), seed=r, beside="none", folds=3)[0].interval.p_value
         for r in range(80)]
    assert 0.0 <= np.mean(np.array(p) < 0.05) <= 0.1
    assert 0.4 <= np.mean(p) <= 0.65


def test_a_shift_is_told_and_the_accuracy_is_that_of_the_best_classifier():
    (found,) = measure("two_sample", drawn(1, 2000, 4), drawn(2, 2000, 4, shift=0.5), beside="none")
    assert found.interval.low <= 0.691462 <= found.interval.high, "Phi(|mu| / 2) of a shift by 1"
    assert found.interval.p_value < 1e-20
    (more,) = measure("two_sample", drawn(1, 2000, 4), drawn(2, 2000, 4, shift=1.0), beside="none")
    assert more.value > found.interval.high


@pytest.mark.parametrize("beside", ["trees", "network"])
def test_the_classifier_beside_sees_what_a_line_cannot(beside):
    real, made = drawn(1, 300, 2), drawn(2, 300, 2, scale=2.0)
    line, curve = (measure("two_sample", real, made, beside=kind)[0] for kind in ("none", beside))
    assert line.interval.p_value > 1e-3
    assert curve.interval.p_value < 1e-6


def test_sides_are_made_equally_large_and_the_numbers_are_the_same_twice():
    real, made = drawn(1, 3000, 3), drawn(2, 150, 3)
    one, two = (measure("two_sample", real, made, seed=5) for _ in range(2))
    assert one == two
    assert abs(one[0].value - 0.5) < 0.2, "twenty to one would be told by guessing alone"
    assert measure("bins", real, made, seed=5) == measure("bins", real, made, seed=5)


def test_a_constant_feature_does_no_harm():
    real, made = (np.concatenate([drawn(k, 60, 2), np.ones((60, 1))], axis=1) for k in (1, 2))
    for name in ("two_sample", "bins"):
        assert all(np.isfinite(m.value) for m in measure(name, real, made))


def test_bins_differ_as_often_as_the_level_says_where_all_is_alike():
    shares, p = [], []
    for r in range(40):
        share, far = measure("bins", drawn(2 * r, 300, 16), drawn(2 * r + 1, 200, 16), seed=r)
        shares.append(share.value)
        p.append((share.interval.p_value, far.interval.p_value))
    assert 0.03 <= np.mean(shares) <= 0.07
    assert (np.mean(np.array(p) < 0.05, axis=0) <= 0.13).all()


def test_a_lost_mode_empties_bins():
    g = np.random.default_rng(0)
    centres = np.array([[0, 0], [6, 0], [0, 6], [6, 6]])
    real, full = (centres[g.integers(4, size=800)] + g.normal(size=(800, 2)) for _ in range(2))
    lost = centres[g.integers(3, size=800)] + g.normal(size=(800, 2))
    share, far = measure("bins", real, lost)
    calm, near = measure("bins", real, full)
    assert share.interval.p_value == 0.001 and calm.interval.p_value > 0.001
    assert share.value > calm.interval.high
    assert far.interval.low > near.interval.high
    assert far.interval.low <= 0.0956 <= far.interval.high, "of shares 1/4 each and 1/3 each of three"


def test_the_divergence_of_counts_is_unbiased_and_its_interval_holds_the_truth():
    p, q = np.full(20, 0.05), np.repeat([0.06, 0.04], 10)
    m = (p + q) / 2
    truth = float((p * np.log(p / m) + q * np.log(q / m)).sum() / 2)
    g = np.random.default_rng(0)
    found = [divergence(g.multinomial(2000, p), g.multinomial(3000, q)) for _ in range(100)]
    values = np.array([f.value for f in found])
    bias = 19 * (1 / 2000 + 1 / 3000) / 8
    assert abs(values.mean() - truth) < 3 * values.std() / 10 < 0.3 * bias
    assert 0.92 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.99
    null = [divergence(g.multinomial(2000, p), g.multinomial(3000, p)) for _ in range(100)]
    assert np.mean([f.low == 0 for f in null]) >= 0.93
    assert np.mean([f.p_value < 0.05 for f in null]) <= 0.1


def test_counts_without_a_bin_in_common_are_as_far_apart_as_can_be():
    found = divergence(np.array([50, 0]), np.array([0, 70]))
    assert found.value == pytest.approx(np.log(2), abs=0.005) and found.high == pytest.approx(np.log(2))


@pytest.mark.parametrize("name", ["two_sample", "bins"])
def test_what_cannot_be_measured_is_refused(name):
    some = drawn(1, 50, 3)
    with pytest.raises(BadData, match="needs .. made records; there are 1") as caught:
        measure(name, some, some[:1])
    assert caught.value.code == "METRIC_FEW"
    holed = some.copy()
    holed[4, 1] = np.nan
    with pytest.raises(BadData, match="record 5 are not finite"):
        measure(name, holed, some)
    with pytest.raises(Incompatible, match="3 features, made ones 2"):
        measure(name, some, some[:, :2])
    with pytest.raises(BadConfig, match="no setting 'fold'"):
        measure(name, some, some, fold=3)
