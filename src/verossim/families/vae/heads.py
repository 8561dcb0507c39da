"""What a decoder's numbers say of each entry: log p(x | parameters), draws from it, its middle.

    levels      mixture of M logistics, summed over each level's cell (Salimans et al., "PixelCNN++", arXiv:1701.05517)
    two levels  a coin
    real        N(mu, s^2), with s bounded
    cells       a logistic, summed over the cell
    simplex     a category by softmax
    tokens      a category by softmax

The mass of a cell [a, b] under a logistic is sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^(a - b)): three factors, none of
which cancels, so that its logarithm is finite wherever the parameters are. An entry that is unknown (NaN) says nothing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...seeds import Noise
from ...spaces import Continuous, Discrete, Space

__all__ = ["Coins", "Head", "Levels", "Tokens", "Vector", "head_of", "log_cell"]

LEAST, MOST = -7.0, 2.0  # of the logarithm of a scale, for data of unit scale


def bounded(raw: Tensor) -> Tensor:
    """A log scale: the number itself, bent smoothly so that it stays between LEAST and MOST."""
    return LEAST + F.softplus(raw - LEAST) - F.softplus(raw - MOST)


def log_cell(low: Tensor, high: Tensor) -> Tensor:
    """log (sigma(high) - sigma(low)), low < high."""
    return F.logsigmoid(high) + F.logsigmoid(-low) + (-torch.expm1(low - high)).clamp(min=1e-30).log()


class Head:
    """Parameters (B, outputs, ...) of a distribution over x (B, *event) of a space."""

    outputs: int  # channels that the decoder gives (for vectors and tokens: numbers)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | parameters), (B,) nats: mass where the space has cells, density elsewhere; NaN entries left out."""
        raise NotImplementedError

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """x (B, *event)."""
        raise NotImplementedError

    def middle(self, parameters: Tensor) -> Tensor:
        """The mean, rounded to a value that may occur, or the likeliest category, (B, *event)."""
        raise NotImplementedError


def head_of(space: Space, components: int) -> Head:
    """The head of a space; `components` logistics where it has levels."""
    if isinstance(space, Discrete):
        return Tokens(space)
    if space.levels == 2:
        return Coins(space)
    return Levels(space, components) if space.levels else Vector(space)


class Coins(Head):
    """Entries of two levels, -1/2 and 1/2."""

    def __init__(self, space: Continuous):
        self.outputs = space.shape[0]

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log sigma(+-l) by the sign of x."""
        known = ~x.isnan()
        return torch.where(known, F.logsigmoid(parameters * x.nan_to_num().sign()), 0.0).flatten(1).sum(dim=1)

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """One draw."""
        u = noise.uniform(*parameters.shape[1:]).to(parameters)
        return (u < parameters.sigmoid()).to(parameters) - 0.5

    def middle(self, parameters: Tensor) -> Tensor:
        """The likelier level."""
        return (parameters > 0).to(parameters) - 0.5


class Levels(Head):
    """Entries on a grid of `levels` steps over [-1, 1]: a mixture of discretised logistics each."""

    def __init__(self, space: Continuous, components: int):
        assert space.levels is not None
        self.channels, self.levels, self.components = space.shape[0], space.levels, components
        self.outputs = 3 * components * space.shape[0]

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and log scales, (B, C, M, *axes) each."""
        w, mu, s = parameters.unflatten(1, (self.channels, 3, self.components)).unbind(dim=2)
        spread = torch.linspace(-0.9, 0.9, self.components).to(mu) if self.components > 1 else mu.new_zeros(1)
        return w.log_softmax(dim=2), mu + spread.view(-1, *[1] * (mu.ndim - 3)), bounded(s)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The mass of each level's cell; the first and last cells go on to infinity."""
        log_w, mu, log_s = self._parts(parameters)
        known, x = ~x.isnan(), x.nan_to_num()
        half, inverse = 1 / self.levels, (-log_s).exp()
        away = x.unsqueeze(2) - mu
        low, high = (away - half) * inverse, (away + half) * inverse
        first, last = x.unsqueeze(2) < -1 + 2 * half, x.unsqueeze(2) > 1 - 2 * half
        log_p = torch.where(first, F.logsigmoid(high), torch.where(last, F.logsigmoid(-low), log_cell(low, high)))
        return torch.where(known, (log_w + log_p).logsumexp(dim=2), 0.0).flatten(1).sum(dim=1)

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """A component, then a logistic draw, on the grid."""
        log_w, mu, log_s = self._parts(parameters)
        shape = (self.channels, *parameters.shape[2:])
        u = noise.uniform(2, *shape).to(parameters).clamp(1e-6, 1 - 1e-6)
        k = (log_w.exp().cumsum(dim=2) < u[:, 0].unsqueeze(2)).sum(dim=2, keepdim=True).clamp(max=self.components - 1)
        mu, s = mu.gather(2, k).squeeze(2), log_s.gather(2, k).squeeze(2).exp()
        return self._gridded(mu + s * u[:, 1].logit())

    def middle(self, parameters: Tensor) -> Tensor:
        """The mean of the mixture, on the grid."""
        log_w, mu, _ = self._parts(parameters)
        return self._gridded((log_w.exp() * mu.clamp(-1, 1)).sum(dim=2))

    def _gridded(self, x: Tensor) -> Tensor:
        level = ((x + 1) * (self.levels / 2) - 0.5).round().clamp(0, self.levels - 1)
        return (level + 0.5) * (2 / self.levels) - 1


class Vector(Head):
    """Entries of a vector: real numbers, numbers with cells, one-hot blocks. Arrays of real numbers are vectors of channels."""

    def __init__(self, space: Continuous):
        cells = space.cells().view(space.shape)
        blocks = torch.zeros(space.shape[0], dtype=torch.bool)
        for first, last in space.simplexes:
            blocks[first:last] = True
        self.blocks, self.outputs = space.simplexes, 2 * space.shape[0]
        self.cells = torch.where(blocks.view(-1, *[1] * (cells.ndim - 1)), 0.0, cells).float()
        self.number = ~blocks

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Density of real entries, mass of cells and categories."""
        mu, raw = parameters.chunk(2, dim=1)
        log_s, known = bounded(raw), ~x.isnan()
        filled = x.nan_to_num()
        away, cells = (filled - mu) * (-log_s).exp(), self.cells.to(mu)
        log_p = -0.5 * away.square() - log_s - 0.5 * math.log(2 * math.pi)
        if self.cells.any():
            half = cells / 2 * (-log_s).exp()
            mass = log_cell(away - half, away + half.clamp(min=1e-9))
            log_p = torch.where(cells > 0, mass, log_p)
        number = self.number.to(x.device).view(-1, *[1] * (x.ndim - 2))
        total = torch.where(known & number, log_p, 0.0).flatten(1).sum(dim=1)
        for first, last in self.blocks:
            chosen = (mu[:, first:last].log_softmax(dim=1) * filled[:, first:last]).sum(dim=1)
            total = total + torch.where(known[:, first], chosen, 0.0)
        return total

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """Normal and logistic draws, the latter on no grid yet, and one-hot categories."""
        mu, raw = parameters.chunk(2, dim=1)
        z, u = noise.normal(*mu.shape[1:]).to(mu), noise.uniform(*mu.shape[1:]).to(mu).clamp(1e-6, 1 - 1e-6)
        x = mu + bounded(raw).exp() * torch.where(self.cells.to(mu) > 0, u.logit(), z)
        for first, last in self.blocks:
            edges = mu[:, first:last].softmax(dim=1).cumsum(dim=1)
            k = (edges < u[:, first, None]).sum(dim=1).clamp(max=last - first - 1)
            x[:, first:last] = F.one_hot(k, last - first).to(x)
        return x

    def middle(self, parameters: Tensor) -> Tensor:
        """Means, and the likeliest categories."""
        x = parameters.chunk(2, dim=1)[0].clone()
        for first, last in self.blocks:
            x[:, first:last] = F.one_hot(x[:, first:last].argmax(dim=1), last - first).to(x)
        return x


class Tokens(Head):
    """A category for each place; padding says nothing."""

    def __init__(self, space: Discrete):
        self.space = space
        self.outputs = space.dims * space.vocabulary

    def _logits(self, parameters: Tensor) -> Tensor:
        return parameters.view(len(parameters), *self.space.shape, self.space.vocabulary)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Mass of the tokens that are not padding."""
        there = torch.ones_like(x, dtype=torch.bool) if self.space.pad is None else x != self.space.pad
        log_p = self._logits(parameters).log_softmax(dim=-1).gather(-1, torch.where(there, x, 0).unsqueeze(-1)).squeeze(-1)
        return torch.where(there, log_p, 0.0).reshape(len(x), -1).sum(dim=1)

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """One draw a place."""
        u = noise.uniform(*self.space.shape).to(parameters)
        edges = self._logits(parameters).softmax(dim=-1).cumsum(dim=-1)
        return (edges < u.unsqueeze(-1)).sum(dim=-1).clamp(max=self.space.vocabulary - 1)

    def middle(self, parameters: Tensor) -> Tensor:
        """The likeliest token."""
        return self._logits(parameters).argmax(dim=-1)
