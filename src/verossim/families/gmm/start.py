"""Where EM begins: greedy k-means++ on whitened records, other starts beside it, a short run of EM on each, the best kept.

k-means++ (Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007) takes each centre from the
records with probability proportional to the squared distance to the nearest centre so far; the greedy form tries some of
them and keeps the one that lowers the sum of distances most. Distances depend on units and on stretch, so the starts see
the records in turn whitened by the pooled covariance, standardised only, and not at all (records at random).
"""

import math
from typing import Any

import torch
from torch import Tensor

from ...errors import BadConfig
from ...seeds import Noise
from ...spaces import Batch
from .entries import Entries, fitting_scale

__all__ = ["begin", "surveyed"]

RECORDS = 20_000  # that the starts look at
WHITENED = 64  # numbers at most that are whitened; more are standardised
TRIALS = 2  # of each centre, and ln K more
TRIES = 4  # at all centres; with one, a start in three missed a group that stood well apart
ROUNDS = 5  # of k-means after k-means++
STEPS = 10  # of EM before the starts are compared
ALIKE = 1e-9, 1e-5  # relative: objectives, and distances in float32, that rounding may tell apart; of such the first is taken


def surveyed(entries: Entries, x: Tensor, units: Tensor, common: bool) -> dict[str, Tensor]:
    """What the records look like as a whole: the buffers scale, shift, spread, anchor (D,) and frequencies (S,).

    scale: powers of two that numbers are divided by, one for all where `common`. shift and spread: mean and variance of
    numbers so divided, the variance never zero. anchor: some value of each number, where the grid of its cells lies.
    """
    numbers, onehots = entries.split(x)
    numbers = numbers.double()
    there = ~numbers.isnan()
    largest = numbers.nan_to_num(nan=0.0).abs().amax(dim=0)
    unit = torch.where(largest > 0, largest, 1.0)
    middle, variance = _moments(numbers / unit, there, units)
    scale = fitting_scale(middle * unit, variance.sqrt() * unit)
    scale = scale.max().expand_as(scale).clone() if common and len(scale) else scale
    shift, variance = _moments(numbers / scale, there, units)
    smallest = (8 * torch.finfo(x.dtype).eps * shift).square()  # what rounding of x leaves
    spread = torch.where((variance > 0) | (smallest > 0), variance.maximum(smallest), 1.0)
    first = there.to(torch.int8).argmax(dim=0)
    anchor = numbers.gather(0, first[None])[0].nan_to_num(nan=0.0)
    if entries.levels:
        anchor = torch.full_like(anchor, -1 + 1 / entries.levels)
    frequencies = _frequencies(entries, onehots, units)
    return {"scale": scale, "shift": shift, "spread": spread, "anchor": anchor, "frequencies": frequencies}


def begin(family: Any, batch: Batch, noise: Noise) -> None:
    """Sets the starting parameters of a family whose survey is done."""
    K = family.config.components
    if len(batch.x) < K:
        raise BadConfig("GMM_K", f"'components' is {K} but the source has {len(batch.x)} records; use fewer components or "
                                 "more data.")
    if len(batch.x) > RECORDS:
        chosen = noise.uniform(dtype=torch.float64).argsort()[:RECORDS].sort().values
        condition = None if batch.condition is None else batch.condition[chosen]
        batch = Batch(batch.x[chosen], condition, batch.units[chosen], batch.index[chosen])
    dice = noise.part(0, 1)
    views = _views(family, batch)
    best, kept = -math.inf, None
    for number in range(family.config.starts):
        _place(family, batch, views[number % len(views)], dice)
        for _ in range(STEPS if family.config.starts > 1 else 0):
            objective = family.absorb(family.statistics(batch))
        if family.config.starts == 1:
            return
        if kept is None or objective > best + ALIKE[0] * abs(best):
            best, kept = objective, {name: value.clone() for name, value in family.state_dict().items()}
    family.load_state_dict(kept)


def _views(family: Any, batch: Batch) -> list[Tensor | None]:
    """The records as the starts see them, each (B, F) float32, or None for a start from records at random."""
    numbers, onehots = family.entries.split(batch.x)
    x = ((family.inner(numbers.double()) - family.shift) / family.spread.sqrt()).nan_to_num(nan=0.0)
    s = x.new_zeros(len(x), 0) if onehots is None else onehots.double()
    s = torch.where(s.isnan(), family.frequencies, s)
    views: list[Tensor | None] = [torch.cat([x, s], dim=1).float()]
    if 1 < x.shape[1] <= WHITENED:
        weights = batch.units.double() / batch.units.sum()
        values, vectors = torch.linalg.eigh((x * weights[:, None]).T @ x)
        whitened = x @ vectors / values.clamp(min=1e-8).sqrt()
        views.insert(0, torch.cat([whitened, s], dim=1).float())
    return [*views, None]


def _place(family: Any, batch: Batch, view: Tensor | None, dice: Noise) -> None:
    """Parameters from centres: each component takes the records nearest to its own, all take one covariance."""
    K = family.config.components
    numbers, onehots = family.entries.split(batch.x)
    there = ~numbers.isnan()
    x = torch.where(there, family.inner(numbers.double()), family.shift)
    units = batch.units.double()
    residuals = torch.zeros_like(x)
    classes = torch.zeros(len(x), dtype=torch.int64) if batch.condition is None else batch.condition
    prior = family.penalty()
    for label in range(len(family.log_classes)):
        rows = (classes == label).nonzero()[:, 0]
        rows = torch.arange(len(x)) if not len(rows) else rows
        nearest = _nearest(None if view is None else view[rows], units[rows].float(), K, dice, family, x[rows])
        count = torch.zeros(K, dtype=torch.float64).index_add_(0, nearest, units[rows])
        seen = torch.where(count > 0, count, 1.0)
        means = torch.zeros(K, x.shape[1], dtype=torch.float64).index_add_(0, nearest, units[rows, None] * x[rows])
        means = torch.where(count[:, None] > 0, means / seen[:, None], family.shift)
        residuals[rows] = torch.where(there[rows], x[rows] - means[nearest], 0.0)
        family.means[label * K:(label + 1) * K] = means
        family.log_weights[label] = ((count + 1) / (count + 1).sum()).log()
        family.log_classes[label] = (units[classes == label].sum() + 1).log()
    family.log_classes.copy_(family.log_classes.log_softmax(dim=0))
    family.logits.copy_(family.frequencies.log().expand_as(family.logits))
    D, q = x.shape[1], family.covariance.draws - x.shape[1]
    draws = dice.normal(D, max(q, 1), dtype=torch.float64)[0]
    family.covariance.begin(residuals, units, prior, draws)
    if onehots is not None:
        _tilt(family, dice)


def _tilt(family: Any, dice: Noise) -> None:
    """Moves the categories' probabilities apart at random, so that components that share a mean do not stay alike."""
    for first, last in family.entries.blocks:
        moved = family.logits[:, first:last] + 0.5 * dice.normal(len(family.logits), last - first, dtype=torch.float64)[0]
        family.logits[:, first:last] = moved.log_softmax(dim=1)


def _nearest(view: Tensor | None, units: Tensor, K: int, dice: Noise, family: Any, x: Tensor) -> Tensor:
    """The number of the centre that each record is nearest to, (B,): records at random where there is no view, else those
    of the best of some tries at k-means++, each after some rounds of Lloyd's k-means."""
    if view is None:
        view = (x - family.shift) / family.spread.sqrt()
        return _grouped(view, view[dice.uniform(K, dtype=torch.float64)[0].mul(len(view)).long()])[0]
    tries = [_clustered(view, units, K, dice) for _ in range(TRIES)]
    least = min(distance for _, distance in tries)
    return next(nearest for nearest, distance in tries if distance <= least + ALIKE[1] * abs(least))


def _clustered(view: Tensor, units: Tensor, K: int, dice: Noise) -> tuple[Tensor, float]:
    """The number of the centre that each record is nearest to, (B,), and the sum of squared distances, less a constant."""
    centres = view[_centres(view, units, K, dice)]
    for _ in range(ROUNDS):
        nearest, _ = _grouped(view, centres)
        count = torch.zeros(K, dtype=view.dtype).index_add_(0, nearest, units)
        sums = torch.zeros(K, view.shape[1], dtype=view.dtype).index_add_(0, nearest, units[:, None] * view)
        centres = sums / torch.where(count > 0, count, 1.0)[:, None]
    nearest, distances = _grouped(view, centres)
    return nearest, float(units @ distances)


def _grouped(view: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each row, and the squared distance to it less the row's own square."""
    distances, nearest = (centres.square().sum(dim=1) - 2 * view @ centres.T).min(dim=1)
    return nearest, distances


def _centres(view: Tensor, units: Tensor, K: int, dice: Noise) -> Tensor:
    """Rows (K,) of the view chosen by greedy k-means++."""
    trials = TRIALS + int(math.log(K))
    u = dice.uniform(K, trials)[0]
    squares = view.square().sum(dim=1)
    chosen = [_pick(units, u[0, :1])]
    distances = _distances(view, squares, chosen[0])[:, 0]
    for k in range(1, K):
        candidates = _pick(units * distances, u[k])
        closer = torch.minimum(distances[:, None], _distances(view, squares, candidates))
        best = (units @ closer).argmin()
        chosen.append(candidates[best:best + 1])
        distances = closer[:, best]
    return torch.cat(chosen)


def _distances(view: Tensor, squares: Tensor, rows: Tensor) -> Tensor:
    return (squares[:, None] - 2 * view @ view[rows].T + squares[rows]).clamp(min=0)


def _pick(weights: Tensor, u: Tensor) -> Tensor:
    """Rows by weight, one for each uniform draw; all alike where no row weighs anything."""
    edges = (weights if weights.sum() > 0 else torch.ones_like(weights)).cumsum(dim=0)
    return torch.searchsorted(edges, u * edges[-1]).clamp(max=len(weights) - 1)


def _moments(numbers: Tensor, there: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance (D,) of the numbers that are there; zero where none is."""
    weights = there * units.double()[:, None]
    total = weights.sum(dim=0)
    total = torch.where(total > 0, total, 1.0)
    values = numbers.nan_to_num(nan=0.0)
    mean = (weights * values).sum(dim=0) / total
    return mean, (weights * (values - mean).square()).sum(dim=0) / total


def _frequencies(entries: Entries, onehots: Tensor | None, units: Tensor) -> Tensor:
    """How often each category is met within its block, (S,), each once more than it was."""
    if onehots is None:
        return torch.zeros(0, dtype=torch.float64)
    counts = 1 + units.double() @ onehots.double().nan_to_num(nan=0.0)
    return torch.cat([counts[first:last] / counts[first:last].sum() for first, last in entries.blocks])
