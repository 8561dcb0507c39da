"""Writing token by token is the model: whatever its shape, however a prompt is cut up, and whatever else is in the batch."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from verossim.nn import decoding_compiled
from verossim.nn.decoding import Plain, decoder
from verossim.nn.decoding_compiled import Compiled
from verossim.nn.language import LanguageModel, Shape
from verossim.nn.pace import Pace
from verossim.nn.team import SIZE

SHAPES = {
    "qwen": {},
    "gpt2": {"positions": "learned", "norm": "layer", "normed_heads": False, "activation": "gelu_tanh", "biases": "all",
             "groups": 4},
    "gelu": {"activation": "gelu", "biases": "qkv", "tied": False, "groups": 1},
    "newer": {"activation": "relu2", "cap": 5.0, "values": True, "base": 100.0},
    "odd": {"head": 33, "heads": 3, "groups": 1, "width": 70, "biases": "all"},
    "wide": {"width": 130, "heads": 2, "groups": 2, "head": 80, "blocks": 1, "normed_heads": False},
}
LENGTH, VOCABULARY = 80, 37


def model(**settings) -> LanguageModel:
    """A small model whose every weight is far from where it begins."""
    torch.manual_seed(0)
    shape = {"vocabulary": VOCABULARY, "length": LENGTH, "width": 40, "blocks": 3, "heads": 4, "groups": 2, "head": 12,
             "inside": 90, **settings}
    net = LanguageModel(Shape(**shape)).eval()
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter) + (parameter.ndim == 1)
    return net


def tokens(B: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (B, LENGTH), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SHAPES)
def net(request) -> LanguageModel:
    return model(**SHAPES[request.param])


@pytest.mark.parametrize("kind", [Plain, Compiled])
def test_prompts_and_steps_give_the_logits_of_the_whole(net, kind):
    x, beside = tokens(3), torch.randn(3, net.shape.width, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        true = net(x, beside)
    writer, counts, each = kind(net, 3, LENGTH, beside), torch.tensor([7, 66, 1]), torch.arange(3)
    assert (writer.feed(x[:, :66], counts) - true[each, counts - 1]).abs().max() < 1e-4
    active = torch.tensor([True, True, True])
    while bool(active.any()):
        before = writer.lengths.clone()
        found = writer.step(x[each, before.clamp(max=LENGTH - 1)], active)
        assert torch.equal(writer.lengths, before + active)
        assert (found - true[each, writer.lengths - 1])[active].abs().max() < 1e-4
        assert not found[~active].any()
        active = writer.lengths < LENGTH
        active[2] &= writer.lengths[2] != 40  # it stops there, and the others go on
    assert writer.lengths.tolist() == [80, 80, 40]


@pytest.mark.parametrize("kind", [Plain, Compiled])
def test_every_split_of_a_prompt_is_the_same_prompt(kind):
    net, x = model(), tokens(2)[:, :12]
    with torch.inference_mode():
        true = net(x)[:, -1]
    for n in range(13):
        writer = kind(net, 2, 12)
        writer.feed(x[:, :n], torch.tensor([n, n]))
        last = writer.feed(x[:, n:], torch.tensor([12 - n, 12 - n])) if n < 12 else writer.feed(x[:, :0], torch.tensor([0, 0]))
        assert (last - true).abs().max() < 1e-4 if n < 12 else not last.any()


@pytest.mark.parametrize("kind", [Plain, Compiled])
def test_a_second_prompt_may_end_where_the_room_ends(kind):
    net, x = model(), tokens(2)
    with torch.inference_mode():
        true = net(x)
    writer = kind(net, 2, LENGTH)
    writer.feed(x[:, :70], torch.tensor([70, 40]))
    rest = torch.stack([torch.cat([x[0, 70:], x[0, :30]]), x[1, 40:]])
    assert (writer.feed(rest, torch.tensor([10, 40])) - true[:, -1]).abs().max() < 1e-4
    with pytest.raises(ValueError, match="room for 80"):
        writer.step(x[:, 0])


@pytest.mark.parametrize("kind", [Plain, Compiled])
def test_samples_are_kept_as_copies(kind):
    net, x = model(**SHAPES["gpt2"]), tokens(3)
    beside = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    writer = kind(net, 3, LENGTH, beside)
    writer.feed(x[:, :66], torch.tensor([5, 66, 9]))
    rows = torch.tensor([2, 1, 2])
    writer.keep(rows)
    assert writer.lengths.tolist() == [9, 66, 9]
    found = writer.step(x[:, 70])
    for b, row in enumerate(rows.tolist()):
        one = torch.cat([x[row, :int(writer.lengths[b]) - 1], x[b, 70:71]])
        with torch.inference_mode():
            assert (net(one[None], beside[row:row + 1])[0, -1] - found[b]).abs().max() < 1e-4


def written(net: LanguageModel, x: Tensor, counts: list[int], beside: Tensor) -> Tensor:
    """Logits after the prompts and after each of 8 steps, (9, B, V)."""
    writer = Compiled(net, len(x), LENGTH, beside)
    found = [writer.feed(x[:, :max(counts)], torch.tensor(counts))]
    found += [writer.step(x[:, 70 + n]) for n in range(8)]
    return torch.stack(found)


def test_a_sample_has_the_same_bits_in_any_batch(net):
    x, counts = tokens(7), [1, 70, 13, 64, 20, 5, 6]
    beside = torch.randn(7, net.shape.width, generator=torch.Generator().manual_seed(2))
    together = written(net, x, counts, beside)
    for b in range(7):
        assert torch.equal(written(net, x[b:b + 1], counts[b:b + 1], beside[b:b + 1])[:, 0], together[:, b])
    order = torch.tensor([3, 0, 6, 5, 1])
    assert torch.equal(written(net, x[order], [counts[b] for b in order], beside[order]), together[:, order])


def test_a_sample_has_the_same_bits_however_its_prompt_is_cut_up():
    net, x = model(), tokens(1)
    whole, cut = Compiled(net, 1, LENGTH), Compiled(net, 1, LENGTH)
    end = whole.feed(x, torch.tensor([LENGTH]))
    cut.feed(x[:, :70], torch.tensor([70]))
    for n in range(70, LENGTH):
        last = cut.step(x[:, n])
    assert torch.equal(last, end)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_a_sample_has_the_same_bits_on_any_number_of_threads(net, threads, monkeypatch):
    x, counts, beside = tokens(5), [8, 70, 8, 1, 5], torch.randn(5, net.shape.width)
    monkeypatch.setattr(Pace, "__exit__", lambda pace, *_: None)
    monkeypatch.setattr(Pace, "__enter__", lambda pace: 1)
    alone, teams = written(net, x, counts, beside), []

    def side_by_side(us, count, *rest):
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda _: decoding_compiled._stack(us, count, 1 << 31, *rest), range(count)))
        teams.append(int(us[SIZE]))
    monkeypatch.setattr(Pace, "__enter__", lambda pace: threads)
    monkeypatch.setattr(decoding_compiled, "_shared", side_by_side)
    monkeypatch.setattr(decoding_compiled, "_written", decoding_compiled._written.py_func)
    assert torch.equal(written(net, x, counts, beside), alone)
    assert set(teams) == {threads}


def test_threads_that_numba_sets_to_work_give_the_same_bits(monkeypatch):
    net, x = model(width=256, heads=4, head=64, inside=1024, blocks=2), tokens(5)

    def logits(threads: int) -> Tensor:
        monkeypatch.setattr(Pace, "__enter__", lambda pace: threads)
        monkeypatch.setattr(Pace, "__exit__", lambda pace, *_: None)
        return Compiled(net, 5, LENGTH).feed(x[:, :8], torch.tensor([8, 3, 8, 1, 5]))
    assert torch.equal(logits(2), logits(1))


def test_the_decoder_is_chosen_by_what_there_is(monkeypatch):
    assert isinstance(decoder(model(), 1, 8), Compiled)
    assert isinstance(decoder(model().double(), 1, 8), Plain)
    monkeypatch.setattr("verossim.nn.decoding.find_spec", lambda name: None)
    assert isinstance(decoder(model(), 1, 8), Plain)


def test_a_token_that_there_is_not_is_refused():
    writer = Compiled(model(), 1, 8)
    for token in (-1, VOCABULARY):
        with pytest.raises(IndexError, match=str(VOCABULARY)):
            writer.step(torch.tensor([token]))
    assert np.array_equal(writer.lengths, [0])


ALONE = """
import torch
from verossim.nn.decoding_compiled import Compiled
from verossim.nn.language import LanguageModel, Shape
shape = Shape(vocabulary=9, length=8, width=16, blocks=1, heads=2, groups=2, head=8, inside=16)
Compiled(LanguageModel(shape), 1, 8)
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""


def test_a_decoder_leaves_the_number_of_threads_as_it_was():
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", ALONE], env=own, capture_output=True, text=True)
    assert not found.returncode, found.stderr
