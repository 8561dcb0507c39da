"""Every network: shapes, gradients, what it may and may not see."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from verossim.errors import BadConfig
from verossim.nn.attention import Attention, fast, heads, places, reference, turned, turns
from verossim.nn.backbone import backbone
from verossim.nn.conditioning import Condition, dropped
from verossim.nn.layers import Residual, conv, pooled, unit, unpooled, zeroed
from verossim.nn.mlp import Mlp
from verossim.nn.resampling import convolved, lowered, raised
from verossim.nn.resampling import reference as resampled
from verossim.nn.transformer import Block, PatchTransformer, TokenTransformer
from verossim.nn.unet import UNet
from verossim.spaces import Continuous, Discrete

LABEL, RECORD = Discrete(shape=(), vocabulary=3, pad=-1), Continuous(shape=(2,), axes=("number",))
SPACES = {
    "vector": Continuous(shape=(5,), axes=("number",)),
    "line": Continuous(shape=(2, 9), axes=("channel", "time")),
    "plane": Continuous(shape=(1, 7, 5), axes=("channel", "height", "width")),
    "thin": Continuous(shape=(2, 1, 9), axes=("channel", "height", "width")),
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


def shaken(module: nn.Module) -> nn.Module:
    """The module with random parameters, all of them."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def grid(*shape: int) -> Continuous:
    return Continuous(shape=shape, axes=("channel", "time", "height", "width", "depth")[:len(shape)])


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
    assert all(p.grad.isfinite().all() for p in made.parameters())


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


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("width", [9, 100])
def test_any_width_will_do(name, kind, width):
    made = backbone(SPACES[name], width=width, depth=1, timed=True, kind=kind)
    assert made(points(name), torch.ones(4)).shape == (4, *SPACES[name].shape)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_half_precision_gives_the_same_roughly_and_finite_gradients(name, kind):
    made, x, t, y = network(name, kind), points(name), torch.linspace(0.1, 2, 4), CONDITIONS["class"][1]
    whole = made(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        half = made(x, t, y).float()
    half.square().sum().backward()
    assert (half - whole).norm() < 0.05 * whole.norm()
    assert all(p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_any_lengths_have_right_gradients_in_half_precision(rank):
    generator, slopes = torch.Generator().manual_seed(0), {}
    for lengths in itertools.product((1, 2, 3), repeat=rank):
        layer, x = conv(rank, 16, 16), torch.randn(4, 16, *lengths, generator=generator)
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                out = layer(x).float()
            assert out.shape == x.shape
            slopes[dtype] = torch.autograd.grad(out.square().sum(), list(layer.parameters()))
        for half, whole in zip(*slopes.values(), strict=True):
            assert (half - whole).norm() < 0.05 * whole.norm(), lengths


def test_the_layout_of_memory_does_not_matter():
    for kind in ("unet", "transformer"):
        made, x = network("square", kind), points("square")
        assert torch.allclose(made(x, torch.ones(4)), made(x.contiguous(memory_format=torch.channels_last), torch.ones(4)),
                              atol=1e-5)


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_a_network_knows_where_it_is(kind):
    out = network("square", kind)(torch.zeros(1, 3, 28, 28), torch.ones(1))
    centres = [out[0, :, row, col] for row, col in ((9, 9), (9, 17), (17, 9), (17, 17))]
    assert all(not torch.allclose(centres[i], centres[j], atol=1e-4) for i in range(4) for j in range(i))


@pytest.mark.parametrize(("shape", "kind"), [((5,), Mlp), ((1, 64), UNet), ((1, 65), PatchTransformer), ((1, 9, 64, 9), UNet),
                                             ((3, 90, 70), PatchTransformer), ((1, 3, 3, 2, 3), PatchTransformer)])
def test_the_space_chooses_the_network(shape, kind):
    made = backbone(grid(*shape), width=8, depth=1)
    assert type(made) is kind
    assert made(torch.randn(2, *shape)).shape == (2, *shape)


@pytest.mark.parametrize(("shape", "kind", "other"), [((5,), "unet", "mlp"), ((5,), "transformer", "mlp"),
                                                      ((1, 9), "mlp", "unet"), ((1, 2, 2, 2, 2), "unet", "transformer")])
def test_a_network_that_cannot_serve_is_refused_by_name(shape, kind, other):
    with pytest.raises(BadConfig, match=f"'{kind}'.*{other}") as caught:
        backbone(grid(*shape), width=8, depth=1, kind=kind)
    assert caught.value.code == "SETTING_RANGE"


@pytest.mark.parametrize("shape", [(2, 300), (3, 45, 33), (1, 3, 40, 50)])
def test_patches_are_cut_and_joined_and_their_number_is_bounded(shape):
    made = backbone(grid(*shape), width=8, depth=1, kind="transformer")
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    cut = made.cut(x)
    assert 64 <= cut.shape[1] <= 256 and cut.numel() < 1.25 * x.numel()
    assert torch.equal(made.joined(cut), x)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_a_residual_block_is_its_formula_and_begins_as_the_identity(rank):
    x, e = torch.randn(2, 16, *(3, 2, 4)[:rank]), torch.randn(2, 5)
    assert torch.equal(Residual(rank, 16, embedding=5)(x, e), x)
    block = shaken(Residual(rank, 16, 24, embedding=5))
    scale, shift = (a.view(2, 24, *(1,) * rank) for a in block.modulation(e).chunk(2, dim=1))
    h = (1 + scale) * block.norm_2(block.layer_1(F.silu(block.norm_1(x)))) + shift
    assert torch.allclose(block(x, e), block.skip(x) + block.layer_2(F.silu(h)), atol=1e-5)


def test_attention_is_its_formula_head_by_head():
    layer, x = shaken(Attention(128, places((3, 2)))), torch.randn(2, 6, 128)
    q, k, v = (a.unflatten(2, (2, 64)) for a in layer.qkv(x).chunk(3, dim=2))
    out = []
    for head in range(2):
        Q, K, V = (a[:, None, :, head] for a in (q, k, v))
        Q, K = (turned(a / a.square().mean(-1, keepdim=True).sqrt(), *turns(places((3, 2)), 64)) for a in (Q, K))
        out.append(reference(Q, K, V)[:, 0])
    assert layer.heads == 2 and torch.allclose(layer(x), layer.out(torch.cat(out, dim=2)), atol=1e-5)


def test_a_block_of_the_transformer_is_its_formula():
    block, h, e = shaken(Block(16, places((5,)), 4, causal=False)), torch.randn(2, 5, 16), torch.randn(2, 4)
    a_1, b_1, g_1, a_2, b_2, g_2 = block.modulation(e).view(2, 6, 1, 16).unbind(dim=1)
    h_1 = h + g_1 * block.attention((1 + a_1) * unit(h) + b_1)
    u, v = block.gates((1 + a_2) * unit(h_1) + b_2).chunk(2, dim=2)
    assert torch.allclose(block(h, e), h_1 + g_2 * block.out(F.silu(u) * v), atol=1e-5)
    plain = shaken(Block(16, places((5,)), 0, causal=False))
    h_1 = h + plain.attention(unit(h))
    assert torch.allclose(plain(h, None), h_1 + plain.mlp(unit(h_1)), atol=1e-5)


def test_the_coarsest_level_attends_among_its_own_places():
    made, x = network("plane", "unet"), torch.randn(2, 32, 4, 3)
    middle = made.middle
    assert torch.equal(middle.attention.cosines, turns(places((4, 3)), 32)[0])
    h = middle.block(x, torch.zeros(2, 64))
    listed = torch.stack([middle.norm(h)[:, :, i, j] for i in range(4) for j in range(3)], dim=1)
    seen, out = middle.attention(listed), middle(x, torch.zeros(2, 64))
    for i, j in itertools.product(range(4), range(3)):
        assert torch.allclose(out[:, :, i, j], h[:, :, i, j] + seen[:, 3 * i + j], atol=1e-5)


@pytest.mark.parametrize("name", ["line", "plane", "volume"])
def test_fine_detail_passes_beside_the_coarse_levels(name):
    made, x = network(name, "unet"), points(name, 2)
    for part in (*made.down[1:], made.middle, *made.up[:-1]):
        zeroed(part)
    a, b = made(x, torch.ones(2))
    assert not torch.allclose(a, b, atol=1e-3)


def test_unit_features_keep_their_direction():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-0.03, 0.04]])
    assert torch.allclose(unit(x).square().mean(dim=1), torch.tensor([1.0, 0.0, 1.0]), atol=2e-3)
    assert torch.allclose(unit(x)[0] * 12.5 ** 0.5, x[0], atol=1e-5)


def test_halving_and_doubling_keep_odd_lengths():
    x = torch.arange(35.0).view(1, 1, 7, 5)
    half = pooled(x)
    assert half.shape == (1, 1, 4, 3) and half[0, 0, 3, 2] == 34 and half[0, 0, 0, 0] == x[0, 0, :2, :2].mean()
    assert unpooled(half, (7, 5)).shape == x.shape
    assert torch.equal(pooled(unpooled(half, (7, 5))), half)


@pytest.mark.parametrize(("rank", "axes"), [(1, (8,)), (1, (7,)), (2, (8, 4)), (2, (7, 4)), (2, (1, 6)), (3, (4, 6, 2))])
@pytest.mark.parametrize("kind", ["same", "lowered", "raised"])
def test_quick_convolutions_are_the_reference_to_the_second_derivative(rank, axes, kind):
    torch.manual_seed(0)
    layer = shaken(conv(rank, 3, 5)).double()
    halves = tuple(-(-length // 2) for length in axes)
    x = torch.randn(2, 3, *(halves if kind == "raised" else axes), dtype=torch.float64, requires_grad=True)
    given = (layer, x, axes) if kind == "raised" else (layer, x)
    plain, quick = (layer, convolved) if kind == "same" else (resampled, raised if kind == "raised" else lowered)
    found = []
    for y in (plain(*given[kind == "same":]), quick(*given)):
        slope, = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        total = slope.square().sum() + y.pow(3).sum()
        found.append((y, slope, *torch.autograd.grad(total, [x, *layer.parameters()])))
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*found, strict=True))


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


def test_turning_tells_the_axes_apart_and_leaves_an_odd_number_alone():
    q = torch.randn(1, 1, 1, 25, generator=torch.Generator().manual_seed(0))
    at = {where: turned(q, *turns(torch.tensor([where]), 25)).flatten() for where in ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0))}
    assert torch.equal(at[0.0, 0.0], q.flatten())
    assert not torch.allclose(at[2.0, 0.0], at[0.0, 2.0], atol=0.1)
    assert all(x[-1] == q[0, 0, 0, -1] for x in at.values())


def test_heads_share_the_channels_evenly_and_are_not_small():
    for channels in range(1, 520):
        H = heads(channels)
        assert channels % H == 0 and (channels // H >= 64 or H == 1)
    assert [heads(channels) for channels in (32, 64, 127, 128, 200, 384)] == [1, 1, 1, 2, 2, 6]


def test_a_causal_network_does_not_see_what_is_later():
    made = shaken(TokenTransformer(11, 12, 16, 2, None, causal=True))
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
