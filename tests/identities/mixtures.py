"""Small mixtures and small data for the tests of mixtures."""

import math

import torch

from verossim.families.gmm import GMM
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous

KINDS = ("full", "tied", "diag", "spherical", "factors")
PLAIN = KINDS[:4]
MIXED = {"widths": (0, 0, 0, 0.1, 0, 0, 0, 0), "simplexes": ((5, 8),)}


def space(D: int, **more) -> Continuous:
    return Continuous(shape=(D,), axes=("column",), **more)


def batch(x, condition=None, units=None) -> Batch:
    units = torch.ones(len(x), dtype=torch.float64) if units is None else units
    return Batch(x, condition, units, torch.arange(len(x)))


def build(D: int, condition=None, spaces=None, **settings) -> GMM:
    return GMM(GMM.Config(**settings), space(D, **(spaces or {})), condition)


def climb(family: GMM, data: Batch, updates: int = 30) -> list[float]:
    """Starts the family and returns the objective before each update."""
    family.start(data, Noise(0, len(data.x)))
    return [family.absorb(family.statistics(data)) for _ in range(updates)]


def blobs(n: int, D: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    """Three stretched groups around 2, 0 and -2."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(3, D, D, generator=g, dtype=torch.float64) / math.sqrt(D)
    which = torch.randint(3, (n,), generator=g)
    z = torch.randn(n, D, generator=g, dtype=torch.float64)
    return ((A[which] @ z[:, :, None])[:, :, 0] + 2.0 * (1 - which[:, None])).to(dtype)


def mixed(n: int, dtype=torch.float64, missing: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Five numbers, the fourth on a grid of step 0.1, and a category of three."""
    g = torch.Generator().manual_seed(seed)
    numbers = blobs(n, 5, seed=seed)
    numbers[:, 3] = (numbers[:, 3] / 0.1).round() * 0.1
    category = torch.randint(3, (n,), generator=g)
    x = torch.cat([numbers, torch.nn.functional.one_hot(category, 3).double()], dim=1)
    gone = torch.rand(n, 6, generator=g) < missing
    x[torch.cat([gone[:, :5], gone[:, 5:].expand(-1, 3)], dim=1)] = math.nan
    return x.to(dtype)


def anywhere(family: GMM, seed: int = 0) -> GMM:
    """The family at parameters drawn at random."""
    g = torch.Generator().manual_seed(seed)
    family.move(0.6 * torch.randn(len(family.coordinates()), generator=g, dtype=torch.float64))
    return family


def density(family: GMM, x: torch.Tensor) -> torch.Tensor:
    return family.log_prob(x).log_prob


def matrices(family: GMM) -> torch.Tensor:
    """Covariances (J, D, D) of any shape."""
    J, D = family.means.shape
    if family.config.covariance == "factors":
        L = family.covariance.loadings
        return L @ L.mT + family.covariance.psi.diag_embed()
    found = family.moments()[2]
    return {"tied": lambda: found.expand(J, D, D), "diag": found.diag_embed,
            "spherical": lambda: found[:, None, None] * torch.eye(D)}.get(family.config.covariance, lambda: found)()
