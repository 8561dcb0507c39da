"""The autoregressive family: its probabilities are those of a distribution, and what it writes is distributed so."""

import itertools

import pytest
import torch

from verossim.errors import BadConfig, BadData, Incompatible
from verossim.families import autoregressive
from verossim.families.autoregressive import Autoregressive
from verossim.families.autoregressive.writing import allowed
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete

START, STOP, PAD = 3, 2, 4
TEXTS = Discrete(shape=(4,), vocabulary=5, pad=PAD, start=START, stop=STOP)
PLAIN = Discrete(shape=(3,), vocabulary=4, pad=1)
LABEL = Discrete(shape=(), vocabulary=2, pad=-1)
SHAPES = {
    "usual": {}, "gpt2": {"positions": "learned", "norm": "layer", "normed_heads": False, "activation": "gelu_tanh",
                          "biases": "all"},
    "newer": {"activation": "relu2", "cap": 10.0, "values": True, "tied": False, "heads": 4, "groups": 2, "head": 4},
}
SETTINGS = Autoregressive.Sampling


def made(space=TEXTS, condition=None, seed=0, **settings):
    """A family whose weights are large enough for its probabilities to differ."""
    torch.manual_seed(seed)
    family = Autoregressive(Autoregressive.Config(**{"width": 16, "blocks": 2, **settings}), space, condition).eval()
    for p in family.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return family


def texts() -> torch.Tensor:
    """Every text of at most three tokens: ended, or as long as the space holds."""
    rows = [[~START, *t] + [PAD] * (3 - n) for n in (1, 2, 3) for t in itertools.product(range(4), repeat=n)
            if STOP not in t[:-1] and (n == 3 or t[-1] == STOP)]
    return torch.tensor(rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_texts_together_have_probability_one(shape):
    total = made(**SHAPES[shape]).log_prob(texts()).log_prob.exp().sum()
    assert abs(float(total) - 1) < 1e-5


def test_so_have_all_points_of_a_space_without_beginning_or_end_of_each_class():
    family = made(PLAIN, LABEL)
    x = torch.tensor(list(itertools.product((0, 2, 3), repeat=3)))
    for y in (None, torch.zeros(len(x), dtype=torch.int64), torch.ones(len(x), dtype=torch.int64)):
        assert abs(float(family.log_prob(x, y).log_prob.exp().sum()) - 1) < 1e-5


def test_what_is_given_is_a_condition():
    family, x = made(), torch.tensor([[~START, 0, 1, 0]])
    given = torch.tensor([[~START, ~0, 1, 0]])
    each = family.each(x)[0]
    assert each[0] == 0 and torch.allclose(family.log_prob(given).log_prob, each[2:].sum()[None])


@pytest.mark.parametrize("label", [None, LABEL])
def test_texts_of_all_lengths_are_told_as_each_alone_and_with_little_padding(label, monkeypatch):
    long = Discrete(shape=(64,), vocabulary=5, pad=PAD, start=START, stop=STOP)
    family, g = made(long, label), torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 60, 5, 64, 31, 2, 17, 9, 33, 4, 7, 12])
    x = torch.randint(2, (12, 64), generator=g).where(torch.arange(64) < lengths[:, None], torch.tensor(PAD))
    x[:, 0] = ~START
    y = None if label is None else torch.arange(12) % 2
    together = [family.loss(Batch(x, y, torch.ones(12), torch.arange(12)), family.turns[0]).total, family.each(x, y)]
    seen = []
    family.net.register_forward_pre_hook(lambda net, given: seen.append(tuple(given[0].shape)))
    monkeypatch.setattr(autoregressive, "FILLED", 20)
    apart = [family.loss(Batch(x, y, torch.ones(12), torch.arange(12)), family.turns[0]).total, family.each(x, y)]
    alone = torch.stack([family.each(x[k:k + 1], None if y is None else y[k:k + 1])[0] for k in range(12)])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, apart, strict=True))
    assert torch.allclose(apart[1], alone, atol=1e-5)
    assert seen[:4] == [(2, 63), (3, 32), (4, 11), (3, 3)]  # 275 tokens for 235 that are there, where one call has 756


@pytest.mark.parametrize("lengths", [[1024, *[8] * 63], [250, *[4] * 255], [300] * 3 + [15] * 29, [5], [], [7] * 9])
def test_few_long_texts_do_not_fill_up_many_short_ones(lengths):
    groups = autoregressive.alike(torch.tensor(lengths, dtype=torch.int64))
    assert sorted(row for group in groups for row in group.tolist()) == list(range(len(lengths)))
    filled = sum(len(group) * max((lengths[row] for row in group.tolist()), default=0) for group in groups)
    assert filled - sum(lengths) <= autoregressive.FILLED * len(groups) and len(groups) <= 1 + len(set(lengths))


def test_writing_tells_the_log_probability_of_what_it_wrote_and_follows_it():
    family, n = made(), 20_000
    writing = family.writing(Noise(3, n))
    *_, x = writing
    assert torch.allclose(family.log_prob(x).log_prob, writing.log_p, atol=1e-5)
    strings, which = torch.cat([texts(), x]).unique(dim=0, return_inverse=True)
    assert len(strings) == len(texts())
    counts = which[len(texts()):].bincount(minlength=len(strings)).double()
    expected = n * family.log_prob(strings).log_prob.exp()
    rare = expected < 5
    observed, expected = (torch.cat([v[~rare], v[rare].sum()[None]]) for v in (counts, expected))
    chi, freedom = float(((observed - expected) ** 2 / expected.clamp(min=1)).sum()), len(expected) - 1
    assert chi < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_best_of_all_texts_and_a_beam_of_one_the_likeliest_token_after_token(seed):
    family, given = made(seed=seed), torch.tensor([~START])
    every = texts()
    scores = family.log_prob(every).log_prob.double() / (every[:, 1:] != PAD).sum(dim=1) ** 0.6
    x, log_p = family.search(given, beam=64, ends=(STOP,))
    found = torch.nn.functional.pad(x, (0, 4 - len(x)), value=PAD)
    assert torch.equal(found, every[scores.argmax()])
    assert log_p == pytest.approx(float(family.log_prob(found[None]).log_prob), abs=1e-5)
    x, _ = family.search(given, beam=1, ends=(STOP,))
    assert torch.equal(torch.nn.functional.pad(x, (0, 4 - len(x)), value=PAD), family.sample(Noise(0, 1), temperature=0.0)[0])


def test_the_lowest_temperature_is_the_likeliest_token():
    family = made()
    likeliest = family.sample(Noise(0, 5), temperature=0.0)
    for temperature in (1e-6, 1e-39, 5e-324):
        assert torch.equal(family.sample(Noise(1, 5), temperature=temperature), likeliest)


def test_a_batch_of_prompts_is_written_as_each_alone():
    family = made(Discrete(shape=(12,), vocabulary=9, pad=8, start=7, stop=6), seed=1)
    prompts = [[~7], [~7, ~1, ~2, ~3], [~7, ~4]]
    given = torch.tensor([[*p, *[8] * (4 - len(p))] for p in prompts])
    together = family.sample(Noise(5, 3), given=given)
    for row, prompt in enumerate(prompts):
        alone = family.sample(Noise(5, 1, first=row), given=torch.tensor([prompt]))
        assert torch.equal(alone[0], together[row])
        assert together[row, :len(prompt)].tolist() == prompt


def test_each_step_shows_one_token_more_and_the_last_is_the_sample():
    family = made()
    steps = [x.clone() for x in family.unfold(Noise(2, 50))]
    for before, after in itertools.pairwise(steps):
        changed = before != after
        assert (changed.sum(dim=1) <= 1).all() and (before[changed] == PAD).all()
    assert torch.equal(steps[-1], family.sample(Noise(2, 50)))


def test_more_tokens_than_the_context_holds_go_on_from_its_last_half():
    space = Discrete(shape=(9,), vocabulary=5, pad=4, start=3)
    family = made(space, seed=2)
    x = family.sample(Noise(1, 4), tokens=30)
    assert x.shape == (4, 31) and (x[:, 1:] != 4).all()
    greedy = family.sample(Noise(1, 1), tokens=30, temperature=0.0)[0]
    assert (family.sample(Noise(9, 1), tokens=12, temperature=0.0)[0] == greedy[:13]).all()
    window = torch.cat([~greedy[5:9], torch.tensor([4])])  # four of eight stay when the context is full
    assert family.sample(Noise(1, 1), given=window[None, :4], tokens=1, temperature=0.0)[0, 4] == greedy[9]


@pytest.mark.parametrize(("settings", "left"), [
    ({}, {0, 1, 2, 3, 4}), ({"top_k": 2}, {1, 3}), ({"top_p": 0.5}, {1, 3}), ({"top_p": 1e-9}, {1}), ({"min_p": 0.5}, {1, 3}),
    ({"top_k": 1, "temperature": 5.0}, {1}), ({"repetition": 100.0, "top_k": 1}, {3})])
def test_settings_leave_out_what_they_say(settings, left):
    p = torch.tensor([[0.1, 0.4, 0.15, 0.3, 0.05]])
    present = torch.tensor([[False, True, False, False, False]])
    log_p = allowed(p.log(), SETTINGS(**settings), present)
    assert {*log_p[0].isfinite().nonzero()[:, 0].tolist()} == left
    assert abs(float(log_p.exp().sum()) - 1) < 1e-6


def test_temperature_sharpens_and_zero_takes_the_likeliest():
    p = torch.tensor([[0.1, 0.4, 0.5]])
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert torch.allclose(allowed(p.log(), SETTINGS(temperature=0.5), none).exp(), p ** 2 / (p ** 2).sum())
    family = made()
    assert torch.equal(family.sample(Noise(1, 3), temperature=0.0), family.sample(Noise(2, 3), temperature=0.0))


def test_a_gap_is_filled_by_what_stands_after_it_too():
    space = Discrete(shape=(3,), vocabulary=4, pad=3)
    family, n = made(space, seed=3), 4000
    with torch.no_grad():
        family.net.first.weight.mul_(3)
    x = torch.tensor([[3, 3, 2]]).expand(n, -1)
    filled = family.complete(x, None, Noise(4, n))
    assert (filled[:, 2] == 2).all() and (filled != 3).all()
    pairs = torch.tensor([[a, b, 2] for a in range(3) for b in range(3)])
    p = family.log_prob(pairs).log_prob.softmax(dim=0)
    counts = (filled[:, 0] * 3 + filled[:, 1]).bincount(minlength=9) / n
    before = family.log_prob(torch.tensor([[a, b, c] for a in range(3) for b in range(3) for c in range(3)])).log_prob
    blind = before.exp().view(9, 3).sum(dim=1)  # what would be filled in without a look at what stands after
    assert (blind - p).abs().sum() > 0.3 and (counts - p).abs().sum() < 0.1


@pytest.mark.parametrize("settings", [{"top_p": 0.0}, {"temperature": -1.0}, {"min_p": 2.0}, {"tokens": 0}])
def test_settings_out_of_range_are_named(settings):
    from verossim.config import build
    with pytest.raises(BadConfig) as error:
        build(SETTINGS, settings)
    assert next(iter(settings)) in str(error.value)


def test_what_cannot_be_is_refused_with_the_way_out():
    with pytest.raises(Incompatible, match="text"):
        Autoregressive(Autoregressive.Config(), Continuous(shape=(4,), axes=("number",)))
    with pytest.raises(BadConfig, match="groups"):
        Autoregressive(Autoregressive.Config(heads=4, groups=3), TEXTS)
    with pytest.raises(BadData):
        made().sample(Noise(1, 1), given=torch.zeros(1, 0, dtype=torch.int64))
