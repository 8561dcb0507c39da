"""Classifiers that learn side by side, from equally many records each, and which test records each gets right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import augmentation
from .classifiers import Predict, learned
from .sets import Labelled, Sets

__all__ = ["Arms", "Rights", "Size", "arms", "judged"]


@dataclass(frozen=True)
class Arms:
    """How classifiers learn: their kind, the number of classes, repeats, whether augmentation is tried and may mirror, records
    shown to one at most (unless the real ones are more), steps of the network, and the seed."""

    kind: str
    classes: int
    repeats: int
    augmentation: bool
    flips: bool
    budget: int
    steps: int
    seed: int


@dataclass(frozen=True)
class Size:
    """Which test records are right, (R, T) bool, by n real records alone, with made ones, and with augmented ones (R, T), or
    (0, T) where these were not tried; added: how many different made records were used."""

    n: int
    added: int
    real: np.ndarray
    made: np.ndarray
    augmented: np.ndarray


@dataclass(frozen=True)
class Rights:
    """The sizes, and right or wrong (R, T) in the three ways of all train records and as many made ones."""

    sizes: tuple[Size, ...]
    real_on_real: np.ndarray
    made_on_real: np.ndarray
    real_on_made: np.ndarray


def judged(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """d (R, T) in {-1, 0, 1}: 1 where only the one after is right, -1 where only the one before."""
    return after.astype(np.float64) - before.astype(np.float64)


def arms(sets: Sets, sizes: Sequence[int], how: Arms, progress: Callable[[int, int], None] | None = None) -> Rights:
    """All classifiers. Repeat r uses the same n real records, the same seed of the classifier, and the same test in every arm;
    the real records of a smaller size are among those of a larger one."""
    total = how.repeats * (2 + len(sizes) * (2 + how.augmentation))
    done = 0

    def learn(x: np.ndarray, y: np.ndarray, weight: float, repeat: int) -> Predict:
        nonlocal done
        predict = learned(how.kind, x, y, how.classes, weight, _number(how.seed, repeat), how.steps)
        done += 1
        if progress is not None:
            progress(done, total)
        return predict

    def right(predict: Predict, side: Labelled) -> np.ndarray:
        return predict(side.x) == side.y

    N = len(sets.train)
    ways: dict[str, list[np.ndarray]] = {"real_on_real": [], "made_on_real": [], "real_on_made": []}
    found: dict[int, dict[str, list[np.ndarray]]] = {n: {"real": [], "made": [], "augmented": []} for n in sizes}
    for repeat in range(how.repeats):
        rng = np.random.default_rng([how.seed, repeat])
        order, made = _order(sets.train.y, how.classes, rng), rng.permutation(len(sets.made))
        on_real = learn(sets.train.x, sets.train.y, 1.0, repeat)
        ways["real_on_real"].append(right(on_real, sets.test))
        ways["real_on_made"].append(right(on_real, sets.made))
        as_many = sets.made.take(np.resize(made, N))
        ways["made_on_real"].append(right(learn(as_many.x, as_many.y, 1.0, repeat), sets.test))
        for n in sizes:
            real = sets.train.take(_first(order, n))
            half = n * max(1, min(len(made), how.budget // 2) // n)
            again = np.arange(half) % n
            added = {"real": real.take(again), "made": sets.made.take(np.resize(made, half))}
            if how.augmentation:
                added["augmented"] = _augmented(real, again, sets, how.flips, np.random.default_rng([how.seed, repeat, n]))
            for name, more in added.items():
                x, y = np.concatenate([real.x[again], more.x]), np.concatenate([real.y[again], more.y])
                found[n][name].append(right(learn(x, y, n / len(x), repeat), sets.test))
    T = len(sets.test)
    return Rights(tuple(
        Size(n, min(len(sets.made), n * max(1, min(len(sets.made), how.budget // 2) // n)),
             *(np.array(found[n][name], dtype=bool).reshape(-1, T) for name in ("real", "made", "augmented"))) for n in sizes),
        *(np.array(ways[name]) for name in ("real_on_real", "made_on_real", "real_on_made")))


def _augmented(real: Labelled, which: np.ndarray, sets: Sets, flips: bool, rng: np.random.Generator) -> Labelled:
    """An augmented record of each of the real ones numbered `which`."""
    if sets.modality == "image":
        return Labelled(augmentation.pictures(real.x[which], rng, flips), real.y[which])
    return Labelled(augmentation.rows(real.x, real.y, which, sets.simplexes, rng), real.y[which])


def _order(y: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """An order (N,) of records in which the classes are spread as evenly as their shares let them: the first n of it hold each
    class as often as all do, and at least twice from n = 2 C on."""
    place = np.empty(len(y))
    for c in range(classes):
        own = rng.permutation(np.flatnonzero(y == c))
        place[own] = (np.arange(len(own)) + rng.uniform(0.25, 0.75)) / len(own)
        place[own[:2]] = [-2.0, -1.0]
    return np.lexsort((rng.random(len(y)), place))


def _first(order: np.ndarray, n: int) -> np.ndarray:
    """The first n of an order, as they lie in the set."""
    return np.sort(order[:n])


def _number(seed: int, repeat: int) -> int:
    """A seed of 63 bits for the classifier of a repeat."""
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1, np.uint64)[0] >> np.uint64(1))
