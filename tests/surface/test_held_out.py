"""What a run says of records that it did not learn from: a mean by weight, with its error, in pieces that memory allows."""

import math

import numpy as np
import pytest
import torch

import verossim
from verossim.families.vae import VAE
from verossim.model import running
from verossim.seeds import Noise
from verossim.spaces import Batch
from verossim.training import Engine

SETTINGS = {"family": "vae", "width": 8, "depth": 1, "samples": 64, "batch": 32, "seed": 3, "device": "cpu"}


def rows(count: int = 400) -> list[dict[str, float]]:
    """Records of two groups, those of the second far out and of much weight."""
    draw = np.random.default_rng(4)
    return [{"a": float(draw.normal(9 * (n % 2))), "b": float(draw.normal()), "w": 5.0 if n % 2 else 0.5} for n in range(count)]


@pytest.fixture
def judged(monkeypatch):
    """The model, the records that were held out and what was said of them: by a run, then by any number at once."""
    true, given = running.nats_on_held_out, []

    def noted(model, split, engine, *at_once):
        given.append((model, split, at_once))
        return true(model, split, engine, *at_once)

    def run(**settings):
        monkeypatch.setattr(running, "nats_on_held_out", noted)
        model = verossim.fit(rows(), **SETTINGS, **settings)
        _, split, at_once = given[-1]
        return model, split, at_once, model.card["held_out"]
    return run


def test_records_count_by_their_weight(judged):
    model, split, _, said = judged(weight="w")
    whole = split.slice(0, len(split))
    assert len({round(float(unit), 3) for unit in whole.units}) == 2
    noise = Noise(0, len(split), running.FOREVER)
    batch = Batch(whole.x, None, whole.units, whole.index, noise)
    with torch.no_grad():
        nats = model.family.loss(batch, model.family.turns[0]).parts["nats"].double() - model.codec.log_volume(whole.x)
    weights = whole.units.numpy().astype(float)
    mean = np.average(nats.numpy(), weights=weights)
    error = math.sqrt((weights ** 2 * (nats.numpy() - mean) ** 2).sum()) / weights.sum()
    scale = model.codec.space.coordinates * math.log(2)
    assert said["records"] == len(split) and said["log_prob"] == pytest.approx(-mean, rel=1e-5)
    assert said["bits"] == pytest.approx(mean / scale, rel=1e-5)
    assert said["bits_stderr"] == pytest.approx(error / scale, rel=1e-4)
    assert abs(mean - float(nats.mean())) > 0.1  # here weights matter


def test_records_of_a_weight_count_as_ever(judged):
    _, split, _, said = judged()
    assert set(split.slice(0, len(split)).units.tolist()) == {1.0} and said["bits_stderr"] > 0


@pytest.mark.parametrize(("settings", "most"), [({}, 32), ({"accumulate": 5}, 7)])
def test_as_many_are_judged_at_once_as_were_learned_from(judged, monkeypatch, settings, most):
    """And how many does not change what is said."""
    lengths, loss = [], VAE.loss

    def noted(self, batch, turn):
        if not self.training:
            lengths.append(len(batch.x))
        return loss(self, batch, turn)
    monkeypatch.setattr(VAE, "loss", noted)
    model, split, at_once, said = judged(**settings)
    assert at_once == (most,) and max(lengths) == most and sum(lengths) == len(split) > most
    again = running.nats_on_held_out(model, split, Engine(), 256)
    assert again["log_prob"] == pytest.approx(said["log_prob"], rel=1e-6)
    assert again["bits_stderr"] == pytest.approx(said["bits_stderr"], rel=1e-6)


def test_bits_are_of_the_cells_that_are_there():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, generator=g, dtype=torch.float64) + 0.3 * torch.randn(400, 4, generator=g, dtype=torch.float64)
    rows = [{**dict(zip("abcd", row, strict=True)), "kind": "xy"[row[0] > 0]} for row in x.tolist()]
    model = verossim.fit(rows, components=2)
    some = [{**row, "b": None, "kind": None} if i % 2 else row for i, row in enumerate(rows)]
    whole, partly = model.log_prob(rows), model.log_prob(some)
    assert whole.coordinates == 5 and partly.coordinates.tolist() == [5.0, 3.0] * 200
    assert torch.allclose(partly.bits[::2], whole.bits[::2])
    assert partly.bits[1::2].tolist() == pytest.approx((-partly.log_prob[1::2] / 3 / math.log(2)).tolist())
