"""Small matrices of many components at once: triangular roots and inverses, safe where a covariance is singular."""

import math

import torch
from torch import Tensor

from ...errors import Diverged

__all__ = ["exponential", "inverse", "precision_roots"]


def precision_roots(covariances: Tensor, floor: Tensor | None = None) -> Tensor:
    """R (K, D, D) upper triangular with (R R')^-1 = covariances, no smaller than diag(floor) in any direction.

    In units of the floor, eigenvalues below 1 are raised to 1: that is where the likelihood of a covariance so bounded has
    its maximum, so EM goes on climbing. floor (D,), or by default 1e-14 of each variance. Raises Diverged where a value is
    not finite.
    """
    variances = covariances.diagonal(dim1=1, dim2=2)
    units = (variances * 1e-14 if floor is None else floor.expand_as(variances)).sqrt()
    relative = covariances / (units[:, :, None] * units[:, None, :])
    if not relative.isfinite().all():
        raise Diverged("DIVERGED", "A covariance left the finite positive numbers.",
                       "Set 'prior' above 0, or look for values far outside the rest.")
    L, singular = torch.linalg.cholesky_ex(relative)
    L_inverse = inverse(L)
    # The trace of the inverse bounds every inverse eigenvalue, so most matrices are settled without an eigensystem.
    thin = (singular > 0) | ~(L_inverse.square().sum(dim=(1, 2)) <= 1)
    if thin.any():
        values, vectors = torch.linalg.eigh(relative[thin])
        raised = vectors * values.clamp(min=1)[:, None, :] @ vectors.mT
        L_inverse[thin] = inverse(torch.linalg.cholesky_ex(raised).L)
    return L_inverse.mT / units[:, :, None]


def exponential(x: Tensor) -> Tensor:
    """exp(x), kept within what float64 can square."""
    return x.clamp(-math.log(1e150), math.log(1e150)).exp()


def inverse(L: Tensor) -> Tensor:
    """Inverse of lower triangular matrices."""
    return torch.linalg.solve_triangular(L, torch.eye(L.shape[-1], dtype=L.dtype), upper=False)
