"""The adversarial pair, term by term: the loss and its penalties, styles, inversion, augmentation, the signs of an exam."""

import math

import pytest
import torch
from torch import nn

from verossim.errors import BadConfig, BadData, Incompatible, NotInvertible
from verossim.families import Turn
from verossim.families.gan import GAN, augment, signs
from verossim.families.gmm import GMM
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete

PLANE = Continuous(shape=(2,), axes=("number",))
GREY = Continuous(shape=(1, 8, 8), axes=("channel", "height", "width"))
LABEL = Discrete(shape=(), vocabulary=3, pad=-1)
D_TURN, G_TURN = GAN.turns


class Line(nn.Module):
    """D(x) = w x."""

    def __init__(self, w: torch.Tensor):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x, y=None):
        return x.flatten(1) @ self.w


def pair(space=PLANE, condition=None, **settings) -> GAN:
    torch.manual_seed(0)
    return GAN(GAN.Config(**{"width": 8, "latent": 4, **settings}), space, condition)


def batch(x: torch.Tensor, y=None, seed: int = 1) -> Batch:
    return Batch(x, y, torch.ones(len(x)), torch.arange(len(x)), Noise(seed, len(x)))


def points(count: int, space=PLANE, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *space.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "axes"), [((1, 64, 64), ("channel", "height", "width")), ((2, 128), ("channel", "time"))])
def test_the_discriminator_sees_what_changes_with_every_entry(shape, axes):
    """Means over pairs would leave of it what stands at the edges, a tenth or a third of the features."""
    space = Continuous(shape=shape, axes=axes)
    D, x = pair(space).networks["discriminator"], points(8, space)
    with torch.no_grad():
        before, after = D.seen(x), D.seen(x + (-1.0) ** torch.arange(shape[-1]))
    assert (after - before).norm() > before.norm()


def test_the_loss_is_the_formula():
    gan, x, w = pair(), points(6), torch.tensor([0.7, -1.2])
    gan.networks["discriminator"] = Line(w.clone())
    gan.gamma.fill_(0.3)
    made = gan.networks["generator"](Noise(1, 6).normal(4), None)
    apart = (made - x) @ w
    told = gan.loss(batch(x), Turn("discriminator", ("discriminator",), progress=0.0))
    assert torch.allclose(told.total, nn.functional.softplus(apart) + 0.3 / 2 * 2 * w.square().sum(), atol=1e-5)
    assert torch.allclose(gan.loss(batch(x), G_TURN).total, nn.functional.softplus(-apart), atol=1e-5)


def test_the_penalty_is_felt_by_the_discriminator_alone_and_cools():
    gan, x, w = pair(), points(6), torch.tensor([0.7, -1.2])
    gan.networks["discriminator"] = line = Line(w.clone())
    gan.gamma.fill_(1000.0)
    gan.loss(batch(x), Turn("discriminator", ("discriminator",), progress=0.35)).total.mean().backward()
    weight = 1000 * 1e-2 ** 0.5
    assert torch.allclose(line.w.grad / w, torch.full((2,), 2 * weight), rtol=0.1)  # d/dw of gamma |w|^2, and some of the loss
    assert all(p.grad is None for p in gan.networks["generator"].parameters())
    assert gan.weight(0.0) == pytest.approx(1000) and gan.weight(0.9) == pytest.approx(10.0)


def test_no_penalty_is_a_penalty_of_nothing():
    gan, none, x = pair(GREY), pair(GREY, penalty=0.0), points(6, GREY)
    gan.gamma.zero_()
    told = [made.loss(batch(x), D_TURN) for made in (gan, none)]
    assert torch.equal(told[0].total, told[1].total) and not told[1].parts["penalty"].any()


def test_gamma_has_the_unit_of_the_data():
    """Data ten times as large are the same data in another unit: nothing changes."""
    small, large, x = pair(), pair(), points(200)
    small.start(batch(x), Noise(0, 1))
    large.start(batch(10 * x + 3), Noise(0, 1))
    assert float(small.gamma) == pytest.approx(float(large.gamma), rel=1e-4)
    assert float(large.scale[0]) == pytest.approx(10 * float(small.scale[0]), rel=1e-4)


def test_truncation_goes_to_the_mean_style_of_the_class():
    gan, y = pair(GREY, LABEL).eval(), torch.tensor([0, 0, 1, -1])
    assert torch.equal(gan.sample(Noise(3, 4), y, truncation=1.0), gan.sample(Noise(3, 4), y))
    still = gan.sample(Noise(3, 4), y, truncation=0.0)
    assert torch.allclose(still[0], still[1], atol=1e-5)
    assert not torch.allclose(still[0], still[2], atol=1e-3)
    half, whole = (gan.sample(Noise(3, 4), y, truncation=t) for t in (0.5, 1.0))
    assert (half[0] - half[1]).norm() < (whole[0] - whole[1]).norm()


def test_mixing_takes_coarse_layers_of_one_and_fine_of_the_other():
    gan = pair(GREY).eval()
    a, b = gan.latents(Noise(0, 1)), gan.latents(Noise(0, 1, first=1))
    assert torch.allclose(gan.decode(gan.mixed(a, b, gan.layers)), gan.sample(Noise(0, 1)), atol=1e-6)
    assert torch.allclose(gan.decode(gan.mixed(a, b, 0)), gan.sample(Noise(0, 1, first=1)), atol=1e-6)
    assert torch.equal(gan.mixed(a, b, 1)[0, 0], a[0]) and torch.equal(gan.mixed(a, b, 1)[0, 1], b[0])
    with pytest.raises(BadConfig):
        gan.mixed(a, b, gan.layers + 1)
    gmm = GMM(GMM.Config(components=2), PLANE)
    with pytest.raises(NotInvertible, match="styles"):
        gmm.mixed(a, b, 0)


def test_directions_are_those_that_move_styles_most_and_nothing_moves_at_zero():
    gan = pair(GREY).eval()
    G, z = gan.networks["generator"], gan.latents(Noise(0, 3))
    A = torch.cat([G.begin.weight, *(block.style.weight for block in G.blocks)])
    directions = G.directions()
    reach = (directions @ A.T).norm(dim=1)
    assert torch.allclose(directions @ directions.T, torch.eye(len(directions)), atol=1e-4)
    assert (reach[:-1] >= reach[1:] - 1e-4).all()
    strip = gan.edited(z, 1, torch.tensor([-2.0, 0.0, 2.0]))
    assert strip.shape == (3, 3, *GREY.shape)
    assert torch.allclose(strip[:, 1], gan.decode(z), atol=1e-6)
    assert not torch.allclose(strip[:, 0], strip[:, 2], atol=1e-4)
    with pytest.raises(BadConfig):
        gan.edited(z, len(directions), torch.zeros(1))


def test_a_made_record_is_found_again():
    gan = pair(GREY).eval()
    x = gan.sample(Noise(9, 3))
    back = gan.decode(gan.encode(x))
    assert (back - x).norm() < 0.25 * (x - x.mean(dim=0)).norm()
    assert torch.allclose(gan.encode(x[1:2]), gan.encode(x)[1:2], atol=1e-3)
    with pytest.raises(BadData) as error:
        gan.decode(torch.zeros(2, 5, 4))
    assert error.value.code == "LATENT_SHAPE"


def test_tokens_are_refused_with_the_family_to_use():
    with pytest.raises(Incompatible, match="vae"):
        GAN(GAN.Config(), Discrete(shape=(4,), vocabulary=9))


@pytest.mark.parametrize("space", [PLANE, GREY, Continuous(shape=(2, 3, 9), axes=("channel", "time", "width"))])
def test_augmentation_falls_on_so_many_records_and_belongs_to_the_record(space):
    x = points(400, space)
    assert augment.augmented(x, Noise(0, 400), 0.0) is x
    changed = (augment.augmented(x, Noise(0, 400), 0.5) != x).flatten(1).any(dim=1).float().mean()
    assert 0.4 < changed < 0.6 if space is PLANE else 0.9 < changed < 1.0  # one operation, or one of five and none
    whole = augment.augmented(x, Noise(4, 400), 0.8)
    part = augment.augmented(x[100:150], Noise(4, 50, first=100), 0.8)
    assert torch.allclose(whole[100:150], part, atol=1e-6)
    assert (whole != augment.augmented(x, Noise(5, 400), 0.8)).any()


def test_augmentation_does_not_leak():
    """What is drawn has the mean of the data, although what the discriminator sees has not their spread."""
    x = points(4000, GREY) * 0.1 + torch.linspace(-1, 1, 8).view(1, 1, 8, 1)
    seen = augment.augmented(x, Noise(0, 4000), 0.8)
    rows = seen.mean(dim=(0, 1, 3))
    assert (rows.diff() > 0).all() and seen.var() > x.var() * 0.8
    left = points(4000, GREY) * 0.1
    left[..., 0] += 2
    mirrored = augment.augmented(left, Noise(0, 4000), 0.5)
    assert mirrored[..., 0].mean() > 1.5 * mirrored[..., -1].mean()
    steep = x.clone().requires_grad_()
    augment.augmented(steep, Noise(0, 4000), 0.8).sum().backward()
    assert steep.grad.isfinite().all() and steep.grad.flatten(1).any(dim=1).all()


def test_signs_tell_collapse_from_health():
    real = torch.tensor([[math.cos(a), math.sin(a)] for a in torch.linspace(0, 2 * math.pi, 9)[:8].tolist()])
    def ring(modes, seed):
        g = torch.Generator().manual_seed(seed)
        return real[torch.randint(modes, (256,), generator=g)] + 0.01 * torch.randn(256, 2, generator=g)
    well = signs.distances(ring(8, 0), ring(8, 1), ring(8, 2))
    assert 0.9 < well["spread"] < 1.1 and 0.9 < well["diversity"] < 1.1 and well["coverage"] > 0.85
    one = signs.distances(ring(1, 0), ring(8, 1), ring(8, 2))
    assert one["spread"] < 0.25 and one["diversity"] < 0.1 and one["coverage"] < 0.3
    four = signs.distances(ring(4, 0), ring(8, 1), ring(8, 2))
    assert 0.4 < four["spread"] < 0.6 and 0.4 < four["coverage"] < 0.6


def test_signs_tell_overfit_beyond_chance():
    g = torch.Generator().manual_seed(0)
    draw = lambda mean: mean + torch.randn(256, generator=g)  # noqa: E731
    assert signs.judgements(draw(1.0), draw(1.0), draw(-1.0))["overfit"] < 0.05
    learned = signs.judgements(draw(5.0), draw(-1.0), draw(-1.0))
    assert learned["overfit"] > 0.8 and learned["margin"] < 1.5
    assert signs.judgements(draw(0.02), draw(0.0), draw(0.05))["overfit"] == 0
    assert signs.judgements(draw(9.0), draw(9.0), draw(-9.0))["margin"] > 15


def test_augmentation_follows_overfit():
    gan = pair()
    for _ in range(3):
        gan.adapt({"overfit": 0.9})
    assert float(gan.p) == pytest.approx(0.15)
    gan.adapt({"overfit": 0.0})
    assert float(gan.p) == pytest.approx(0.10)
    fixed = pair(augment=0.4)
    fixed.adapt({"overfit": 0.9})
    assert float(fixed.p) == pytest.approx(0.4) and fixed.treat("augmentation") is None
    assert pair(penalty=0.0).treat("penalty") is None and "penalties" in str(pair(penalty=0.01).treat("penalty"))
