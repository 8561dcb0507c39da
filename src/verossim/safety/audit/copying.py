"""Does it copy? Made records that lie closer to a training record than records do that were never learned from.

With d_i(x) the distance of x to its i-th nearest training record (all different), records are told by

    r(x) = d_1(x) / mean(d_2(x) ... d_6(x))

the ratio of Carlini et al. ("Extracting training data from diffusion models", USENIX Security 2023, section 5.1), which does
not change with how dense the data is around x. Three tests against held-out records h, for
models that draw as the data is distributed, whatever that is; the last holds for any model:

    rate      the threshold is an order statistic of r(h): as many held-out records cross it as stated. The share of all records
              beyond the j-th of M is Beta(j, M + 1 - j), so the count of made records that cross it is beta-binomial: an exact
              p-value. It is taken at the stated rate and at the closest held-out record, and doubled.
    certain   one made record may be enough: below its quantiles P(r < x) = (k/M) (x/u)^theta (Hill, 1975; the exponent is the
              dimension that the records fill, Levina and Bickel, 2004), with theta at the lower end of its interval, times the
              number of made records. Equality counts only as far as the grid of the data tells: to its step's rounding.
    nearer    the share of made records whose nearest real record was learned from, against N / (N + M): real records are
              exchangeable under the hypothesis, so relabelling gives an exact p-value, however the made records lie and however
              many share a neighbour. It is Meehan, Chaudhuri and Dasgupta's question ("A non-parametric test to detect
              data-copying in generative models", AISTATS 2020) without their cells.
"""

from dataclasses import dataclass

import numpy as np

from ...intervals import Interval, clopper_pearson, p_value
from .duplicates import Distinct, deviations
from .neighbours import Frame, Neighbours, nearest

__all__ = ["Copying", "Pair", "Ratios", "judge", "most_alike", "ratios"]

OTHERS = 5  # neighbours beyond the nearest, whose mean distance is the measure
TAIL = 20  # one in so many held-out records makes the tail, and at least 10, at most 100
PLANTED, PERTURBED = 200, 0.01  # copies planted to see whether they are found; their noise, of the deviation
STEPS = 2000  # records that the grid of the data is read from
ROUNDS = 9999  # relabellings


@dataclass(frozen=True)
class Copying:
    """What the made records say.

    copies : made records closer than the threshold; rate : their share, with the p-value that it is not above that of records
    never learned from; expected : that share; threshold : of the ratio; exact : made records equal to a training record;
    certain : made records that even one of would not be there by chance; distinct : training records that are copied;
    sensitivity : share that would be found of copies with a noise of 1 % of the deviation; nearer : share of made records that
    lie nearer to a training record than to any held-out one, and nearer_expected : that of records never learned from.
    """

    copies: int
    rate: Interval
    expected: float
    threshold: float
    exact: int
    certain: int
    distinct: int
    sensitivity: Interval
    nearer: Interval
    nearer_expected: float

    @property
    def excess(self) -> float:
        """The share of made records that are nearer to training records beyond what is expected, of the rest: 0 to 1."""
        return max(0.0, (self.nearer.value - self.nearer_expected) / max(1 - self.nearer_expected, 1e-12))


@dataclass(frozen=True)
class Pair:
    """A made record and the training record that it lies closest to. threshold : the distance below which it counts as a copy;
    chance : how many such made records would be there by chance."""

    made: int
    train: int
    distance: float
    threshold: float
    chance: float


@dataclass(frozen=True)
class Ratios:
    """Of each record: r, the distance to the nearest training record over that to the next ones; `further` is the latter."""

    r: np.ndarray
    further: np.ndarray
    near: Neighbours


def ratios(records: np.ndarray, train: np.ndarray, frame: Frame) -> Ratios:
    """The ratio r of records (B, D) to different training records (N, D)."""
    near = nearest(records, train, min(1 + OTHERS, len(train)), frame)
    further = near.distance[:, 1:].mean(axis=1)
    return Ratios(near.distance[:, 0] / np.where(further > 0, further, 1.0), further, near)


def judge(made: np.ndarray, train: np.ndarray, held_out: np.ndarray, found: Distinct, its: Ratios, mine: Ratios, frame: Frame,
          rate: float, level: float, rng: np.random.Generator) -> tuple[Copying, np.ndarray]:
    """The three tests, and how many made records as close as each would be there by chance (S,).

    made (S, D); train (N, D), all different; held_out (M, D), all different and no training records, for `nearer`; its, mine :
    the ratios of held-out and of made records. rate : share of held-out records to cross the threshold. level : of the tests.
    """
    S = len(mine.r)
    u, expected = _threshold(its.r, rate)
    crossed = mine.r < u
    copies = int(crossed.sum())
    p = min(1.0, 2 * min(_beyond(its.r, mine.r, rate), _beyond(its.r, mine.r, 0.0)))
    share = clopper_pearson(copies, S)
    chance = S * _tail(its.r, np.maximum(mine.r, _grid(train, frame) / np.where(mine.further > 0, mine.further, 1.0)), level)
    chosen = rng.choice(len(train), min(PLANTED, len(train)), replace=False)
    noise = PERTURBED * deviations(train, frame) * frame.scale
    planted = train[chosen] + noise * rng.normal(size=(len(chosen), train.shape[1]))
    seen = int((ratios(planted, train, frame).r < u).sum())
    nearer, fair = _nearer(made, held_out, found, mine, frame, rng)
    return Copying(copies=copies, rate=Interval(share.value, share.low, share.high, p), expected=expected, threshold=u,
                   exact=int((mine.near.distance[:, 0] == 0).sum()), certain=int((chance <= level).sum()),
                   distinct=len(np.unique(mine.near.index[crossed, 0])), sensitivity=clopper_pearson(seen, len(chosen)),
                   nearer=nearer, nearer_expected=fair), chance


def most_alike(mine: Ratios, chance: np.ndarray, threshold: float, places: np.ndarray, count: int) -> tuple[Pair, ...]:
    """The `count` most suspicious pairs, each of another training record; `places` are those of the training records."""
    order = np.lexsort((np.arange(len(mine.r)), mine.near.distance[:, 0], mine.r))
    pairs: dict[int, Pair] = {}
    for s in order:
        t = int(mine.near.index[s, 0])
        if len(pairs) == count:
            break
        pairs.setdefault(t, Pair(int(s), int(places[t]), float(mine.near.distance[s, 0]), float(threshold * mine.further[s]),
                                 float(chance[s])))
    return tuple(pairs.values())


def _threshold(its: np.ndarray, rate: float) -> tuple[float, float]:
    """The ratio below which records count as copies, of the held-out ones' (M,), and the share of records that are to cross it.
    Never 0: where held-out records are training records by nature, equal ones are among what is expected."""
    M, ordered = len(its), np.sort(its)
    j = min(max(1, int(rate * (M + 1))), M)
    u = ordered[j - 1] if ordered[j - 1] > 0 or ordered[-1] == 0 else ordered[ordered > 0][0]
    return float(u), (int((its < u).sum()) + 1) / (M + 1)


def _beyond(its: np.ndarray, mine: np.ndarray, rate: float) -> float:
    """The p-value of as many made records beyond the threshold."""
    from scipy.stats import betabinom
    u, _ = _threshold(its, rate)
    below, M = int((its < u).sum()), len(its)
    return float(betabinom.sf(int((mine < u).sum()) - 1, len(mine), below + 1, M - below))


def _tail(its: np.ndarray, r: np.ndarray, level: float) -> np.ndarray:
    """P(a record never learned from has a ratio of at most r) for r (S,) by the held-out records' lower tail; 1 above it."""
    from scipy.stats import gamma
    M, ordered = len(its), np.sort(its)
    k = min(max(10, M // TAIL), 100)
    u, tail = ordered[k], ordered[:k]
    if tail[0] <= 0 or u == tail[0]:
        return np.ones_like(r)
    theta = gamma.ppf(level, k) / np.log(u / tail).sum()
    return np.where(r < u, k / M * np.minimum(r / u, 1.0) ** theta, 1.0)


def _grid(train: np.ndarray, frame: Frame) -> float:
    """The distance that rounding to the grid of the data hides, of two records: the root of the summed step^2 / 6, an entry no
    more than it varies by itself."""
    x = np.sort(frame(train[np.linspace(0, len(train) - 1, min(len(train), STEPS)).astype(np.int64)]), axis=0)
    gaps = np.diff(x, axis=0)
    step = np.where(gaps > 0, gaps, np.inf).min(axis=0)
    return float(np.sqrt(np.minimum(np.where(np.isfinite(step), step, 0) ** 2 / 6, 2 * x.var(axis=0)).sum()))


def _nearer(made: np.ndarray, held_out: np.ndarray, found: Distinct, mine: Ratios, frame: Frame,
            rng: np.random.Generator) -> tuple[Interval, float]:
    """The share of made records nearer to a training record than to a held-out one, its p-value, and the share expected. Made
    records whose nearest is a training record that is held out as well tell nothing, and are left out."""
    N, M = int((~found.both).sum()), len(held_out)
    if not (N and M):
        return Interval(0.5), 0.5
    other = nearest(made, held_out, 1, frame)
    first, apart = mine.near.index[:, 0], mine.near.distance[:, 0]
    learned = apart < other.distance[:, 0]
    counts = ~(learned & found.both[first]) & (apart != other.distance[:, 0])
    place = np.where(learned, first, len(found.both) + other.index[:, 0])[counts]
    if not len(place):
        return Interval(N / (N + M), p_value=1.0), N / (N + M)
    weights, pools = np.unique(np.bincount(place, minlength=len(found.both) + M), return_counts=True)
    pools[weights == 0] += N + M - pools.sum()  # the training records that are held out as well belong to neither
    drawn = rng.multivariate_hypergeometric(pools, N, size=ROUNDS) @ weights
    observed = int(learned[counts].sum())
    return Interval(observed / len(place), p_value=p_value(observed, drawn)), N / (N + M)
