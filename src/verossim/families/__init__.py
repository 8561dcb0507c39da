"""The contract of a family: a generative model that makes examples and says how probable given ones are.

A family knows a Space and nothing of pixels, words or columns. It is abstract here and final in its own file; the shelf
finds it by the file's name. `condition=None` always means unconditional.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..config import NoSettings
from ..errors import BadConfig, BadData, NoLikelihood, NotInvertible, near
from ..seeds import Noise
from ..spaces import Batch, Likelihood, Space

__all__ = ["PAIRS", "Exam", "Family", "LearnsByGradient", "LearnsByStatistics", "Losses", "Sign", "Turn",
           "beyond_chance"]


PAIRS = 128  # of records that an exam compares


@dataclass(frozen=True)
class Turn:
    """Who learns now: the named networks, by the loss of this name; `progress` in [0, 1] says how far learning has come."""

    name: str = "all"
    networks: tuple[str, ...] = ()
    progress: float = 1.0


@dataclass(frozen=True)
class Losses:
    """What a batch costs. total (B,), per record, is what is learned from; parts (B,) by name are what people watch.

    A part named "nats" is an unbiased estimate of (a bound on) -log p(x): the journal shows it as bits per dimension.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A number that tells how learning goes. low, high: its bounds, None where there is none; cause: what it means when it is
    out of them; remedies: what to try then, in order, of "penalty", "augmentation", "rate" and "rollback"."""

    name: str
    low: float | None = None
    high: float | None = None
    cause: str
    remedies: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        """Whether a value is within the bounds; NaN is not."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high) and value == value


@dataclass(frozen=True)
class Exam:
    """Signs by name, and records of the exam's noise in unit scale, (n, *event), where a family makes them at once."""

    signs: dict[str, float]
    made: Tensor | None = None


def beyond_chance(above: Tensor, below: Tensor) -> float:
    """By how much the mean of `above` (n,) lies above that of `below` (n,), pair by pair, less two standard errors; at least 0.
    Differences are cut off six median deviations from their median: one out of all bounds would hide the rest in its error."""
    apart = (above - below).double()
    middle = apart.median()
    reach = 6 * (apart - middle).abs().median()
    apart = apart.clamp(middle - reach, middle + reach)
    return max(0.0, float(apart.mean() - 2 * apart.std() / len(apart) ** 0.5))


class Family(nn.Module, ABC):
    """P(X) or P(X | Y) over a Space; the two verbs are `sample` and `log_prob`."""

    Config: ClassVar[type]
    Sampling: ClassVar[type] = NoSettings  #: the knobs of `unfold` and `sample`
    beside: ClassVar[tuple[str, ...]] = ()  #: those of them that people give as a saved model, and `unfold` as its family
    accepts: ClassVar[tuple[type, ...]]
    likelihood: Literal["exact", "bound", "estimate", "none"]
    #: The ways that log_prob can be had, the default first; empty where there is but one.
    methods: ClassVar[tuple[str, ...]] = ()
    layers: int = 0  #: of styles that can be mixed
    latent_shape: tuple[int, ...] = ()  #: of latents that another family may learn in place of records; () where there are none

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
    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """Nats (B,) of x (B, *event): log mass where the space has cells, log density elsewhere; NaN entries are unknown
        and are summed out by families that can. `method` is one of `methods`, the first where None; `noise` is the
        randomness of estimates (seed 0 where None)."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are, and where those should be that it is given."""
        return next(iter(self.state_dict().values())).device

    def way(self, method: str | None) -> str:
        """The method asked for, or the first. Raises BadConfig SETTING_RANGE where there is no such."""
        if method is None and self.methods:
            return self.methods[0]
        if method not in self.methods:
            raise BadConfig("SETTING_RANGE", f"'method' is {method!r}, which this family has not.",
                            near(str(method), self.methods))
        return method

    def sandwich(self, count: int, noise: Noise) -> dict[str, float]:
        """Bounds from below and from above on log p of records that the model makes. Raises NoLikelihood."""
        raise NoLikelihood("NO_CHECK", f"{type(self).__name__} has no bounds from both sides.", "A model of family gan has.")

    @abstractmethod
    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with its NaN entries filled in: conditional samples, or conditional means without `noise`.

        Raises NotInvertible from families that cannot.
        """

    @property
    def prior(self) -> Tensor | None:
        """P(y) of the classes, (C,) float64, of families that learn it themselves; None of the others."""
        return None

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, *latent) of x (B, *event), about standard normal. Raises NotInvertible from families without latents."""
        raise NotInvertible("NO_LATENTS", f"{type(self).__name__} has no latents to encode into.",
                            "A model of family vae, diffusion or gan has.")

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, *event) of latents (B, *latent), the way back of `encode`. Raises NotInvertible."""
        raise NotInvertible("NO_LATENTS", f"{type(self).__name__} has no latents to decode.",
                            "A model of family vae, diffusion or gan has.")

    def latents(self, noise: Noise) -> Tensor:
        """What samples of these streams begin from, (B, *latent). Raises NotInvertible from families without styles."""
        raise self._without_styles()

    def mixed(self, coarse: Tensor, fine: Tensor, layer: int) -> Tensor:
        """Latents with the styles of `coarse` before a layer, of `fine` from it on. Raises NotInvertible, BadConfig."""
        raise self._without_styles()

    def edited(self, z: Tensor, direction: int, strengths: Tensor, condition: Tensor | None = None) -> Tensor:
        """Points (B, S, *event) of latents moved along a direction by strengths (S,). Raises NotInvertible, BadConfig."""
        raise self._without_styles()

    def _without_styles(self) -> NotInvertible:
        return NotInvertible("NO_STYLES", f"{type(self).__name__} has no styles to mix or edit.", "A model of family gan has.")

    @staticmethod
    def check_latents(z: Tensor, shape: tuple[int, ...]) -> None:
        """Raises BadData LATENT_SHAPE where z is not (B, *shape)."""
        if tuple(z.shape[1:]) != shape:
            raise BadData("LATENT_SHAPE", f"Latents have the shape {tuple(z.shape[1:])}; this model's have {shape}.",
                          "Give what `encode` gave.")


class LearnsByGradient(Family):
    """Learns by following the gradient of a loss; one loop serves all (`training.loop`)."""

    networks: nn.ModuleDict  #: everything that learns; what may be wrapped, compiled and shared out over ranks
    turns: ClassVar[tuple[Turn, ...]] = (Turn(),)  #: who learns when; Turn() stands for all networks at once
    moments: ClassVar[tuple[float, float]] = (0.9, 0.99)  #: decay of the first and second moments of gradients, a step
    optimizer: ClassVar[str] = "adamw"  #: what it learns best by: "adamw" or "muon"
    peak: float = 1e-3  #: rate of networks of width 64; wider ones learn more slowly
    a_step: ClassVar[tuple[int, int] | None] = None  #: numbers of a step, at least and at most; None: it is records that count
    descends: ClassVar[bool] = True  #: whether its losses fall as it learns, so that a leap of one is a fault
    twice: ClassVar[bool] = False  #: whether its loss differentiates twice, which neither FSDP2 nor torch.compile can
    fewest: ClassVar[int] = 1  #: different records, below which it would only learn them by heart
    examined: ClassVar[int] = 0  #: steps from one exam to the next; 0 for none
    signs: ClassVar[tuple[Sign, ...]] = ()  #: those of `examine` that have bounds
    anew: ClassVar[tuple[str, ...]] = ()  #: settings that a family may have others of than the model that it goes on from

    def size(self, x: Tensor) -> float:
        """How many numbers a record has, in the mean over records x (B, *event)."""
        return float(x[0].numel())

    def enough(self, size: float) -> int:
        """How many records, of so many numbers each, a network as large as this should see at least; 0 for as many as any."""
        return 0

    def go_on(self, tensors: Mapping[str, Tensor]) -> None:
        """Begins where another model of this family stands, whose state these are, but for settings in `anew` its like."""
        self.load_state_dict(dict(tensors))

    def start(self, batch: Batch, noise: Noise) -> None:
        """Sets what has to be measured before learning, from a random part of the records, in buffers. Nothing by default."""

    @abstractmethod
    def loss(self, batch: Batch, turn: Turn) -> Losses:
        """The losses of a batch. All randomness comes from `batch.noise`, a stream a record, so that the result is the same
        however a batch is cut into pieces or shared out over ranks."""

    def examine(self, seen: Batch, unseen: Batch | None, noise: Noise) -> Exam:
        """How learning goes, by some records that are learned from and some that are held out, always the same ones."""
        return Exam({})

    def paired(self, seen: Batch, unseen: Batch, noise: Noise) -> tuple[Losses, Losses]:
        """The losses of as many records that are learned from as are held out, PAIRS at most, of the same noise."""
        n, turn = min(len(seen.x), len(unseen.x), len(noise), PAIRS), self.turns[0]
        with torch.no_grad():
            return self.loss(_first(seen, n, noise.part(0, n)), turn), self.loss(_first(unseen, n, noise.part(0, n)), turn)

    def adapt(self, signs: Mapping[str, float]) -> None:
        """Lets the signs of an exam steer what the loss does, in buffers. Nothing by default."""

    def treat(self, remedy: str) -> str | None:
        """Does what a remedy means to this family; says what was done, or None where there is nothing to do."""
        return None

    def finish(self, batch: Batch, noise: Noise) -> None:
        """Sets what has to be measured after learning, from some held-out records, in buffers. Nothing by default."""


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


def _first(batch: Batch, n: int, noise: Noise) -> Batch:
    """The first n records of a batch, with these streams."""
    y = None if batch.condition is None else batch.condition[:n]
    return Batch(batch.x[:n], y, batch.units[:n], batch.index[:n], noise)
