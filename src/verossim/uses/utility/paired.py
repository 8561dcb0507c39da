"""A difference between two classifiers on the same test records, over the same repeats, with its interval, and what it says.

Let d_rt in {-1, 0, 1} be how much better the second is at test record t in repeat r (McNemar's discordant pairs). Records and
repeats are crossed and both random, so that the mean has the variance (Owen, "The pigeonhole bootstrap", 2007)

    V = V_t + V_r - V_tr,    V_t = s^2(mean over r) / T,  V_r = s^2(mean over t) / R,  V_tr = s^2(residuals) / (R T),

and Student's t with the degrees of freedom of Satterthwaite (1946). So that few records that all agree do not pass for
certainty, half a record is added to each of the four cells of the paired table (Agresti and Min, "Simple improved confidence
intervals for comparing matched proportions", 2005). Over several sizes p-values are corrected by Holm (1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...intervals import LEVEL, Interval

__all__ = ["HALVES", "TWOS", "Contrast", "Verdict", "contrast", "holm", "shares", "verdicts"]

Verdict = str  # "helps", "does not" or "cannot tell"

#: Values that are added, and how many records of each: to differences as above, to shares as Agresti and Coull (1998) do.
HALVES = ((-1.0, 0.5), (0.0, 1.0), (1.0, 0.5))
TWOS = ((0.0, 2.0), (1.0, 2.0))


@dataclass(frozen=True)
class Contrast:
    """A mean over records and repeats: its value, the middle of its interval, its standard error and degrees of freedom."""

    value: float
    middle: float
    error: float
    freedom: float

    def interval(self, least: float = -1.0, p_value: float | None = None) -> Interval:
        """Its 95 % interval, within [least, 1]."""
        from scipy.stats import t
        reach = float(t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error
        return Interval(self.value, max(self.middle - reach, least), min(self.middle + reach, 1.0), p_value)

    def p_value(self, gain: float = 0.0) -> float:
        """Of the hypothesis that the mean is `gain`, on both sides."""
        from scipy.stats import t
        return float(2 * t.sf(abs(self.middle - gain) / self.error, self.freedom))


def contrast(d: np.ndarray, strata: Sequence[np.ndarray], added: Sequence[tuple[float, float]] = HALVES) -> Contrast:
    """The mean of d (R, T) over strata of its records, all of one weight: one stratum of all records for accuracy, a stratum a
    class for balanced accuracy. added: see `HALVES`; the strata share these."""
    (R, _), S = d.shape, len(strata)
    value, middle, V_t, V_tr, freedom = 0.0, 0.0, 0.0, 0.0, 0
    per_repeat = np.mean([d[:, rows].mean(axis=1) for rows in strata], axis=0)
    for rows in strata:
        each = np.concatenate([d[:, rows].mean(axis=0), [v for v, _ in added]])
        count = np.concatenate([np.ones(len(rows)), [k / S for _, k in added]])
        T, mean = count.sum(), float(count @ each / count.sum())
        value, middle, freedom = value + float(d[:, rows].mean()) / S, middle + mean / S, freedom + len(rows)
        V_t += float(count @ (each - mean) ** 2) / T ** 2 / S ** 2
        residuals = d[:, rows] - d[:, rows].mean(axis=0) - d[:, rows].mean(axis=1, keepdims=True) + d[:, rows].mean()
        V_tr += float(np.square(residuals).sum()) / max((R - 1) * (len(rows) - 1), 1) / (R * len(rows)) / S ** 2
    V_r = float(per_repeat.var(ddof=1)) / R if R > 1 else 0.0
    satterthwaite = (V_t + V_r) ** 2 / (V_t ** 2 / max(freedom - S, 1) + V_r ** 2 / max(R - 1, 1))
    return Contrast(value, middle, float(np.sqrt(max(V_t + V_r - V_tr, V_t))), satterthwaite)


def shares(right: np.ndarray, strata: Sequence[np.ndarray]) -> Interval:
    """The share of records that are right, (R, T) of 0 and 1, with its interval."""
    return contrast(right.astype(np.float64), strata, TWOS).interval(least=0.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values as corrected for how many they are: the k-th smallest of m times m - k + 1, never below one before it."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    out = np.empty(len(p_values))
    out[order] = corrected
    return out.tolist()


def verdicts(contrasts: Sequence[Contrast], margin: float) -> list[tuple[Verdict, float]]:
    """What each of several differences says, and its corrected p-value of no difference.

    "does not": a gain of `margin` or more is refused; else "helps": no gain is refused, and the difference is a gain; else
    "cannot tell". Both at 5 %, corrected by Holm over the differences."""
    nothing = holm([c.p_value() for c in contrasts])
    # On the other side of the margin nothing is refused, whatever the p-value.
    gain = holm([c.p_value(margin) if c.middle < margin else 1.0 for c in contrasts])
    out: list[tuple[Verdict, float]] = []
    for c, p_nothing, p_gain in zip(contrasts, nothing, gain, strict=True):
        helps = p_nothing < 1 - LEVEL and c.middle > 0
        out.append(("does not" if p_gain < 1 - LEVEL else "helps" if helps else "cannot tell", p_nothing))
    return out
