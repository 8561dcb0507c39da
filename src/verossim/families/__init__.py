"""The contract of a family: a generative model that makes examples and says how probable given ones are.

A family knows a Space and nothing of pixels, words or columns. It is abstract here and final in its own file; the shelf
finds it by the file's name. `condition=None` always means unconditional.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ..seeds import Noise
from ..spaces import Batch, Likelihood, Space

__all__ = ["Family", "LearnsByStatistics"]


class Family(nn.Module, ABC):
    """P(X) or P(X | Y) over a Space; the two verbs are `sample` and `log_prob`."""

    Config: ClassVar[type]
    accepts: ClassVar[tuple[type, ...]]
    likelihood: Literal["exact", "bound", "estimate", "none"]

    def __init__(self, config: Any, space: Space, condition: Space | None):
        super().__init__()
        self.config, self.space, self.condition_space = config, space, condition

    @abstractmethod
    def unfold(self, noise: Noise, condition: Tensor | None = None, **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, *event), ever more finished; a one-shot family yields once. All randomness comes through `noise`."""

    def sample(self, noise: Noise, condition: Tensor | None = None, **knobs: Any) -> Tensor:
        """Samples (B, *event), one for each stream of `noise`: the last of `unfold`."""
        *_, x = self.unfold(noise, condition, **knobs)
        return x

    @abstractmethod
    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Likelihood:
        """Nats (B,) of x (B, *event): log mass where the space has cells, log density elsewhere; NaN entries are unknown
        and are summed out by families that can."""

    @abstractmethod
    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with its NaN entries filled in: conditional samples, or conditional means without `noise`.

        Raises NotInvertible from families that cannot.
        """


class LearnsByStatistics(Family):
    """Learns by summing statistics over the records: streaming, exact over ranks, one all-reduce an update."""

    @classmethod
    @abstractmethod
    def shapes(cls, config: Any, space: Space) -> list[Any]:
        """The configs that "auto" may stand for in this space, `components` left as it is; or just the config."""

    @abstractmethod
    def start(self, batch: Batch, noise: Noise) -> None:
        """Sets the starting parameters from a random part of the records."""

    @abstractmethod
    def statistics(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch, additive over records and over ranks (float64), under the present parameters."""

    @abstractmethod
    def absorb(self, statistics: dict[str, Tensor]) -> float:
        """One update. Returns the objective before it: mean log-likelihood per unit plus log prior per unit, in nats."""

    @abstractmethod
    def coordinates(self) -> Tensor:
        """The parameters as one unconstrained float64 vector, for extrapolation."""

    @abstractmethod
    def move(self, coordinates: Tensor) -> None:
        """Sets the parameters from what `coordinates` returned, or a point near it."""

    @abstractmethod
    def assign(self, batch: Batch) -> Tensor:
        """P(component | record), (B, K)."""

    @property
    @abstractmethod
    def freedom(self) -> int:
        """Number of free parameters, for information criteria."""
