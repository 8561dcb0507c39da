"""The autoencoder against what is known: masses that sum to one, and the linear-Gaussian model, whose likelihood is exact."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal

from verossim.families import Turn
from verossim.families.vae import VAE
from verossim.families.vae.estimators import annealed, averaged, log_averaged
from verossim.families.vae.heads import LEAST, MOST, Coins, Levels, Tokens, Vector, bounded
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete

GREY = Continuous(shape=(2, 3), axes=("channel", "time"), levels=8)
COIN = Continuous(shape=(2, 3), axes=("channel", "time"), levels=2)
MIXED = Continuous(shape=(5,), axes=("number",), widths=(0.0, 0.25, 0.0, 0.0, 0.0), simplexes=((2, 5),))
TOKENS = Discrete(shape=(3,), vocabulary=4, pad=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plainly_annealed(log, start, chains, noise, temperatures, leaps):
    """What `annealed` does, each point looked at afresh at each temperature."""
    def at(e, b):
        with torch.enable_grad():
            e = e.detach().requires_grad_()
            joint, log_q = log(e)
            f = (1 - b) * log_q + b * joint
            return joint.detach(), log_q.detach(), f.detach(), torch.autograd.grad(f.sum(), e)[0]
    e, size, weights = start, torch.full_like(start[:, :1], 0.1), torch.zeros_like(start[:, 0])
    for before, b in pairwise(temperatures):
        joint, log_q, f, slope = at(e, b)
        weights = weights + (b - before) * (joint - log_q)
        momentum, u = noise.normal(chains, e.shape[1]).view_as(e).to(e), noise.uniform(chains).view(-1).to(e)
        there, p, f_there = e, momentum, f
        for _ in range(leaps):
            p = p + size / 2 * slope
            there = there + size * p
            *_, f_there, slope = at(there, b)
            p = p + size / 2 * slope
        accepted = u.log() < f_there - f + (momentum.square() - p.square()).sum(dim=1) / 2
        e = torch.where(accepted[:, None], there, e)
        size = size * torch.where(accepted, 1.04, 0.92)[:, None]
    return weights, e


@pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])
def test_annealing_remembers_what_it_knows_and_comes_to_the_same(way):
    looks = []

    def log(e):
        looks.append(len(e))
        log_q = -0.5 * ((e - 0.3) / 0.8).square().sum(dim=1)
        return -0.5 * e.square().sum(dim=1) - (e[:, 0] * e[:, 1] - e[:, 2].sin() - 0.5).square(), log_q
    path, leaps = [(step / 12) ** 2 for step in range(13)][::way], 3
    start = 0.3 + 0.8 * Noise(0, 5).normal(4, 3, dtype=torch.float64).flatten(0, 1)
    weights, ends = annealed(log, start, 4, Noise(1, 5), path, leaps)
    assert len(looks) == 1 + 12 * leaps  # once at the start, and once a leap
    plain, plain_ends = plainly_annealed(log, start, 4, Noise(1, 5), path, leaps)
    assert torch.allclose(weights, plain, rtol=1e-10, atol=1e-12) and torch.allclose(ends, plain_ends, rtol=1e-9, atol=1e-11)
    moved = (ends != start).any(dim=1)
    assert moved.any()
    looks.clear()
    again, _ = annealed(log, start, 4, Noise(1, 5), path, leaps, settled=False)
    assert torch.equal(again, weights) and len(looks) == 1 + 11 * leaps


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_masses_of_all_levels_sum_to_one(size):
    head = Levels(GREY, components=3)
    parameters = (size * torch.randn(1, head.outputs, 3, generator=generator())).double()
    values = (torch.arange(8, dtype=torch.float64) + 0.5) * 2 / 8 - 1
    one = torch.full((8, 2, 3), torch.nan, dtype=torch.float64)
    one[:, 1, 2] = values  # the other entries are unknown and say nothing
    assert head.log_prob(parameters.expand(8, -1, -1), one).exp().sum() == pytest.approx(1, abs=1e-6)
    coin = torch.full((2, 2, 3), torch.nan)
    coin[:, 0, 0] = torch.tensor([-0.5, 0.5])
    assert Coins(COIN).log_prob(size * torch.ones(2, 2, 3), coin).exp().sum() == pytest.approx(1, abs=1e-6)


def test_masses_of_cells_and_categories_sum_to_one_and_densities_are_the_normal_ones():
    head = Vector(MIXED)
    parameters = torch.randn(1, head.outputs, generator=generator(1)).double()
    cells = torch.full((4001, 5), torch.nan, dtype=torch.float64)
    cells[:, 1] = 0.1 + 0.25 * torch.arange(-2000, 2001)
    assert head.log_prob(parameters.expand(4001, -1), cells).exp().sum() == pytest.approx(1, abs=1e-6)
    kinds = torch.full((3, 5), torch.nan, dtype=torch.float64)
    kinds[:, 2:] = torch.eye(3)
    assert head.log_prob(parameters.expand(3, -1), kinds).exp().sum() == pytest.approx(1, abs=1e-6)
    x = torch.full((1, 5), torch.nan, dtype=torch.float64)
    x[0, 0] = 0.7
    normal = torch.distributions.Normal(parameters[0, 0], bounded(parameters[0, 5]).exp())
    assert head.log_prob(parameters, x)[0] == pytest.approx(float(normal.log_prob(x[0, 0])))
    tokens = torch.cartesian_prod(*[torch.arange(4)] * 3)
    said = Tokens(TOKENS)
    logits = torch.randn(1, said.outputs, generator=generator(2)).double()
    assert said.log_prob(logits.expand(64, -1), tokens).exp().sum() == pytest.approx(1, abs=1e-6)


def test_draws_occur_as_often_as_the_head_says():
    """Every level, coin and category of 4,000 draws, within five standard errors of its probability."""
    B = 4000
    for head, space in ((Levels(GREY, 3), GREY), (Coins(COIN), COIN), (Vector(MIXED), MIXED)):
        parameters = torch.randn(1, head.outputs, *space.shape[1:], generator=generator(3)).expand(B, *[-1] * len(space.shape))
        x = head.sample(parameters, Noise(0, B))
        entry = x[:, 2:] if space is MIXED else x.flatten(1)[:, -1:]
        distinct, counts = entry.unique(dim=0, return_counts=True)
        one = torch.full((len(distinct), *space.shape), torch.nan)
        one.flatten(1)[:, -entry.shape[1]:] = distinct  # the other entries are unknown and say nothing
        p = head.log_prob(parameters[:len(distinct)], one).exp()
        assert p.sum() == pytest.approx(1, abs=0.01)
        assert ((counts - B * p).abs() < 5 * (B * p * (1 - p)).sqrt().clamp(min=1)).all()
    head, parameters = Vector(MIXED), torch.tensor([0.3, 0.1, 0, 0, 0, -0.5, -0.7, 0, 0, 0]).expand(B, -1)
    x = head.sample(parameters, Noise(1, B))
    cells = torch.full((41, 5), torch.nan)
    cells[:, 1] = 0.25 * torch.arange(-20, 21)
    p = head.log_prob(parameters[:41], cells).exp()
    counts = ((x[:, 1] / 0.25).round() == torch.arange(-20, 21)[:, None]).sum(dim=1)
    assert ((counts - B * p).abs() < 5 * (B * p * (1 - p)).sqrt().clamp(min=1)).all()
    s = bounded(parameters[0, 5]).exp()
    assert abs(x[:, 0].mean() - 0.3) < 5 * s / B ** 0.5 and abs(x[:, 0].std() - s) < 5 * s / (2 * B) ** 0.5


def test_nothing_becomes_nan_however_extreme_the_parameters():
    """100 batches of parameters up to 1e4, at extreme records: losses and their gradients are finite."""
    for seed in range(100):
        g = generator(seed)
        for head, x in ((Levels(GREY, 3), torch.tensor([-1 + 1 / 8, 1 - 1 / 8])[torch.randint(2, (4, 2, 3), generator=g)]),
                        (Coins(COIN), torch.tensor([-0.5, 0.5])[torch.randint(2, (4, 2, 3), generator=g)]),
                        (Vector(MIXED), torch.randn(4, 5, generator=g) * 10.0 ** (seed % 30))):
            shape = (4, head.outputs, *x.shape[2:])
            parameters = (1e4 * torch.randn(shape, generator=g)).requires_grad_()
            loss = head.log_prob(parameters, x)
            loss.sum().backward()
            assert loss.isfinite().all() and parameters.grad.isfinite().all(), (type(head).__name__, seed)


def linear(D: int = 5, Z: int = 2, seed: int = 4) -> tuple[VAE, MultivariateNormal, torch.Tensor]:
    """p(x | z) = N(W z + b, s^2 I) with its exact posterior as the encoder, set by hand; p(x); and records of it.

    The layers in between pass numbers on through pairs (v, -v), which ReLU leaves whole.
    """
    vae = VAE(VAE.Config(width=2 * Z, latent=Z, network="mlp", draws=50), Continuous(shape=(D,), axes=("number",)))
    g = generator(seed)
    W, b, raw = 0.4 * torch.randn(D, Z, generator=g) + torch.randn(D, 1, generator=g), torch.randn(D, generator=g), -0.5
    s2 = math.exp(2 * float(bounded(torch.tensor(raw))))
    posterior = torch.linalg.inv(torch.eye(Z) + W.T @ W / s2)
    A, pairs = posterior @ W.T / s2, torch.cat([torch.eye(Z), -torch.eye(Z)])
    log_q = posterior.diagonal().log() / 2
    ladder = vae.networks["ladder"]
    rung = ladder.rungs[0]
    with torch.no_grad():
        for parameter in ladder.parameters():
            parameter.zero_()
        vae.centre.copy_(b)
        ladder.first.weight.copy_(pairs @ A)
        rung.posterior.weight[:Z, :Z], rung.posterior.weight[:Z, Z:] = torch.eye(Z), -torch.eye(Z)
        rung.posterior.bias[Z:] = 5 * torch.atanh(log_q / 5)
        rung.enter.weight.copy_(pairs)
        ladder.last.weight[:D] = torch.cat([W, -W], dim=1)
        ladder.last.bias[:D], ladder.last.bias[D:] = b, raw
    truth = MultivariateNormal(b, W @ W.T + s2 * torch.eye(D))
    return vae, truth, posterior


def drawn(truth: MultivariateNormal, count: int) -> torch.Tensor:
    """Records of the truth, whatever tests ran before."""
    return truth.loc + torch.randn(count, len(truth.loc), generator=generator(6)) @ truth.scale_tril.T


def test_a_log_scale_is_itself_between_its_bounds():
    raw = torch.tensor([-1e30, -1e4, -3.0, -2.5, -2.0, 1e4, 1e30])
    assert torch.allclose(bounded(raw), torch.tensor([LEAST, LEAST, -3.0, -2.5, -2.0, MOST, MOST]), atol=5e-3)


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    """With one latent, what the encoder can say is all there is."""
    vae, truth, _ = linear(Z=1)
    x = drawn(truth, 50)
    for method in ("elbo", "iwae", "ais"):
        log_p = vae.log_prob(x, noise=Noise(1, 50), method=method)
        assert torch.allclose(log_p.log_prob, truth.log_prob(x), atol=2e-3), method
        assert (log_p.stderr < 1e-3).all()


def test_standard_errors_are_those_of_repetition():
    """Of the means, and of their logarithms, of 400 draws each, 4,000 times."""
    log_weights = 0.7 * torch.randn(400, 4000, generator=generator(8))
    for estimate in (averaged, log_averaged):
        found, error = estimate(log_weights)
        far = estimate(log_weights - 20_000)[1]  # as of pictures; float32 has steps of 0.002 there
        assert torch.allclose(far, error, rtol=0.02)
        assert float(error.square().mean().sqrt()) == pytest.approx(float(found.std()), rel=0.06)


def test_where_one_weight_is_all_the_error_says_how_far_the_others_lie():
    log_weights = torch.tensor([[0.0, 3.0, 0.0], [-500.0, 1.0, 0.0], [-500.0, 3.0, 0.0], [-900.0, 2.0, 0.0]])
    k = len(log_weights)
    without = torch.stack([torch.cat([log_weights[:i], log_weights[i + 1:]]).logsumexp(dim=0) for i in range(k)])
    _, error = log_averaged(log_weights)
    assert torch.allclose(error, (without.var(dim=0, correction=0) * (k - 1)).sqrt(), rtol=1e-5, atol=1e-6)  # rounding
    assert error[0] > 300 and error[2] < 1e-6
    assert log_averaged(torch.tensor([[0.0], [-math.inf]]))[1] == math.inf


def test_elbo_below_iwae_below_the_truth_and_ais_on_it():
    vae, truth, _ = linear()
    x = drawn(truth, 2000)
    true, config, means = truth.log_prob(x), vae.config, {}
    for k in (200, 20, 2):
        vae.config = replace(config, draws=k)
        means[k] = float(vae.log_prob(x, noise=Noise(1, 2000)).log_prob.mean())
    elbo = float(vae.log_prob(x, noise=Noise(1, 2000), method="elbo").log_prob.mean())  # of the same draws as the last
    assert elbo < means[2] < means[20] < means[200] < float(true.mean()) + 0.01
    ais = vae.log_prob(x[:100], noise=Noise(1, 100), method="ais")
    assert abs(float((ais.log_prob - true[:100]).mean())) < 0.05
    z = (ais.log_prob - true[:100]) / ais.stderr  # by eight chains: of Student's t with 7 degrees of freedom
    assert ais.kind == "estimate" and (z.abs() < 2.4).float().mean() > 0.85


def test_learning_reaches_the_likelihood_of_probabilistic_pca():
    """Tipping and Bishop, JRSS B 1999: the maximum-likelihood model of rank Z has the top eigenvectors of the covariance, and
    the mean of the other eigenvalues as its noise."""
    D, Z, B = 6, 2, 4000
    g = generator(7)
    W = torch.randn(D, Z, generator=g)
    x = torch.randn(B, Z, generator=g) @ W.T + 0.4 * torch.randn(B, D, generator=g)
    S = torch.cov(x.T)
    values, vectors = torch.linalg.eigh(S)
    noise = values[:-Z].mean()
    best = MultivariateNormal(x.mean(0), vectors[:, -Z:] * (values[-Z:] - noise) @ vectors[:, -Z:].T + noise * torch.eye(D))
    torch.manual_seed(0)
    vae = VAE(VAE.Config(width=128, latent=Z, network="mlp", warm=0.0), Continuous(shape=(D,), axes=("number",)))
    batch = Batch(x, None, torch.ones(B), torch.arange(B), Noise(0, B))
    vae.start(batch, Noise(0, 1))
    optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3, fused=True)
    for step in range(800):
        rows = torch.arange(step * 200, step * 200 + 200) % B
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / 800)
        optimizer.zero_grad()
        vae.loss(Batch(x[rows], None, torch.ones(200), rows, Noise(step + 1, 200)), Turn()).total.mean().backward()
        optimizer.step()
    log_p = vae.log_prob(x[:1000], noise=Noise(9, 1000))
    assert float(log_p.log_prob.mean()) == pytest.approx(float(best.log_prob(x[:1000]).mean()), abs=0.06)


def test_health_tells_what_is_used():
    vae, truth, posterior = linear()
    x = drawn(truth, 500)
    health = vae.health(x)
    assert (health["active_units"], health["units"]) == (2, 2)
    kl = 0.5 * (posterior.diagonal().sum() + vae.encode(x).square().sum(1).mean() - 2 - posterior.diagonal().log().sum())
    assert health["nats_by_level"][0] == pytest.approx(float(kl), rel=1e-3)
    with torch.no_grad():
        vae.networks["ladder"].rungs[0].posterior.weight.zero_()
        vae.networks["ladder"].rungs[0].posterior.bias.zero_()
    collapsed = vae.health(x)
    assert collapsed["active_units"] == 0 and collapsed["nats_by_level"] == [0.0]


def conditional(truth: MultivariateNormal, known: list[int], gone: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the numbers `gone` given those `known`: the matrix that leads to their mean, and their standard deviations."""
    S = truth.covariance_matrix
    K = S[gone][:, known] @ torch.linalg.inv(S[known][:, known])
    return K, (S[gone][:, gone] - K @ S[known][:, gone]).diagonal().sqrt()


@pytest.mark.parametrize("seed", range(4, 9))
def test_completion_is_the_conditional(seed):
    """Three of five numbers known: the mean and the spread of the other two, though the encoder never saw a gap and takes the
    latents for independent, which they are not: their correlation goes up to 0.94."""
    vae, truth, _ = linear(seed=seed)
    known, gone = [0, 1, 2], [3, 4]
    K, spread = conditional(truth, known, gone)
    x = (truth.mean + torch.tensor([0.5, -1.0, 0.8, 0.0, 0.0])).expand(2000, 5).clone()
    x[:, gone] = torch.nan
    filled = vae.complete(x, noise=Noise(3, 2000))
    assert torch.equal(filled[:, known], x[:, known])
    off = (filled[:, gone].mean(0) - truth.mean[gone] - K @ (x[0, known] - truth.mean[known])) / spread
    assert off.abs().max() < 5 / math.sqrt(2000) and torch.allclose(filled[:, gone].std(0), spread, rtol=0.08)


def test_without_noise_completion_is_the_conditional_mean():
    vae, truth, _ = linear()
    known, gone = [0, 1, 2], [3, 4]
    K, spread = conditional(truth, known, gone)
    x = truth.mean + torch.randn(100, 5, generator=generator(5))
    x[:, gone] = torch.nan
    off = (vae.complete(x)[:, gone] - truth.mean[gone] - (x[:, known] - truth.mean[known]) @ K.T) / spread
    assert off.square().mean().sqrt() < 0.4
