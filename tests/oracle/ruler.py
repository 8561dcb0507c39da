"""The exact denoiser of a Gaussian mixture, to put in place of a network: its density, samples and conditionals are known."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verossim.families.diffusion.denoiser import Standard


@dataclass(frozen=True)
class Ruler:
    """weights (K,), means (K, D), covariances (K, D, D), all float64; component k belongs to class k."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __call__(self, x_r: Tensor, ratio: Tensor, y: Tensor | None = None) -> Tensor:
        """E[x | x_r = x + ratio eps, y]: sum_k p(k | x_r, y) (mu_k + Sigma_k (Sigma_k + r^2 I)^-1 (x_r - mu_k))."""
        values, vectors = torch.linalg.eigh(self.covariances)
        z = torch.einsum("kji,bkj->bki", vectors, x_r[:, None] - self.means)
        noised = values + ratio[:, None, None].double().square()
        log_p = self.weights.log() - (z.square() / noised + noised.log()).sum(dim=2) / 2
        if y is not None:
            other = (torch.arange(len(self.weights)) != y[:, None]) & (y[:, None] >= 0)
            log_p = log_p.masked_fill(other, -math.inf)
        means = self.means + torch.einsum("kij,bkj->bki", vectors, z * values / noised)
        return (log_p.softmax(dim=1)[:, :, None] * means).sum(dim=1).to(x_r)

    def log_density(self, x: Tensor, ratio: float = 0.0) -> Tensor:
        """log p of x (B, D) after noise of a ratio, (B,) in nats."""
        noised = self.covariances + ratio ** 2 * torch.eye(x.shape[1], dtype=torch.float64)
        parts = [torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.double())
                 for mean, covariance in zip(self.means, noised, strict=True)]
        return (self.weights.log() + torch.stack(parts, dim=1)).logsumexp(dim=1)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Records (n, D) float64."""
        g = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, n, replacement=True, generator=g)
        z = torch.randn(n, self.means.shape[1], 1, generator=g, dtype=torch.float64)
        return self.means[which] + (torch.linalg.cholesky(self.covariances)[which] @ z)[:, :, 0]

    def standard(self) -> Standard:
        """What `start` would measure on very many records."""
        centre = self.weights @ self.means
        variances = self.covariances.diagonal(dim1=1, dim2=2) + (self.means - centre).square()
        return Standard(centre, float((self.weights @ variances).mean().sqrt()))


def mixture(D: int, K: int = 3, seed: int = 0) -> Ruler:
    """A mixture of about unit scale with components well apart and stretched."""
    g = torch.Generator().manual_seed(seed)
    A = 0.4 * torch.randn(K, D, D, generator=g, dtype=torch.float64) / math.sqrt(D)
    weights = torch.rand(K, generator=g, dtype=torch.float64) + 0.5
    means = torch.randn(K, D, generator=g, dtype=torch.float64)
    return Ruler(weights / weights.sum(), means, A @ A.mT + 0.03 * torch.eye(D, dtype=torch.float64))
