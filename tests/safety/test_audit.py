"""The audit finds what copies and remembers, is calm where nothing is, and says what it cannot tell."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

from verossim.errors import BadConfig, BadData, Incompatible
from verossim.intervals import auc, rate_at
from verossim.safety.audit import audit
from verossim.safety.audit.neighbours import Frame, nearest


def draw(rng: np.random.Generator, n: int, D: int = 16) -> np.ndarray:
    """Records of a known distribution: three stretched Gaussians."""
    g = np.random.default_rng(7)
    A, middles = g.normal(size=(3, D, D)) / D ** 0.5, 2 * g.normal(size=(3, D))
    k = rng.integers(3, size=n)
    return middles[k] + np.einsum("nij,nj->ni", A[k], rng.normal(size=(n, D)))


def three(seed: int, n: int = 400, D: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return draw(rng, n, D), draw(rng, n, D), draw(rng, n, D)


def plant(made: np.ndarray, train: np.ndarray, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Made records of which the first `count` are copies, and which training records these are of."""
    rng = np.random.default_rng(count)
    chosen = rng.choice(len(train), count, replace=False)
    copies = train[chosen] + noise * train.std(axis=0) * rng.normal(size=(count, train.shape[1]))
    return np.concatenate([copies, made[count:]]), chosen


@pytest.mark.parametrize("points, queries", [
    (draw(np.random.default_rng(0), 900, 20), draw(np.random.default_rng(1), 200, 20)),
    (1e6 + 1e-3 * draw(np.random.default_rng(0), 900, 20), 1e6 + 1e-3 * draw(np.random.default_rng(1), 200, 20)),
    (np.random.default_rng(0).integers(3, size=(900, 4)), np.random.default_rng(1).integers(3, size=(200, 4))),
    (np.random.default_rng(0).integers(256, size=(900, 49), dtype=np.uint8), np.zeros((3, 49), np.uint8)),
    (np.concatenate([draw(np.random.default_rng(0), 900, 3), [[1e9, 0, 0]]]), draw(np.random.default_rng(1), 200, 3)),
], ids=["plain", "far", "tied", "bytes", "outlier"])
def test_nearest_neighbours_are_exact(points, queries, monkeypatch):
    import verossim.safety.audit.neighbours as module
    monkeypatch.setattr(module, "POINTS", 256)  # several blocks of each
    monkeypatch.setattr(module, "QUERIES", 64)
    true = cdist(queries.astype(float), points.astype(float))
    found = nearest(queries, points, 6, Frame.of(points, False))
    assert np.allclose(found.distance, np.sort(true, axis=1)[:, :6], rtol=1e-12, atol=0)
    assert np.allclose(np.take_along_axis(true, found.index, axis=1), found.distance, rtol=1e-12, atol=0)
    own = np.arange(100)
    apart = cdist(points[:100].astype(float), points.astype(float))
    apart[own, own] = np.inf
    assert np.allclose(nearest(points[:100], points, 3, Frame.of(points, False), own).distance, np.sort(apart, axis=1)[:, :3],
                       rtol=1e-12, atol=0)


def test_a_copy_lies_at_distance_zero_however_it_is_scaled():
    train, _, _ = three(0)
    frame = Frame.of(train * 1e-3 + 123.456, True)
    assert (nearest(train * 1e-3 + 123.456, train * 1e-3 + 123.456, 1, frame).distance == 0).all()


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_it_finds_planted_copies(share, noise):
    train, held_out, made = three(1, 1000)
    made, chosen = plant(made, train, int(share * len(made)), noise)
    report = audit(train, held_out, made, pairs=len(made))
    found = {pair.made: pair.train for pair in report.pairs if pair.distance < pair.threshold}
    assert np.mean([found.get(s) == t for s, t in enumerate(chosen)]) >= 0.99
    assert report.verdict == "copies"
    assert report.copying.rate.low <= share <= report.copying.rate.high
    assert report.copying.exact == (0 if noise else len(chosen))
    assert report.copying.copies - len(chosen) <= 0.01 * len(made)  # and few others


def test_the_most_suspicious_pair_comes_first_and_each_is_of_another_training_record():
    train, held_out, made = three(2)
    made[100] = train[7] + 0.01
    made[200] = made[300] = train[9]
    report = audit(train, held_out, made, pairs=5)
    assert [(pair.made, pair.train) for pair in report.pairs[:2]] == [(200, 9), (100, 7)]
    assert len({pair.train for pair in report.pairs}) == len(report.pairs) == 5
    assert report.pairs[0].distance == 0
    assert report.pairs[1].distance == pytest.approx(np.linalg.norm(made[100] - train[7]))
    assert audit(train, held_out, made, pairs=0).pairs == ()


def test_it_is_calm_where_nothing_was_learned():
    """Of 60 models at most 2.5 % are to be called; more than 5 would be by chance once in 300 times."""
    called = 0
    for seed in range(60):
        train, held_out, made = three(seed, 120, 8)
        report = audit(train, held_out, made, scores=(-(train ** 2).sum(axis=1), -(held_out ** 2).sum(axis=1)))
        called += report.flagged
    assert called <= 5


def test_it_is_calm_on_digits_that_were_never_learned():
    from sklearn.datasets import load_digits
    from sklearn.utils import shuffle
    X = shuffle(load_digits().data, random_state=0)
    report = audit(X[:600], X[600:1200], X[1200:])
    assert report.verdict == "clear"
    assert report.copying.sensitivity.value > 0.99


@pytest.mark.parametrize("squeeze", [0.0, 0.3])
def test_little_variety_is_no_copying(squeeze):
    train, held_out, made = three(3)
    assert not audit(train, held_out, made.mean(axis=0) + squeeze * (made - made.mean(axis=0))).flagged


def kernel(train: np.ndarray, width: float, x: np.ndarray) -> np.ndarray:
    """log of a kernel density estimate, without its constant."""
    return logsumexp(-cdist(x, train, "sqeuclidean") / (2 * width ** 2), axis=1)


def test_it_flags_overfitted_densities_ten_of_ten():
    for seed in range(10):
        train, held_out, made = three(seed, 300)
        rng = np.random.default_rng(seed)
        made = train[rng.integers(len(train), size=300)] + 0.1 * rng.normal(size=made.shape)
        alone = audit(train, held_out, made)
        assert alone.verdict == "copies"
        both = audit(train, held_out, made, scores=(kernel(train, 0.1, train), kernel(train, 0.1, held_out)))
        assert both.verdict == "copies"
        assert both.membership[0].area.value > 0.99


def test_it_flags_overfitted_mixtures_ten_of_ten():
    for seed in range(10):
        train, held_out, made = three(seed, 300, 8)
        mixture = GaussianMixture(60, covariance_type="diag", reg_covar=1e-3, max_iter=20, tol=1e-2, random_state=seed)
        mixture.fit(train)
        made = mixture.sample(300)[0]
        report = audit(train, held_out, made, scores=(mixture.score_samples(train), mixture.score_samples(held_out)))
        assert report.flagged
        assert any("Remembers its training records (membership AUC" in said for said in report.words)


def test_what_lies_nearer_to_training_records_without_being_one_of_them_remembers():
    train, held_out, _ = three(6, 1000)
    rng = np.random.default_rng(6)
    report = audit(train, held_out, train[rng.integers(1000, size=1000)] + rng.normal(size=train.shape))
    assert report.copying.exact == report.copying.certain == 0
    assert report.verdict == "remembers"
    assert report.words[0].startswith("Made records lie nearer to training records")


def test_a_mixture_that_fits_is_clear():
    train, held_out, _ = three(4, 1000, 8)
    mixture = GaussianMixture(3, random_state=0).fit(train)
    scores = mixture.score_samples(train), mixture.score_samples(held_out)
    report = audit(train, held_out, mixture.sample(1000)[0], scores=scores)
    assert report.verdict == "clear"
    assert report.words[0].startswith("No sign of copying")


def test_it_sees_a_few_remembered_records():
    """A twentieth of the training records stands out, which the average hides."""
    train, held_out, made = three(5, 1000)
    rng = np.random.default_rng(0)
    mine, its = rng.normal(size=1000), rng.normal(size=1000)
    mine[:50] += 8
    report = audit(train, held_out, made, losses=(-mine, -its))
    by_loss = report.membership[0]
    assert report.verdict == "remembers"
    assert by_loss.by == "loss"
    assert by_loss.area == auc(mine, its)
    assert by_loss.at_1_percent == rate_at(mine, its, 0.01)
    assert by_loss.at_tenth_percent == rate_at(mine, its, 0.001)
    assert by_loss.at_tenth_percent.low > 0.03


def test_classes_of_other_shares_betray_nothing():
    train, held_out, made = three(6, 1000)
    rng = np.random.default_rng(1)
    labels = rng.random(1000) < 0.8, rng.random(1000) < 0.3
    scores = 10.0 * labels[0] + rng.normal(size=1000), 10.0 * labels[1] + rng.normal(size=1000)
    assert audit(train, held_out, made, scores=scores).verdict == "remembers"
    report = audit(train, held_out, made, scores=scores, labels=labels)
    assert report.verdict == "clear"
    area = report.membership[0].area
    assert area.low < 0.5 < area.high and area.high - area.low < 0.08
    within = scores[0] + 0.5, scores[1]
    assert audit(train, held_out, made, scores=within, labels=labels).verdict == "remembers"


def test_one_class_is_as_none():
    train, held_out, made = three(17)
    scores, labels = (train[:, 0] + 0.2, held_out[:, 0]), (np.zeros(400), np.zeros(400))
    within, plain = (audit(train, held_out, made, scores=scores, labels=kinds).membership[0] for kinds in (labels, None))
    assert within.within_class and not plain.within_class
    assert within.area.value == plain.area.value
    assert within.area.p_value == pytest.approx(plain.area.p_value, rel=0.02)
    assert (within.area.low, within.area.high) == pytest.approx((plain.area.low, plain.area.high), abs=0.002)


def test_scores_of_some_records_stand_for_these():
    train, held_out, made = three(7)
    score = np.arange(800.0) % 77
    some = np.arange(0, 400, 3), np.arange(1, 400, 2)
    report = audit(train, held_out, made, scores=(score[:400][some[0]], score[400:][some[1]]), scored=some)
    assert report.membership[0].area == auc(score[:400][some[0]], score[400:][some[1]])


def test_the_distance_to_the_closest_record_stands_beside_its_attack():
    train, held_out, made = three(8)
    report = audit(train, held_out, made)
    own, its = cdist(train, made).min(axis=1), cdist(held_out, made).min(axis=1)
    attack, = report.membership
    assert attack.by == "distance"
    assert attack.closest == pytest.approx((np.median(own), np.median(its)))
    assert attack.area.value == pytest.approx(auc(-own, -its).value)


def test_overlap_is_said_first_and_left_out():
    train, held_out, made = three(9)
    score = np.random.default_rng(0).normal(size=800)
    mixed = np.concatenate([train[:40], held_out])
    train[50] = train[51]
    report = audit(train, mixed, made, scores=(score[:400], np.concatenate([score[:40], score[400:]])))
    apart = audit(train, held_out, made, scores=(score[:400], score[400:]))
    assert report.duplicates.overlap == 40 and not report.duplicates.natural
    assert "40 of 440 held-out records are training records" in report.warnings[0]
    assert "1 of 400 training records repeat" in report.warnings[1]
    assert report.copying.threshold == apart.copying.threshold
    assert report.copying.rate == apart.copying.rate
    assert report.membership == apart.membership


def test_duplicates_are_counted():
    train, held_out, made = three(10)
    train[100:110] = train[0]
    train[200:220] = train[300:320] + 1e-3
    duplicates = audit(train, held_out, made).duplicates
    assert (duplicates.exact, duplicates.most) == (10, 11)
    assert duplicates.near.value == pytest.approx(40 / 390)
    assert duplicates.near_held_out.value == 0
    changed = audit(train, np.concatenate([held_out, train[:100] + 1e-3]), made)
    assert any("may be changed training records" in said for said in changed.warnings)


def test_a_few_twins_do_not_excuse_copies():
    """Data of which a twentieth is there twice, within the training records and across, still has no right to copy."""
    train, held_out, made = three(18)
    train[:20], held_out[:20] = train[20:40], train[40:60]
    made, _ = plant(made, train, 20, 0.0)
    report = audit(train, held_out, made)
    assert not report.duplicates.natural and report.verdict == "copies"
    assert report.copying.copies >= 20


def test_rows_that_coincide_by_nature_are_no_copies():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        train, held_out, made = (rng.integers(2, size=(400, 8)) for _ in range(3))
        report = audit(train, held_out, made)
        assert not report.flagged
        assert report.duplicates.natural
        assert any("coincides by nature" in said for said in report.warnings)


def test_one_equal_row_of_a_coarse_table_is_no_copy():
    """Rows of 20 coins: few coincide in so small a set, and yet a made one may."""
    rng = np.random.default_rng(11)
    train, held_out, made = (rng.integers(2, size=(400, 20)) for _ in range(3))
    made[0] = train[0]
    assert not audit(train, held_out, made).flagged


def test_it_says_what_it_cannot_tell():
    train, held_out, made = three(12)
    assert audit(train, held_out[:60], made).verdict == "cannot tell"
    few, = audit(train, held_out[:60], made).words
    assert "60 held-out" in few and "1,000" in few
    flat = audit(*three(13, 400, 2))
    assert flat.verdict == "cannot tell"
    assert "planted copies would be found" in flat.words[0]
    assert "needs 1,000" in audit(train, held_out, made).words[-1]
    assert "needs 1,000" not in audit(*three(12, 1000)).words[-1]


def test_standardised_entries_count_alike():
    train, held_out, made = three(14)
    made, _ = plant(made, train, 20, 0.01)
    scale = 10.0 ** np.random.default_rng(0).integers(-3, 4, size=16)
    plain, other = (audit(a, b, c, standardise=True).plain() for a, b, c in
                    ((train, held_out, made), (train * scale, held_out * scale, made * scale)))
    assert other["copying"]["copies"] == plain["copying"]["copies"]
    assert other["copying"]["threshold"] == pytest.approx(plain["copying"]["threshold"])


def test_the_same_inputs_give_the_same_bytes():
    train, held_out, made = three(15)
    first, again, other = (json.dumps(audit(train, held_out, made, seed=seed).plain(), allow_nan=False) for seed in (0, 0, 1))
    assert first == again
    assert json.loads(other)["copying"]["copies"] == json.loads(first)["copying"]["copies"]


T, H, G = three(16)
BROKEN = np.where(np.arange(400)[:, None] == 3, np.nan, T)


@pytest.mark.parametrize("sides, more, kind, code, said", [
    ((T, H[:19], G), {}, BadData, "AUDIT_FEW", "there are 19"),
    ((T[:19], H, G), {}, BadData, "AUDIT_FEW", "there are 19"),
    ((np.repeat(T[:1], 50, axis=0), H, G), {}, BadData, "AUDIT_FEW", "there are 1"),
    ((T, T[:50], G), {}, BadData, "AUDIT_OVERLAP", "50 of 50"),
    ((T, H, G[:, :5]), {}, Incompatible, "AUDIT_SHAPE", "made records have 5"),
    ((T, H, G.astype(str)), {}, Incompatible, "AUDIT_SHAPE", "made records are"),
    ((BROKEN, H, G), {}, BadData, "AUDIT_NONFINITE", "training record 4"),
    ((T, H, G[:0]), {}, BadData, "AUDIT_EMPTY", "no made records"),
    ((T, H, G), {"scores": (np.zeros(400), np.zeros(3))}, Incompatible, "AUDIT_SHAPE", "3 log_prob of 400 held-out"),
    ((T, H, G), {"scores": (T[:2, 0], H[:2, 0]), "scored": (np.array([0, 400]), np.arange(2))}, Incompatible, "AUDIT_SHAPE",
     "training records 0 to 400 of 400"),
    ((T, H, G), {"losses": (BROKEN[:, 0], np.zeros(400))}, BadData, "AUDIT_NONFINITE", "loss of training record 4"),
    ((T, H, G), {"labels": (np.zeros(400), np.zeros(3))}, Incompatible, "AUDIT_SHAPE", "400 and 3 classes"),
    ((T, H, G), {"rate": 2.0}, BadConfig, "SETTING_RANGE", "rate"),
    ((T, H, G), {"pears": 2}, BadConfig, "CONFIG_KEY", "pairs"),
])
def test_bad_input_is_an_error_with_its_way_out(sides, more, kind, code, said):
    with pytest.raises(kind) as caught:
        audit(*sides, **more)
    assert caught.value.code == code
    assert said in str(caught.value) and caught.value.hint
