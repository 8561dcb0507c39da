"""Signs of how an adversarial pair is doing, from a probe of made records, of records learned from and of records held out.

    diversity   mean distance between made records, over that between real ones
    spread      how many of the held-out records are nearest to some made one, over how many are to records learned from
    coverage    share of held-out records with a made one as near as their own 5th neighbour (Naeem et al., arXiv:2002.09797)
    margin      by how much the discriminator tells held-out records from made ones: mean of -log(1 - sigmoid) the wrong way
    overfit     how far held-out records look made: (D(learned) - D(held out)) / (D(learned) - D(made)), arXiv:2006.06676, eq. 1
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distances", "judgements"]

NEIGHBOURS = 5


def distances(made: Tensor, seen: Tensor, unseen: Tensor) -> dict[str, float]:
    """The signs that ask nothing of the discriminator, of points (n, D), (m, D) and (k, D) of unit scale."""
    real, own = torch.cdist(unseen, unseen), torch.cdist(made, made)
    hit, usual = torch.cdist(made, unseen), torch.cdist(seen, unseen)
    k = min(NEIGHBOURS, len(unseen) - 1)
    radius = real.kthvalue(k + 1, dim=1).values
    return {
        "diversity": float(_between(own) / _between(real).clamp(min=1e-12)),
        "spread": _reached(hit) / max(_reached(usual[:len(made)]), 1),
        "coverage": float((hit.amin(dim=0) <= radius).float().mean()),
    }


def judgements(seen: Tensor, unseen: Tensor, made: Tensor) -> dict[str, float]:
    """The signs that the discriminator's values (m,), (k,), (n,) give. Overfit counts as far as it is beyond chance: two
    standard errors are taken off."""
    n = min(len(unseen), len(made))
    apart = seen.mean() - unseen.mean()
    error = (seen.var() / len(seen) + unseen.var() / len(unseen)).sqrt() if len(seen) > 1 and len(unseen) > 1 else math.inf
    whole = (seen.mean() - made.mean()).clamp(min=1e-6)
    return {"margin": float(F.softplus(unseen[:n] - made[:n]).mean()), "overfit": float(((apart - 2 * error) / whole).clamp(0, 1))}


def _between(d: Tensor) -> Tensor:
    """The mean over pairs of different points, of distances (n, n)."""
    return d.sum() / (len(d) * max(len(d) - 1, 1))


def _reached(d: Tensor) -> int:
    """How many columns of distances (n, k) are some row's nearest."""
    return int(d.argmin(dim=1).unique().numel())
