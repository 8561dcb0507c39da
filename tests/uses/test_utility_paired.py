"""The interval of a paired difference and its verdict, against formulas, textbooks and simulation."""

import numpy as np
import pytest
from scipy.stats import norm

from verossim.uses.utility.paired import Contrast, contrast, holm, shares, verdicts

WHOLE = 1000


def test_one_repeat_is_the_interval_of_agresti_and_min():
    b, c, T = 31, 17, 400  # only the second right, only the first right
    d = np.concatenate([np.ones(b), -np.ones(c), np.zeros(T - b - c)])[None]
    found = contrast(d, [np.arange(T)])
    b_, c_, n_ = b + 0.5, c + 0.5, T + 2
    assert found.value == pytest.approx((b - c) / T, abs=1e-15)
    assert found.middle == pytest.approx((b_ - c_) / n_, abs=1e-15)
    assert found.error == pytest.approx(np.sqrt(b_ + c_ - (b_ - c_) ** 2 / n_) / n_, rel=1e-12)


def test_a_repeat_again_tells_nothing_new():
    rng = np.random.default_rng(0)
    d = rng.integers(-1, 2, (1, 300)).astype(float)
    once, often = (contrast(np.repeat(d, times, axis=0), [np.arange(300)]) for times in (1, 8))
    assert often.error == pytest.approx(once.error, rel=1e-12) and often.value == pytest.approx(once.value, abs=1e-15)


def test_no_record_that_differs_is_no_certainty():
    small, large = (contrast(np.zeros((5, T)), [np.arange(T)]).interval() for T in (40, 4000))
    assert small.high > 0.01 > large.high > 0 and small.low == -small.high


def test_balanced_shares_weigh_classes_alike():
    right = np.array([[1.0] * 90 + [0.0] * 10])
    strata = [np.arange(90), np.arange(90, 100)]
    found = shares(right, strata)
    assert found.value == 0.5 and found.low < 0.5 < found.high
    assert shares(right, [np.arange(100)]).value == 0.9


def crossed(rng, R=5, T=300, by_record=0.3, by_repeat=0.02, rest=0.4):
    """A difference whose parts have known variances; its mean is 0."""
    return by_record * rng.standard_normal(T) + by_repeat * rng.standard_normal((R, 1)) + rest * rng.standard_normal((R, T))


def test_the_interval_covers_and_its_variance_is_right():
    rng = np.random.default_rng(0)
    found = [contrast(crossed(rng), [np.arange(300)], added=()) for _ in range(WHOLE)]
    truth = 0.3 ** 2 / 300 + 0.02 ** 2 / 5 + 0.4 ** 2 / 1500
    assert np.mean([c.error ** 2 for c in found]) == pytest.approx(truth, rel=0.1)
    ends = [c.interval() for c in found]
    assert 0.93 < np.mean([i.low < 0 < i.high for i in ends]) < 0.98


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02]


@pytest.mark.parametrize("middle, error, said", [
    (0.05, 0.01, "helps"), (-0.05, 0.01, "does not"), (0.0, 0.002, "does not"), (0.004, 0.001, "does not"),
    (0.02, 0.02, "cannot tell"), (0.0, 0.02, "cannot tell")])
def test_three_verdicts(middle, error, said):
    one = Contrast(middle, middle, error, 1e6)
    (verdict, p), = verdicts([one], margin=0.01)
    assert verdict == said and p == pytest.approx(2 * norm.sf(abs(middle) / error), rel=1e-3)


def test_of_many_sizes_one_that_barely_stands_out_does_not():
    edge = Contrast(0.021, 0.021, 0.01, 1e6)  # p = 0.036
    dull = Contrast(0.0, 0.0, 0.01, 1e6)
    assert verdicts([edge], 0.01)[0][0] == "helps"
    assert verdicts([edge, dull, dull], 0.01)[0][0] == "cannot tell"
