"""The estimator stands wherever scikit-learn's own mixture stands, and where that one fails it does not."""

import warnings

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as Theirs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from verossim.errors import VerossimError
from verossim.sklearn import GaussianMixture

SHAPES = ("full", "tied", "diag", "spherical")
K, D = 3, 4


def data(records=600, spread=1.5, seed=0):
    X, _ = make_blobs(records, D, centers=K, cluster_std=spread, center_box=(-5, 5), random_state=seed)
    return X @ np.random.default_rng(seed).normal(size=(D, D)) + 3


def start(X, covariance_type):
    """Three records, equal weights and a third of the spread: a start that says everything."""
    variance = X.var(axis=0) / 3
    precision = {"full": np.stack([np.diag(1 / variance)] * K), "tied": np.diag(1 / variance),
                 "diag": np.stack([1 / variance] * K), "spherical": np.full(K, 1 / variance.mean())}[covariance_type]
    return {"weights_init": np.full(K, 1 / K), "means_init": X[:K], "precisions_init": precision}


def parameters(model):
    return np.concatenate([np.ravel(p) for p in (model.weights_, model.means_, model.covariances_)])


def matrix(model, k):
    """The covariance (D, D) of component k, whatever its shape is stored as."""
    stored = model.covariances_
    return {"full": lambda: stored[k], "tied": lambda: stored, "diag": lambda: np.diag(stored[k]),
            "spherical": lambda: stored[k] * np.eye(D)}[model.covariance_type]()


@pytest.mark.parametrize("estimator", [
    GaussianMixture(), GaussianMixture(3, covariance_type="tied"), GaussianMixture(2, missing="marginal"),
    GaussianMixture(2, covariance_type="diag", init_params="k-means++"),
], ids=str)
def test_every_check_of_an_estimator_passes(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 40


def test_the_constructor_is_the_other_one_and_more():
    mine, theirs = GaussianMixture().get_params(), Theirs().get_params()
    assert {name: mine[name] for name in theirs} == theirs
    assert set(mine) - set(theirs) == {"missing"}


@pytest.mark.parametrize("covariance_type", SHAPES)
@pytest.mark.parametrize("reg_covar", [1e-6, 0.5])
def test_from_the_same_start_it_walks_the_same_way(covariance_type, reg_covar):
    X = data()
    settings = {"covariance_type": covariance_type, "reg_covar": reg_covar, "tol": 1e-5, "max_iter": 500,
                **start(X, covariance_type)}
    mine, theirs = GaussianMixture(K, **settings).fit(X), Theirs(K, **settings).fit(X)
    assert mine.n_iter_ == theirs.n_iter_
    assert mine.converged_
    np.testing.assert_allclose(mine.lower_bounds_, theirs.lower_bounds_, rtol=1e-9)
    assert mine.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-9)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-6, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(mine.score_samples(X), theirs.score_samples(X), rtol=1e-8)
    np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), atol=1e-8)
    assert (mine.predict(X) == theirs.predict(X)).all()
    for measure in ("score", "bic", "aic"):
        assert getattr(mine, measure)(X) == pytest.approx(getattr(theirs, measure)(X), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_data_walk_the_same_way_in_fast_arithmetic(dtype):
    X = (data(300_000) + 100).astype(dtype)
    settings = {"max_iter": 5, "tol": 0.0, **start(X, "full")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mine, theirs = GaussianMixture(K, **settings).fit(X), Theirs(K, **settings).fit(X.astype(np.float64))
    assert mine.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-6)
    np.testing.assert_allclose(mine.means_, theirs.means_, rtol=1e-5)
    np.testing.assert_allclose(mine.covariances_, theirs.covariances_, rtol=1e-4, atol=1e-5)


def test_it_stands_in_a_pipeline_and_a_grid_search():
    X = data(300)
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(K, random_state=0)).fit(X)
    assert pipeline.predict(X).shape == (300,)
    grid = {"gaussianmixture__n_components": [1, 3], "gaussianmixture__covariance_type": ["full", "diag"]}
    search = GridSearchCV(pipeline, grid).fit(X)
    assert search.best_params_ == {"gaussianmixture__n_components": 3, "gaussianmixture__covariance_type": "full"}


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random_from_data", "random"])
def test_every_start_learns(init_params):
    X, y = make_blobs(900, 2, centers=[(-20, 0), (0, 0), (20, 0)], random_state=0)
    model = GaussianMixture(K, init_params=init_params, random_state=1, max_iter=300, n_init=3).fit(X)
    assert model.score(X) > GaussianMixture().fit(X).score(X) - 1e-6
    if init_params in ("kmeans", "k-means++"):
        assert adjusted_rand_score(y, model.predict(X)) == 1


def test_the_best_of_several_starts_is_kept():
    X = data(400, spread=3.0)
    bounds = [GaussianMixture(5, init_params="random_from_data", random_state=seed).fit(X).lower_bound_ for seed in range(4)]
    many = GaussianMixture(5, init_params="random_from_data", random_state=0, n_init=12).fit(X)
    assert many.lower_bound_ >= bounds[0]
    assert many.lower_bound_ >= sorted(bounds)[2] - 1e-3


@pytest.mark.parametrize("covariance_type", SHAPES)
def test_a_weight_is_a_number_of_records(covariance_type):
    X, times = data(300), np.arange(300) % 4
    settings = {"covariance_type": covariance_type, "random_state": 0, "tol": 1e-6, "max_iter": 500}
    weighted = GaussianMixture(K, **settings).fit(X, sample_weight=times)
    repeated = GaussianMixture(K, **settings).fit(X.repeat(times, axis=0))
    np.testing.assert_allclose(parameters(weighted), parameters(repeated), rtol=1e-8)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-10)
    scaled = GaussianMixture(K, **settings).fit(X, sample_weight=times * 7.5)
    np.testing.assert_allclose(parameters(weighted), parameters(scaled), rtol=1e-8)


def test_missing_entries_are_refused_unless_asked_for():
    X = data(100)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        GaussianMixture(2).fit(X)
    assert np.isfinite(parameters(GaussianMixture(2, missing="marginal", random_state=0).fit(X))).all()


def test_missing_entries_are_summed_out():
    X = data()
    whole = GaussianMixture(K, missing="marginal", random_state=0).fit(X)
    holes = X.copy()
    holes[::2, 1] = holes[::3, 3] = np.nan
    log_p = whole.score_samples(holes)
    for row in (0, 2, 3, 7):  # what is there of the record, against the mixture of only those columns
        there = ~np.isnan(holes[row])
        part = Theirs(K)
        part.weights_, part.means_ = whole.weights_, whole.means_[:, there]
        part.covariances_ = whole.covariances_[:, there][:, :, there]
        part.precisions_cholesky_ = np.stack([np.linalg.inv(np.linalg.cholesky(S)).T for S in part.covariances_])
        part.n_features_in_ = int(there.sum())
        assert log_p[row] == pytest.approx(part.score_samples(holes[row:row + 1, there])[0], rel=1e-8)


def test_covariances_survive_missing_entries():
    random = np.random.default_rng(0)
    truth = np.array([[2.0, 1.2, 0.0], [1.2, 1.0, -0.3], [0.0, -0.3, 0.5]])
    X = random.multivariate_normal([1, -2, 5], truth, 20_000)
    X[random.random(X.shape) < 0.3] = np.nan
    model = GaussianMixture(1, missing="marginal", tol=1e-8, max_iter=500).fit(X)
    np.testing.assert_allclose(model.means_[0], [1, -2, 5], atol=0.05)
    np.testing.assert_allclose(model.covariances_[0], truth, atol=0.08)
    complete = X[~np.isnan(X).any(axis=1)]
    asked = GaussianMixture(2, missing="marginal", random_state=0).fit(complete)
    np.testing.assert_allclose(parameters(asked), parameters(GaussianMixture(2, random_state=0).fit(complete)), rtol=1e-9)


@pytest.mark.parametrize("covariance_type", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_no_variance_is_negative_in_float32(covariance_type, offset):
    random = np.random.default_rng(0)
    X = (random.normal(scale=0.3, size=(5_000, 2)) + offset).astype(np.float32)
    model = GaussianMixture(2, covariance_type=covariance_type, reg_covar=0.0, random_state=0).fit(X)
    spread = model.covariances_ if covariance_type in ("diag", "spherical") else np.linalg.eigvalsh(model.covariances_)
    assert (spread > 0).all()
    one = GaussianMixture(1, covariance_type="diag", reg_covar=0.0).fit(X)
    np.testing.assert_allclose(one.covariances_[0], X.astype(np.float64).var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("covariance_type", SHAPES)
def test_samples_are_those_of_the_mixture(covariance_type):
    model = GaussianMixture(K, covariance_type=covariance_type, random_state=0).fit(data())
    X, y = model.sample(60_000)
    assert X.shape == (60_000, D)
    assert (np.diff(y) >= 0).all()
    np.testing.assert_allclose(np.bincount(y) / 60_000, model.weights_, atol=0.01)
    for k in range(K):
        covariance = matrix(model, k)
        scale = np.sqrt(np.trace(covariance))
        np.testing.assert_allclose(X[y == k].mean(axis=0), model.means_[k], atol=0.05 * scale)
        np.testing.assert_allclose(np.cov(X[y == k].T), covariance, atol=0.05 * scale ** 2)
    assert np.array_equal(model.sample(5)[0], model.sample(5)[0])


def test_warm_start_goes_on_where_it_stood():
    X = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        going = GaussianMixture(K, warm_start=True, max_iter=2, tol=0.0, random_state=0)
        bounds = [going.fit(X).lower_bound_ for _ in range(3)]
        at_once = GaussianMixture(K, max_iter=6, tol=0.0, random_state=0).fit(X)
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(at_once.lower_bound_, rel=1e-10)


def test_an_unfinished_fit_warns():
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model = GaussianMixture(K, max_iter=1, random_state=0).fit(data())
    assert not model.converged_
    assert model.n_iter_ == 1
    start_only = GaussianMixture(K, max_iter=0, random_state=0).fit(data())
    assert (start_only.n_iter_, start_only.lower_bound_, start_only.lower_bounds_) == (0, -np.inf, [])


@pytest.mark.parametrize(("settings", "word"), [
    ({"n_components": 0}, "n_components"), ({"n_components": 101}, "n_components"), ({"reg_covar": -1.0}, "reg_covar"),
    ({"covariance_type": "round"}, "covariance_type"), ({"missing": "drop"}, "missing"),
    ({"means_init": np.zeros((1, 2))}, "means"), ({"weights_init": [0.9, 0.9], "n_components": 2}, "weights"),
    ({"precisions_init": -np.ones((1, D, D))}, "positive-definite"),
    ({"precisions_init": np.ones(3), "covariance_type": "diag"}, "precisions"),
])
def test_wrong_settings_are_value_errors_that_name_the_setting(settings, word):
    with pytest.raises(ValueError, match=word):
        GaussianMixture(**settings).fit(data(100))


def test_own_errors_are_both_kinds():
    with pytest.raises(VerossimError) as error:
        GaussianMixture(101).fit(data(100))
    assert (error.value.code, error.value.status) == ("GMM_K", 64)
    with pytest.raises(ValueError, match="n_samples"):
        GaussianMixture().fit(data(100)).sample(0)
    with pytest.raises(NotFittedError):
        clone(GaussianMixture().fit(data(100))).predict(data(100))


def test_frames_keep_their_names():
    frame = pandas.DataFrame(data(100), columns=list("abcd"))
    model = GaussianMixture(2, random_state=0).fit(frame)
    assert list(model.feature_names_in_) == list("abcd")
    assert model.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("dcba")])


def test_it_is_silent_unless_asked(capsys):
    GaussianMixture(K, random_state=0).fit(data())
    assert capsys.readouterr().out == ""
    GaussianMixture(K, random_state=0, verbose=1, verbose_interval=1).fit(data())
    assert "Iteration 1" in capsys.readouterr().out
