"""Do a model's probabilities sum to one? exp(log_prob) over a whole space: counted, integrated, or sampled by importance.

    enumeration    sum_x p(x), where a space has at most 2^16 points
    quadrature     the trapezoidal rule in t, x = c + s sinh(t), over one or two numbers, its step halved until the total stays;
                   a sum over cells where numbers have widths; times all categories
    importance     E_q[p(x) / q(x)], x ~ q elsewhere: q is fitted to examples of the model, with heavy tails (`proposals`)

A number that stands for a cell of width w has a mass p(x): drawn as a real y ~ q and rounded to its cell, its weight is p(x) /
(w q(y)), whose mean is the same sum. Of an estimate with a standard error e the mean of exp is too high by exp(e^2 / 2), which
is taken off. Importance sampling is believed only where its effective sample size, (sum w)^2 / sum w^2 (Kong, 1992), is large
enough; else the total is told with the verdict "cannot tell", unless it is so far above one that Markov's inequality settles
it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import BadData, Incompatible
from ..intervals import Interval, bootstrap
from ..spaces import Continuous, Discrete, Kind, Likelihood, Space
from .proposals import Proposal, fitted

__all__ = ["Normalisation", "Verdict", "check"]

Verdict = Literal["consistent with 1", "less than 1, as a bound may be", "not a distribution", "cannot tell"]
LogProb = Callable[[Tensor], "Tensor | Likelihood"]

POINTS = 1 << 16  # that are counted one by one
NODES = 1 << 18  # of a quadrature
BLOCK = 1 << 13  # points asked at a time
REACH = 7.0  # of t; sinh(7) is 548 spreads
CONVERGED = 1e-3  # change of the total at which halving stops
ROUNDING = 1e-4  # of log_prob in float32
NORMAL_95 = 1.959963984540054  # 97.5 % of a standard normal lie below
EFFECTIVE = 200  # samples from which importance sampling is believed
MISSING = 1000  # from which it is believed that there is less than one: heavy weights that were not met would look like that
SURE = 1.7  # times the ends of a 95 % interval are those of one of 99.9 %
PRECISE = 0.1  # half of an interval that lets one say "consistent"
MARKOV = 1000.0  # a mean this high has a probability under 1/1000 where the total is one


@dataclass(frozen=True)
class Normalisation:
    """total: of the probability of the whole space, 1 where it is a distribution; method; verdict; points: at which log_prob
    was asked, those outside of the space left out; effective: the effective sample size of importance sampling, None
    elsewhere."""

    total: Interval
    method: Literal["enumeration", "quadrature", "importance"]
    verdict: Verdict
    points: int
    effective: float | None = None

    @property
    def words(self) -> str:
        """The finding in a sentence."""
        t = self.total
        ends = "" if t.low is None or t.high is None else f" ({t.low:.4g} to {t.high:.4g})"
        size = "" if self.effective is None else f", effective sample size {self.effective:,.0f}"
        if self.verdict == "cannot tell" and self.effective is not None and self.effective < EFFECTIVE:
            return (f"cannot tell: of {self.points:,} points drawn some {self.effective:,.0f} count, too few to know the total "
                    f"by (it came out as {t.value:.4g}); large spaces are often out of reach of this check")
        return f"{self.verdict}: the total is {t.value:.4g}{ends}, by {self.method} at {self.points:,} points{size}"


def check(log_prob: LogProb, space: Space, examples: Tensor | None = None, *, kind: Kind = "exact",
          proposal: Proposal | None = None, draws: int = 20_000, dtype: torch.dtype = torch.float32,
          seed: int = 0) -> Normalisation:
    """Whether exp(log_prob) sums or integrates to one over a space.

    log_prob : points (B, *event) of `dtype`, or int64 tokens, to nats (B,) in the units of the space, or a Likelihood, whose
        kind and standard errors then count. examples (N, *event) : of the model's making, in the space; where the grid of
        values and a proposal are found. proposal : to draw from instead. draws : of importance sampling. Raises Incompatible
        NORMALISATION_SHAPE, BadData NORMALISATION_NAN or NORMALISATION_EXAMPLES.
    """
    if examples is not None and tuple(examples.shape[1:]) != space.shape:
        raise Incompatible("NORMALISATION_SHAPE", f"Examples are of shape {tuple(examples.shape[1:])}, not {space.shape}.",
                           "Give points of the space, as the codec encodes records.")
    known = None if examples is None else examples.reshape(len(examples), space.dims).double().cpu().numpy()
    known = known[np.isfinite(known).all(axis=1)] if known is not None else None
    asked = _Asked(log_prob, space, kind, dtype)
    if proposal is None:
        if _size(space) <= POINTS:
            return asked.told(asked.total(_points(space)), "enumeration")
        if isinstance(space, Continuous) and (found := _integrated(asked, space, known)) is not None:
            total = asked.told(found, "quadrature")
            if found.value >= 1 or known is None or total.verdict == "consistent with 1":
                return total
            sampled = _sampled(asked, space, known, None, draws, seed)    # knows of spikes that fall between the nodes
            return total if sampled.verdict == total.verdict else sampled
    return _sampled(asked, space, known, proposal, draws, seed)


class _Asked:
    """log_prob as it is asked for: points (n, dims) float64 in, nats (n,) float64 out, a block at a time."""

    def __init__(self, log_prob: LogProb, space: Space, kind: Kind, dtype: torch.dtype):
        self.log_prob, self.space, self.kind = log_prob, space, kind
        self.dtype = torch.int64 if isinstance(space, Discrete) else dtype
        self.points = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """log p, less half of its squared standard error where it has one."""
        return self.with_errors(x)[0]

    def with_errors(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, and the standard errors (n,), 0 where there are none."""
        out, errors = [], []
        for first in range(0, len(x), BLOCK):
            block = torch.from_numpy(x[first:first + BLOCK]).to(self.dtype).reshape(-1, *self.space.shape)
            with torch.no_grad():
                said = self.log_prob(block)
            if isinstance(said, Likelihood):
                self.kind = said.kind
                e = torch.zeros_like(said.log_prob) if said.stderr is None else said.stderr
                said = said.log_prob - e.square() / 2
            else:
                e = torch.zeros_like(said)
            out.append(said.double().cpu().numpy())
            errors.append(e.double().cpu().numpy())
        log_p = np.concatenate(out) if out else np.zeros(0)
        self.points += len(x)
        unfit = np.isnan(log_p) | np.isposinf(log_p)
        if unfit.any():
            raise BadData("NORMALISATION_NAN", f"log_prob is {log_p[unfit.argmax()]} at {int(unfit.sum())} of {len(x)} points, "
                          f"first at {np.round(x[unfit.argmax()][:8], 4).tolist()}.", "Mend the model, or its precision.")
        return log_p, np.concatenate(errors) if errors else np.zeros(0)

    def total(self, blocks: Iterator[tuple[np.ndarray, np.ndarray]]) -> Interval:
        """The sum of p = exp(log_prob) times volume over blocks of points and the log of their volumes. Its interval is that of
        rounding and of standard errors e, by which p has the variance p^2 (exp(e^2) - 1)."""
        total = variance = 0.0
        for x, volume in blocks:
            log_p, e = self.with_errors(x)
            p = np.exp(log_p + volume)
            total, variance = total + float(p.sum()), variance + float(np.square(p) @ np.expm1(np.minimum(e ** 2, 600.0)))
        reach = ROUNDING + NORMAL_95 * variance ** 0.5
        return Interval(total, total - reach, total + reach)

    def told(self, total: Interval, method: Literal["enumeration", "quadrature", "importance"],
             effective: float | None = None, largest: float = 0.0) -> Normalisation:
        """The finding with its verdict."""
        return Normalisation(total, method, _verdict(total, self.kind, effective, largest), self.points, effective)


def _verdict(total: Interval, kind: Kind, effective: float | None, largest: float) -> Verdict:
    """largest: share that the largest weight has of the sum."""
    value, low, high = total.value, total.low, total.high
    if effective is not None and value >= MARKOV:
        return "not a distribution"
    if low is None or high is None or (effective is not None and (effective < EFFECTIVE or largest > PRECISE)):
        return "cannot tell"
    if value - SURE * (value - low) > 1:
        return "not a distribution"
    if value + SURE * (high - value) < 1:
        if effective is not None and effective < MISSING:
            return "cannot tell"
        return "less than 1, as a bound may be" if kind == "bound" else "not a distribution"
    return "consistent with 1" if (high - low) / 2 <= PRECISE else "cannot tell"


def _size(space: Space) -> int | float:
    """Points of a space; infinite where it has numbers without levels."""
    if isinstance(space, Discrete):
        return space.vocabulary ** space.dims
    numbers = len(_numbers(space))
    if numbers and not space.levels:
        return math.inf
    return math.prod(last - first for first, last in space.simplexes) * (space.levels or 1) ** numbers


def _numbers(space: Continuous) -> np.ndarray:
    """Positions of entries that are not in a simplex."""
    taken = [place for first, last in space.simplexes for place in range(first, last)]
    return np.setdiff1d(np.arange(space.dims), taken)


def _points(space: Space) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every point of a space that has finitely many, (n, dims) a block, with the log of its volume (n,), 0."""
    if isinstance(space, Discrete):
        count = space.vocabulary ** space.dims
        for first in range(0, count, BLOCK):
            numbers = np.arange(first, min(first + BLOCK, count))
            yield (np.stack([numbers // space.vocabulary ** place % space.vocabulary for place in range(space.dims)],
                            axis=1).astype(np.float64).reshape(len(numbers), space.dims), np.zeros(len(numbers)))
        return
    values = (2 * np.arange(space.levels or 1) + 1) / (space.levels or 1) - 1
    yield from _lattice(space, [values] * len(_numbers(space)), [np.zeros(len(values))] * space.dims)


def _lattice(space: Continuous, nodes: list[np.ndarray],
             log_widths: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every combination of nodes of the numbers and of categories, (n, dims) a block, with the log of its volume (n,)."""
    numbers, sizes = _numbers(space), [len(axis) for axis in nodes]
    for categories in product(*(range(last - first) for first, last in space.simplexes)):
        ones = [first + c for (first, _), c in zip(space.simplexes, categories, strict=True)]
        for begin in range(0, math.prod(sizes), BLOCK):
            place = np.unravel_index(np.arange(begin, min(begin + BLOCK, math.prod(sizes))), sizes or [1])
            x = np.zeros((len(place[0]), space.dims))
            x[:, ones] = 1.0
            volume = np.zeros(len(x))
            for number, axis, widths, where in zip(numbers, nodes, log_widths, place, strict=False):
                x[:, number] = axis[where]
                volume += widths[where]
            yield x, volume


def _integrated(asked: _Asked, space: Continuous, examples: np.ndarray | None) -> Interval | None:
    """The total by quadrature, or None where there are too many numbers, or where it does not settle."""
    numbers, cells = _numbers(space), space.cells().numpy()
    categories = math.prod(last - first for first, last in space.simplexes)
    if len(numbers) > 2 or (cells[numbers].any() and (examples is None or not len(examples))):
        return None
    axes = [_axis(None if examples is None else examples[:, n], float(cells[n]), space.levels) for n in numbers]
    found: list[float] = []
    for halvings in range(6, 18):
        pairs = [axis(1 << halvings) for axis in axes]
        if categories * math.prod(len(nodes) for nodes, _ in pairs) > NODES:
            return None
        summed = asked.total(_lattice(space, [n for n, _ in pairs], [w for _, w in pairs]))
        if not (cells[numbers] == 0).any():
            return summed
        total = summed.value
        found.append(total)
        if len(found) > 2 and max(abs(total - found[-2]), abs(total - found[-3])) < CONVERGED * max(1.0, total):
            reach = abs(total - found[-2]) + summed.high - total  # type: ignore[operator]
            return Interval(total, total - reach, total + reach)
    return None


def _axis(values: np.ndarray | None, width: float, levels: int | None) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """The nodes of a number and the log of their widths, for a count of nodes: all cells within four spans of the examples, or
    sinh-spaced nodes."""
    if levels:
        grid = (2 * np.arange(levels) + 1) / levels - 1
        return lambda count: (grid, np.zeros(levels))
    if width > 0 and values is not None:
        span = max(float(np.ptp(values)), 4 * width)
        last = math.ceil(4 * span / width)
        cells = values[0] + width * np.arange(-last, last + 1)
        return lambda count: (cells, np.zeros(len(cells)))
    middle, spread = (0.0, 1.0) if values is None or len(values) < 2 else (float(np.median(values)), float(values.std()) or 1.0)

    def spaced(count: int) -> tuple[np.ndarray, np.ndarray]:
        t = np.linspace(-REACH, REACH, count)
        return middle + spread * np.sinh(t), np.log(spread * np.cosh(t) * (t[1] - t[0]))
    return spaced


def _sampled(asked: _Asked, space: Space, examples: np.ndarray | None, proposal: Proposal | None, draws: int,
             seed: int) -> Normalisation:
    """The total by importance sampling."""
    rng = np.random.default_rng(seed)
    q = fitted(space, examples, seed) if proposal is None else proposal
    x, log_q = q.draw(draws, rng)
    inside = np.ones(len(x), dtype=bool)
    if isinstance(space, Continuous) and (cells := space.cells().numpy()).any():
        gridded = np.array([n for n in _numbers(space) if cells[n] > 0])
        if space.levels:
            anchor = np.full(len(gridded), 1 / space.levels - 1)
        elif examples is not None and len(examples):
            anchor = examples[0, gridded]
        else:
            raise BadData("NORMALISATION_EXAMPLES", "The space has numbers with steps; no example says where their grid lies.",
                          "Give examples that the model made.")
        x[:, gridded] = anchor + np.round((x[:, gridded] - anchor) / cells[gridded]) * cells[gridded]
        log_q = log_q + np.log(cells[gridded]).sum()
        if space.levels:
            inside = (np.abs(x[:, gridded]) < 1).all(axis=1)
    w = np.zeros(len(x))
    if inside.any():
        w[inside] = np.exp(np.minimum(asked(x[inside]) - log_q[inside], 600.0))
    value = float(w.mean())
    if not value > 0:
        return asked.told(Interval(0.0), "importance", 0.0)
    unit = w / w.max()
    effective = float(unit.sum() ** 2 / np.square(unit).sum())
    if effective < EFFECTIVE:
        return asked.told(Interval(value), "importance", effective)
    total = bootstrap(lambda rows: float(w[rows].mean()), (len(w),), rng)
    return asked.told(total, "importance", effective, float(1 / unit.sum()))
