"""Numbers that are not there: exact sums and conditionals from the observed part of a record.

With o the observed and m the missing numbers of a record, component k says (Ghahramani and Jordan, "Supervised learning from
incomplete data via an EM approach", NIPS 1993)

    x_m | x_o, k  ~  N(mu_m + A (x_o - mu_o), C)        A = Sigma_mo Sigma_oo^-1        C = Sigma_mm - A Sigma_om

so the record as component k completes it is linear in what was observed: x = g + G x_o, with G = [1; A] and
g = [0; mu_m - A mu_o]. Therefore the sums of the observed part alone, mapped by (g, G), plus n C, are the expected sums of
the whole: no record is ever filled in one by one.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .matrices import inverse, precision_roots
from .reference import Components

__all__ = ["Conditional", "patterns"]


def patterns(missing: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows (b,) that share each pattern, and the pattern (P,) bool, of a mask (B, P)."""
    if not missing.any():
        yield torch.arange(len(missing)), missing.new_zeros(missing.shape[1])
        return
    kinds, which = torch.unique(missing, dim=0, return_inverse=True)
    rows = which.argsort(stable=True)
    yield from zip(rows.split(which.bincount(minlength=len(kinds)).tolist()), kinds, strict=True)


class Conditional:
    """p(x_m | x_o, k) of Gaussian components, for one pattern `observed` (D,) bool; `marginal` is the mixture over x_o.

    Covariances are those of the components' roots: full (K, D, D), or independent numbers (K, D), whose A is 0.
    """

    def __init__(self, components: Components, observed: Tensor):
        o, m = observed.nonzero()[:, 0], (~observed).nonzero()[:, 0]
        self.o, self.m, self.whole = o, m, components
        roots = components.roots
        self.independent = roots.ndim == 2
        if self.independent:
            self.C = roots[:, m].square().reciprocal()
            roots = roots[:, o]
        else:
            L = inverse(roots.mT)
            Sigma = L @ L.mT
            roots = precision_roots(Sigma[:, o][:, :, o])
            self.A = Sigma[:, m][:, :, o] @ roots @ roots.mT
            self.C = Sigma[:, m][:, :, m] - self.A @ Sigma[:, o][:, :, m]
        self.marginal = replace(components, means=components.means[:, o], roots=roots, shift=components.shift[o])

    def extended(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The expected sums of whole records from those of their observed part."""
        o, m, n = self.o, self.m, sums["count"]
        mu = self.whole.means - self.whole.shift
        K, D = mu.shape
        first, second = mu.new_zeros(K, D), mu.new_zeros(K, D) if self.independent else mu.new_zeros(K, D, D)
        if self.independent:
            first[:, o], second[:, o] = sums["first"], sums["second"]
            first[:, m] = n[:, None] * mu[:, m]
            second[:, m] = n[:, None] * (mu[:, m].square() + self.C)
            return {**sums, "first": first, "second": second}
        G, g = mu.new_zeros(K, D, len(o)), torch.zeros_like(mu)
        G[:, o] = torch.eye(len(o), dtype=mu.dtype)
        G[:, m] = self.A
        g[:, m] = mu[:, m] - (self.A @ mu[:, o, None])[:, :, 0]
        mapped = (G @ sums["first"][:, :, None])[:, :, 0]
        first = n[:, None] * g + mapped
        cross = mapped[:, :, None] * g[:, None, :]
        second = G @ sums["second"] @ G.mT + cross + cross.mT + (n[:, None] * g)[:, :, None] * g[:, None, :]
        second[:, m[:, None], m] += n[:, None, None] * self.C
        return {**sums, "first": first, "second": second}

    def mean(self, x_o: Tensor, k: int) -> Tensor:
        """E[x_m | x_o, k], (B, m) float64, from x_o (B, o)."""
        mu = self.whole.means[k]
        if self.independent:
            return mu[self.m].expand(len(x_o), -1)
        return mu[self.m] + (x_o.double() - mu[self.o]) @ self.A[k].T

    def draw(self, x_o: Tensor, k: int, normals: Tensor) -> Tensor:
        """x_m ~ p(x_m | x_o, k), (B, m) float64, from x_o (B, o) and standard normals (B, D)."""
        epsilon = normals[:, self.m].double()
        if self.independent:
            return self.mean(x_o, k) + epsilon * self.C[k].sqrt()
        L = inverse(precision_roots(self.C[k][None]).mT)[0]
        return self.mean(x_o, k) + epsilon @ L.T
