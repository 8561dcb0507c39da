"""Known mixtures are recovered: weights, means, covariances and categories, from complete and from incomplete records."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from verossim.families.gmm import GMM
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous, Discrete

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
MEANS = torch.tensor([[0.0, 0, 0], [4, 0, -4], [-4, 4, 4]], dtype=torch.float64)
N = 12_000


def learned(family: GMM, x: torch.Tensor, y=None, updates: int = 80) -> GMM:
    data = Batch(x, y, torch.ones(len(x), dtype=torch.float64), torch.arange(len(x)))
    family.start(data, Noise(0, len(x)))
    for _ in range(updates):
        family.absorb(family.statistics(data))
    return family


def order(means: torch.Tensor) -> torch.Tensor:
    """The fitted component that each true one is matched with."""
    return torch.from_numpy(linear_sum_assignment(torch.cdist(MEANS, means).numpy())[1])


def covariances(kind: str) -> torch.Tensor:
    """True covariances (3, 3, 3) of one shape."""
    full = torch.tensor([[[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]], [[2, 0, 0], [0, 0.5, -0.4], [0, -0.4, 1]],
                         [[1, 0.2, 0.2], [0.2, 1, 0.2], [0.2, 0.2, 0.5]]], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    return {"full": full, "tied": full[:1].expand(3, -1, -1), "diag": full * eye,
            "spherical": torch.tensor([0.5, 1.0, 2.0]).double()[:, None, None] * eye}[kind]


def truth(kind: str, n: int = N) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    which = torch.multinomial(WEIGHTS, n, replacement=True, generator=g)
    z = torch.randn(n, 3, 1, generator=g, dtype=torch.float64)
    return MEANS[which] + (torch.linalg.cholesky(covariances(kind))[which] @ z)[:, :, 0]


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_are_recovered(kind, dtype):
    config = GMM.Config(components=3, covariance=kind)
    family = learned(GMM(config, Continuous(shape=(3,), axes=("column",))), truth(kind).to(dtype))
    weights, means, found = family.moments()
    match = order(means)
    found = {"tied": lambda c: c.expand(3, -1, -1), "diag": torch.diag_embed,
             "spherical": lambda c: c[:, None, None] * torch.eye(3)}.get(kind, lambda c: c)(found)
    assert (weights[match] - WEIGHTS).abs().max() < 0.02
    assert (means[match] - MEANS).abs().max() < 0.12
    assert (found[match] - covariances(kind)).abs().max() < 0.2


def test_parameters_are_recovered_from_incomplete_records():
    x = truth("full")
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    x[gone] = math.nan
    family = learned(GMM(GMM.Config(components=3, covariance="full"), Continuous(shape=(3,), axes=("column",))), x, updates=60)
    weights, means, found = family.moments()
    match = order(means)
    assert (weights[match] - WEIGHTS).abs().max() < 0.02
    assert (means[match] - MEANS).abs().max() < 0.15
    assert (found[match] - covariances("full")).abs().max() < 0.25


def test_low_rank_covariances_are_recovered():
    g = torch.Generator().manual_seed(0)
    L = torch.randn(2, 20, 2, generator=g, dtype=torch.float64)
    means = 2 * torch.randn(2, 20, generator=g, dtype=torch.float64)
    which = torch.randint(2, (8_000,), generator=g)
    z, e = (torch.randn(8_000, d, generator=g, dtype=torch.float64) for d in (2, 20))
    x = means[which] + (L[which] @ z[:, :, None])[:, :, 0] + 0.5 * e
    space = Continuous(shape=(20,), axes=("column",))
    family = learned(GMM(GMM.Config(components=2, covariance="factors", rank=2), space), x, updates=120)
    swap = (family.means[0] - means[0]).norm() > (family.means[0] - means[1]).norm()
    loadings = family.covariance.loadings.flip(0) if swap else family.covariance.loadings
    error = (loadings @ loadings.mT - L @ L.mT).norm(dim=(1, 2)) / (L @ L.mT).norm(dim=(1, 2))
    assert error.max() < 0.1
    assert (family.covariance.psi - 0.25).abs().max() < 0.06


def test_categories_and_classes_are_recovered():
    g = torch.Generator().manual_seed(0)
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    y = torch.randint(3, (6_000,), generator=g)
    category = torch.multinomial(p[y], 1, generator=g)[:, 0]
    numbers = MEANS[y] + torch.randn(6_000, 3, generator=g, dtype=torch.float64)
    x = torch.cat([numbers, torch.nn.functional.one_hot(category, 3).double()], dim=1)
    known = torch.where(torch.rand(6_000, generator=g) < 0.1, y, -1)
    space = Continuous(shape=(6,), axes=("column",), simplexes=((3, 6),))
    condition = Discrete(shape=(), vocabulary=3, pad=-1)
    family = learned(GMM(GMM.Config(components=1, covariance="full"), space, condition), x, known, updates=40)
    assert (family.means - MEANS).abs().max() < 0.12
    assert (family.logits.exp() - p).abs().max() < 0.04
    assert (family.log_classes.exp() - 1 / 3).abs().max() < 0.03


def test_a_weak_label_space_still_gives_every_class_a_density():
    """A class that no record of the source has is as the data pooled, not an error."""
    x = truth("full", 300)
    space, condition = Continuous(shape=(3,), axes=("column",)), Discrete(shape=(), vocabulary=3, pad=-1)
    family = learned(GMM(GMM.Config(components=2), space, condition), x, torch.arange(300) % 2, updates=10)
    assert family.log_prob(x, torch.full((300,), 2)).log_prob.isfinite().all()
