"""A generator whose likelihood is known: annealed importance sampling against it, from below and from above."""

import math

import pytest
import torch
from torch import nn

from verossim.families.gan import GAN, likelihood
from verossim.families.vae.heads import bounded
from verossim.seeds import Noise
from verossim.spaces import Continuous, Discrete

D, Z, NOISE = 6, 3, 0.2


class Linear(nn.Module):
    """G(z) = W z + b."""

    layers, latent = 1, Z

    def __init__(self, out: int = D):
        super().__init__()
        g = torch.Generator().manual_seed(4)
        self.W, self.b = torch.randn(out, Z, generator=g), torch.randn(out, generator=g)

    def forward(self, z, y=None):
        return z @ self.W.T + self.b


def linear(noise: float = NOISE, space=Continuous(shape=(D,), axes=("number",))):
    """A pair with that generator, and the distribution that its records have."""
    gan = GAN(GAN.Config(width=8, latent=Z), space).eval()
    gan.networks["generator"] = G = Linear(space.dims)
    gan.raw.copy_(gan.observation.raw(noise))
    S = G.W @ G.W.T + noise ** 2 * torch.eye(space.dims)
    return gan, torch.distributions.MultivariateNormal(G.b, S)


def test_the_scale_is_the_one_that_was_declared():
    for scale in (0.002, 0.2, 3.0):
        assert float(bounded(likelihood.Observation.raw(scale)).exp()) == pytest.approx(scale, rel=1e-3)


def test_the_estimate_is_the_truth_within_its_error():
    gan, truth = linear()
    torch.manual_seed(1)
    x = truth.sample((40,))
    said = gan.log_prob(x, None, Noise(2, 40))
    off = said.log_prob - truth.log_prob(x)
    assert said.kind == "estimate" and said.stderr.shape == (40,)
    assert off.abs().mean() < 0.4
    assert (off.abs() < 3 * said.stderr).float().mean() > 0.85  # of 16 chains: weights have long tails
    assert said.stderr.median() < 3 * off.abs().median()


def test_bounds_from_below_and_above_close_within_a_nat_and_cover_the_truth():
    gan, truth = linear()
    checked = gan.sandwich(32, Noise(5, 32))
    assert checked["lower"] <= checked["upper"] + 0.1 and checked["gap"] < 1.0
    noise = Noise(5, 32)
    z = noise.normal(Z)
    x = gan.observation.head.sample(gan.observation.parameters_of(gan.raw_points(z, None), gan.raw), noise)
    true = float(truth.log_prob(x).mean())
    assert checked["lower"] - 0.05 < true < checked["upper"] + 0.05


def test_the_noise_of_observation_is_found_on_held_out_records():
    gan, truth = linear(0.2)
    torch.manual_seed(3)
    x = truth.sample((16,))
    gan.raw.copy_(gan.observation.raw(1.5))
    gan.raw.copy_(gan.observation.fitted(gan, x, None, Noise(0, 16)))
    assert float(bounded(gan.raw).exp()) == pytest.approx(0.2, rel=0.3)


def test_masses_of_a_discrete_record_add_up_to_one():
    """Two entries, of four levels and of three categories: 4 x 3 records."""
    space = Continuous(shape=(4,), axes=("number",), widths=(0.5, 0.0, 0.0, 0.0), simplexes=((1, 4),))
    gan, _ = linear(0.3, space)
    gan.anchor.copy_(torch.tensor([-0.75, 0, 0, 0]))
    grid = torch.arange(-40, 41) * 0.5 - 0.75
    x = torch.cat([torch.cat([grid[:, None], torch.eye(3)[c].expand(len(grid), 3)], dim=1) for c in range(3)])
    total = gan.log_prob(x, None, Noise(0, 1).rows(torch.zeros(len(x), dtype=torch.int64))).log_prob.exp().sum()
    assert float(total) == pytest.approx(1.0, abs=0.1)


def test_completion_is_the_conditional_of_the_linear_generator():
    gan, truth = linear()
    torch.manual_seed(7)
    x = truth.sample((4,))
    masked = x.clone()
    masked[:, 0] = torch.nan
    S, b = truth.covariance_matrix, truth.mean
    weights = torch.linalg.solve(S[1:, 1:], S[1:, 0])
    mean, deviation = b[0] + (x[:, 1:] - b[1:]) @ weights, (S[0, 0] - S[0, 1:] @ weights).sqrt()
    filled = gan.complete(masked)
    assert torch.equal(filled[:, 1:], x[:, 1:])
    assert ((filled[:, 0] - mean).abs() < deviation).all()
    many = gan.complete(masked[:1].expand(64, D).clone(), None, Noise(1, 64))[:, 0]
    assert abs(float(many.mean() - mean[0])) < 0.5 * float(deviation)
    assert 0.6 < float(many.std() / deviation) < 1.6


def test_unknown_entries_say_nothing():
    gan, truth = linear()
    torch.manual_seed(8)
    x = truth.sample((6,))
    x[:, 3:] = torch.nan
    margin = torch.distributions.MultivariateNormal(truth.mean[:3], truth.covariance_matrix[:3, :3])
    said = gan.log_prob(x, None, Noise(2, 6))
    assert (said.log_prob - margin.log_prob(x[:, :3])).abs().max() < 0.8


def test_a_pixel_beyond_the_ends_has_no_mass():
    space = Continuous(shape=(1, 2, 2), axes=("channel", "height", "width"), levels=4)
    gan = GAN(GAN.Config(width=4, latent=2), space, Discrete(shape=(), vocabulary=2)).eval()
    x = torch.cartesian_prod(*[torch.tensor([-0.75, -0.25, 0.25, 0.75])] * 4).view(-1, 1, 2, 2)
    noise = Noise(0, 1).rows(torch.zeros(len(x), dtype=torch.int64))
    total = gan.log_prob(x, torch.zeros(len(x), dtype=torch.int64), noise).log_prob.exp().sum()
    assert float(total) == pytest.approx(1.0, abs=0.1)
    assert math.isfinite(float(total))
