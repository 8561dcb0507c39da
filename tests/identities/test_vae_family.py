"""What every autoencoder keeps, whatever its space, network and levels: ways there and back, and no record that leaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from verossim import Model
from verossim.codecs.image import ImageConfig, Pictures
from verossim.codecs.latent import Latent
from verossim.codecs.table import Table, TableConfig
from verossim.config import build
from verossim.errors import BadConfig, BadData, Incompatible, NoLikelihood, NotInvertible
from verossim.families import Turn
from verossim.families import vae as family
from verossim.families.diffusion import Diffusion
from verossim.families.vae import VAE
from verossim.families.vae.ladder import normal
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete, Records

CLASS = Discrete(shape=(), vocabulary=3, pad=-1)
RECORD = Continuous(shape=(4,), axes=("number",))
SPACES = {
    "real": Continuous(shape=(5,), axes=("number",)),
    "mixed": Continuous(shape=(6,), axes=("number",), widths=(0.0, 0.25, 0.0, 0.0, 0.0, 0.0), simplexes=((2, 5),)),
    "levels": Continuous(shape=(2, 9), axes=("channel", "time"), levels=256),
    "coins": Continuous(shape=(1, 7, 5), axes=("channel", "height", "width"), levels=2),
    "waves": Continuous(shape=(1, 3, 6, 5), axes=("channel", "time", "height", "width")),
    "tokens": Discrete(shape=(4,), vocabulary=5, pad=-1),
}
SIZES = {"width": 8, "latent": 2, "components": 2, "draws": 8}


@pytest.fixture(autouse=True)
def few_temperatures(monkeypatch):
    """Annealing goes by the same way in a few steps; how near it comes to the truth is asked elsewhere, with all of them."""
    monkeypatch.setattr("verossim.families.vae.STEPS", 4)


def points(space: Continuous | Discrete, B: int = 12, seed: int = 0) -> torch.Tensor:
    """Records that lie on whatever grid the space has."""
    g = torch.Generator().manual_seed(seed)
    if isinstance(space, Discrete):
        return torch.randint(space.vocabulary, (B, *space.shape), generator=g)
    if space.levels:
        return (torch.randint(space.levels, (B, *space.shape), generator=g) + 0.5) * 2 / space.levels - 1
    x = torch.randn(B, *space.shape, generator=g)
    if space.widths:
        x[:, 1] = (x[:, 1] * 4).round() / 4 + 0.1
    for first, last in space.simplexes:
        x[:, first:last] = torch.eye(last - first)[torch.randint(last - first, (B,), generator=g)]
    return x


def batch(x: torch.Tensor, y: torch.Tensor | None = None, seed: int = 5) -> Batch:
    return Batch(x, y, torch.ones(len(x)), torch.arange(len(x)), Noise(seed, len(x)))


def made(space, condition=None, seed: int = 0, **settings) -> VAE:
    """A model that has measured its data, with random weights in every layer, also those that begin at zero."""
    torch.manual_seed(seed)
    vae = VAE(VAE.Config(**{**SIZES, **settings}), space, condition)
    vae.start(batch(points(space, 100)), Noise(0, 1))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


CASES = [(name, levels, network) for name, space in SPACES.items() for levels in (1, 3) for network in ("mlp", "conv")
         if network == "mlp" or (isinstance(space, Continuous) and len(space.shape) > 1)]
every = pytest.mark.parametrize("name, levels, network", CASES)


@every
def test_a_loss_belongs_to_its_record_and_reaches_every_parameter(name, levels, network):
    space = SPACES[name]
    vae, x, y = made(space, CLASS, levels=levels, network=network, depth=2), points(space), torch.arange(12) % 4 - 1
    whole = vae.loss(batch(x, y), Turn())
    assert whole.total.shape == (12,) and whole.total.dtype == torch.float32
    assert torch.allclose(whole.parts["nats"], whole.parts["kl"] + whole.parts["reconstruction"])
    assert sum(part.startswith("rate_") for part in whole.parts) == (levels if levels > 1 else 0)
    cut = [vae.loss(replace(batch(x[rows], y[rows]), noise=Noise(5, 12).part(rows.start, rows.stop)), Turn())
           for rows in (slice(0, 5), slice(5, 12))]
    assert torch.allclose(torch.cat([part.total for part in cut]), whole.total, rtol=1e-4, atol=1e-4)
    whole.total.sum().backward()
    silent = [parameter for parameter, value in vae.named_parameters() if value.grad is None or not value.grad.any()]
    assert not silent, f"no gradient reaches {silent}"


@every
def test_samples_lie_in_the_space_and_belong_to_their_streams(name, levels, network):
    space = SPACES[name]
    vae = made(space, CLASS, levels=levels, network=network)
    y = torch.arange(12) % 3
    x = vae.sample(Noise(3, 12), y)
    assert x.shape == (12, *space.shape) and x.isfinite().all()
    assert torch.allclose(vae.sample(Noise(3, 5, 4), y[4:9]), x[4:9], atol=1e-4)
    assert vae.log_prob(x, y).log_prob.isfinite().all()
    if isinstance(space, Discrete):
        assert x.dtype == torch.int64 and x.min() >= 0 and x.max() < space.vocabulary
    elif space.levels:
        assert torch.equal(((x + 1) * space.levels / 2 - 0.5).round(), (x + 1) * space.levels / 2 - 0.5)
    else:
        assert all((x[:, first:last].sum(1) == 1).all() for first, last in space.simplexes)
        assert not space.widths or torch.allclose(((x[:, 1] - 0.1) * 4).round(), (x[:, 1] - 0.1) * 4, atol=1e-4)


@every
def test_latents_lead_to_the_record_that_they_came_from(name, levels, network):
    """A draw of the prior, seen as eps, is what decode takes; and what encode gives depends on its record alone."""
    space = SPACES[name]
    vae, x = made(space, levels=levels, network=network), points(space)
    z = vae.encode(x)
    assert z.shape == (12, vae.units) and z.isfinite().all()
    assert torch.allclose(vae.encode(x[4:6]), z[4:6], atol=1e-5)
    back = vae.decode(z)
    assert back.shape == x.shape and torch.equal(back, vae.decode(z))
    expected = vae._expected(x, None)  # the way down that encode took, whose parameters decode must find again
    again = vae.networks["ladder"](None, None, vae._split(z))
    assert torch.allclose(again.parameters, expected.parameters, atol=1e-3, rtol=1e-3)
    with pytest.raises(BadData, match="LATENT_SHAPE|shape"):
        vae.decode(z[:, 1:])


@pytest.mark.parametrize("name, network", [("real", "mlp"), ("levels", "conv")])
def test_a_lower_level_has_the_mean_and_scale_that_the_level_above_gives(name, network):
    """With eps = 1, what enters the path below a prior N(m, S^2) is m + S."""
    vae = made(SPACES[name], levels=2, network=network)
    rung, seen = vae.networks["ladder"].rungs[1], {}
    rung.prior.register_forward_hook(lambda _, args, out: seen.update(prior=out))
    rung.enter.register_forward_pre_hook(lambda _, args: seen.update(z=args[0]))
    vae.decode(torch.ones(3, vae.units))
    m, log_s = normal(seen["prior"])
    assert torch.allclose(seen["z"], m + log_s.exp()) and (log_s.abs() > 1e-3).any()


@every
def test_completion_keeps_what_is_known(name, levels, network, monkeypatch):
    for setting, few in {"ROUNDS": 12, "UNTESTED": 4, "MEANS": 6}.items():  # how good it is, is asked in tests/oracle
        monkeypatch.setattr(family, setting, few)
    space = SPACES[name]
    vae, x = made(space, levels=levels, network=network), points(space)
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    if isinstance(space, Continuous):
        for first, last in space.simplexes:
            known[:, first:last] = known[:, first:first + 1]
    known[3] = True
    gapped = torch.where(known, x, -1 if isinstance(space, Discrete) else torch.nan)
    drawn, likeliest = vae.complete(gapped, noise=Noise(1, 12)), vae.complete(gapped)
    for filled in (drawn, likeliest):
        assert filled.dtype == x.dtype and torch.equal(filled[known], x[known])
        assert vae.log_prob(filled).log_prob.isfinite().all()
        assert (filled >= 0).all() if isinstance(space, Discrete) else filled.isfinite().all()
        if isinstance(space, Continuous):
            assert all(torch.equal(filled[:, a:b].sum(1), torch.ones(12)) for a, b in space.simplexes)
    assert torch.allclose(vae.complete(gapped[2:7]), likeliest[2:7], atol=1e-4)  # whatever batch a record is in
    assert torch.equal(vae.complete(x), x)


def test_a_block_with_one_unknown_share_is_unknown():
    space = SPACES["mixed"]
    vae, x = made(space), points(space)
    x[:, 2:5] = torch.tensor([0.0, 1.0, torch.nan])
    for filled in (vae.complete(x), vae.complete(x, noise=Noise(1, 12))):
        assert torch.equal(filled[:, 2:5].sort(dim=1).values, torch.tensor([0.0, 0.0, 1.0]).expand(12, 3))
        assert torch.equal(filled[:, :2], x[:, :2])
    gone = x.clone()
    gone[:, 2:5] = torch.nan
    parameters = vae._expected(x, None).parameters
    assert torch.equal(vae.head.log_prob(parameters, x), vae.head.log_prob(parameters, gone))


def test_unknown_entries_say_nothing():
    """The likelihood of the known entries falls short of nothing when more become unknown, and that of none is 1."""
    for space in SPACES.values():
        vae, x = made(space), points(space)
        none = torch.full_like(x, -1) if isinstance(space, Discrete) else torch.full_like(x, torch.nan)
        assert vae.head.log_prob(vae._expected(x, None).parameters, none).abs().max() == 0
        loss = vae.loss(batch(none), Turn())
        assert loss.total.isfinite().all() and torch.allclose(loss.parts["nats"], loss.parts["kl"])


@pytest.mark.parametrize("condition", [CLASS, RECORD], ids=["class", "record"])
@pytest.mark.parametrize("name", ["real", "levels"])
def test_no_condition_is_the_null_condition(name, condition):
    space = SPACES[name]
    vae, x = made(space, condition, levels=2), points(space)
    null = torch.full((12,), -1) if condition is CLASS else torch.full((12, 4), torch.nan)
    given = torch.arange(12) % 3 if condition is CLASS else torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    for method in VAE.methods:
        without = vae.log_prob(x, None, Noise(1, 12), method).log_prob
        assert torch.equal(vae.log_prob(x, null, Noise(1, 12), method).log_prob, without)
        assert not torch.allclose(vae.log_prob(x, given, Noise(1, 12), method).log_prob, without)
    assert not torch.allclose(vae.sample(Noise(1, 12), given), vae.sample(Noise(1, 12)))
    assert not torch.allclose(vae.encode(x, given), vae.encode(x))


def test_conditions_are_dropped_as_often_as_the_setting_says():
    x, y = points(SPACES["real"], 1), torch.zeros(1, dtype=torch.int64)
    many = batch(x.expand(2000, -1), y.expand(2000))
    for drop in (0.0, 0.3, 1.0):
        vae = made(SPACES["real"], CLASS, drop=drop)
        seen: list[torch.Tensor] = []
        vae.networks["ladder"].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[1]))
        vae.loss(replace(many, noise=Noise(5, 2000)), Turn())
        assert float((seen[0] < 0).float().mean()) == pytest.approx(drop, abs=0.05)


@every
def test_likelihoods_do_not_depend_on_the_batch(name, levels, network):
    space = SPACES[name]
    vae, x, y = made(space, CLASS, levels=levels, network=network), points(space), torch.arange(12) % 4 - 1
    for method in VAE.methods:
        whole = vae.log_prob(x, y, Noise(7, 12), method)
        part = vae.log_prob(x[3:8], y[3:8], Noise(7, 12).part(3, 8), method)
        assert whole.kind == ("estimate" if method == "ais" else "bound") and whole.coordinates == space.coordinates
        assert torch.allclose(whole.log_prob[3:8], part.log_prob, rtol=1e-3, atol=1e-2)
        assert (whole.stderr >= 0).all()
    with torch.inference_mode():
        x, y = x.clone(), y.clone()
        assert torch.equal(vae.log_prob(x, y, Noise(7, 12), "ais").log_prob, whole.log_prob)  # of the last method, "ais"
    assert vae.log_prob(x[:0]).log_prob.shape == (0,)
    with pytest.raises(BadConfig, match="elbo"):
        vae.log_prob(x, method="flow")


def test_memory_is_bounded_and_the_cut_changes_nothing():
    vae, x = made(SPACES["coins"], draws=50), points(SPACES["coins"])
    whole = vae.log_prob(x, None, Noise(7, 12)).log_prob
    sizes: list[int] = []
    vae.networks["ladder"].register_forward_pre_hook(lambda _, args: sizes.append(len(args[2][0])))
    vae.rows = 50
    assert torch.allclose(vae.log_prob(x, None, Noise(7, 12)).log_prob, whole, atol=1e-4) and max(sizes) == 50
    vae.rows = 20  # fewer than the draws of one record
    vae.log_prob(x, None, Noise(7, 12))
    assert max(sizes[12:]) == 20


def test_the_divergence_is_paid_little_by_little_and_never_below_the_free_nats():
    x = points(SPACES["real"])
    vae = made(SPACES["real"], levels=2, warm=0.5, free=0.0)
    at = {progress: vae.loss(batch(x), Turn(progress=progress)) for progress in (0.0, 0.25, 0.5, 1.0)}
    nats, kl, rest = (at[1.0].parts[part] for part in ("nats", "kl", "reconstruction"))
    assert torch.allclose(at[0.0].total, rest) and torch.allclose(at[0.25].total, rest + kl / 2)
    assert torch.allclose(at[0.5].total, nats) and torch.equal(at[0.25].parts["nats"], nats)
    vae.config = replace(vae.config, free=1e3)
    assert torch.allclose(vae.loss(batch(x), Turn()).total, rest + 2e3)


def test_nothing_becomes_nan_from_extreme_weights_or_records():
    """Weights of 100 times their size and records of 1e4: losses and gradients are finite, at every level of a ladder."""
    for name, space in SPACES.items():
        for seed in range(4):
            vae, x = made(space, levels=2, seed=seed), points(space, seed=seed)
            with torch.no_grad():
                for parameter in vae.parameters():
                    parameter.mul_(100)
            if isinstance(space, Continuous) and not space.levels and not space.simplexes:
                x = 1e4 * x
            loss = vae.loss(batch(x), Turn()).total
            loss.sum().backward()
            assert loss.isfinite().all(), (name, seed)
            assert all(parameter.grad.isfinite().all() for parameter in vae.parameters()), (name, seed)


def test_a_saved_model_is_the_same_model():
    for name, space in SPACES.items():
        vae, other, x = made(space, CLASS, levels=2), made(space, CLASS, levels=2, seed=1), points(space)
        other.load_state_dict(vae.state_dict())
        assert torch.equal(other.log_prob(x).log_prob, vae.log_prob(x).log_prob), name
        assert torch.equal(other.sample(Noise(0, 3)), vae.sample(Noise(0, 3))), name


def test_a_convolution_needs_axes():
    with pytest.raises(Incompatible, match="axes"):
        VAE(VAE.Config(network="conv"), SPACES["real"])


def test_the_plain_network_has_the_parameters_of_the_textbook_one():
    space = Continuous(shape=(1, 28, 28), axes=("channel", "height", "width"), levels=2)
    vae = VAE(VAE.Config(width=512, latent=16, network="mlp"), space)
    assert sum(parameter.numel() for parameter in vae.parameters()) == \
        784 * 512 + 512 + 512 * 32 + 32 + 16 * 512 + 512 + 512 * 784 + 784


# ---- latents as a codec --------------------------------------------------------------------------------------------------


def cells() -> Records:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(64, generator=g)
    return Records({"a": a.tolist(), "b": (2 * a + 0.1 * torch.randn(64, generator=g)).tolist()})


def test_a_latent_codec_is_its_autoencoder_between_records_and_unit_scale():
    import pyarrow as pa
    records = Records({name: pa.array(values) for name, values in cells().columns.items()})
    codec = Table(TableConfig()).fit([records])
    vae = made(codec.space)
    latent = Latent(codec, vae).fit([records.take(range(40)), records.take(range(40, 64))])
    x = latent.encode(latent.parse(records, []))
    assert latent.space == Continuous(shape=(2,), axes=("latent",)) and x.shape == (64, 2)
    assert x.square().mean() == pytest.approx(1, abs=1e-4)
    inner = codec.encode(codec.parse(records, []))
    assert torch.allclose(x * latent.scale, vae.encode(inner))
    for row, expected in zip(latent.decode(x).rows(), codec.decode(vae.decode(vae.encode(inner))).rows(), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    again = Latent(codec, vae, latent.state())
    assert again.space == latent.space and torch.equal(again.encode(records), latent.encode(records))
    assert latent.describe() == codec.describe()
    assert latent.lossy and latent.log_volume(x).isnan().all()
    with pytest.raises(Incompatible, match="autoencoder"):
        Latent.restore(latent.config, latent.state())
    with pytest.raises(Incompatible, match="autoencoder"):
        Latent(codec, made(SPACES["real"]))
    with pytest.raises(BadData):
        Latent(codec, vae).fit([])
    with torch.no_grad():
        for parameter in vae.networks["ladder"].rungs[0].posterior.parameters():
            parameter.zero_()
    with pytest.raises(BadData, match="collapsed"):
        Latent(codec, vae).fit([records])


@pytest.mark.parametrize(("levels", "shape"), [(1, (2, 3, 3)), (2, (2 * 9 + 2 * 30,))])
def test_latents_of_one_level_keep_their_axes(levels, shape):
    codec, g = Pictures(ImageConfig()), np.random.default_rng(0)
    records = Records({"image": [g.integers(0, 256, (6, 5, 1), np.uint8) for _ in range(10)]})
    codec.fit([records])
    vae = made(codec.space, width=4, latent=2, levels=levels)
    latent = Latent(codec, vae).fit([records])
    x = latent.encode(latent.parse(records, []))
    assert latent.space.shape == shape == vae.latent_shape and x.shape == (10, *shape)
    assert latent.modality == "image" and latent.shelf == "latent"
    inner = codec.encode(codec.parse(records, []))
    assert torch.allclose(x.flatten(1) * latent.scale, vae.encode(inner))
    decoded = codec.decode(vae.decode(vae.encode(inner))).columns["image"]
    assert np.array_equal(np.stack(latent.decode(x).columns["image"]), np.stack(decoded))
    changed = made(codec.space, width=4, latent=2, levels=levels)
    next(changed.parameters()).data.add_(1)
    assert Latent(codec, changed, latent.state()).state()["inside"] != latent.state()["inside"]


def test_a_model_over_an_autoencoder_is_saved_and_read_whole(tmp_path):
    import pyarrow as pa
    records = Records({name: pa.array(values) for name, values in cells().columns.items()})
    codec = Table(TableConfig()).fit([records])
    inner = Latent(codec, made(codec.space)).fit([records])
    outer = Latent(inner, made(inner.space)).fit([records])  # and once more
    for latent in (inner, outer):
        config = build(Diffusion.Config, {"width": 8, "depth": 1})
        model = Model(latent, Diffusion(config, latent.space).eval(), None, {"frame": "arrow"})
        model.save(tmp_path / "model")
        again = Model.load(tmp_path / "model")
        assert again.sample(5, steps=3).equals(model.sample(5, steps=3))
        source = pa.table(dict(records.columns))
        assert torch.equal(again.encode(source), model.encode(source)) and again.encode(source).shape == (64, 2)
        with pytest.raises(NoLikelihood) as refused:
            again.log_prob(source)
        assert refused.value.code == "LATENT_DENSITY"
    with pytest.raises(Incompatible, match="Diffusion has no latents"):
        Latent(codec, Diffusion(config, codec.space))


def test_an_autoencoder_has_no_styles_and_says_so():
    vae = made(RECORD)
    with pytest.raises(NotInvertible, match="styles"):
        vae.latents(Noise(0, 2))
