"""Signs of how an adversarial pair is doing, from a probe of made records, of records learned from and of records held out.

    diversity   mean distance between made records, over that between real ones
    spread      over how many of CELLS parts of the held-out records the made ones are, exp(entropy), over that of learned ones
    coverage    share of held-out records with a made one as near as their own 5th neighbour (Naeem et al., arXiv:2002.09797)
    support     the same of the records learned from, in place of made ones
    margin      what the generator loses, softplus(D(held out) - D(made)): log 2 where the discriminator cannot tell them
    overfit     how far held-out records look made: (D(learned) - D(held out)) / (D(learned) - D(made)), arXiv:2006.06676, eq. 1
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distances", "judgements"]

NEIGHBOURS = 5
CELLS, ROUNDS = 16, 3


def distances(made: Tensor, seen: Tensor, unseen: Tensor) -> dict[str, float]:
    """The signs that ask nothing of the discriminator, of points (n, D), (m, D) and (k, D) of unit scale."""
    real, own = torch.cdist(unseen, unseen), torch.cdist(made, made)
    cells, k = _cells(unseen), min(NEIGHBOURS, len(unseen) - 1)
    radius = real.kthvalue(k + 1, dim=1).values

    def covered(x: Tensor) -> float:
        return float((torch.cdist(x, unseen).amin(dim=0) <= radius).float().mean())
    return {
        "diversity": float(_between(own) / _between(real).clamp(min=1e-12)),
        "spread": _occupied(made, cells) / _occupied(seen, cells),
        "coverage": covered(made),
        "support": covered(seen),
    }


def judgements(seen: Tensor, unseen: Tensor, made: Tensor) -> dict[str, float]:
    """The signs that the discriminator's values (m,), (k,), (n,) give. Overfit counts as far as it is beyond chance: two
    standard errors are taken off; none where those learned from and those made look alike."""
    n = min(len(unseen), len(made))
    apart = seen.mean() - unseen.mean()
    error = (seen.var() / len(seen) + unseen.var() / len(unseen)).sqrt() if len(seen) > 1 and len(unseen) > 1 else math.inf
    whole = seen.mean() - made.mean()
    told = len(seen) > 1 and len(made) > 1 and whole > 2 * (seen.var() / len(seen) + made.var() / len(made)).sqrt()
    overfit = ((apart - 2 * error) / whole.clamp(min=1e-6)).clamp(0, 1) if told else torch.zeros(())
    return {"margin": float(F.softplus(unseen[:n] - made[:n]).mean()), "overfit": float(overfit)}


def _between(d: Tensor) -> Tensor:
    """The mean over pairs of different points, of distances (n, n)."""
    return d.sum() / (len(d) * max(len(d) - 1, 1))


def _cells(x: Tensor) -> Tensor:
    """Middles (K, D) of parts of points (n, D): begun as far apart as they can be, then by Lloyd's rounds."""
    middles = x[(x - x.mean(dim=0)).square().sum(dim=1).argmin()][None]
    while len(middles) < min(CELLS, len(x) // 2):
        middles = torch.cat([middles, x[torch.cdist(x, middles).amin(dim=1).argmax()][None]])
    for _ in range(ROUNDS):
        chosen = F.one_hot(torch.cdist(x, middles).argmin(dim=1), len(middles)).to(x)
        middles = (chosen.T @ x) / chosen.sum(dim=0).clamp(min=1)[:, None]
    return middles


def _occupied(x: Tensor, middles: Tensor) -> float:
    """The number of cells that points are spread over, exp(entropy of their counts)."""
    share = torch.cdist(x, middles).argmin(dim=1).bincount(minlength=len(middles)) / len(x)
    return float(torch.special.entr(share).sum().exp())
