"""Every family over every space that it accepts, found by the shelf."""

import math
import random
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

import verossim
from verossim.config import build, knobs
from verossim.errors import BadConfig, Incompatible, NoLikelihood, NotInvertible
from verossim.families import LearnsByGradient
from verossim.seeds import Noise
from verossim.shelves import FAMILIES
from verossim.spaces import Batch, Continuous, Discrete
from verossim.training import InMemory, Learning, Settled, begin, learn, train

LABEL = Discrete(shape=(), vocabulary=3, pad=-1)
SPACES = {
    "numbers": Continuous(shape=(4,), axes=("number",)),
    "mixed": Continuous(shape=(6,), axes=("number",), widths=(0.0, 0.25, 0.0, 0.0, 0.0, 0.0), simplexes=((3, 6),)),
    "grey": Continuous(shape=(1, 6, 5), axes=("channel", "height", "width"), levels=256),
    "colour": Continuous(shape=(3, 4, 4), axes=("channel", "height", "width"), levels=256),
    "tokens": Discrete(shape=(5,), vocabulary=7, pad=0),
}
SMALL = {"width": 8, "latent": 2, "draws": 4, "components": 2, "depth": 1, "chains": 2, "temperatures": 6}
KINDS = {name: FAMILIES.load(name) for name in FAMILIES.names()}
CASES = [(family, space) for family in KINDS for space in SPACES if isinstance(SPACES[space], KINDS[family].accepts)]
B = 12
HASTY = {"diffusion": {"steps": 4}}  # knobs of sampling, where many records are made only to be compared


def records(space: str, count: int = B, seed: int = 0) -> torch.Tensor:
    """Points of a space, in two groups."""
    kind, g = SPACES[space], torch.Generator().manual_seed(seed)
    if isinstance(kind, Discrete):
        return torch.randint(1, kind.vocabulary, (count, *kind.shape), generator=g)
    x = 0.5 * torch.randn(count, *kind.shape, generator=g) + (torch.arange(count) % 2).view(-1, *[1] * len(kind.shape)) - 0.5
    if kind.levels:
        return (((x.clamp(-1, 1) + 1) * 128 - 0.5).round().clamp(0, 255) + 0.5) / 128 - 1
    if kind.widths:
        x[:, 1] = (x[:, 1] / 0.25).round() * 0.25
        x[:, 3:] = torch.eye(3)[torch.randint(3, (count,), generator=g)]
    return x


@cache
def made(family: str, space: str, conditional: bool):
    """A family that has learned for a moment."""
    kind = KINDS[family]
    config = build(kind.Config, {name: value for name, value in SMALL.items() if name in knobs(kind.Config)})
    torch.manual_seed(0)
    model = kind(config, SPACES[space], LABEL if conditional else None)
    data = InMemory(batch(space, conditional, 64))
    if isinstance(model, LearnsByGradient):
        def endless(samples):
            return iter(lambda: data.slice(0, 32), None)
        train(model, endless, Settled(samples=160, batch=32, rate=1e-3), data=data)
    else:
        begin(model, data, 0)
        learn(model, data, batch=32, config=Learning(iterations=5))
    return model.eval()


def things(family: str):
    """What people would have such a family learn: numbers, or texts."""
    if KINDS[family].accepts == (Discrete,):
        return [f"{number} and {number + 1} are {2 * number + 1}" for number in range(40)]
    return records("numbers", 40).numpy()


def batch(space: str, conditional: bool, count: int = B) -> Batch:
    y = torch.arange(count) % 4 - 1 if conditional else None
    return Batch(records(space, count), y, torch.ones(count), torch.arange(count), Noise(3, count))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Completion by diffusion in few steps: how good it is, is asked in tests/oracle."""
    from verossim.families import diffusion
    monkeypatch.setattr(diffusion, "Completion", partial(diffusion.Completion, levels=3, rounds=1))


def few(family: str, space: str) -> int:
    """Records enough for what takes long where many steps go through a large network."""
    return 3 if family == "diffusion" and len(SPACES[space].shape) > 1 else B


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "conditional"])
def conditional(request):
    return request.param


def test_samples_are_points_of_the_space_and_do_not_depend_on_the_batch(case, conditional):
    model, space = made(*case, conditional), SPACES[case[1]]
    y = torch.arange(B) % 3 if conditional else None
    with torch.inference_mode():
        whole = model.sample(Noise(5, B), y)
        parts = [model.sample(Noise(5, 5, first=first), None if y is None else y[first:first + 5]) for first in (0, 5)]
    assert whole.shape == (B, *space.shape)
    assert not whole.is_floating_point() or whole.isfinite().all()
    assert torch.allclose(torch.cat(parts).double(), whole[:10].double(), atol=1e-4)
    assert torch.equal(model.sample(Noise(5, B), y), whole)
    if isinstance(space, Continuous):
        for first, last in space.simplexes:
            block = whole[:, first:last]
            assert ((block == 0) | (block == 1)).all() and (block.sum(1) == 1).all()
        if space.levels:
            assert torch.allclose((whole + 1) * 128 - 0.5, ((whole + 1) * 128 - 0.5).round(), atol=1e-3)


def test_no_condition_is_unconditional_and_classes_differ(case):
    model = made(*case, True)
    null = torch.full((B,), -1)
    with torch.inference_mode():
        assert torch.equal(model.sample(Noise(5, B)), model.sample(Noise(5, B), null))
        assert model.log_prob(records(case[1]), None, Noise(1, B)).log_prob.shape == (B,)
        first, last = (model.sample(Noise(5, 400), torch.full((400,), label), **HASTY.get(case[0], {})) for label in (0, 2))
        assert not torch.equal(first, last)


def test_log_prob_says_what_it_is(case, conditional):
    model, n = made(*case, conditional), few(*case)
    x, y = records(case[1], n), torch.arange(n) % 3 if conditional else None
    with torch.inference_mode():
        for method in model.methods or (None,):
            if method in ("ais", "flow"):
                continue  # their oracles are in tests/oracle; they take long
            said = model.log_prob(x, y, Noise(1, n), method)
            assert said.log_prob.shape == (n,) and said.log_prob.isfinite().all()
            assert said.kind in ("exact", "bound", "estimate") and said.coordinates == SPACES[case[1]].coordinates
            assert said.kind != "estimate" or said.stderr is not None
            again = model.log_prob(x[:2], None if y is None else y[:2], Noise(1, 2), method)
            assert torch.allclose(again.log_prob, said.log_prob[:2], rtol=1e-3, atol=1e-3)
    if model.methods:
        with pytest.raises(BadConfig):
            model.way("guess")


def test_what_is_known_stays_and_what_is_not_is_filled(case, conditional):
    model, n = made(*case, conditional), few(*case)
    x, y = records(case[1], n), torch.arange(n) % 3 if conditional else None
    gone = torch.zeros_like(x, dtype=torch.bool)
    if isinstance(SPACES[case[1]], Discrete):
        gone[::2, 2] = True
        masked = torch.where(gone, 0, x)
    else:
        gone[::2, 0] = True
        masked = torch.where(gone, torch.nan, x)
    for noise in (None, Noise(2, n)) if n == B else (Noise(2, n),):
        filled = model.complete(masked, y, noise)
        assert torch.equal(filled[~gone], x[~gone])
        assert not filled.is_floating_point() or filled.isfinite().all()


def test_latents_come_and_go_or_are_refused_by_name(case, conditional):
    model, x = made(*case, conditional), records(case[1])
    y = torch.arange(B) % 3 if conditional else None
    try:
        z = model.encode(x, y)
    except NotInvertible as error:
        assert error.code == "NO_LATENTS" and case[0] in ("gmm", "autoregressive")
        return
    assert len(z) == B and z.isfinite().all()
    back = model.decode(z, y)
    assert back.shape == x.shape and torch.equal(back, model.decode(z, y))


def test_the_state_is_all_there_is(case, conditional):
    model = made(*case, conditional)
    torch.manual_seed(123)
    twin = KINDS[case[0]](model.config, model.space, model.condition_space)
    twin.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(twin.eval().sample(Noise(5, 4)), model.sample(Noise(5, 4)))


@contextmanager
def random_state_untouched():
    """Whatever is done within, the global generators of PyTorch, NumPy and Python stand where they stood."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert random.getstate() == before[2]


def test_the_global_random_state_is_left_alone(case):
    model, x = made(*case, False), records(case[1])
    with random_state_untouched(), torch.inference_mode():
        model.sample(Noise(5, 4))
        model.log_prob(x[:2], None, Noise(1, 2), model.methods[-1] if case[0] == "diffusion" else None)
    hollow = x[:3].clone()
    hollow[:, 0] = 0 if isinstance(SPACES[case[1]], Discrete) else torch.nan
    with random_state_untouched():
        model.complete(hollow, None, Noise(2, 3))
    with random_state_untouched(), suppress(NotInvertible):
        model.decode(model.encode(x[:3]))


@pytest.mark.parametrize("family", KINDS)
def test_a_fit_leaves_the_global_random_state_alone_and_does_not_hang_on_it(family):
    x, settings = things(family), {"components": 2} if family == "gmm" else {"samples": 64, "batch": 32}
    fits = []
    for number in (1, 2):
        torch.manual_seed(number)
        np.random.seed(number)
        with random_state_untouched():
            model = verossim.fit(x, family=family, seed=4, **settings)
            model.sample(3, seed=1)
        fits.append(model.family.state_dict())
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


GRADIENT = [(family, space) for family, space in CASES if issubclass(KINDS[family], LearnsByGradient)]


@pytest.mark.parametrize(("family", "space"), GRADIENT)
def test_losses_are_by_record_however_the_batch_is_cut(family, space, conditional):
    model = made(family, space, conditional)
    for turn in (replace(turn, progress=0.5) for turn in model.turns):
        given = batch(space, conditional)
        whole = model.loss(given, turn)
        assert whole.total.shape == (B,) and whole.total.isfinite().all()
        assert all(part.shape == (B,) for part in whole.parts.values())
        assert "nats" in whole.parts or family == "gan"
        pieces = []
        for rows in (slice(0, 5), slice(5, B)):
            noise = Noise(3, B).part(rows.start, rows.stop)
            y = None if given.condition is None else given.condition[rows]
            piece = Batch(given.x[rows], y, given.units[rows], given.index[rows], noise)
            pieces.append(model.loss(piece, turn).total)
        assert torch.allclose(torch.cat(pieces), whole.total, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("family", "space"), GRADIENT)
def test_every_parameter_gets_a_gradient(family, space, conditional):
    model = made(family, space, conditional)
    model.zero_grad()
    for turn in model.turns:
        model.loss(batch(space, conditional), turn).total.sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without, f"no gradient reaches {without}"
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("family", [family for family in KINDS if issubclass(KINDS[family], LearnsByGradient)])
def test_it_is_fitted_with_nothing_said_of_its_network(family):
    x = things(family)
    model = verossim.fit(x, family=family, samples=64, batch=32, device="cpu")
    assert model.card["history"]["samples"] == 64
    assert 0 < model.card["history"]["training"]["rate"] <= model.family.peak


@pytest.mark.parametrize("family", KINDS)
def test_a_space_that_it_cannot_learn_is_refused_with_the_way_out(family):
    from verossim.codecs.table import MEMBER as Tables
    from verossim.model import Model
    codec = Tables(Tables.Config())
    codec.space = Discrete(shape=(3,), vocabulary=5)
    if Discrete in KINDS[family].accepts:
        return
    with pytest.raises(Incompatible):
        Model(codec, KINDS[family], None)


def test_unknown_entries_are_summed_out_or_refused():
    x = records("numbers")
    x[0, 1] = math.nan
    for family in (name for name, kind in KINDS.items() if Continuous in kind.accepts):
        model = made(family, "numbers", False)
        try:
            assert model.log_prob(x, None, Noise(0, B)).log_prob.isfinite().all()
        except NoLikelihood as error:
            assert error.code == "UNKNOWN_ENTRIES" and family == "diffusion"


