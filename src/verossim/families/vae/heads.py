"""What a decoder's numbers say of each entry: log p(x | parameters), draws from it, its mean.

    levels      mixture of M logistics, summed over each level's cell (Salimans et al., "PixelCNN++", arXiv:1701.05517)
    two levels  a coin
    real        N(mu, s^2), with s bounded
    cells       a logistic, summed over the cell
    simplex     a category by softmax
    tokens      a category by softmax

The mass of a cell of half width h around m under a logistic of unit scale is sigma(m + h) sigma(h - m) (1 - e^(-2h)): three
factors, none of which is a difference of near numbers, so that its logarithm is finite wherever the parameters are. An entry
that is unknown (NaN) says nothing.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...seeds import Noise
from ...spaces import Continuous, Discrete, Space

__all__ = ["Coins", "Head", "Levels", "Tokens", "Vector", "bounded", "head_of"]

LEAST, MOST = -7.0, 2.0  # of the logarithm of a scale, for data of unit scale
FAR = 1e12  # scales from the mean, beyond which a record is no farther: squares stay finite
EDGE = 1e-6  # draws of logistics stop short of its ends by this probability


def bounded(raw: Tensor) -> Tensor:
    """A log scale: the number itself about the middle of [LEAST, MOST], bent smoothly so that it stays within."""
    middle, reach = (LEAST + MOST) / 2, (MOST - LEAST) / 2
    return middle + reach * torch.tanh((raw - middle) / reach)


def log_opening(half: Tensor) -> Tensor:
    """log (1 - e^(-2h)) of a cell's half width; for a cell of none at all a number that is only finite."""
    return (-torch.expm1(-2 * half)).clamp(min=1e-30).log()


class Head(nn.Module, ABC):
    """Parameters (B, outputs, *axes) of a distribution over x (B, *event) of a space; (B, outputs) for vectors and tokens."""

    outputs: int

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | parameters), (B,) nats: mass where the space has cells, density elsewhere; NaN entries left out."""

    @abstractmethod
    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """One draw, (B, *event)."""

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """Expected numbers, and probabilities of categories; means of several parameters may be averaged."""

    @abstractmethod
    def value(self, mean: Tensor) -> Tensor:
        """x (B, *event) that is nearest to a mean: a level that exists, the likeliest category."""


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
        super().__init__()
        self.outputs = space.shape[0]

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log sigma(+-l) by the sign of x; where x is unknown that would be log 1/2, which is taken back."""
        unknown = x.isnan().flatten(1).sum(dim=1)
        return F.logsigmoid(parameters * (2 * x).nan_to_num()).flatten(1).sum(dim=1) + math.log(2) * unknown

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """Heads where u is below the probability."""
        u = noise.uniform(*parameters.shape[1:]).to(parameters)
        return (u < parameters.sigmoid()).to(parameters) - 0.5

    def mean(self, parameters: Tensor) -> Tensor:
        """p - 1/2."""
        return parameters.sigmoid() - 0.5

    def value(self, mean: Tensor) -> Tensor:
        """The likelier level."""
        return (mean > 0).to(mean) - 0.5


class Levels(Head):
    """Entries on a grid of `levels` steps over [-1, 1]: a mixture of discretised logistics each."""

    spread: Tensor

    def __init__(self, space: Continuous, components: int):
        super().__init__()
        assert space.levels is not None
        self.channels, self.levels, self.components = space.shape[0], space.levels, components
        self.outputs = 3 * components * space.shape[0]
        # The means lie apart from the start: logistics that begin equal would stay equal.
        spread = torch.linspace(-0.9, 0.9, components) if components > 1 else torch.zeros(1)
        self.register_buffer("spread", spread.view(-1, *[1] * (len(space.shape) - 1)), persistent=False)

    def _logistics(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and log scales, (B, C, M, *axes) each."""
        w, mu, s = parameters.unflatten(1, (self.channels, 3, self.components)).unbind(dim=2)
        return w.log_softmax(dim=2), mu + self.spread, bounded(s)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The mass of each level's cell; the first and last cells go on to infinity."""
        log_w, mu, log_s = self._logistics(parameters)
        known, x = ~x.isnan(), x.nan_to_num().unsqueeze(2)
        width = 2 / self.levels
        inverse = (-log_s).exp()
        m, h = (x - mu) * inverse, width / 2 * inverse
        below, above = F.logsigmoid(m + h), F.logsigmoid(h - m)  # of the cell's upper end, and above its lower end
        log_p = torch.where(x < -1 + width, below, torch.where(x > 1 - width, above, below + above + log_opening(h)))
        return torch.where(known, (log_w + log_p).logsumexp(dim=2), 0.0).flatten(1).sum(dim=1)

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """A component, then a logistic draw, on the grid."""
        log_w, mu, log_s = self._logistics(parameters)
        u, v = noise.uniform(2, self.channels, *parameters.shape[2:]).to(parameters).clamp(EDGE, 1 - EDGE).unbind(dim=1)
        k = (log_w.exp().cumsum(dim=2) < u.unsqueeze(2)).sum(dim=2, keepdim=True).clamp(max=self.components - 1)
        mu, s = mu.gather(2, k).squeeze(2), log_s.gather(2, k).squeeze(2).exp()
        return self.value(mu + s * v.logit())

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of the mixture; that of a logistic outside [-1, 1] is taken for the end of it."""
        log_w, mu, _ = self._logistics(parameters)
        return (log_w.exp() * mu.clamp(-1, 1)).sum(dim=2)

    def value(self, mean: Tensor) -> Tensor:
        """The nearest level."""
        level = ((mean + 1) * (self.levels / 2) - 0.5).round().clamp(0, self.levels - 1)
        return (level + 0.5) * (2 / self.levels) - 1


class Vector(Head):
    """Entries of a vector: real numbers, numbers with cells, one-hot blocks. Arrays of real numbers are vectors of channels.

    Numbers with cells are drawn off their grid: where the grid lies is not known here.
    """

    cells: Tensor
    number: Tensor

    def __init__(self, space: Continuous):
        super().__init__()
        cells, number = space.cells().view(space.shape).float(), torch.ones(space.shape, dtype=torch.bool)
        for first, last in space.simplexes:
            number[first:last] = False
        self.blocks, self.outputs = space.simplexes, 2 * space.shape[0]
        self.celled = bool((cells[number] > 0).any())
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("number", number, persistent=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Density of real entries, mass of cells and categories."""
        mu, raw = parameters.chunk(2, dim=1)
        log_s, known, filled = bounded(raw), ~x.isnan(), x.nan_to_num()
        inverse = (-log_s).exp()
        m = ((filled - mu) * inverse).clamp(-FAR, FAR)
        log_p = -0.5 * m.square() - log_s - 0.5 * math.log(2 * math.pi)
        if self.celled:
            h = self.cells / 2 * inverse
            mass = F.logsigmoid(m + h) + F.logsigmoid(h - m) + log_opening(h)
            log_p = torch.where(self.cells > 0, mass, log_p)
        total = torch.where(known & self.number, log_p, 0.0).flatten(1).sum(dim=1)
        for first, last in self.blocks:
            chosen = (mu[:, first:last].log_softmax(dim=1) * filled[:, first:last]).sum(dim=1)
            total = total + torch.where(known[:, first:last].all(dim=1), chosen, 0.0)
        return total

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """Normal draws, logistic ones of numbers with cells, and one-hot categories."""
        mu, raw = parameters.chunk(2, dim=1)
        z, u = noise.normal(*mu.shape[1:]).to(mu), noise.uniform(*mu.shape[1:]).to(mu).clamp(EDGE, 1 - EDGE)
        x = mu + bounded(raw).exp() * torch.where(self.cells > 0, u.logit(), z)
        for first, last in self.blocks:
            edges = mu[:, first:last].softmax(dim=1).cumsum(dim=1)
            k = (edges < u[:, first, None]).sum(dim=1).clamp(max=last - first - 1)
            x[:, first:last] = F.one_hot(k, last - first).to(x)
        return x

    def mean(self, parameters: Tensor) -> Tensor:
        """Means, and probabilities of categories."""
        x = parameters.chunk(2, dim=1)[0].clone()
        for first, last in self.blocks:
            x[:, first:last] = x[:, first:last].softmax(dim=1)
        return x

    def value(self, mean: Tensor) -> Tensor:
        """Numbers as they are, the likeliest categories."""
        x = mean.clone()
        for first, last in self.blocks:
            x[:, first:last] = F.one_hot(x[:, first:last].argmax(dim=1), last - first).to(x)
        return x


class Tokens(Head):
    """A category for each place; padding says nothing."""

    def __init__(self, space: Discrete):
        super().__init__()
        self.shape, self.dims, self.vocabulary, self.pad = space.shape, space.dims, space.vocabulary, space.pad
        self.outputs = space.dims * space.vocabulary

    def _logits(self, parameters: Tensor) -> Tensor:
        """(B, *event, V)."""
        return parameters.view(len(parameters), *self.shape, self.vocabulary)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Mass of the tokens that are not padding."""
        there = torch.ones_like(x, dtype=torch.bool) if self.pad is None else x != self.pad
        log_p = self._logits(parameters).log_softmax(dim=-1).gather(-1, torch.where(there, x, 0).unsqueeze(-1)).squeeze(-1)
        return torch.where(there, log_p, 0.0).reshape(len(x), self.dims).sum(dim=1)

    def sample(self, parameters: Tensor, noise: Noise) -> Tensor:
        """One draw a place."""
        u = noise.uniform(*self.shape).to(parameters)
        edges = self._logits(parameters).softmax(dim=-1).cumsum(dim=-1)
        return (edges < u.unsqueeze(-1)).sum(dim=-1).clamp(max=self.vocabulary - 1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Probabilities (B, *event, V)."""
        return self._logits(parameters).softmax(dim=-1)

    def value(self, mean: Tensor) -> Tensor:
        """The likeliest token."""
        return mean.argmax(dim=-1)
