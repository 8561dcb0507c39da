"""Utility: what scikit-learn says directly, what must help, what cannot, what overlaps, and what is refused."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

import verossim
from verossim.errors import VerossimError
from verossim.spaces import Records
from verossim.uses.utility import utility, utility_of
from verossim.uses.utility.augmentation import pictures, rows
from verossim.uses.utility.classifiers import learned

QUICK = {"classifier": "logistic", "sizes": (), "repeats": 3}


def two_classes(n: int, seed: int, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """n records in 10 dimensions, of two unit Gaussians so far apart, in turn."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    return rng.normal(size=(n, 10)) + apart * y[:, None] / np.sqrt(10), y


def digits(first: int, last: int) -> Records:
    """Some of scikit-learn's digits in a fixed random order, 8 x 8 pictures with labels."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))[first:last]
    levels = (bunch.images[order] * 255 / 16).round().astype(np.uint8)
    return Records({"image": list(levels[..., None]), "label": [str(t) for t in bunch.target[order]]})


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Breast cancer in a fixed random order, a quarter of its labels wrong, so that it matters what is learned from."""
    x, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    return x[order], np.where(rng.random(len(y)) < 0.25, 1 - y, y)[order]


def test_the_scores_are_those_of_scikit_learn(cancer):
    x, y = cancer
    made, train, test = ((x[rows], y[rows]) for rows in (slice(0, 200), slice(200, 400), slice(400, None)))
    report = utility(made, train, test, augmentation=False, **QUICK)
    scale = StandardScaler().fit(train[0])

    def direct(learn, judge):
        one = LogisticRegression(max_iter=2000).fit(scale.transform(learn[0]), learn[1])
        score = balanced_accuracy_score if report.measure == "balanced accuracy" else accuracy_score
        return score(judge[1], one.predict(scale.transform(judge[0])))
    assert report.scores["real_on_real"].value == pytest.approx(direct(train, test), abs=1e-12)
    assert report.scores["real_on_made"].value == pytest.approx(direct(train, made), abs=1e-12)
    assert report.scores["made_on_real"].value == pytest.approx(direct(made, test), abs=1e-12)
    assert report.gain.before == pytest.approx(report.scores["real_on_real"].value, abs=1e-12)


def test_all_are_shown_as_many_records_that_weigh_as_much(cancer):
    x, y = cancer
    made, train, test = ((x[rows], y[rows]) for rows in (slice(0, 60), slice(70, 90), slice(100, None)))
    gain = utility(made, train, test, augmentation=False, **QUICK).gain
    scale = StandardScaler().fit(train[0])
    learn = np.concatenate([*[train[0]] * 3, made[0]]), np.concatenate([*[train[1]] * 3, made[1]])
    one = LogisticRegression(max_iter=2000).fit(scale.transform(learn[0]), learn[1], np.full(120, 20 / 120))
    alone = LogisticRegression(max_iter=2000).fit(scale.transform(train[0]), train[1])
    for found, direct in ((gain.after, one), (gain.before, alone)):
        right = direct.predict(scale.transform(test[0])) == test[1]
        strata = [right[test[1] == c].mean() for c in (0, 1)] if gain.measure == "balanced accuracy" else [right.mean()]
        assert found == pytest.approx(np.mean(strata), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_records_of_the_true_distribution_help_ten_real_ones(seed):
    report = utility(two_classes(1000, 100 + seed), two_classes(10, 200 + seed), two_classes(4000, 300 + seed), **QUICK)
    gain = report.gain
    assert report.verdict == gain.verdict == "helps" and gain.difference.low > 0 and gain.after > gain.before
    assert gain.real == 10 and gain.difference.p_value < 0.05


def test_enough_real_records_need_no_others():
    report = utility(two_classes(2000, 1), two_classes(2000, 2), two_classes(8000, 3), **QUICK)
    assert report.verdict == "does not" and report.gain.difference.high < 0.01
    assert "do not help" in report.words()


def test_wrong_labels_do_harm():
    real, made = digits(0, 400), digits(400, 1000)
    wrong = made.with_columns(label=list(np.random.default_rng(0).permutation(made.columns["label"])))
    test = digits(1000, 1797)
    report = utility(wrong, real, test, **QUICK)
    assert report.verdict == "does not" and any("do harm" in warning for warning in report.warnings)
    assert report.gain.difference.high < 0


@pytest.mark.parametrize("seed", range(4))
def test_where_labels_are_random_nothing_helps(seed):
    rng = np.random.default_rng(seed)
    sets = [(rng.normal(size=(n, 4)), rng.integers(0, 2, n)) for n in (300, 100, 1000)]
    assert utility(*sets, **{**QUICK, "sizes": (20,)}).verdict != "helps"


def test_where_classes_are_uneven_the_mean_over_classes_counts():
    def uneven(n, seed):
        x, y = two_classes(2 * n, seed)
        kept = np.flatnonzero((y == 0) | (np.arange(2 * n) % 10 == 1))
        return x[kept], y[kept]
    made, train, test = uneven(300, 1), uneven(100, 2), uneven(500, 3)
    report = utility(made, train, test, **QUICK)
    one = LogisticRegression(max_iter=2000).fit((scale := StandardScaler().fit(train[0])).transform(train[0]), train[1])
    guessed = one.predict(scale.transform(test[0]))
    assert report.measure == "balanced accuracy" and report.gain.accuracy != report.gain.difference
    assert report.scores["real_on_real"].value == pytest.approx(balanced_accuracy_score(test[1], guessed), abs=1e-12)


def test_copies_of_the_train_records_change_nothing():
    train = two_classes(60, 5)
    report = utility(train, train, two_classes(500, 6), classifier="logistic", sizes=(), repeats=2, augmentation=False)
    assert report.gain.difference.value == 0
    assert any("60 of 60 made records are copies of train records" in warning for warning in report.warnings)


def test_smaller_sizes_come_from_train_and_all_comes_last():
    report = utility(two_classes(200, 1), two_classes(60, 2), two_classes(300, 3), classifier="logistic", repeats=2,
                     sizes="50,20")
    assert [(gain.real, gain.against) for gain in report.gains] == [
        (n, against) for against in ("real", "augmentation") for n in (20, 50, 60)]
    assert report.verdict == report.gains[2].verdict


def test_what_overlaps_is_said_and_left_out():
    train, test = two_classes(50, 1), two_classes(200, 2)
    mixed = np.concatenate([train[0][:20], test[0]]), np.concatenate([train[1][:20], test[1]])
    made = two_classes(100, 3)
    alone, both = (utility(made, train, side, **QUICK) for side in (test, mixed))
    assert not alone.warnings and "TRAIN AND TEST OVERLAP: 20 of 220" in both.warnings[0]
    assert both.scores == alone.scores and both.gains == alone.gains
    with pytest.raises(VerossimError) as error:
        utility(made, train, train, **QUICK)
    assert error.value.code == "UTILITY_OVERLAP"
    leaked = np.concatenate([made[0], test[0][:7]]), np.concatenate([made[1], test[1][:7]])
    warned = utility(leaked, train, test, **QUICK).warnings
    assert any("7 of 107 made records are copies of test" in warning for warning in warned)


def test_the_same_seed_gives_the_same_bytes_and_another_others():
    sets = two_classes(100, 1), two_classes(60, 2), two_classes(200, 3)
    one, same, other = (json.dumps(utility(*sets, seed=seed, sizes=(20,), repeats=2).plain()) for seed in (0, 0, 1))
    assert one == same != other
    gains = [utility(*sets, seed=seed, sizes=(20,), repeats=2, augmentation=False).gains for seed in (0, 1)]
    assert gains[0] != gains[1]


def test_reports_of_other_data_refuse_to_be_compared():
    sets = two_classes(100, 1), two_classes(60, 2), two_classes(200, 3)
    one = utility(*sets, **QUICK).measured[0]
    other = utility(sets[0], sets[1], two_classes(200, 4), **QUICK).measured[0]
    assert one.better_than(one) is None
    with pytest.raises(VerossimError, match="reference"):
        one.better_than(other)


def test_a_mixture_of_wine_in_mixed_columns():
    frame = load_wine(as_frame=True).frame.sample(frac=1, random_state=0)
    frame["strong"] = np.where(frame["alcohol"] > 13, "yes", "no")
    train, test = frame[:100], frame[100:]
    model = verossim.fit(train, family="gmm", label="target", held_out=0, components=1, covariance="diag")
    report = utility_of(model, train, test, classifier="logistic", sizes=(20,), repeats=2, made=300)
    assert report.labels == (0, 1, 2) and report.protocol.made == 300 and report.protocol.real == 100
    assert report.scores["made_on_real"].value > 0.9 and report.scores["real_on_real"].value > 0.9
    assert [gain.against for gain in report.gains] == ["real", "real", "augmentation", "augmentation"]
    jointly = verossim.fit(train.astype({"target": str}), family="gmm", held_out=0, components=3, covariance="diag")
    joint = utility_of(jointly, train.astype({"target": str}), test.astype({"target": str}), label="target", made=300, **QUICK)
    assert joint.scores["made_on_real"].value > 0.8


def test_a_mixture_of_digits_as_pictures():
    train = digits(0, 500)
    model = verossim.fit(train, family="gmm", components=1, covariance="diag", held_out=0)
    report = utility_of(model, train, digits(500, 1000), **{**QUICK, "repeats": 2}, made=500)
    assert 0.8 < report.scores["made_on_real"].value < report.scores["real_on_real"].value
    assert report.verdict != "helps"


def test_the_network_learns_and_repeats_itself():
    bunch = load_digits()
    x, y = (bunch.images[:, None] / 8 - 1).astype(np.float32), bunch.target
    one, same = (learned("network", x[:900], y[:900], 10, 1.0, 7, 50)(x[900:]) for _ in range(2))
    assert (one == same).all() and (one == y[900:]).mean() > 0.85


def test_augmented_pictures_are_moved_a_little_and_not_mirrored():
    x = np.full((200, 1, 28, 28), -1, np.float32)
    x[:, :, 11:17, 4:9] = 1  # left of the middle

    def centres(moved):
        light = (moved + 1).sum(axis=1)
        return np.stack([(light * axis).sum(axis=(1, 2)) / light.sum(axis=(1, 2))
                         for axis in (np.arange(28)[:, None], np.arange(28)[None])], axis=1)
    moved = pictures(x, np.random.default_rng(0), flips=False)
    away = np.abs(centres(moved) - centres(x))
    turned = 7.5 * np.sin(np.radians(10))  # of a centre 7.5 pixels from the picture's
    assert away[:, 1].max() <= 2 + 0.2 and 1.5 < away[:, 0].max() <= 2 + turned
    assert (centres(moved)[:, 1] < 13.5).all() and moved.min() >= -1 and moved.max() <= 1
    mirrored = centres(pictures(x, np.random.default_rng(0), flips=True))[:, 1] > 13.5
    assert 0.35 < mirrored.mean() < 0.65


def test_augmented_rows_stay_between_records_of_their_class():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = np.zeros((60, 4), np.float32)
    x[:, 0] = 10 * y + rng.random(60)
    x[np.arange(60), 1 + y] = 1  # a category, and a number that never varies
    which = np.arange(600) % 60
    new = rows(x, y, which, [(1, 3)], rng)
    assert (new[:, 1:3] == x[which, 1:3]).all() and (new[:, 3] == 0).all()
    assert (np.abs(new[:, 0] - 10 * y[which] - 0.5) < 0.5 + 0.5).all() and (new[:, 0] != x[which, 0]).all()


BAD = {
    "LABEL_SINGLE": ({}, {"train": lambda x, y: (x, np.zeros(len(y)))}),
    "UTILITY_CLASSES": ({}, {"made": lambda x, y: (x, np.zeros(len(y), int))}),
    "UTILITY_FEW": ({}, {"test": lambda x, y: (x[:3], y[:3])}),
    "LABEL_COUNT": ({}, {"made": lambda x, y: (x, y[:-1])}),
    "TAB_SCHEMA": ({}, {"made": lambda x, y: (x[:, :-1], y)}),
    "DATA_FORMAT": ({}, {"made": lambda x, y: (np.zeros((len(y), 8, 8), np.uint8), y)}),
    "LABEL_MISSING": ({}, {"train": lambda x, y: x}),
    "COLUMN_UNKNOWN": ({"label": "kind"}, {"train": lambda x, y: x}),
    "CONFIG_KEY": ({"repeat": 3}, {}),
    "SETTING_RANGE": ({"sizes": (3,)}, {}),
    "SEED_RANGE": ({"seed": -1}, {}),
}


@pytest.mark.parametrize("code", BAD)
def test_what_cannot_be_judged_is_refused(code):
    settings, changed = BAD[code]
    sets = {name: two_classes(40, seed) for seed, name in enumerate(("made", "train", "test"))}
    sets |= {name: change(*sets[name]) for name, change in changed.items()}
    with pytest.raises(VerossimError) as error:
        utility(**sets, **{**QUICK, **settings})
    assert error.value.code == code and str(error.value)


def test_further_refusals():
    sets = [two_classes(40, seed) for seed in range(3)]
    stranger = sets[2][0], np.where(np.arange(40) == 5, 7, sets[2][1])
    for bad, code in (({"classifier": "network"}, "SETTING_RANGE"), ({"sizes": "few"}, "SETTING_RANGE"),
                      ({"sizes": (50,)}, "SETTING_RANGE"), ({"margin": 0}, "SETTING_RANGE")):
        with pytest.raises(VerossimError) as error:
            utility(*sets, **{**QUICK, **bad})
        assert error.value.code == code
    with pytest.raises(VerossimError, match="'7'") as error:
        utility(sets[0], sets[1], stranger, **QUICK)
    assert error.value.code == "UTILITY_CLASSES"
    with pytest.raises(VerossimError) as error:
        utility(["a text"] * 9, ["a text"] * 9, ["a text"] * 9, **QUICK)
    assert error.value.code == "UTILITY_MODALITY"
    plain = verossim.fit(sets[1][0], family="gmm", components=1, held_out=0)
    with pytest.raises(VerossimError) as error:
        utility_of(plain, sets[1], sets[2], **QUICK)
    assert error.value.code == "NOT_CONDITIONAL"
