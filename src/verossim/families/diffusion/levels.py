"""How much noise to look at: densities over the logarithm of the noise ratio r, and draws from them.

    even       the fourth root of the angle phi = arctan(r / s): between even in ln r, for structure of the data of size l
               is met at r = l, whichever it is, and even in phi, for most of what happens happens about r = s, phi = 1;
               for likelihoods, which need all levels
    levels     q(ln r) = (1 - SHARE) p(ln r) + SHARE even(ln r); for learning

p is normal for the schedules "ve" (Karras et al., arXiv:2206.00364: about half the spread of the data) and "flow" (t is
logit-normal, Esser et al., arXiv:2403.03206, which is the same thing: ln r = logit t), and even in t for the others. A loss
that weighs all levels by q and network outputs of unit variance makes good samples; the likelihood weighs them otherwise and
is told from the same evaluations by the weight 1 / q. The even share bounds that weight.
"""

import functools
import math

import torch
from torch import Tensor

from .schedule import Schedule

__all__ = ["Even", "Levels", "levels_of"]

SHARE = 0.1  # of the draws that are even
NORMAL = {"ve": (-0.5, 1.2), "flow": (0.0, 1.0)}  # mean of ln(r / spread), and deviation


class Even:
    """phi^(1/4) even between the ends of a schedule, phi = arctan(r / spread); all in float64."""

    def __init__(self, schedule: Schedule, spread: float):
        self.spread = spread
        self.first, self.last = (math.atan(ratio / spread) ** (1 / 4) for ratio in (schedule.low, schedule.high))

    def angle(self, u: Tensor) -> Tensor:
        """Angles phi, of u's shape: u = 0 at the low end, 1 at the high one."""
        return (self.first + (self.last - self.first) * u) ** 4

    def ratio(self, u: Tensor) -> Tensor:
        """Noise ratios of uniform draws u, of u's shape."""
        return self.spread * self.angle(u).tan()

    def density(self, ratio: Tensor) -> Tensor:
        """With respect to ln r, of ratio's shape: d phi^(1/4) / d ln r over the length of the range."""
        angle = (ratio / self.spread).atan()
        return angle ** (-3 / 4) / 4 * angle.sin() * angle.cos() / (self.last - self.first)


class Levels:
    """q for one schedule, by name, and data of one spread; all in float64."""

    def __init__(self, name: str, schedule: Schedule, spread: float):
        self.schedule, self.even = schedule, Even(schedule, spread)
        self.normal = NORMAL.get(name)
        if self.normal is not None:
            ends = torch.tensor([schedule.low, schedule.high], dtype=torch.float64).log()
            self.mean, self.deviation = self.normal[0] + math.log(spread), self.normal[1]
            self.ends = ends.tolist()
            self.tails = torch.special.ndtr((ends - self.mean) / self.deviation).tolist()

    def ratio(self, u: Tensor) -> Tensor:
        """Noise ratios of uniform draws u, of u's shape."""
        rest = ((u - SHARE) / (1 - SHARE)).clamp(min=1e-12)
        return torch.where(u < SHARE, self.even.ratio((u / SHARE).clamp(max=1)), self._own_ratio(rest))

    def density(self, ratio: Tensor) -> Tensor:
        """q with respect to ln r, of ratio's shape."""
        return (1 - SHARE) * self._own_density(ratio) + SHARE * self.even.density(ratio)

    def _own_ratio(self, u: Tensor) -> Tensor:
        if self.normal is None:
            return self.schedule.at(u).ratio
        z = torch.special.ndtri(self.tails[0] + (self.tails[1] - self.tails[0]) * u)
        return (self.mean + self.deviation * z).clamp(*self.ends).exp()

    def _own_density(self, ratio: Tensor) -> Tensor:
        if self.normal is None:
            return -2 / self.schedule.at(self.schedule.when(ratio)).log_snr_slope
        z = (ratio.log() - self.mean) / self.deviation
        density = (-z.square() / 2).exp() / (self.deviation * math.sqrt(2 * math.pi))
        return density / (self.tails[1] - self.tails[0])


@functools.lru_cache(maxsize=16)
def levels_of(name: str, schedule: Schedule, spread: float) -> Levels:
    """The same for the same, since every step of learning asks."""
    return Levels(name, schedule, spread)
