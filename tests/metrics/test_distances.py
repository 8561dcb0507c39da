"""Distances on features: known answers, the peers' formulas, what must go up or down, and what cannot be measured."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2, ncx2, norm
from sklearn.metrics import pairwise_distances

from verossim.errors import BadConfig, BadData, Incompatible
from verossim.metrics import Sample, coverage, frechet, kernel, measure
from verossim.metrics.coverage import inside
from verossim.metrics.frechet import Frechet, frechet_distance, frechet_of_moments
from verossim.metrics.kernel import gaussian, kernel_distance, median_distance, polynomial

MEASURES = ("frechet", "kernel", "coverage")


def normals(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Records (n, d) of a normal with a decaying spectrum in turned axes."""
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    return np.random.default_rng(seed).normal(size=(n, d)) * np.logspace(0, -1, d) * scale @ turn + shift / d ** 0.5


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def values(name: str, real: np.ndarray, made: np.ndarray, **settings) -> dict[str, float]:
    return {m.name: m.value for m in measure(name, real, made, **settings)}


# ---- the Frechet distance ----------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:Matrix is")    # scipy's, of singular ones
@pytest.mark.parametrize("n, m, d", [(500, 400, 1), (500, 400, 24), (90, 500, 64), (50, 40, 96), (2, 3, 5)])
def test_frechet_is_that_of_scipy(n, m, d):
    x, y = normals(n, d, 0), normals(m, d, 1, 1.3, 0.5)
    expected = frechet.reference(*moments(x), *moments(y))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_of_moments(*moments(x), *moments(y)) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_diagonal_covariances_is_that_of_their_deviations():
    a, b = np.logspace(0, -3, 40), np.logspace(-3, 0, 40)
    found = frechet_of_moments(np.zeros(40), np.diag(a ** 2), np.full(40, 0.1), np.diag(b ** 2))
    assert found == pytest.approx(float(np.sum((a - b) ** 2)) + 0.4, rel=1e-12)


def test_frechet_of_covariances_far_from_full_rank():
    g = np.random.default_rng(0)
    q = np.linalg.qr(g.normal(size=(60, 60)))[0]
    a, b = 10.0 ** np.linspace(0, -12, 60), 10.0 ** np.linspace(0, -10, 60)    # share their axes, so the answer is known
    found = frechet_of_moments(np.zeros(60), (q * a) @ q.T, np.zeros(60), (q * b) @ q.T)
    assert found == pytest.approx(float(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)), rel=1e-6)
    half = np.where(np.arange(60) < 30, a, 0.0)
    found = frechet_of_moments(np.zeros(60), (q * half) @ q.T, np.zeros(60), (q * b) @ q.T)
    assert found == pytest.approx(float(np.sum((np.sqrt(half) - np.sqrt(b)) ** 2)), rel=1e-6)


def test_frechet_of_many_small_variances_beside_a_great_one():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0]
    a, b = np.full(200, 1e-10), np.full(200, 4e-10)
    a[0] = b[0] = 1.0
    found = frechet_of_moments(np.zeros(200), (q * a) @ q.T, np.zeros(200), (q * b) @ q.T)
    assert found == pytest.approx(199e-10, rel=1e-6)    # the roots of eigenvalues alone are 5e-6 off


def test_frechet_with_constant_features_is_that_without_and_their_means():
    x, y = normals(300, 12, 0), normals(200, 12, 1, 1.2)
    still = np.full((300, 3), 7.0), np.full((200, 3), 7.5)
    found = measure("frechet", np.hstack([x, still[0]]), np.hstack([y, still[1]]))
    assert found[0].value == pytest.approx(frechet_distance(x, y) + 3 * 0.25, rel=1e-9)
    assert found[0].interval.low < found[0].value < found[0].interval.high


def test_frechet_of_one_feature_everywhere_constant():
    assert values("frechet", np.full((9, 2), 1.0), np.full((9, 2), 3.0)) == pytest.approx({"frechet": 8, "frechet_infinity": 8})


def test_frechet_of_parts_is_that_of_the_whole():
    x = normals(30, 6, 3)
    whole, parts = frechet._moments(x), frechet._moments(x[:11]) + frechet._moments(x[11:])
    np.testing.assert_allclose(parts.scatter, whole.scatter, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12, atol=1e-12)


def test_frechet_of_infinitely_many_is_the_truth_where_that_of_these_is_not():
    x, y = normals(1500, 60, 0), normals(1500, 60, 1, shift=0.5)
    these, infinity = measure("frechet", x, y)
    assert these.interval.low > 0.25
    assert infinity.interval.low < 0.25 < infinity.interval.high and abs(infinity.value - 0.25) < 0.1


def test_the_influence_of_a_record_is_what_the_distance_gains_by_it():
    x, y = normals(400, 6, 0), normals(300, 6, 1, 1.4, 0.7)
    V1 = frechet._errors(x, y, frechet._moments(x), frechet._moments(y)).first

    def jackknife(a: np.ndarray, distance) -> float:
        left = np.array([distance(np.delete(a, i, axis=0)) for i in range(len(a))])
        return float((len(a) - 1) / len(a) * np.sum((left - left.mean()) ** 2))
    expected = jackknife(x, lambda a: frechet_distance(a, y)) + jackknife(y, lambda b: frechet_distance(x, b))
    assert pytest.approx(expected, rel=0.03) == V1


def test_errors_of_frechet_where_nothing_differs_have_the_cumulants_that_its_interval_is_from():
    g, told = np.random.default_rng(0), []
    found = np.empty(3000)
    for i in range(len(found)):
        x, y = (g.normal(size=(n, 3)) * [1, 0.8, 0.5] for n in (200, 150))
        a, b = frechet._moments(x), frechet._moments(y)
        found[i] = frechet._of_moments(a, b)
        if i < 30:
            errors = frechet._errors(x, y, a, b)
            told.append((errors.mean, errors.V, errors.skewness))
    mean, V, skewness = np.mean(told, axis=0)
    assert found.mean() == pytest.approx(mean, rel=0.05) and found.var() == pytest.approx(V, rel=0.1)
    assert np.mean((found - found.mean()) ** 3) / found.std() ** 3 == pytest.approx(skewness, rel=0.2)


def test_ends_are_those_of_a_noncentral_chi_square_where_it_is_one():
    w = 0.3
    for F in (0.9, 2.0, 7.0):  # w times a chi-square of one degree of freedom, noncentral by t / w: of variance 2 w^2 + 4 w t
        errors = frechet.Errors(first=4 * w * (F - w) + 4 * w * w, mean=w, V=2 * w * w, skewness=8 ** 0.5)
        low, high = frechet._ends(F - w, F, errors, errors.V)
        assert ncx2.cdf(F / w, 1, high / w) == pytest.approx(0.025, abs=1e-6)
        assert ncx2.sf(F / w, 1, max(low, 0) / w) == pytest.approx(0.025 if low > 0 else chi2.sf(F / w, 1), abs=1e-6)
    assert low > 0
    low, high = frechet._ends(0.01 - w, 0.01, frechet.Errors(0.0, w, 2 * w * w, 8 ** 0.5), 2 * w * w)
    assert low < 0 <= high


@pytest.mark.parametrize("truth", [0.0, 0.1, 0.7, 1.5, 4.0])
def test_ends_of_what_cannot_be_below_0_hold_it_there_as_often_as_anywhere(truth):
    errors = frechet.Errors(first=2.0, mean=1e9, V=1.0, skewness=0.0)  # those of a normal of deviation 1, whatever the truth
    values = truth + np.linspace(-5, 5, 1001)
    ends = np.array([frechet._ends(value, value + 1e9, errors, 1.0, bounded=True) for value in values])
    holds = (np.maximum(ends[:, 0], 0) <= truth) & (truth <= ends[:, 1])
    assert np.trapezoid(holds * norm.pdf(values - truth), values) == pytest.approx(0.95, abs=3e-3)
    assert (np.diff(ends, axis=0) >= 0).all() and (ends[:, 1] > 0).all()


@pytest.mark.parametrize("truth", [0.0, 0.05, 0.3, 1.0, 4.0])
def test_so_do_those_whose_errors_are_skew_and_grow_with_the_truth(truth):
    w, n = 0.3, 6  # a sum of six squares, each w wide: w chi-square of six degrees of freedom, noncentral by t / w
    F = w * ncx2.rvs(n, max(truth, 1e-12) / w, size=3000, random_state=np.random.default_rng(3))
    V, skewness = 2 * n * w * w, (8 / n) ** 0.5
    held = 0
    for f in F:
        low, high = frechet._ends(f - n * w, f, frechet.Errors(4 * w * truth + 2 * V, n * w, V, skewness), V, bounded=True)
        assert max(low, 0) <= max(f - n * w, 0) <= high
        held += max(low, 0) <= truth <= high
    assert abs(held / len(F) - 0.95) < 0.012 + 0.015 * (truth > 0)  # three deviations; the slope is told from F, which varies


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_intervals_of_frechet_of_two_features_hold_the_truth_and_are_not_too_wide(shift):
    g, ends, values = np.random.default_rng(2), [], []
    for _ in range(200):
        x, y = g.normal(size=(150, 2)) * [1, 0.4], g.normal(size=(150, 2)) * [1, 0.4] + [shift, 0]
        these, infinity = Frechet().compare(Sample(features=x), Sample(features=y), g).values()
        ends.append((these.low, these.high, infinity.low, infinity.high))
        values.append(these.value)
    low, high, low_infinity, high_infinity = np.transpose(ends)
    for below, above, truth in ((low, high, np.mean(values)), (low_infinity, high_infinity, shift ** 2)):
        assert np.mean((below <= truth) & (truth <= above)) > 0.89, truth
    assert np.mean(high - low) < 6 * np.std(values) and (high_infinity >= 0).all()


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9, 1e60])
def test_the_unit_of_the_features_changes_nothing_of_frechet(unit):
    x, y = normals(90, 3, 0), normals(80, 3, 1, shift=0.3)
    for a, b in zip(measure("frechet", x, y), measure("frechet", x * unit, y * unit), strict=True):
        ends = [np.array([i.low, i.value, i.high]) for i in (a.interval, b.interval)]
        np.testing.assert_allclose(ends[1] / unit / unit, ends[0], rtol=1e-6)


@pytest.mark.parametrize("records", [4, 5, 6, 20])
def test_an_interval_of_a_distance_holds_its_own_value_however_few_the_records(records):
    for seed in range(5):
        for found in measure("kernel", normals(records, 3, seed), normals(300, 3, seed + 50)):
            assert found.interval.low <= found.value <= found.interval.high


def test_frechet_with_few_records_has_a_value_and_a_word_why_no_interval():
    found = measure("frechet", normals(30, 20, 0), normals(30, 20, 1))
    assert found[0].interval.low is None and "80 on" in found[0].notes[0]
    assert measure("frechet", normals(80, 20, 0), normals(80, 20, 1))[0].notes == ()


def test_intervals_of_frechet_and_kernel_cover_the_truth():
    hits, d, shift = np.zeros(3), 6, 0.7
    g = np.random.default_rng(0)
    for _ in range(120):
        x, y = g.normal(size=(120, d)), g.normal(size=(150, d)) + shift / d ** 0.5
        infinity = Frechet().compare(Sample(features=x), Sample(features=y), g)["frechet_infinity"]
        poly, mmd = (kernel.Kernel(kernel.KernelConfig(permutations=0)).compare(
            Sample(features=x), Sample(features=y), g)[name] for name in ("kernel", "mmd"))
        width = median_distance(x) ** 2
        truth = 2 * (width / (width + 2)) ** (d / 2) * (1 - np.exp(-shift ** 2 / (2 * (width + 2))))
        # E (x.y / D + 1)^3 of unit normals with means a, b: s = a.b has variance |a|^2 + |b|^2 + D, third moment 6 a.b
        inner = [(0.0, d, 0.0), (shift ** 2, 2 * shift ** 2 + d, 6 * shift ** 2), (0.0, shift ** 2 + d, 0.0)]
        cubes = [1 + 3 * s / d + 3 * (v + s * s) / d ** 2 + (t + 3 * s * v + s ** 3) / d ** 3 for s, v, t in inner]
        for place, (interval, known) in enumerate([(infinity, shift ** 2), (mmd, truth),
                                                   (poly, cubes[0] + cubes[1] - 2 * cubes[2])]):
            hits[place] += interval.low < known < interval.high
    assert (hits / 120 >= 0.89).all(), hits / 120    # 95 %, within three standard errors


# ---- the kernel distance -----------------------------------------------------------------------------------------------

def test_kernel_is_the_published_estimator_on_the_same_subsets():
    x, y = normals(300, 16, 0), normals(300, 16, 1, 1.2, 0.3)

    def published(a: np.ndarray, b: np.ndarray) -> float:
        """torch-fidelity's mmd2 of kernel_poly, Binkowski's as well: sums off the diagonal, and all pairs between."""
        XX, YY, XY = ((p @ q.T / 16 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        m = len(a)
        return float((XX.sum() - np.trace(XX) + YY.sum() - np.trace(YY)) / (m * (m - 1)) - 2 * XY.sum() / m ** 2)
    for rows in np.random.default_rng(2).permutation(300).reshape(3, 100):
        assert kernel_distance(x[rows], y[rows]) == pytest.approx(published(x[rows], y[rows]), rel=1e-9)


def test_kernel_in_blocks_is_kernel_at_once(monkeypatch):
    x, y = normals(210, 5, 0), normals(170, 5, 1, 1.2)
    for k in (polynomial, gaussian(1.5)):
        at_once = kernel._distance(x, y, k)
        monkeypatch.setattr(kernel, "ROWS", 32)
        assert kernel._distance(x, y, k) == pytest.approx(at_once, rel=1e-9)
        monkeypatch.undo()


def test_permuted_sums_are_the_distance_of_the_relabelled():
    x, y = normals(40, 4, 0), normals(30, 4, 1, shift=0.6)
    g = np.random.default_rng(0)
    orders = np.stack([g.permutation(70) < 40 for _ in range(30)])
    both, value = np.concatenate([x, y]), kernel_distance(x, y)
    at_least = sum(kernel_distance(both[order], both[~order]) >= value for order in orders)
    assert kernel._permuted(polynomial, *map(kernel._tensor, (x, y)), orders) == pytest.approx((1 + at_least) / 31)


def test_p_values_are_small_only_where_something_differs():
    x = normals(200, 8, 0)
    assert all(m.interval.p_value < 0.01 for m in measure("kernel", x, normals(200, 8, 1, shift=1)))
    p = [measure("kernel", normals(60, 4, s), normals(60, 4, 1000 + s), permutations=99)[1].interval.p_value for s in range(40)]
    assert 0.3 < np.mean(p) < 0.7 and min(p) >= 0.01    # the mean of 40 uniform ones, within four standard errors


def test_all_records_alike_have_no_kernel_distance():
    assert values("kernel", np.ones((20, 3)), np.ones((20, 3))) == pytest.approx({"kernel": 0, "mmd": 0}, abs=1e-12)


# ---- precision, recall, density, coverage ------------------------------------------------------------------------------

def published(real: np.ndarray, made: np.ndarray, k: int = 5) -> dict[str, float]:
    """What the package prdc (Naeem et al.) computes."""
    def radius(x: np.ndarray) -> np.ndarray:
        return np.partition(pairwise_distances(x), k, axis=1)[:, k]
    d, around_real, around_made = pairwise_distances(real, made), radius(real)[:, None], radius(made)[None]
    return {"precision": (d < around_real).any(axis=0).mean(), "recall": (d < around_made).any(axis=1).mean(),
            "density": (d < around_real).sum(axis=0).mean() / k, "coverage": (d.min(axis=1) < around_real[:, 0]).mean()}


@pytest.mark.parametrize("d, far", [(2, 0.0), (64, 0.0), (600, 0.0), (3, 1e4)])
def test_coverage_is_that_of_prdc(d, far):
    x, y = normals(700, d, 0) + far * (np.arange(700) % 3)[:, None], normals(600, d, 1, 1.1) + far
    assert values("coverage", x, y) == pytest.approx(published(x, y), abs=1e-9)
    assert values("coverage", x.astype(np.float32), y.astype(np.float32), neighbours=1)["coverage"] <= 1


@pytest.mark.parametrize("entries", [1 << 23, 1 << 12])
def test_who_lies_in_whose_ball_with_and_without_blocks_ties_and_copies(monkeypatch, entries):
    monkeypatch.setattr(coverage, "ENTRIES", entries)
    g = np.random.default_rng(0)
    whole = g.integers(0, 3, size=(240, 6)).astype(float)
    sets = [(whole[:120], whole[120:]), (normals(100, 8, 0), np.concatenate([normals(100, 8, 0)[:50], normals(2500, 8, 1)])),
            (np.zeros((30, 4)), np.zeros((20, 4))), (normals(80, 4, 0) * 1e150, normals(90, 4, 1) * 1e150)]
    for x, y in sets:
        found, known = inside(x, y, 3), coverage.reference(x, y, 3)
        np.testing.assert_array_equal(found.balls, known.balls)
        np.testing.assert_array_equal(found.covered, known.covered)
        np.testing.assert_array_equal(found.reached, known.reached)


def test_coverage_and_recall_drop_where_modes_are_lost_and_precision_where_records_are_bad():
    centres = np.random.default_rng(5).normal(size=(8, 16)) * 5
    real, whole, few = (normals(640, 16, s) + np.repeat(centres[:modes], 640 // modes, axis=0)
                        for s, modes in ((0, 8), (1, 8), (2, 2)))
    good, lost = (measure("coverage", real, made) for made in (whole, few))
    bad = values("coverage", real, np.concatenate([whole[::2], 3 * normals(320, 16, 3)]))
    assert good[3].value > 0.9 and lost[3].value < 0.3 and lost[3].interval.high < good[3].interval.low
    assert lost[1].value < 0.35 < 0.9 < good[1].value and lost[0].value > 0.9
    assert bad["precision"] < 0.6 and bad["coverage"] > 0.75


def test_intervals_of_coverage_cover_what_more_records_give():
    g = np.random.default_rng(0)
    real = g.normal(size=(300, 4))
    balls = np.concatenate([inside(real, g.normal(size=(500, 4)) * 1.2).balls for _ in range(40)])
    made = g.normal(size=(150, 4)) * 1.2
    more = [inside(g.normal(size=(300, 4)), made) for _ in range(60)]
    hits = np.zeros(4)
    for _ in range(120):
        others, again = Sample(features=g.normal(size=(150, 4)) * 1.2), Sample(features=g.normal(size=(300, 4)))
        of_made = coverage.Coverage().compare(Sample(features=real), others, g)
        of_real = coverage.Coverage().compare(again, Sample(features=made), g)
        known = (of_made["precision"], np.mean(balls > 0)), (of_made["density"], balls.mean() / 5), (
            of_real["recall"], np.mean([i.reached for i in more])), (of_real["coverage"], np.mean([i.covered for i in more]))
        for place, (interval, truth) in enumerate(known):
            hits[place] += interval.low < truth < interval.high
    assert (hits / 120 >= 0.89).all(), hits / 120    # 95 %, within three standard errors


def test_the_design_effect_is_that_of_the_coverage_also_where_it_looks_at_some_records_only(monkeypatch):
    monkeypatch.setattr(coverage, "SEVERAL", 100)
    g = np.random.default_rng(0)
    made = g.normal(size=(400, 2)) * 1.2
    shares = np.array([inside(g.normal(size=(400, 2)), made).covered.mean() for _ in range(150)])
    effect = shares.var(ddof=1) / (shares.mean() * (1 - shares.mean()) / 400)
    found = np.mean([coverage.design_effect(g.normal(size=(400, 2)), made, 5, g) for _ in range(30)])
    assert found == pytest.approx(effect, rel=0.35)    # three standard errors of a variance of 150


# ---- all of them -------------------------------------------------------------------------------------------------------

def test_two_halves_of_one_set_are_at_the_floor():
    x = normals(1600, 10, 0)
    halves = x[::2], x[1::2]
    for m in (*measure("frechet", *halves)[1:], *measure("kernel", *halves)):
        assert m.interval.low < 0 < m.interval.high, m.name
    assert measure("frechet", *halves)[0].value < 0.05
    assert all(m.value > 0.9 for m in measure("coverage", *halves))


def test_distances_grow_with_a_known_shift():
    x = normals(500, 10, 0)
    found = [{**values("frechet", x, normals(500, 10, 1, shift=s)), **values("kernel", x, normals(500, 10, 1, shift=s)),
              **values("coverage", x, normals(500, 10, 1, shift=s))} for s in (0.0, 0.6, 1.2, 2.4)]
    for name in ("frechet", "frechet_infinity", "kernel", "mmd"):
        assert all(a[name] < b[name] for a, b in pairwise(found)), name
    for name in ("precision", "recall", "density", "coverage"):
        assert all(a[name] > b[name] for a, b in pairwise(found[1:])), name
    assert found[2]["frechet_infinity"] == pytest.approx(1.44, abs=0.25)


@pytest.mark.parametrize("name", MEASURES)
def test_the_same_inputs_and_seed_give_the_same_numbers(name):
    x, y = normals(200, 7, 0), normals(150, 7, 1, 1.2)
    assert repr([m.plain() for m in measure(name, x, y, seed=3)]) == repr([m.plain() for m in measure(name, x, y, seed=3)])


@pytest.mark.parametrize("name", MEASURES)
def test_an_order_of_the_records_is_no_matter(name):
    x, y = normals(400, 5, 0), normals(400, 5, 1, 1.2)
    small_first, by_turns = np.argsort(x[:, 0]), np.arange(400).reshape(2, 200).T.ravel()    # halves of every other are unlike
    ordered = values(name, x[small_first][by_turns], y)
    for key, value in values(name, x, y).items():
        by_chance = 0.02 if key == "frechet_infinity" else 1e-9    # the halves are others
        assert ordered[key] == pytest.approx(value, abs=by_chance), key


@pytest.mark.parametrize("name", MEASURES)
def test_what_cannot_be_measured_is_an_error_of_the_house(name):
    x = normals(60, 5, 0)
    with pytest.raises(BadData, match="needs . made records") as few:
        measure(name, x, x[:1])
    assert few.value.code == "METRIC_FEW"
    with pytest.raises(BadData, match="record 8"):
        measure(name, x, np.where(np.arange(60)[:, None] == 7, np.nan, x))
    with pytest.raises(Incompatible):
        measure(name, x, x[:, :4])


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_no_array_of_numbers_is_an_error_of_the_house(name):
    x = normals(60, 5, 0)
    for none in (np.zeros((0, 5)), np.zeros(0), np.array(3.0)):
        with pytest.raises(BadData) as few:
            measure(name, x, none)
        assert few.value.code == "METRIC_FEW"
    for odd in (x.astype(str), x.astype(object), x + 1j, x[:, :0]):
        with pytest.raises(Incompatible, match="compares numbers") as unfit:
            measure(name, x, odd)
        assert unfit.value.code == "METRIC_SHAPE"


def test_bad_settings_and_bare_functions_are_errors_of_the_house():
    x = normals(20, 5, 0)
    with pytest.raises(BadData, match="'neighbours' is 30"):
        measure("coverage", x, x, neighbours=30)
    with pytest.raises(BadConfig):
        measure("kernel", x, x, permutations=-1)
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(Incompatible):
            distance(x, x[:, :3])
        with pytest.raises(BadData):
            distance(x[:1], x)
    with pytest.raises(Incompatible):
        frechet_of_moments(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
