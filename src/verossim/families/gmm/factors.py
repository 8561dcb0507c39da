"""Mixtures of factor analysers: covariances of low rank plus a diagonal, for records of many numbers.

    x = mu_k + L_k z + e,  z ~ N(0, 1) of q factors,  e ~ N(0, psi_k)          Sigma_k = L_k L_k' + diag(psi_k)

The E-step never forms Sigma (Woodbury), with G = 1 + L' psi^-1 L = C C':

    log |Sigma| = sum_d log psi_d + log |G|        (x - mu)' Sigma^-1 (x - mu) = sum_d (x - mu)_d^2 / psi_d - |w|^2
    w = C^-1 L' psi^-1 (x - mu)                    z | x, k ~ N(C^-T w, V),  V = G^-1

The M-step (Rubin and Thayer, "EM algorithms for ML factor analysis", Psychometrika 1982; Ghahramani and Hinton, "The EM
algorithm for mixtures of factor analyzers", 1996) needs x only through sums of r, r x, r x^2, r z, r x z', r z z', so it
streams. The inverse Wishart prior of `covariance` is `a` more records of covariance Lambda about each mean, whose expected
z and z z' have the same closed form; the means are then the plain averages, each an exact maximum given the rest.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...errors import Diverged
from .covariance import Prior
from .matrices import exponential, inverse

__all__ = ["Factors"]

CHUNK = 1 << 20  # numbers worked on at a time, in float64: 8 MiB
NOTHING = 2.0 ** -53  # a responsibility below this adds less than a rounding to any sum


@dataclass(frozen=True)
class FactorComponents:
    """K components over D numbers, with loadings L (K, D, q) and psi (K, D); the rest as in `Components`."""

    log_weights: Tensor
    means: Tensor
    loadings: Tensor
    psi: Tensor
    logits: Tensor
    shift: Tensor

    def part(self, which: slice) -> "FactorComponents":
        """Some of the components, in order."""
        return FactorComponents(self.log_weights[which], self.means[which], self.loadings[which], self.psi[which],
                                self.logits[which], self.shift)

    def over(self, which: Tensor) -> "FactorComponents":
        """The marginal over some of the numbers."""
        return replace(self, means=self.means[:, which], loadings=self.loadings[:, which], psi=self.psi[:, which],
                       shift=self.shift[which])


@dataclass(frozen=True)
class Woodbury:
    """C (K, q, q) inverted, W = psi^-1 L C^-T (K, D, q), so that w = W' (x - mu), Sigma^-1 = psi^-1 - W W'."""

    C_inverse: Tensor
    W: Tensor
    log_determinants: Tensor

    @classmethod
    def of(cls, components: FactorComponents) -> "Woodbury":
        """From the components; log_determinants (K,) of Sigma."""
        scaled = components.loadings / components.psi[:, :, None]
        G = components.loadings.mT @ scaled + torch.eye(components.loadings.shape[2], dtype=scaled.dtype)
        C = torch.linalg.cholesky_ex(G).L
        log_determinants = components.psi.log().sum(dim=1) + 2 * C.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        C_inverse = inverse(C)
        return cls(C_inverse, scaled @ C_inverse.mT, log_determinants)

    @property
    def V(self) -> Tensor:
        """Covariance of z given x, (K, q, q)."""
        return self.C_inverse.mT @ self.C_inverse

    @property
    def beta(self) -> Tensor:
        """E[z | x] = beta (x - mu), (K, q, D)."""
        return self.C_inverse.mT @ self.W.mT

    def precisions(self, components: FactorComponents) -> Tensor:
        """The diagonal of Sigma^-1, (K, D)."""
        return 1 / components.psi - self.W.square().sum(dim=2)


class Factors(nn.Module):
    """Covariances of J components over D numbers by q factors: the buffers `loadings` (J, D, q) and `psi` (J, D)."""

    loadings: Tensor
    psi: Tensor

    def __init__(self, rank: int, J: int, D: int):
        super().__init__()
        self.J, self.D, self.q = J, D, min(rank, max(D - 1, 1))
        self.register_buffer("loadings", torch.zeros(J, D, self.q, dtype=torch.float64))
        self.register_buffer("psi", torch.ones(J, D, dtype=torch.float64))

    @property
    def freedom(self) -> int:
        """Free parameters of the covariances: loadings less their rotations, and psi; no more than matrices have."""
        return self.J * min(self.D * self.q + self.D - self.q * (self.q - 1) // 2, self.D * (self.D + 1) // 2)

    def components(self, log_weights: Tensor, means: Tensor, logits: Tensor, shift: Tensor) -> FactorComponents:
        """The mixture with these covariances."""
        return FactorComponents(log_weights, means, self.loadings, self.psi, logits, shift)

    def dequantised(self, components: FactorComponents, noise: Tensor) -> FactorComponents:
        """The same with E log N(x + u) in the place of log N(x), for u of variances `noise` (D,): a lower constant."""
        correction = 0.5 * Woodbury.of(components).precisions(components) @ noise
        return replace(components, log_weights=components.log_weights - correction)

    def log_joint(self, numbers: Tensor, onehots: Tensor | None, components: FactorComponents, precision: str) -> Tensor:
        """log p(x, k), (B, K) float64."""
        form = _Form(components)
        pieces = [form.log_joint(x, s)[0] for x, s, _ in _chunks(numbers, onehots, None, components)]
        return torch.cat(pieces) if pieces else numbers.new_zeros(0, len(components.means), dtype=torch.float64)

    def log_density(self, numbers: Tensor, onehots: Tensor | None, components: FactorComponents, precision: str) -> Tensor:
        """log p(x), (B,) float64."""
        form = _Form(components)
        pieces = [form.log_joint(x, s)[0].logsumexp(dim=1) for x, s, _ in _chunks(numbers, onehots, None, components)]
        return torch.cat(pieces) if pieces else numbers.new_zeros(0, dtype=torch.float64)

    def sums(self, numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: FactorComponents, noise: Tensor,
             precision: str) -> dict[str, Tensor]:
        """The E-step's sums by name, those of x + u with u of variances `noise` (D,)."""
        form = _Form(components)
        K, D, q = components.loadings.shape
        shapes = {"count": (K,), "first": (K, D), "second": (K, D), "latent": (K, q), "cross": (K, D, q),
                  "latents": (K, q, q), "categories": tuple(components.logits.shape), "log_likelihood": ()}
        sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        for x, s, u in _chunks(numbers, onehots, units, components):
            log_p, w = form.log_joint(x, s)
            log_likelihood = log_p.logsumexp(dim=1)
            r = (log_p - log_likelihood[:, None]).exp_()
            r.mul_(r > NOTHING).mul_(u[:, None])
            sums["log_likelihood"] += log_likelihood @ u
            sums["count"] += r.sum(dim=0)
            sums["first"] += r.T @ x
            sums["second"] += r.T @ x.square()
            if s is not None:
                sums["categories"] += r.T @ s
            for k, r_k in enumerate(r.T):
                rows = r_k.nonzero()[:, 0]
                z = w[rows, k] @ form.woodbury.C_inverse[k]
                rz = r_k[rows, None] * z
                sums["latent"][k] += rz.sum(dim=0)
                sums["cross"][k] += x[rows].T @ rz
                sums["latents"][k] += z.T @ rz
        n, beta = sums["count"], form.woodbury.beta
        scattered = noise[:, None] * beta.mT
        sums["second"] += n[:, None] * noise
        sums["cross"] += n[:, None, None] * scattered
        sums["latents"] += n[:, None, None] * (form.woodbury.V + beta @ scattered)
        return sums

    def conditional(self, components: FactorComponents, observed: Tensor) -> "FactorConditional":
        """The unknown numbers given the others; observed (D,) bool."""
        return FactorConditional(components, observed)

    def update(self, sums: dict[str, Tensor], components: FactorComponents, prior: Prior) -> Tensor:
        """The M-step from `sums`: sets loadings and psi, returns the means (J, D). What has no records stays as it is."""
        n, a = sums["count"], prior.strength
        seen = n > 0
        each = torch.where(seen, n, 1.0)
        form = Woodbury.of(components)
        centre = torch.where(seen[:, None], sums["first"] / each[:, None], components.means - components.shift)
        latent = sums["latent"] / each[:, None]
        believed = prior.scale[:, None] * form.beta.mT
        xz = sums["cross"] - n[:, None, None] * centre[:, :, None] * latent[:, None, :] + a * believed
        zz = sums["latents"] - n[:, None, None] * latent[:, :, None] * latent[:, None, :] + a * (form.V + form.beta @ believed)
        xx = sums["second"] - n[:, None] * centre.square() + a * prior.scale
        known = seen if a == 0 else torch.ones_like(seen)
        L = torch.linalg.solve_ex(zz[known], xz[known], left=False).result
        psi = (xx[known] - (L * xz[known]).sum(dim=2)) / (n[known] + a)[:, None]
        if not psi.isfinite().all():
            raise Diverged("DIVERGED", "A covariance left the finite positive numbers.",
                           "Set 'prior' above 0, or look for values far outside the rest.")
        self.loadings[known] = L
        self.psi[known] = psi.maximum(prior.floor) + prior.jitter
        return centre + components.shift

    def begin(self, residuals: Tensor, units: Tensor, prior: Prior, draws: Tensor) -> None:
        """Gives every component the leading directions of the residuals (B, D), each number in units of its own deviation,
        by subspace iteration from `draws` (D, q); what they leave over is psi."""
        a = max(prior.strength, 1.0)
        weights = units / (units.sum() + a)
        believed = a / (units.sum() + a) * prior.scale + prior.noise
        variances = (weights @ residuals.square() + believed).maximum(prior.floor)
        y = residuals * weights.sqrt()[:, None] / variances.sqrt()
        basis = torch.linalg.qr(draws)[0]
        for _ in range(8):
            basis = torch.linalg.qr(y.T @ (y @ basis))[0]
        directions, values, _ = torch.linalg.svd(basis.T @ y.T, full_matrices=False)
        rest = (self.D - values.square().sum()).clamp(min=0) / max(self.D - self.q, 1)
        directions = basis @ directions * (values.square() - rest).clamp(min=0).sqrt()
        L = directions * variances.sqrt()[:, None]
        psi = variances * (1 - directions.square().sum(dim=1)).clamp(min=0.05)
        self.loadings.copy_(L.expand_as(self.loadings))
        self.psi.copy_((psi + prior.jitter).expand_as(self.psi))

    @property
    def draws(self) -> int:
        """Standard normals that one sample takes: a number's own first, then the factors."""
        return self.D + self.q

    def transforms(self) -> tuple[Tensor, Tensor]:
        """What turns standard normals into a sample about its mean: loadings (J, D, q), and sqrt(psi) (J, D)."""
        return self.loadings, self.psi.sqrt()

    def log_prior(self, prior: Prior) -> Tensor:
        """-a/2 sum_k [log |Sigma_k| + tr(Lambda Sigma_k^-1)], up to a constant."""
        components = self.components(*[self.psi.new_zeros(0)] * 4)
        form = Woodbury.of(components)
        return -0.5 * prior.strength * (form.log_determinants.sum() + (form.precisions(components) @ prior.scale).sum())

    def coordinates(self) -> Tensor:
        """Loadings and log psi, one vector."""
        return torch.cat([self.loadings.reshape(-1), self.psi.log().reshape(-1)])

    def move(self, coordinates: Tensor) -> None:
        """Sets loadings and psi from what `coordinates` returned."""
        loadings, log_psi = coordinates.split([self.loadings.numel(), self.psi.numel()])
        self.loadings.copy_(loadings.view_as(self.loadings))
        self.psi.copy_(exponential(log_psi).view_as(self.psi))


class _Form:
    """The log joint as three matrix products over all components at once, in float64; x is shifted already."""

    def __init__(self, components: FactorComponents):
        K, D, q = components.loadings.shape
        self.components, self.woodbury = components, Woodbury.of(components)
        mu = components.means - components.shift
        self.squares = (-0.5 / components.psi).T
        self.linear = (mu / components.psi).T
        self.W = self.woodbury.W.permute(1, 0, 2).reshape(D, K * q)
        self.offset = torch.einsum("kd,kdq->kq", mu, self.woodbury.W)
        self.constant = components.log_weights - 0.5 * (D * math.log(2 * math.pi) + self.woodbury.log_determinants
                                                        + (mu.square() / components.psi).sum(dim=1))

    def log_joint(self, x: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p(x, k) (B, K), and w (B, K, q)."""
        w = (x @ self.W).view(len(x), *self.offset.shape) - self.offset
        log_p = self.constant + x.square() @ self.squares + x @ self.linear + 0.5 * w.square().sum(dim=2)
        return (log_p if s is None else log_p + s @ self.components.logits.T), w


class FactorConditional:
    """p(x_m | x_o, k) for one pattern `observed` (D,) bool: the factors given x_o, then x_m given the factors."""

    def __init__(self, components: FactorComponents, observed: Tensor):
        self.o, self.m, self.whole = observed.nonzero()[:, 0], (~observed).nonzero()[:, 0], components
        self.marginal = components.over(self.o)
        self.unknown = components.over(self.m)
        self.woodbury = Woodbury.of(self.marginal)

    def extended(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The expected sums of whole records from those of their observed part: x_m = mu_m + L_m z + e is linear in z."""
        n, latent, latents = sums["count"], sums["latent"], sums["latents"]
        mu, L = self.unknown.means - self.unknown.shift, self.unknown.loadings
        moved = (L @ latent[:, :, None])[:, :, 0]
        stretched = L @ latents
        first = n[:, None] * mu + moved
        cross = mu[:, :, None] * latent[:, None, :] + stretched
        second = n[:, None] * (mu.square() + self.unknown.psi) + 2 * mu * moved + (stretched * L).sum(dim=2)
        return {**sums, "first": self._merged(sums["first"], first), "second": self._merged(sums["second"], second),
                "cross": self._merged(sums["cross"], cross)}

    def mean(self, x_o: Tensor, k: int) -> Tensor:
        """E[x_m | x_o, k], (B, m) float64, from x_o (B, o)."""
        return self.unknown.means[k] + self._factors(x_o, k) @ self.unknown.loadings[k].T

    def draw(self, x_o: Tensor, k: int, normals: Tensor) -> Tensor:
        """x_m ~ p(x_m | x_o, k), (B, m) float64, from x_o (B, o) and standard normals (B, D + q)."""
        q = self.unknown.loadings.shape[2]
        z = self._factors(x_o, k) + normals[:, -q:].double() @ self.woodbury.C_inverse[k]
        return self.unknown.means[k] + z @ self.unknown.loadings[k].T + normals[:, self.m].double() * self.unknown.psi[k].sqrt()

    def _factors(self, x_o: Tensor, k: int) -> Tensor:
        return (x_o.double() - self.marginal.means[k]) @ self.woodbury.beta[k].T

    def _merged(self, known: Tensor, unknown: Tensor) -> Tensor:
        merged = known.new_empty(len(known), len(self.o) + len(self.m), *known.shape[2:])
        merged[:, self.o], merged[:, self.m] = known, unknown
        return merged


def _chunks(numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: FactorComponents):
    """Pieces of the batch in float64: x - shift (b, D), one-hot entries (b, S) or None, units (b,)."""
    width = max(components.means.shape[1], components.loadings.shape[0] * components.loadings.shape[2], 1)
    rows = max(CHUNK // width, 64)
    for first in range(0, len(numbers), rows):
        which = slice(first, first + rows)
        x = numbers[which].double() - components.shift
        yield (x, None if onehots is None else onehots[which].double(),
               x.new_ones(len(x)) if units is None else units[which].double())
