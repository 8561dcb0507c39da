"""Mixtures of Gaussians and categories, learned by expectation-maximisation.

    p(x, y) = sum_k  p(y) p(k | y)  N(x_numbers; mu_yk, Sigma_yk)  prod_blocks  p_yk(category)

EM (Dempster, Laird and Rubin, JRSS B 1977) climbs log-likelihood plus log prior: the E-step sums what the records say under
responsibilities r = p(k | x, y), the M-step has a closed form. Inverse Wishart and Dirichlet priors, worth a few records that
look like the data pooled, keep every variance and probability away from zero (`covariance`). Unknown numbers and categories
are summed out exactly (`missing`); a record of unknown class is explained by all classes.

Numbers that stand for cells of width delta have a probability mass, the integral of p over the cell. With u uniform over the
cell, Jensen's inequality inside each component gives a bound in closed form,

    log mass >= sum log delta + log sum_k w_k exp E_u log N_k(x + u),
    E_u log N(x + u) = log N(x) - 1/2 sum_d (Sigma^-1)_dd delta_d^2 / 12,

whose own EM adds delta^2 / 12 to the second moments. So constant entries never collapse, and the bound climbs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ...config import knob
from ...errors import BadConfig, Incompatible
from ...seeds import Noise
from ...spaces import Batch, Continuous, Discrete, Kind, Likelihood, Space
from .. import LearnsByStatistics
from .covariance import Dense, Prior
from .entries import Entries
from .factors import Factors
from .parts import parts
from .sampling import completed, drawn
from .start import begin, surveyed

__all__ = ["GMM", "MEMBER"]

NEVER = -1e4  # the log of a probability of zero: finite, so that nothing it is multiplied by becomes NaN
WIDE = 50  # more numbers than this take covariances of low rank where nothing is said
CHUNK = 1 << 18, 1 << 24  # records scored at a time, and numbers in them
KINDS = ("full", "tied", "diag", "spherical", "factors")


class GMM(LearnsByStatistics):
    """P(X) or P(X, Y) as a mixture of `components` Gaussians a class, with independent categories beside the numbers.

    Component j of all J = classes * components belongs to class j // components.
    """

    accepts = (Continuous,)
    likelihood: Literal["exact", "bound", "estimate", "none"] = "exact"
    log_classes: Tensor
    log_weights: Tensor
    means: Tensor
    logits: Tensor
    shift: Tensor
    anchor: Tensor
    scale: Tensor
    spread: Tensor
    frequencies: Tensor
    covariance: Any

    @dataclass(frozen=True, kw_only=True)
    class Config:
        components: int | str = knob(10, "number of Gaussians, for each class where there are classes", low=1, high=100_000,
                                     choices=("auto",))
        covariance: str | None = knob(None, "shape of the covariances; where nothing is said full, or factors above 50 numbers",
                                      choices=("auto", *KINDS))
        rank: int = knob(8, "factors of a covariance of shape 'factors'", low=1, high=1_000)
        prior: float = knob(1.0, "records that the prior on a component is worth; 0: maximum likelihood", low=0.0, high=1e9)
        jitter: float = knob(0.0, "variance added to every number's at each update, in its own units", low=0.0, high=1e300)
        starts: int = knob(3, "starting points that are tried", low=1, high=1_000)
        precision: str = knob("auto", "of the products; auto: that of the data", choices=("auto", "float32", "float64"))

    def __init__(self, config: Any, space: Space, condition: Space | None = None):
        entries = Entries(space)
        super().__init__(_resolved(config, entries), space, condition)
        if condition is not None and (not isinstance(condition, Discrete) or condition.shape != ()):
            raise Incompatible("SPACE", "A mixture is conditioned on one label, a Discrete space of shape ().")
        self.entries = entries
        K, C = self.config.components, condition.vocabulary if condition is not None else 1
        J, D, S = C * K, len(self.entries.numbers), len(self.entries.onehots)
        self.kind: Kind = "bound" if self.entries.cells.any() else "exact"
        self.likelihood = self.kind
        zeros = {"log_classes": (C,), "log_weights": (C, K), "means": (J, D), "logits": (J, S), "shift": (D,), "anchor": (D,)}
        for name, shape in zeros.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        for name, length in (("scale", D), ("spread", D), ("frequencies", S)):
            self.register_buffer(name, torch.ones(length, dtype=torch.float64))
        kind = self.config.covariance if D else "diag"
        self.covariance = Factors(self.config.rank, J, D) if kind == "factors" else Dense(kind, J, D)

    @classmethod
    def shapes(cls, config: Any, space: Space) -> list[Any]:
        """Covariances of few parameters where there are many numbers, of every dense shape elsewhere."""
        if config.covariance != "auto":
            return [config]
        kinds = ("factors", "diag", "spherical") if len(Entries(space).numbers) > WIDE else KINDS[:4]
        return [replace(config, covariance=kind) for kind in kinds]

    @property
    def freedom(self) -> int:
        """Free parameters: weights (the classes' too), means, covariances and categories."""
        J, D = self.means.shape
        return J - 1 + J * D + self.covariance.freedom + J * sum(last - first - 1 for first, last in self.entries.blocks)

    @property
    def prior(self) -> Tensor | None:
        """P(y), (C,), by the weights of the records that were learned from."""
        return None if self.condition_space is None else self.log_classes.exp()

    @property
    def noise(self) -> Tensor:
        """Variance of a uniform draw within each number's cell, (D,), in the inner units."""
        return (self.entries.cells / self.scale).square() / 12

    def inner(self, numbers: Tensor) -> Tensor:
        """Numbers (B, D) in the units that they are worked in: divided by `scale`, which is 1 unless they are extreme."""
        return numbers if (self.scale == 1).all() else (numbers.double() / self.scale).to(numbers.dtype)

    def mixture(self) -> Any:
        """All J components, as the kernels take them."""
        log_weights = (self.log_classes[:, None] + self.log_weights).reshape(-1)
        return self.covariance.components(log_weights, self.means, self.logits, self.shift)

    def penalty(self) -> Prior:
        """The prior on covariances, of the pooled variance shared out over the components."""
        J, D = self.means.shape
        scale = (self.spread + self.noise) / J ** (2 / max(D, 1))
        return Prior(self.config.prior, scale, self.noise, 1e-10 * self.spread, self.config.jitter / self.scale / self.scale)

    def start(self, batch: Batch, noise: Noise) -> None:
        """Sets the starting parameters from a random part of the records. Raises BadConfig GMM_K where they are too few."""
        for name, value in surveyed(self.entries, batch.x, batch.units, self.config.covariance == "spherical").items():
            getattr(self, name).copy_(value)
        begin(self, batch, noise)

    def statistics(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch by name: count (J,), first, second, categories (J, S) and those of the covariance; units and
        log_likelihood ()."""
        numbers, onehots = self.entries.split(batch.x)
        J, K = len(self.means), self.log_weights.shape[1]
        mixture = self.mixture()
        least, most = batch.units.aminmax() if len(batch.units) else (0, 0)
        weighted = not least == most == 1
        total: dict[str, Tensor] = {}
        for part in parts(self.entries, self.inner(numbers), onehots, batch.condition, K, J):
            conditional, components, noise = part.prepared(self.covariance, mixture, self.noise)
            units = batch.units[part.rows] if weighted else None
            sums = self.covariance.sums(part.numbers, part.onehots, units, components, noise, self.config.precision)
            if conditional is not None:
                sums = conditional.extended(sums)
                sums["categories"] = sums["categories"] + sums["count"][:, None] * torch.where(
                    self.entries.known(part.unknown), 0.0, self.logits[part.components].exp())
            records = len(part.numbers) if units is None else units.double().sum()
            sums["log_likelihood"] = sums["log_likelihood"] + records * self._volume(part)
            for name, value in sums.items():
                whole = total.setdefault(name, value.new_zeros((J, *value.shape[1:]) if value.ndim else ()))
                whole[part.components if value.ndim else ...] += value
        return {**total, "units": batch.units.double().sum() if weighted else torch.tensor(float(len(batch.units))).double()}

    def absorb(self, statistics: dict[str, Tensor]) -> float:
        """The M-step. Returns the objective before it: (log-likelihood + log prior) / units, in nats."""
        prior, a = self.penalty(), self.config.prior
        (C, K), J = self.log_weights.shape, len(self.means)
        objective = (statistics["log_likelihood"] + self._log_prior(prior)) / statistics["units"]
        means = self.covariance.update(statistics, self.mixture(), prior)
        count = statistics["count"].view(C, K) + a / J
        self.log_classes.copy_(_logarithm(count.sum(dim=1) / count.sum()))
        seen = count.sum(dim=1) > 0
        self.log_weights[seen] = _logarithm(count[seen] / count[seen].sum(dim=1, keepdim=True))
        self.means.copy_(means)
        categories = statistics["categories"] + a * self.frequencies
        for first, last in self.entries.blocks:
            block = categories[:, first:last]
            known = block.sum(dim=1) > 0
            self.logits[known, first:last] = _logarithm(block[known] / block[known].sum(dim=1, keepdim=True))
        return float(objective)

    def coordinates(self) -> Tensor:
        """Log weights, means, logits and the covariances' coordinates, one float64 vector."""
        plain = (self.log_classes, self.log_weights, self.means, self.logits)
        return torch.cat([*(buffer.reshape(-1) for buffer in plain), self.covariance.coordinates()])

    def move(self, coordinates: Tensor) -> None:
        """Sets the parameters from a vector like that of `coordinates`; probabilities are made to sum to one."""
        plain = (self.log_classes, self.log_weights, self.means, self.logits)
        sizes = [buffer.numel() for buffer in plain]
        *pieces, rest = coordinates.split([*sizes, len(coordinates) - sum(sizes)])
        for buffer, piece in zip(plain, pieces, strict=True):
            buffer.copy_(piece.view_as(buffer))
        for log_p in (self.log_classes, self.log_weights, *(self.logits[:, first:last] for first, last in self.entries.blocks)):
            log_p.copy_(log_p.log_softmax(dim=-1).clamp(min=NEVER))
        self.covariance.move(rest)

    def place(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Sets an unconditional mixture in x's own units: weights (K,) that sum to one, means (K, D), and covariances full
        (K, D, D), tied (D, D), diag (K, D) or spherical (K,), by the shape that the model has. Raises BadConfig for factors.
        """
        if self.config.covariance == "factors":
            raise BadConfig("SETTING_RANGE", "Covariances of shape 'factors' cannot be set as matrices.")
        shape = self.covariance.roots.shape
        inner = covariances.double().reshape(shape)
        inner = inner / (self.scale[:, None] * self.scale) if len(shape) == 3 else inner / self.scale[:shape[1]].square()
        self.log_weights.copy_(_logarithm(weights.double())[None])
        self.means.copy_(means / self.scale)
        self.shift.copy_(weights.double() @ self.means)
        self.covariance.place(inner)

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (J,), means (J, D) and covariances in x's own units, in the shapes that `place` takes."""
        inner = self.covariance.covariances()
        outer = inner * (self.scale[:, None] * self.scale) if inner.ndim == 3 else inner * self.scale[:inner.shape[1]].square()
        outer = {"tied": lambda: outer[0], "spherical": lambda: outer[:, 0]}.get(self.config.covariance, lambda: outer)()
        return self.mixture().log_weights.exp(), self.means * self.scale, outer

    def assign(self, batch: Batch) -> Tensor:
        """P(component | record, class where known), (B, J) float64."""
        return self._each(batch.x, batch.condition, self._responsibilities, len(self.means))

    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """log p(x), or log p(x | y) where the condition is a class, (B,); exact, or a bound where the space has cells. Of what
        is missing in a record nothing is said, and its coordinates do not count."""
        assert isinstance(self.space, Continuous)
        log_p = self._each(x, condition, self._log_density, 1)[:, 0]
        return Likelihood(log_p, self.kind, self.space.observed(x))

    def unfold(self, noise: Noise, condition: Tensor | None = None, dtype: torch.dtype = torch.float32,
               **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, *event) of `dtype`, of the classes `condition` (B,) or of any where None or -1."""
        yield drawn(self, noise, condition, dtype)

    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, *event) with NaN entries filled in: draws given what is known, or expected numbers and likeliest categories."""
        return completed(self, x, condition, noise)

    def _each(self, x: Tensor, labels: Tensor | None, verb: Any, width: int) -> Tensor:
        """What `verb` says of each record, (B, width), a chunk of records at a time."""
        out = torch.zeros(len(x), width, dtype=torch.float64)
        J, K, mixture = len(self.means), self.log_weights.shape[1], self.mixture()
        records, numbers_most = CHUNK
        step = max(1, min(records, numbers_most // max(width, self.space.dims)))
        for first in range(0, len(x), step):
            rows = slice(first, first + step)
            numbers, onehots = self.entries.split(x[rows])
            given = None if labels is None else labels[rows]
            for part in parts(self.entries, self.inner(numbers), onehots, given, K, J):
                out[rows][part.rows] = verb(part, mixture)
        return out

    def _responsibilities(self, part: Any, mixture: Any) -> Tensor:
        _, components, _ = part.prepared(self.covariance, mixture, self.noise)
        out = torch.zeros(len(part.numbers), len(self.means), dtype=torch.float64)
        out[:, part.components] = self.covariance.log_joint(
            part.numbers, part.onehots, components, self.config.precision).double().softmax(dim=1)
        return out

    def _log_density(self, part: Any, mixture: Any) -> Tensor:
        _, components, _ = part.prepared(self.covariance, mixture, self.noise)
        log_p = self.covariance.log_density(part.numbers, part.onehots, components, self.config.precision).double()
        constant = self._volume(part) - (self.log_classes[part.label] if part.label >= 0 else 0.0)
        return (log_p + constant)[:, None]

    def _volume(self, part: Any) -> Tensor:
        """Log volume of a record's cells and of its units, (): from density to mass."""
        volumes = torch.where(self.entries.cells > 0, self.entries.cells, 1.0).log() - self.scale.log()
        return volumes.sum() if part.whole else volumes[part.observed].sum()

    def _log_prior(self, prior: Prior) -> Tensor:
        """log p(parameters), up to a constant."""
        weights = (self.log_classes[:, None] + self.log_weights).sum() / len(self.means)
        categories = (self.logits @ self.frequencies).sum()
        return self.covariance.log_prior(prior) + prior.strength * (weights + categories)


MEMBER = GMM


def _resolved(config: Any, entries: Entries) -> Any:
    """The config with nothing left open. Raises BadConfig where it says "auto", which only data can settle."""
    for name in ("components", "covariance"):
        if getattr(config, name) == "auto":
            raise BadConfig("CONFIG_AUTO", f"'{name}' is \"auto\", which has to be settled on the data first.",
                            "Give a value, or let `verossim.fit` choose.")
    if config.covariance is not None:
        return config
    return replace(config, covariance="factors" if len(entries.numbers) > WIDE else "full")


def _logarithm(p: Tensor) -> Tensor:
    """log p, finite at 0."""
    return p.log().clamp(min=NEVER)
