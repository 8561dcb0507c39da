"""Can it be told which records were learned from? Attacks that guess from one number a record, high for training records.

    AUC            P(a training record's number is above a held-out one's): 0.5 where nothing is remembered
    rates at 1 % and 0.1 % false positives: what an attacker gains who may hardly err (Carlini et al., "Membership inference
                   attacks from first principles", IEEE S&P 2022); an average hides the few records that are remembered

The numbers: log p(x), the negative loss (Yeom et al., 2018), and the negative distance to the nearest made record (Hilprecht et
al., 2019). The distance to the closest record by itself says nothing about privacy, so it stands beside its attack only.
"""

from dataclasses import dataclass

import numpy as np

from ...intervals import LEVEL, Interval, auc, rate_at

__all__ = ["Attack", "attack"]

CLASS_FEWEST = 10  # records of a class, on each side, for it to count


@dataclass(frozen=True)
class Attack:
    """An attack's success. by : "log_prob", "loss" or "distance"; area : AUC; at_1_percent, at_tenth_percent : share of
    training records told at that many false positives; within_class : whether compared within classes; train, held_out : how
    many records; closest : median distance of training and of held-out records to the closest made one, where by distance."""

    by: str
    area: Interval
    at_1_percent: Interval
    at_tenth_percent: Interval
    within_class: bool
    train: int
    held_out: int
    closest: tuple[float, float] | None = None


def attack(by: str, train: np.ndarray, held_out: np.ndarray, labels: tuple[np.ndarray, np.ndarray] | None = None,
           closest: tuple[float, float] | None = None) -> Attack:
    """An attack by numbers of training records (n,) and of held-out ones (m,); labels : their classes (n,) and (m,), within
    which they are then compared, so that classes which differ in their share betray nothing."""
    area, within = None, False
    if labels is not None:
        mine, its = labels
        classes = [c for c in np.unique(its) if min((mine == c).sum(), (its == c).sum()) >= CLASS_FEWEST]
        if classes:
            within, area = True, _stratified([(train[mine == c], held_out[its == c]) for c in classes])
            parts = [_centred(train[mine == c], held_out[its == c]) for c in classes]
            train, held_out = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    area = area or auc(train, held_out)
    return Attack(by, area, rate_at(train, held_out, 0.01), rate_at(train, held_out, 0.001), within, len(train), len(held_out),
                  closest)


def _stratified(parts: list[tuple[np.ndarray, np.ndarray]]) -> Interval:
    """The mean of the classes' AUC, weighted by n m / (n + m + 1), the inverse of their variance where nothing is remembered;
    the p-value is two-sided and normal."""
    from scipy.stats import norm
    areas = [auc(mine, its) for mine, its in parts]
    weights = np.array([len(a) * len(b) / (len(a) + len(b) + 1) for a, b in parts])
    z = norm.ppf((1 + LEVEL) / 2)
    errors = np.array([(area.high - area.low) / (2 * z) for area in areas])  # type: ignore[operator]
    share = weights / weights.sum()
    value, error = float(share @ [area.value for area in areas]), float(np.sqrt(share ** 2 @ errors ** 2))
    p = float(2 * norm.sf(abs(value - 0.5) * np.sqrt(12 * weights.sum())))
    return Interval(value, max(0.0, value - z * error), min(1.0, value + z * error), p)


def _centred(mine: np.ndarray, its: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a class over the median of the held-out ones: of the others, for each of these. Infinite ones stay so."""
    ordered, m, place = np.sort(its), len(its), np.argsort(np.argsort(its, kind="stable"), kind="stable")
    low, high = (m - 2) // 2, (m - 1) // 2  # of the m - 1 others
    rest = (ordered[low + (place <= low)] + ordered[high + (place <= high)]) / 2
    middle = np.median(its)
    return mine - np.where(np.isfinite(middle), middle, 0), its - np.where(np.isfinite(rest), rest, 0)
