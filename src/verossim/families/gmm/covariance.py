"""Covariances of Gaussian components held as precision roots R, Sigma^-1 = R R': full, tied, diagonal or spherical.

The M-step is the mode of the posterior under an inverse Wishart prior (Fraley and Raftery, "Bayesian regularization for
normal mixture estimation and model-based clustering", J. Classification 2007), worth `a` records of covariance Lambda:

    Sigma_k = (S_k + a Lambda) / (n_k + a)        S_k = sum_b r_bk (x_b - mu_k)(x_b - mu_k)'
    log prior = -a/2 sum_k [log |Sigma_k| + tr(Lambda Sigma_k^-1)] + constant

with the shape's own average on both sides: over components (tied), of the diagonal, or of its mean (spherical). No variance
can then vanish, and nothing has to be added to a diagonal by guess.
"""

from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor, nn

from . import kernel, reference
from .matrices import exponential, inverse, precision_roots
from .missing import Conditional
from .reference import Components

__all__ = ["Dense", "Prior"]


@dataclass(frozen=True)
class Prior:
    """What is believed before any record: `strength` a records a component, of diagonal covariance `scale` Lambda (D,).

    noise (D,): variance of dequantisation. floor (D,): the least variance, against exact singularity only. jitter (D,): added
    to variances at the end.
    """

    strength: float
    scale: Tensor
    noise: Tensor
    floor: Tensor
    jitter: Tensor


class Dense(nn.Module):
    """Covariances of J components over D numbers of one `kind`, as the buffer `roots`.

    Its shape is (J, D, D) for full, (1, D, D) tied, (J, D) diag, (J, 1) spherical; the last two are inverse deviations.
    """

    roots: Tensor

    def __init__(self, kind: str, J: int, D: int):
        super().__init__()
        self.kind, self.J, self.D = kind, J, D
        shape = {"full": (J, D, D), "tied": (1, D, D), "diag": (J, D), "spherical": (J, 1)}[kind]
        roots = torch.eye(D, dtype=torch.float64).repeat(shape[0], 1, 1) if len(shape) == 3 else torch.ones(shape).double()
        self.register_buffer("roots", roots)

    @property
    def freedom(self) -> int:
        """Free parameters of the covariances."""
        whole = self.D * (self.D + 1) // 2
        return {"full": self.J * whole, "tied": whole, "diag": self.J * self.D, "spherical": self.J}[self.kind]

    def components(self, log_weights: Tensor, means: Tensor, logits: Tensor, shift: Tensor) -> Components:
        """The mixture with these covariances, for the kernels."""
        shape = (self.J, self.D, self.D) if self.roots.ndim == 3 else (self.J, self.D)
        return Components(log_weights, means, self.roots.expand(shape), logits, shift)

    def dequantised(self, components: Components, noise: Tensor) -> Components:
        """The same with E log N(x + u) in the place of log N(x), for u of variances `noise` (D,): a lower constant."""
        P = components.roots.square() if components.roots.ndim == 2 else components.roots.square().sum(dim=2)
        return replace(components, log_weights=components.log_weights - 0.5 * P @ noise)

    def log_joint(self, numbers: Tensor, onehots: Tensor | None, components: Components, precision: str) -> Tensor:
        """log p(x, k), (B, K)."""
        return _kernel(numbers).log_joint(numbers, onehots, components, precision)

    def log_density(self, numbers: Tensor, onehots: Tensor | None, components: Components, precision: str) -> Tensor:
        """log p(x), (B,)."""
        return _kernel(numbers).log_density(numbers, onehots, components, precision)

    def sums(self, numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: Components, noise: Tensor,
             precision: str) -> dict[str, Tensor]:
        """The E-step's sums by name; `second` is that of x + u, u of variances `noise`."""
        sums = dict(vars(_kernel(numbers).sums(numbers, onehots, units, components, precision)))
        added = sums["count"][:, None] * noise
        sums["second"] = sums["second"] + (added if sums["second"].ndim == 2 else added.diag_embed())
        return sums

    def conditional(self, components: Components, observed: Tensor) -> "Conditional":
        """The unknown numbers given the others; observed (D,) bool."""
        return Conditional(components, observed)

    def update(self, sums: dict[str, Tensor], components: Components, prior: Prior) -> Tensor:
        """The M-step from `sums`: sets the covariances and returns the means (J, D). What has no records stays as it is."""
        n, a = sums["count"], prior.strength
        seen = n > 0
        each = torch.where(seen, n, 1.0)
        centre = torch.where(seen[:, None], sums["first"] / each[:, None], components.means - components.shift)
        weighted = centre * n[:, None]
        if self.roots.ndim == 3:
            scatter = sums["second"] - weighted[:, :, None] * centre[:, None, :]
            scale = prior.scale.diag()
        else:
            scatter = (sums["second"] - weighted * centre).clamp(min=0)
            scale = prior.scale
        if self.kind == "tied":
            scatter, n = scatter.sum(dim=0, keepdim=True), n.sum(dim=0, keepdim=True)
        if self.kind == "spherical":
            scatter, scale = scatter.mean(dim=1, keepdim=True), scale.mean(dim=0, keepdim=True)
        known = n + a > 0
        covariances = (scatter + a * scale) / torch.where(known, n + a, 1.0).view(-1, *[1] * (scatter.ndim - 1))
        self.roots[known] = self._rooted(covariances[known], prior.floor, prior.jitter)
        return centre + components.shift

    def _rooted(self, covariances: Tensor, floor: Tensor, jitter: Tensor) -> Tensor:
        if covariances.ndim == 3:
            covariances.diagonal(dim1=1, dim2=2).add_(jitter)
            return precision_roots(covariances, floor)
        if self.kind == "spherical":
            floor, jitter = floor.mean(dim=0, keepdim=True), jitter.mean(dim=0, keepdim=True)
        return (covariances.maximum(floor) + jitter).rsqrt()

    def begin(self, residuals: Tensor, units: Tensor, prior: Prior, draws: Tensor) -> None:
        """Gives every component the covariance of the residuals (B, D) about the nearest centres; `draws` are not used."""
        a = max(prior.strength, 1.0)
        total = units.sum() + a
        believed = a / total * prior.scale + prior.noise
        if self.roots.ndim == 3:
            shared = (residuals * units[:, None] / total).T @ residuals + believed.diag()
            self.roots.copy_(self._rooted(shared[None], prior.floor, prior.jitter))
        else:
            shared = units / total @ residuals.square() + believed
            shared = shared.mean(dim=0, keepdim=True) if self.kind == "spherical" else shared
            self.roots.copy_(self._rooted(shared[None], prior.floor, prior.jitter))

    def place(self, covariances: Tensor) -> None:
        """Sets the covariances: full (J, D, D), tied (1, D, D), diagonal (J, D), spherical (J, 1)."""
        self.roots.copy_(precision_roots(covariances) if covariances.ndim == 3 else covariances.rsqrt())

    def covariances(self) -> Tensor:
        """The covariances in the shape of `roots`."""
        if self.roots.ndim == 2:
            return self.roots.square().reciprocal()
        L = self.deviations()
        return L @ L.mT

    def deviations(self) -> Tensor:
        """L with Sigma = L L', lower triangular, in the shape of `roots`; standard deviations where that is a vector."""
        return inverse(self.roots.mT) if self.roots.ndim == 3 else self.roots.reciprocal()

    @property
    def draws(self) -> int:
        """Standard normals that one sample takes."""
        return self.D

    def transforms(self) -> tuple[Tensor | None, Tensor | None]:
        """What turns standard normals into a sample about its mean: matrices (J, D, D), or factors for each number (J, D)."""
        L = self.deviations()
        return (L.expand(self.J, -1, -1), None) if L.ndim == 3 else (None, L.expand(self.J, self.D))

    def log_prior(self, prior: Prior) -> Tensor:
        """-a/2 sum_k [log |Sigma_k| + tr(Lambda Sigma_k^-1)], up to a constant."""
        if self.roots.ndim == 3:
            log_roots = self.roots.diagonal(dim1=1, dim2=2).log()
            trace = (self.roots.square().sum(dim=2) * prior.scale).sum()
        else:
            log_roots = self.roots.log().expand(-1, self.D)
            trace = (self.roots.square() * prior.scale).sum()
        return prior.strength * (log_roots.sum() - 0.5 * trace)

    def coordinates(self) -> Tensor:
        """Log-Cholesky coordinates: log diagonal and lower triangle of L, or log standard deviations; one vector."""
        L = self.deviations()
        if L.ndim == 2:
            return L.log().reshape(-1)
        return (L.tril(-1) + L.diagonal(dim1=1, dim2=2).log().diag_embed())[:, *_triangle(self.D)].reshape(-1)

    def move(self, coordinates: Tensor) -> None:
        """Sets the covariances from what `coordinates` returned."""
        if self.roots.ndim == 2:
            self.roots.copy_(exponential(-coordinates).view_as(self.roots))
            return
        L = torch.zeros_like(self.roots)
        L[:, *_triangle(self.D)] = coordinates.view(len(L), -1)
        diagonal = L.diagonal(dim1=1, dim2=2)
        diagonal.copy_(exponential(diagonal))
        self.roots.copy_(inverse(L).mT)


def _kernel(numbers: Tensor) -> ModuleType:
    """The fast one, unless there is nothing to multiply."""
    return kernel if numbers.numel() else reference


def _triangle(D: int) -> Tensor:
    return torch.tril_indices(D, D)
