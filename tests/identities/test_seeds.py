"""Noise belongs to the sample: its streams do not depend on the batch, and have the distribution they claim."""

import math

import numpy as np
import pytest
import torch

from verossim.errors import BadConfig
from verossim.seeds import Noise, check_seed, reseed


def test_a_sample_draws_the_same_in_any_batch():
    whole = Noise(7, 100)
    whole_draws = [whole.normal(5), whole.uniform(), whole.normal(2, 3)]
    alone = Noise(7, 1, first=41)
    for draws, again in zip(whole_draws, (alone.normal(5), alone.uniform(), alone.normal(2, 3)), strict=True):
        assert torch.equal(draws[41:42], again)
    part = Noise(7, 100).part(40, 42)
    assert torch.equal(part.normal(5), whole_draws[0][40:42])


def test_the_first_words_are_splitmix64():
    # State s after one step of gamma, mixed: the published test vector of SplitMix64 for state 0 is 0xE220A8397B1DCDAF.
    noise = Noise(0, 1)
    noise.state = np.zeros(1, dtype=np.uint64)
    assert noise.uniform(dtype=torch.float64).item() == pytest.approx(0xE220A8397B1DCDAF / 2.0 ** 64, abs=2.0 ** -53)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_and_normals_have_their_moments(dtype):
    n, each = 20_000, 25
    u = Noise(3, n).uniform(each, dtype=dtype).double()
    z = Noise(4, n).normal(each, dtype=dtype).double()
    assert u.min() > 0 and u.max() < 1
    count = n * each
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / count)
    assert abs(z.mean()) < 5 / math.sqrt(count) and abs(z.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((z ** 4).mean() - 3) < 5 * math.sqrt(96 / count)
    correlation = torch.corrcoef(torch.cat([z, z.roll(1, 0)], dim=1).T) - torch.eye(2 * each)
    assert correlation.abs().max() < 6 / math.sqrt(n)
    edges = torch.linspace(-3, 3, 13, dtype=torch.float64)
    counts = torch.histc(z.flatten(), 12, -3, 3)
    expected = count * (torch.special.ndtr(edges[1:]) - torch.special.ndtr(edges[:-1]))
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi-squared with 11 degrees: 40 is beyond one in 20,000


@pytest.mark.parametrize("seed", [-1, 1 << 63, 1.5, True, "7"])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(BadConfig) as error:
        check_seed(seed)
    assert error.value.code == "SEED_RANGE" and error.value.status == 64


def test_neither_noise_nor_its_draws_move_the_global_generator():
    reseed(1, 0, 5)
    expected = torch.rand(3)
    reseed(1, 0, 5)
    Noise(9, 10).normal(4)
    assert torch.equal(torch.rand(3), expected)
