"""Low-rank adapters: nothing is changed at the start, nothing but they learn, merged they are the same, and PEFT agrees."""

import pytest
import torch
from exchanged import GPT2, LLAMA, OURS, V, random, refused
from peft import PeftModel
from transformers import AutoModelForCausalLM

from verossim.exchange import Imported, write_adapters, write_folder
from verossim.families.autoregressive import Autoregressive
from verossim.nn.decoding import Plain, decoder
from verossim.nn.language import LanguageModel
from verossim.nn.low_rank import LowRank, adapt
from verossim.spaces import Batch, Discrete

SPACE = Discrete(shape=(9,), vocabulary=7, pad=6, start=5, stop=4)
LABEL = Discrete(shape=(), vocabulary=3, pad=-1)
SMALL = {"width": 16, "blocks": 2}


def family(rank: int = 0, label: Discrete | None = None, **more) -> Autoregressive:
    """A family whose weights are not where they begin."""
    torch.manual_seed(1)
    made = Autoregressive(Autoregressive.Config(**SMALL, **more), SPACE, label)
    random(made.networks)
    if not rank:
        return made
    torch.manual_seed(2)
    adapted = Autoregressive(Autoregressive.Config(**SMALL, adapter_rank=rank, **more), SPACE, label)
    adapted.go_on(made.state_dict())
    return adapted.eval()


def records(count: int = 6) -> torch.Tensor:
    x = torch.randint(4, (count, 9), generator=torch.Generator().manual_seed(3))
    x[:, 0] = ~SPACE.start
    return x


def moved(adapted: Autoregressive) -> Autoregressive:
    """The same with adapters away from where they begin."""
    g = torch.Generator().manual_seed(4)
    for parameter in adapted.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=g)
    return adapted


@pytest.mark.parametrize("label", [None, LABEL], ids=["plain", "labelled"])
@pytest.mark.parametrize("more", [{}, {"groups": 1, "heads": 2, "tied": False, "values": True, "biases": "all"},
                                  {"positions": "learned", "norm": "layer", "activation": "gelu", "normed_heads": False}])
def test_nothing_is_changed_at_the_start_and_merged_adapters_say_the_same(label, more):
    base, adapted, x = family(0, label, **more), family(4, label, **more), records()
    y = None if label is None else torch.arange(6) % 3
    assert torch.equal(adapted.log_prob(x, y).log_prob, base.log_prob(x, y).log_prob)
    before, merged = base.log_prob(x, y).log_prob, moved(adapted).merged()
    after = adapted.log_prob(x, y).log_prob
    assert (after - before).abs().min() > 1e-3
    assert torch.allclose(merged.log_prob(x, y).log_prob, after, rtol=1e-5, atol=1e-5)
    assert merged.state_dict().keys() == base.state_dict().keys() and merged.config == base.config


def test_only_adapters_learn_and_are_kept():
    base, adapted = family(), family(4)
    state = adapted.state_dict()
    assert {name.rpartition(".")[2] for name in state} == {"lora_A", "lora_B"} and len(state) == 2 * 4 * 2
    assert dict(adapted.named_parameters()).keys() == state.keys()
    x = records()
    adapted.loss(Batch(x, None, torch.ones(6), torch.arange(6)), adapted.turns[0]).total.sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    assert any(p.grad.any() for name, p in adapted.named_parameters() if name.endswith("lora_B"))
    for parameter in adapted.parameters():
        parameter.data.zero_()
    assert torch.equal(adapted.log_prob(x).log_prob, base.log_prob(x).log_prob)


def test_a_layer_is_the_formula():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(6, 10), torch.randn(3, 6)
    layer = LowRank(linear, (4, 6), 2, 1.5)
    layer.lora_B.data.normal_()
    A, B = layer.lora_A, layer.lora_B
    delta = 1.5 * torch.cat([B[:4] @ A[:2], B[4:] @ A[2:]])
    assert torch.allclose(layer(x), x @ (linear.weight + delta).T + linear.bias, atol=1e-6)
    assert torch.allclose(layer.weight, linear.weight + delta) and layer.bias is linear.bias


def test_writing_goes_by_adapters_too():
    adapted = moved(family(4))
    x = records()[:, :5]
    tokens = adapted.plain(x)
    ways = [decoder(adapted.net, 6, 9), Plain(adapted.net, 6, 9), decoder(adapted.merged().net, 6, 9)]
    with torch.inference_mode():
        logits = [way.feed(tokens, torch.full((6,), 5)) for way in ways]
    assert all(torch.allclose(logits[0], other, atol=1e-5) for other in logits[1:])


@pytest.mark.parametrize("shape", [OURS, LLAMA, GPT2], ids=["qwen3", "llama", "gpt2"])
def test_peft_reads_them_and_gives_the_same_logits(tmp_path, shape):
    net = random(LanguageModel(shape))
    write_folder(tmp_path / "base", Imported(shape, dict(net.state_dict())))
    adapt(net, 3, 4 / 3)
    random(net)
    pairs = {name: list(layer.pairs()) for name, layer in net.named_modules() if isinstance(layer, LowRank)}
    write_adapters(tmp_path / "adapters", shape, pairs, 3, 4.0)
    under = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    tokens = torch.randint(V, (2, 20), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        plain = under(tokens).logits
        theirs = PeftModel.from_pretrained(under, tmp_path / "adapters").eval()
        found, ours = theirs(tokens).logits, net(tokens)
        assert (found - plain).abs().max() > 1e-2
        assert torch.allclose(found, ours, atol=1e-4, rtol=1e-4)
        assert torch.allclose(theirs.merge_and_unload()(tokens).logits, ours, atol=1e-4, rtol=1e-4)
    assert refused(lambda: write_adapters(tmp_path / "adapters", shape, pairs, 3, 4.0), "adapters") == "OUT_EXISTS"


def test_a_rank_that_means_nothing_is_refused():
    assert refused(lambda: Autoregressive(Autoregressive.Config(width=16, adapter_rank=17), SPACE), "17") == "SETTING_RANGE"
    assert refused(lambda: Autoregressive(Autoregressive.Config(adapter_alpha=3.0), SPACE), "alpha") == "SETTING_RANGE"
