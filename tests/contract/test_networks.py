"""Every network: shapes, gradients, what it may and may not see."""

import pytest
import torch
from torch import nn

from verossim.nn.attention import fast, places, reference, turned, turns
from verossim.nn.backbone import backbone
from verossim.nn.conditioning import Condition, dropped
from verossim.nn.layers import pooled, unpooled
from verossim.nn.transformer import TokenTransformer
from verossim.spaces import Continuous, Discrete

LABEL, RECORD = Discrete(shape=(), vocabulary=3, pad=-1), Continuous(shape=(2,), axes=("number",))
SPACES = {
    "vector": Continuous(shape=(5,), axes=("number",)),
    "line": Continuous(shape=(2, 9), axes=("channel", "time")),
    "plane": Continuous(shape=(1, 7, 5), axes=("channel", "height", "width")),
    "square": Continuous(shape=(3, 28, 28), axes=("channel", "height", "width")),
    "volume": Continuous(shape=(2, 3, 6, 5), axes=("channel", "time", "height", "width")),
}
CASES = [(name, kind) for name in SPACES for kind in (("mlp",) if name == "vector" else ("unet", "transformer"))]
CONDITIONS = {"class": (LABEL, torch.tensor([0, 2, -1, 1])),
              "record": (RECORD, torch.tensor([[1.0, 2.0], [0.0, 0.0], [torch.nan] * 2, [-1.0, 1.0]]))}


def network(name: str, kind: str, condition=LABEL, **settings) -> nn.Module:
    """A small network whose layers that are zero at the start are not."""
    torch.manual_seed(1)
    made = backbone(SPACES[name], width=16, depth=1, condition=condition, timed=True, kind=kind, **settings)
    for parameter in made.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return made


def points(name: str, count: int = 4) -> torch.Tensor:
    return torch.randn(count, *SPACES[name].shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("given", CONDITIONS)
def test_shapes_and_a_gradient_for_every_parameter(name, kind, given):
    space, y = CONDITIONS[given]
    made, x = network(name, kind, space, channels_in=3, channels_out=4), points(name)
    x = torch.cat([x, x, x], dim=1)[:, :3]
    out = made(x, torch.linspace(0.1, 2, 4), y)
    assert out.shape == (4, 4, *SPACES[name].shape[1:])
    out.square().sum().backward()
    without = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without, f"{name} {kind}: no gradient for {without}"


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_records_of_a_batch_do_not_see_each_other(name, kind):
    made, x, t, y = network(name, kind), points(name), torch.linspace(0.1, 2, 4), CONDITIONS["class"][1]
    together = made(x, t, y)
    alone = torch.cat([made(x[i:i + 1], t[i:i + 1], y[i:i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_it_is_told_matters_and_no_condition_is_the_null_one(name, kind):
    for space, y in CONDITIONS.values():
        made, x, t = network(name, kind, space), points(name), torch.full((4,), 0.5)
        null = torch.full_like(y, torch.nan if y.is_floating_point() else -1)
        assert torch.equal(made(x, t, None), made(x, t, null))
        told, untold = made(x, t, y), made(x, t, None)
        assert torch.allclose(told[2], untold[2], atol=1e-6)  # the third is null
        assert not torch.allclose(told[1], untold[1], atol=1e-4)
        assert not torch.allclose(made(x, t + 1, y), told, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_output_can_see_every_input(name, kind):
    made, x = network(name, kind), points(name, 1).requires_grad_()
    made(x, torch.ones(1)).flatten()[0].backward()
    assert (x.grad != 0).float().mean() > 0.99


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_it_begins_as_zero_and_works_in_double(name, kind):
    made = backbone(SPACES[name], width=16, depth=2, timed=True, kind=kind).double()
    out = made(points(name).double(), torch.ones(4, dtype=torch.float64))
    assert out.dtype == torch.float64 and not out.any()


def test_halving_and_doubling_keep_odd_lengths():
    x = torch.arange(35.0).view(1, 1, 7, 5)
    half = pooled(x)
    assert half.shape == (1, 1, 4, 3) and half[0, 0, 3, 2] == 34 and half[0, 0, 0, 0] == x[0, 0, :2, :2].mean()
    assert unpooled(half, (7, 5)).shape == x.shape
    assert torch.equal(pooled(unpooled(half, (7, 5))), half)


@pytest.mark.parametrize("causal", [False, True])
def test_the_fast_attention_is_the_reference(causal):
    q, k, v = torch.randn(3, 2, 4, 17, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(fast(q, k, v, causal), reference(q, k, v, causal), atol=1e-12)


@pytest.mark.parametrize("axes", [(9,), (3, 4), (2, 3, 4)])
def test_turning_tells_differences_of_places_alone(axes):
    generator = torch.Generator().manual_seed(0)
    where = places(axes)
    q, k = (torch.randn(24, generator=generator).expand(1, 1, len(where), 24) for _ in range(2))
    products = [turned(q, *turns(at, 24))[0, 0] @ turned(k, *turns(at, 24))[0, 0].mT for at in (where, where + 5)]
    assert torch.allclose(products[0], products[1], atol=1e-4)
    assert products[0].std() > 0.1
    assert torch.allclose(turned(q, *turns(where, 24)).norm(dim=-1), q.norm(dim=-1), atol=1e-5)


def test_a_causal_network_does_not_see_what_is_later():
    torch.manual_seed(0)
    made = TokenTransformer(11, 12, 16, 2, None, causal=True)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.arange(12)[None] % 11
    changed = x.clone()
    changed[0, 7] = 3
    a, b = made(x)[0], made(changed)[0]
    assert torch.allclose(a[:7], b[:7], atol=1e-6)
    assert all(not torch.allclose(a[i], b[i], atol=1e-4) for i in range(7, 12))


def test_conditions_are_dropped_by_their_share():
    u = torch.linspace(0.05, 0.95, 10)
    y = torch.arange(10)
    assert dropped(y, u, 0.3).tolist() == [-1, -1, -1, 3, 4, 5, 6, 7, 8, 9]
    records = dropped(torch.ones(10, 2), u, 0.3)
    assert records[:3].isnan().all() and (records[3:] == 1).all()
    assert dropped(None, u, 0.3) is None


def test_classes_are_told_apart():
    e = Condition(LABEL, 8)(torch.tensor([0, 1, 2, -1]), 4)
    assert e.shape == (4, 8) and all(not torch.equal(e[i], e[j]) for i in range(4) for j in range(i))
