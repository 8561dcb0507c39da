"""Small matrices of many components at once: triangular roots and inverses, safe where a covariance is singular."""

import math

import torch
from torch import Tensor

from ...errors import Diverged

__all__ = ["exponential", "inverse", "precision_roots"]

RIDGES = tuple(10.0 ** e for e in range(-15, 2))  # of a correlation matrix that is singular, tried in turn


def precision_roots(covariances: Tensor) -> Tensor:
    """R (K, D, D) upper triangular with (R R')^-1 = covariances, found on the correlations so that units do not matter.

    A singular correlation matrix gets the least ridge that makes it regular. Raises Diverged where values are not finite.
    """
    deviations = covariances.diagonal(dim1=1, dim2=2).sqrt()
    correlations = covariances / (deviations[:, :, None] * deviations[:, None, :])
    if not correlations.isfinite().all():
        raise Diverged("DIVERGED", "A covariance left the finite positive numbers.",
                       "Set 'prior' above 0, or look for values far outside the rest.")
    ridges = torch.zeros_like(deviations)
    for ridge in RIDGES:
        L, singular = torch.linalg.cholesky_ex(correlations + ridges.diag_embed())
        if not singular.any():
            break
        ridges[singular > 0] = ridge
    return inverse(L).mT / deviations[:, :, None]


def exponential(x: Tensor) -> Tensor:
    """exp(x), kept within what float64 can square."""
    return x.clamp(-math.log(1e150), math.log(1e150)).exp()


def inverse(L: Tensor) -> Tensor:
    """Inverse of lower triangular matrices."""
    return torch.linalg.solve_triangular(L, torch.eye(L.shape[-1], dtype=L.dtype), upper=False)
