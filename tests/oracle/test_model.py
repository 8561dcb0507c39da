"""What a model says, worked out by hand from the records alone: SciPy's normals, shares of weights, quadrature."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import verossim
from verossim import data

NUMBERS, CLASSES = ["pressure", "current"], ("calm", "gust", "storm")


def records(count: int = 1_200, seed: int = 11) -> pd.DataFrame:
    """Three overlapping classes, 6 : 3 : 1, in units far from 1; the rarest weigh most, and weights differ within a class."""
    g = np.random.default_rng(seed)
    which = g.choice(3, count, p=(0.6, 0.3, 0.1))
    z = g.normal(size=(count, 2)) * (1 + 0.3 * which[:, None]) + np.array([[0, 0], [1.2, 0.4], [0.5, 1.5]])[which]
    return pd.DataFrame({
        "pressure": 101_300 + 840 * z[:, 0] + 300 * z[:, 1], "current": 4e-6 + 2.5e-6 * z[:, 1],
        "weather": np.array(CLASSES)[which], "hours": (1 + 3 * which) * g.uniform(0.5, 1.5, count),
    })


def joint_by_hand(train: pd.DataFrame, asked: pd.DataFrame, weighted: bool) -> tuple[np.ndarray, np.ndarray]:
    """log p(x | y) (B, C), density in raw units, and P(y) (C,): maximum likelihood of one normal a class, all weighted."""
    hours = train["hours"].to_numpy() if weighted else np.ones(len(train))
    given, shares = [], []
    for kind in CLASSES:
        rows = (train["weather"] == kind).to_numpy()
        x, w = train.loc[rows, NUMBERS].to_numpy(), hours[rows]
        cov = np.cov(x.T, aweights=w, ddof=0)
        units = np.sqrt(np.diag(cov))  # SciPy takes eigenvalues this far apart for zeros, so it sees each number in its own
        normal = multivariate_normal(np.average(x, axis=0, weights=w) / units, cov / np.outer(units, units))
        given.append(normal.logpdf(asked[NUMBERS].to_numpy() / units) - np.log(units).sum())
        shares.append(w.sum())
    return np.stack(given, axis=1), np.array(shares) / hours.sum()


def fitted(frame: pd.DataFrame, weighted: bool, held_out: float = 0.0):
    """One normal a class by maximum likelihood."""
    return verossim.fit(frame if weighted else frame.drop(columns="hours"), label="weather", components=1, covariance="full",
                        weight="hours" if weighted else None, prior=0.0, held_out=held_out)


@pytest.mark.parametrize("weighted", [False, True])
def test_posterior_and_density_are_those_of_bayes_rule_by_hand(weighted):
    frame = records()
    model, asked = fitted(frame, weighted), frame[NUMBERS]
    given, prior = joint_by_hand(frame, asked, weighted)
    joint = given + np.log(prior)
    posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    assert tuple(model.classes) == CLASSES
    assert np.ptp(prior) > 0.2  # so unequal that a rule without the prior says something else
    assert np.abs(posterior - np.exp(given - logsumexp(given, axis=1, keepdims=True))).max() > 0.1
    np.testing.assert_allclose(model.predict_proba(asked).numpy(), posterior, atol=1e-4)
    np.testing.assert_allclose(model.log_prob(asked).log_prob.numpy(), logsumexp(joint, axis=1), atol=1e-3)
    for c, kind in enumerate(CLASSES):
        np.testing.assert_allclose(model.log_prob(asked, condition=kind).log_prob.numpy(), given[:, c], atol=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_sampled_labels_occur_as_often_as_the_prior_says(weighted):
    frame, count = records(), 6_000
    _, prior = joint_by_hand(frame, frame, weighted)
    drawn = pd.Series(list(fitted(frame, weighted).sample(count, seed=4)["weather"]))
    for kind, share in zip(CLASSES, prior, strict=True):
        assert abs((drawn == kind).mean() - share) < 5 * math.sqrt(share * (1 - share) / count), kind


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", [{}, {"components": 2}, {"prior": 40.0}])
def test_one_prior_serves_density_posterior_and_samples(weighted, settings):
    """Whatever the prior on the parameters does to P(Y), it is the same P(Y) in everything the model says."""
    frame = records(400)
    model = verossim.fit(frame if weighted else frame.drop(columns="hours"), label="weather", held_out=0.0,
                         weight="hours" if weighted else None, **{"components": 1, **settings})
    asked = frame[NUMBERS]
    given = torch.stack([model.log_prob(asked, condition=kind).log_prob for kind in CLASSES], dim=1).double()
    said = model.predict_proba(asked).double()
    implied = (said.log() - given).softmax(dim=1)  # P(Y) that turns p(x | y) into the posterior, record by record
    sure = said.min(dim=1).values > 1e-3  # less is too few digits to tell
    assert sure.sum() > 50
    prior = implied[sure].mean(dim=0)
    np.testing.assert_allclose(implied[sure].numpy(), prior.expand_as(implied[sure]).numpy(), atol=1e-4)
    total = (given + prior.log()).logsumexp(dim=1)
    np.testing.assert_allclose(model.log_prob(asked).log_prob.numpy(), total.numpy(), atol=1e-3)
    drawn = pd.Series(list(model.sample(4_000, seed=8)["weather"]))
    for kind, share in zip(CLASSES, prior.tolist(), strict=True):
        assert abs((drawn == kind).mean() - share) < 5 * math.sqrt(share * (1 - share) / 4_000), kind


@pytest.mark.parametrize("weighted", [False, True])
def test_the_held_out_figures_are_those_of_the_held_out_records_in_raw_units(weighted):
    frame, share = records(), 0.3
    model = fitted(frame, weighted, share)
    source = data.open_source(frame if weighted else frame.drop(columns="hours"), label="weather",
                              weight="hours" if weighted else None)
    apart = data.prepare(source, model.codec, model.label, held_out=share).held_out
    rows = np.sort(apart.take(torch.arange(len(apart))).index.numpy())
    unseen, train = frame.iloc[rows], frame.drop(index=rows)
    assert 0.2 < len(unseen) / len(frame) < 0.4
    given, prior = joint_by_hand(train, unseen, weighted)
    joint = given + np.log(prior)
    units = unseen["hours"] if weighted else np.ones(len(unseen))
    nats = np.average(logsumexp(joint, axis=1), weights=units)
    right = np.array(CLASSES)[joint.argmax(axis=1)] == unseen["weather"]
    told = model.card["held_out"]
    assert told["records"] == len(unseen)
    assert told["log_prob"] == pytest.approx(nats, abs=1e-3)
    assert told["log_prob"] == pytest.approx(np.average(model.log_prob(unseen[NUMBERS]).log_prob, weights=units), abs=1e-5)
    assert told["bits"] == pytest.approx(-nats / 2 / math.log(2), abs=1e-3)
    assert told["accuracy"] == pytest.approx(np.average(right, weights=units), abs=1e-3)


@pytest.mark.parametrize(("scale", "offset"), [(3e-9, 2e-8), (7e5, -4e6)])
def test_a_conditional_density_integrates_to_one_in_raw_units(scale, offset):
    g = np.random.default_rng(3)
    kind = np.arange(900) % 3 == 0
    frame = pd.DataFrame({"v": offset + scale * (g.normal(size=900) + 3 * kind), "kind": np.where(kind, "a", "b")})
    model = verossim.fit(frame, label="kind", components=2)
    grid = offset + scale * np.linspace(-25, 25, 4_001)
    for condition in (None, "a", "b"):
        density = model.log_prob(pd.DataFrame({"v": grid}), condition=condition).log_prob.exp().numpy()
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3), condition


def test_a_column_on_a_log_scale_beside_words_adds_up_to_one():
    """The density over v > 0, that has 1 / v in it, times the mass of each word."""
    g = np.random.default_rng(7)
    rain = g.random(700) < 0.3
    frame = pd.DataFrame({"v": np.exp(5 + 0.6 * g.normal(size=700) + rain), "sky": np.where(rain, "rain", "sun")})
    model = verossim.fit(frame, components=3, types=("v=positive",))
    grid = np.geomspace(1e-2, 1e6, 4_001)
    whole = 0.0
    for sky in ("rain", "sun"):
        density = model.log_prob(pd.DataFrame({"v": grid, "sky": sky})).log_prob.exp().numpy()
        mass = np.trapezoid(density, grid)
        assert mass == pytest.approx((frame["sky"] == sky).mean(), abs=0.06)
        whole += mass
    assert whole == pytest.approx(1, abs=2e-3)


def test_masses_of_whole_numbers_are_a_bound_that_sums_to_nearly_one():
    g = np.random.default_rng(9)
    frame = pd.DataFrame({"n": g.poisson(30, 800)})
    model = verossim.fit(frame, components=2)
    said = model.log_prob(pd.DataFrame({"n": np.arange(-200, 300)}))
    assert said.kind == "bound"
    total = float(said.log_prob.exp().sum())
    assert 0.97 < total < 1 + 1e-4


def test_only_the_proportions_of_weights_count():
    frame = records(600)
    big, small = (verossim.fit(frame.assign(hours=frame["hours"] * scale), weight="hours", label="weather", components=1)
                  for scale in (1.0, 1e-4))
    assert torch.allclose(big.log_prob(frame[NUMBERS]).log_prob, small.log_prob(frame[NUMBERS]).log_prob, atol=1e-6)


def test_a_record_that_overflows_float32_has_a_finite_score_among_many():
    g = np.random.default_rng(2)
    a = g.normal(size=400)
    model = verossim.fit(pd.DataFrame({"a": a, "b": a + 1e-3 * g.normal(size=400)}), components=1)
    far = pd.DataFrame({"a": np.append(a, 8e17), "b": np.append(a, 0.0)})
    log_p = model.log_prob(far).log_prob
    assert log_p.isfinite().all() and int(log_p.argmin()) == 400
