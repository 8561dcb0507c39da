"""The diffusion family as others meet it: its losses, samples, likelihoods and completions keep the contract."""

import math
from functools import partial, partialmethod

import pytest
import torch

from verossim.config import build
from verossim.errors import BadConfig, Incompatible, NoLikelihood, NotInvertible
from verossim.families import Turn, diffusion
from verossim.families.diffusion import Diffusion
from verossim.families.diffusion.solver import STEPS
from verossim.nn.backbone import kind_of
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete

LABEL = Discrete(shape=(), vocabulary=3, pad=-1)
VECTOR = Continuous(shape=(6,), axes=("entry",), widths=(0, 0, 0.25, 0, 0, 0), simplexes=((3, 6),))
GRID = Continuous(shape=(1, 3, 5), axes=("channel", "height", "width"), levels=256)
SPACES = {"vector": VECTOR, "grid": GRID}


def records(space, n, seed=0):
    if space is GRID:
        u = Noise(seed, n).uniform(*space.shape)
        return ((u * 256).floor() + 0.5) / 128 - 1
    noise = Noise(seed, n)
    numbers = noise.normal(3)
    numbers[:, 1] += numbers[:, 0]
    numbers[:, 2] = (numbers[:, 2] / 0.25).round() * 0.25 + 0.1
    which = (numbers[:, 0] > 0).long() + (noise.uniform() > 0.5).long()
    return torch.cat([numbers, torch.nn.functional.one_hot(which, 3)], dim=1)


def batch(x, y=None, seed=1, first=0) -> Batch:
    return Batch(x, y, torch.ones(len(x)), torch.arange(len(x)), Noise(seed, len(x), first))


def family(space, condition=None, **settings) -> Diffusion:
    """A small one, started, its parameters moved off where it begins."""
    torch.manual_seed(0)
    found = Diffusion(build(Diffusion.Config, {"width": 16, "depth": 1, **settings}), space, condition)
    found.start(batch(records(space, 500)), Noise(0, 500))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return found


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def test_start_measures_the_data(space):
    x, found = records(space, 500), family(space)
    assert torch.allclose(found.centre, x.mean(dim=0), atol=1e-5)
    assert abs(float(found.spread) - float((x - x.mean(dim=0)).square().mean().sqrt())) < 1e-5
    gaps = x.clone()
    gaps[::2] = math.nan
    found.start(batch(gaps), Noise(0, 500))
    assert torch.allclose(found.centre, x[1::2].mean(dim=0), atol=1e-5)


@pytest.mark.parametrize("schedule", ["ve", "vp", "cosine", "flow"])
@pytest.mark.parametrize("output", ["auto", "x", "noise", "velocity"])
def test_loss_is_a_record_s_own_whatever_the_batch(space, schedule, output):
    found, x = family(space, LABEL, schedule=schedule, output=output), records(space, 12)
    y = torch.arange(12) % 4 - 1
    whole = found.loss(batch(x, y), Turn())
    assert whole.total.shape == whole.parts["nats"].shape == (12,) and whole.total.isfinite().all()
    half = found.loss(Batch(x[5:], y[5:], torch.ones(7), torch.arange(7), Noise(1, 7, 5)), Turn())
    assert torch.allclose(whole.total[5:], half.total, rtol=1e-4, atol=1e-6)
    assert torch.allclose(whole.parts["nats"][5:], half.parts["nats"], rtol=1e-4, atol=1e-2)


def test_every_parameter_learns(space):
    found = family(space, LABEL, drop=0.5)
    found.loss(batch(records(space, 64), torch.arange(64) % 3), Turn()).total.mean().backward()
    silent = [name for name, p in found.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@pytest.mark.parametrize("output", ["auto", "x", "noise", "velocity"])
def test_nats_of_the_loss_are_those_of_the_bound(output):
    found, x = family(VECTOR, output=output), records(VECTOR, 8, seed=5)
    bound = found.log_prob(x, method="bound")
    with torch.no_grad():
        nats = torch.stack([found.loss(batch(x.repeat(500, 1), seed=s), Turn()).parts["nats"].view(500, 8) for s in range(8)])
    nats = nats.flatten(0, 1)
    error = nats.mean(dim=0) + bound.log_prob
    assert (error.abs() < 4.5 * torch.hypot(nats.std(dim=0) / math.sqrt(len(nats)), bound.stderr)).all()


def test_outputs_are_one_model_in_other_words():
    """The exact answer of a network that says x, noise or velocity is one and the same denoiser."""
    for schedule in ("ve", "vp", "cosine", "flow"):
        found = family(VECTOR, schedule=schedule)
        x, eps, ratio = records(VECTOR, 50), Noise(2, 50).normal(6), torch.logspace(-1, 1, 50)
        x_r = x + ratio[:, None] * eps
        for output in ("auto", "x", "noise", "velocity"):
            denoiser = Diffusion(build(Diffusion.Config, {"width": 16, "schedule": schedule, "output": output}), VECTOR)
            for name in ("centre", "spread"):
                getattr(denoiser, name).copy_(getattr(found, name))
            form = denoiser.denoiser.form(ratio)
            wanted = ((x - found.centre) - form.keep[:, None] * (x_r - found.centre)) / form.gain[:, None]
            if output != "auto":
                assert 0.3 < float(wanted.square().mean().sqrt()) < 3  # of about unit size
            denoiser.networks["denoiser"] = Saying(wanted)
            assert (denoiser.denoiser(x_r, ratio) - x).abs().max() < 1e-4


@pytest.mark.parametrize("schedule", ["ve", "vp", "cosine", "flow"])
@pytest.mark.parametrize("output", ["auto", "x", "noise", "velocity"])
def test_a_network_that_errs_by_one_percent_does_little_harm_where_noise_is_most(schedule, output):
    found, n = family(VECTOR, schedule=schedule, output=output), 200
    x, eps, ratio = records(VECTOR, n), Noise(2, n).normal(6), torch.full((n,), found.schedule.high)
    X, form = x + ratio[:, None] * eps - found.centre, found.denoiser.form(ratio)
    right = ((x - found.centre) - form.keep[:, None] * X) / form.gain[:, None]
    errors = []
    for said in (right, right + 0.01 * Noise(3, n).normal(6)):
        found.networks["denoiser"] = Saying(said)
        errors.append(found.denoiser(found.centre + X, ratio) - x)
    assert float((errors[1] - errors[0]).square().mean().sqrt()) < 0.1 * float(found.spread)
    found.networks["denoiser"] = Saying(torch.zeros(n, 6))  # one that says nothing leaves the data about their mean
    assert float((found.denoiser(found.centre + X, ratio) - found.centre).square().mean().sqrt()) < 5 * float(found.spread)


def test_no_graph_is_kept_while_sampling():
    found = family(VECTOR, LABEL)
    for solver in STEPS:
        for x in found.unfold(Noise(0, 2), torch.tensor([0, 1]), steps=3, solver=solver, guidance=2.0):
            assert not x.requires_grad


@pytest.mark.parametrize("shape, kind", [((3,), "mlp"), ((1, 6), "unet"), ((1, 8, 65), "transformer"),
                                         ((1, 2, 2, 2), "unet"), ((1, 2, 2, 2, 2), "transformer")])
def test_auto_is_the_network_that_serves_the_space(shape, kind):
    space = Continuous(shape=shape, axes=("channel", *(f"axis {n}" for n in range(1, len(shape)))))
    found = Diffusion(build(Diffusion.Config, {"width": 8, "depth": 1}), space)
    assert found.config.network == kind == kind_of(space)
    assert found.sample(Noise(0, 2), steps=2).shape == (2, *shape)


class Saying(torch.nn.Module):
    """A network that has one answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t, y=None):
        return self.answer


def test_unknown_entries_cost_nothing():
    found, x = family(VECTOR), records(VECTOR, 16)
    x[3, 1] = math.nan
    x[4, 4] = math.nan  # one of a category's entries: the category
    x[5] = math.nan
    losses = found.loss(batch(x), Turn())
    whole = x.clone()
    whole[4, 3:] = math.nan
    assert torch.equal(found.loss(batch(whole), Turn()).total, losses.total)
    assert losses.total.isfinite().all() and losses.parts["nats"].isfinite().all()
    assert losses.total[5] == 0 and losses.parts["nats"][5] == 0


@pytest.mark.parametrize("solver", STEPS)
def test_samples_are_a_record_s_own_and_ever_more_finished(space, solver):
    found = family(space, LABEL)
    y = torch.tensor([0, 1, 2, -1, 0, 1])
    unfolded = list(found.unfold(Noise(4, 6), y, steps=5, solver=solver))
    assert len(unfolded) == 5 and all(x.shape == (6, *space.shape) for x in unfolded)
    assert torch.equal(found.sample(Noise(4, 6), y, steps=5, solver=solver), unfolded[-1])
    part = found.sample(Noise(4, 2, 3), y[3:5], steps=5, solver=solver)
    assert (part - unfolded[-1][3:5]).abs().max() < (2 / 256 + 1e-5 if space is GRID else 0.2501)
    assert torch.equal(found.sample(Noise(4, 6), torch.full((6,), -1), steps=5), found.sample(Noise(4, 6), steps=5))
    values = unfolded[-1]
    if space is GRID:
        assert torch.equal(values, ((values + 1) * 128 - 0.5).round().add(0.5).div(128).sub(1))
    else:
        assert (values[:, 3:].amax(dim=1) == 1).all() and (values[:, 3:].sum(dim=1) == 1).all()


def test_guidance_of_weight_one_and_of_others():
    found = family(VECTOR, LABEL)
    y = torch.tensor([0, 1, 2])
    plain = found.sample(Noise(0, 3), y)
    assert torch.equal(found.sample(Noise(0, 3), y, guidance=1.0, interval=(0.1, 2.0)), plain)
    assert not torch.equal(found.sample(Noise(0, 3), y, guidance=4.0), plain)
    assert torch.equal(found.sample(Noise(0, 3), y, guidance=4.0, interval=(90.0, 100.0)), plain)
    assert torch.equal(found.sample(Noise(0, 3), y, guidance=3.0, worse=found), plain)
    assert torch.equal(found.sample(Noise(0, 3), guidance=4.0), found.sample(Noise(0, 3)))


@pytest.mark.parametrize("method, kind", [("flow", "estimate"), ("bound", "bound")])
def test_log_prob_says_what_it_is_and_is_a_record_s_own(space, method, kind, monkeypatch):
    monkeypatch.setattr(diffusion.Judge, "flow", partialmethod(diffusion.Judge.flow, steps=6))  # its truth: tests/oracle
    found, x = family(space, LABEL), records(space, 3)
    y = torch.tensor([0, -1, 1])
    with torch.inference_mode():
        whole = found.log_prob(x, y, Noise(0, 3), method)
    assert whole.kind == kind and whole.stderr is not None and (whole.stderr > 0).all()
    assert whole.coordinates == space.coordinates and whole.log_prob.isfinite().all()
    part = found.log_prob(x[:1], y[:1], method=method)  # seed 0 where no noise is given
    assert torch.allclose(part.log_prob, whole.log_prob[:1], rtol=1e-3, atol=0.05)
    assert found.log_prob(x[:0], method=method).log_prob.shape == (0,)


def test_completion_keeps_what_is_known(space, monkeypatch):
    monkeypatch.setattr(diffusion, "Completion", partial(diffusion.Completion, levels=6, rounds=2))
    found, x = family(space), records(space, 4)
    gaps = x.clone()
    gaps.flatten(1)[1:3, -4:] = math.nan
    with torch.inference_mode():
        filled = found.complete(gaps, None, Noise(0, 4))
    there = ~gaps.isnan()
    if space is VECTOR:
        assert (filled[:, 3:].sum(dim=1) == 1).all()
    assert torch.equal(filled[there], gaps[there]) and filled.isfinite().all()
    mean = found.complete(gaps)
    assert torch.equal(mean[there], gaps[there]) and mean.isfinite().all()
    alone = found.complete(gaps[2:3], None, Noise(0, 1, 2))
    assert (alone - filled[2]).abs().max() < (2 / 256 + 1e-5 if space is GRID else 0.2501)
    assert (found.complete(gaps[2:3]) - mean[2]).abs().max() < (2 / 256 + 1e-5 if space is GRID else 0.2501)
    assert found.complete(x, None, Noise(0, 4)) is x


def test_latents_come_back(space):
    found, x = family(space), records(space, 6)
    z = found.encode(x)
    assert z.shape == x.shape
    back = found.decode(z)
    assert (back - x).abs().max() < 5e-3


def test_a_model_is_what_its_state_says(space):
    found = family(space)
    other = Diffusion(found.config, space)
    other.load_state_dict(found.state_dict())
    assert all(value.dtype == torch.float32 for value in found.state_dict().values())
    assert torch.equal(other.sample(Noise(0, 2), steps=3), found.sample(Noise(0, 2), steps=3))


def test_mistakes_are_named():
    found, x = family(VECTOR), records(VECTOR, 3)
    with pytest.raises(BadConfig, match="solver") as caught:
        found.sample(Noise(0, 1), solver="hein")
    assert "heun" in caught.value.hint
    with pytest.raises(BadConfig, match="guidanse") as caught:
        found.sample(Noise(0, 1), guidanse=2)
    assert "guidance" in caught.value.hint
    with pytest.raises(BadConfig, match="steps"):
        found.sample(Noise(0, 1), steps=0)
    with pytest.raises(BadConfig, match="method"):
        found.log_prob(x, method="exact")
    x[1, 0] = math.nan
    with pytest.raises(NoLikelihood, match="1 of 3 records"):
        found.log_prob(x)
    with pytest.raises(NotInvertible, match="1 of 3 records"):
        found.encode(x)
    with pytest.raises(Incompatible, match="Discrete"):
        Diffusion(Diffusion.Config(), Discrete(shape=(4,), vocabulary=5))
