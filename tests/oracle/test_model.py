"""What a model says, in the units that people gave: it adds up to one, and by Bayes' rule."""

import numpy as np
import pandas as pd
import pytest
import torch

import verossim
from verossim.families.gmm import GMM
from verossim.spaces import Batch, Continuous
from verossim.training import InMemory, candidates, select


def frame(count: int = 600) -> pd.DataFrame:
    """Two classes of two measures in unlike units; one class counts nine times as much as the other."""
    g = np.random.default_rng(5)
    kind = np.arange(count) % 2
    return pd.DataFrame({"height": 1700 + 90 * g.normal(size=count) + 60 * kind, "dose": np.exp(g.normal(size=count) / 3 - 9),
                         "kind": np.array(["a", "b"])[kind], "weight": np.where(kind == 1, 9.0, 1.0)})


def test_densities_integrate_to_one_in_raw_units():
    data = frame()
    model = verossim.fit(data[["height", "dose"]], components=2)
    h, d = np.linspace(900, 2600, 400), np.geomspace(1e-6, 3e-3, 400)
    heights, doses = np.meshgrid(h, d, indexing="ij")
    density = model.log_prob(pd.DataFrame({"height": heights.ravel(), "dose": doses.ravel()})).log_prob.exp().numpy()
    over_doses = np.trapezoid(density.reshape(400, 400), d, axis=1)
    assert np.trapezoid(over_doses, h) == pytest.approx(1, abs=5e-3)
    all_of_it = float(model.log_prob(data[["height", "dose"]]).log_prob.mean())
    assert model.card["held_out"]["log_prob"] == pytest.approx(all_of_it, abs=0.5)  # nats in raw units, not in scaled ones


def test_classes_follow_from_bayes_rule_with_the_weights_of_the_records():
    data = frame()
    model = verossim.fit(data, label="kind", weight="weight", components=1)
    seen = data.drop(columns=["kind", "weight"])
    given = torch.stack([model.log_prob(seen, condition=kind).log_prob for kind in "ab"], dim=1)
    joint = given + torch.tensor([0.1, 0.9]).log()
    assert torch.allclose(model.predict_proba(seen), joint.softmax(dim=1), atol=0.01)
    exact = given + model.prior(model.label).log()
    assert torch.allclose(model.predict_proba(seen), exact.softmax(dim=1), atol=1e-6)
    assert torch.allclose(model.log_prob(seen).log_prob, exact.logsumexp(dim=1), atol=1e-5)
    share = np.mean([kind == "b" for kind in model.sample(4000, seed=3)["kind"]])
    assert abs(share - 0.9) < 5 * np.sqrt(0.09 / 4000) + 0.01


def test_only_the_proportions_of_weights_count():
    data = frame()
    big, small = (verossim.fit(data.assign(weight=data["weight"] * scale), weight="weight", label="kind", components=1)
                  for scale in (1.0, 1e-4))
    seen = data.drop(columns=["kind", "weight"])
    assert torch.allclose(big.log_prob(seen).log_prob, small.log_prob(seen).log_prob, atol=1e-6)


def test_icl_is_bic_plus_twice_the_entropy_of_the_groups():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(400, 2, generator=g, dtype=torch.float64) + 1.5 * (torch.arange(400) % 2)[:, None]
    data = InMemory(Batch(x, None, torch.ones(400), torch.arange(400)))
    space, built = Continuous(shape=(2,), axes=("number",)), []

    def build(config):
        built.append(GMM(config, space))
        return built[-1]
    chosen = select(build, candidates(GMM, GMM.Config(components=2, covariance="auto"), space, 400), data, data, 0, resamples=0)
    for row in chosen.rows:
        fits = [f for f in built if f.config == row.config]
        r = max(fits, key=lambda f: float(f.log_prob(x).log_prob.sum())).assign(data.whole)
        entropy = float(torch.special.entr(r).sum())
        assert row.icl - row.bic == pytest.approx(2 * entropy, rel=1e-3)


def test_a_record_that_overflows_float32_has_a_finite_score_among_many():
    g = np.random.default_rng(2)
    a = g.normal(size=400)
    model = verossim.fit(pd.DataFrame({"a": a, "b": a + 1e-3 * g.normal(size=400)}), components=1)
    far = pd.DataFrame({"a": np.append(a, 8e17), "b": np.append(a, 0.0)})
    log_p = model.log_prob(far).log_prob
    assert log_p.isfinite().all() and int(log_p.argmin()) == 400
