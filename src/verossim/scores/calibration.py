"""Whether the probabilities of classes are what they say: accuracy, Brier score and expected calibration error.

    ECE = sum_b w_b |accuracy_b - confidence_b|        over bins of equal mass of the highest probability

(Guo et al., ICML 2017). Of a finite number of records this is above zero also where all is calibrated, since the accuracies of
bins are noisy (Roelofs et al., "Mitigating bias in calibration error estimation", AISTATS 2022). Here the plain value is told
together with what a calibrated classifier would get, and the error itself is sum_b w_b |s gap_b| with the s that makes the
observed value the median of

    ECE(s) = sum_b w_b |s gap_b + noise_b|,    noise_b ~ N(0, sigma_b^2),

gap_b being accuracy_b - confidence_b smoothed by a parabola over the bins, since a gap that is noise already would count its
noise twice; the ends of its interval have the s that make it the 2.5 % and the 97.5 % point. s = 0 is a calibrated classifier,
and gives the p-value.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import BadData, Incompatible
from ..intervals import LEVEL, Interval, clopper_pearson, of_mean, p_value

__all__ = ["Calibration", "summary"]

ROUNDS = 2000  # of noise
WIDEST = 16.0  # the largest s that is looked at, where the smoothed gaps come to what is observed
FULL = 20  # records that a bin has at least


@dataclass(frozen=True)
class Calibration:
    """accuracy: share of right classes; brier: mean of sum_c (p_c - y_c)^2; error: expected calibration error, its bias taken
    off; plain_error: the same as it is usually told; calibrated_error: what a calibrated classifier would get of that;
    curve: points (probability said, share that was true, records), one a bin."""

    accuracy: Interval
    brier: Interval
    error: Interval
    plain_error: float
    calibrated_error: float
    curve: tuple[tuple[float, float, int], ...]
    records: int


def summary(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, seed: int = 0) -> Calibration:
    """Of probabilities (B, C) and classes (B,), -1 where unknown, which are left out.

    bins : of equal mass, at most; each has 20 records or more. Raises Incompatible CALIBRATION_SHAPE, BadData CALIBRATION_FEW,
    CALIBRATION_SUM or CALIBRATION_LABEL.
    """
    p, y = _checked(probabilities, labels)
    B = len(p)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    brier = np.square(p).sum(axis=1) - 2 * p[np.arange(B), y] + 1
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, int(np.clip(B // FULL, 1, bins)))
    size = np.array([len(part) for part in parts])
    said = np.array([confidence[part].mean() for part in parts])
    true = np.array([right[part].mean() for part in parts])
    variance = np.array([(confidence[part] * (1 - confidence[part])).mean() for part in parts])
    error, calibrated = _error(true - said, size, variance, true, np.random.default_rng(seed))
    curve = tuple((float(s), float(t), int(n)) for s, t, n in zip(said, true, size, strict=True))
    plain = float((size / B) @ np.abs(true - said))
    return Calibration(clopper_pearson(int(right.sum()), B), of_mean(brier), error, plain, calibrated, curve, B)


def _error(gap: np.ndarray, size: np.ndarray, variance: np.ndarray, true: np.ndarray,
           rng: np.random.Generator) -> tuple[Interval, float]:
    """The error with its interval, and what a calibrated classifier gets: of gaps, records and variances of the bins (K,)."""
    weight, noise = size / size.sum(), rng.normal(size=(ROUNDS, len(gap)))
    observed = float(weight @ np.abs(gap))
    null_sigma = np.sqrt(variance / size)
    sigma = np.sqrt((true * size + 1) * ((1 - true) * size + 1) / (size + 2) ** 2 / size)
    smooth = _parabola(gap, sigma)
    unit = float(weight @ np.abs(smooth))

    def drawn(s: float) -> np.ndarray:
        share = min(s, 1.0)
        return np.abs(s * smooth + noise * ((1 - share) * null_sigma + share * sigma)) @ weight

    def at(probability: float) -> float:
        """The s of which the observed value is this quantile; 0 where it is below that of a calibrated classifier."""
        low, high = 0.0, WIDEST * max(1.0, observed / max(unit, 1e-12))
        if np.quantile(drawn(0.0), probability) >= observed:
            return 0.0
        for _ in range(25):
            s = (low + high) / 2
            low, high = (low, s) if np.quantile(drawn(s), probability) >= observed else (s, high)
        return high
    null = drawn(0.0)
    ends = (at((1 + LEVEL) / 2) * unit, at((1 - LEVEL) / 2) * unit)
    return Interval(at(0.5) * unit, *ends, p_value(observed, null)), float(null.mean())


def _parabola(gap: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The gaps (K,) as a parabola over the bins, by least squares weighted by 1 / sigma^2."""
    powers = np.vander(np.linspace(-1, 1, len(gap)), min(3, len(gap)))
    return powers @ np.linalg.lstsq(powers / sigma[:, None], gap / sigma, rcond=None)[0]


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, C) float64 and classes (B,) that are known."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or p.shape[1] < 2:
        raise Incompatible("CALIBRATION_SHAPE", f"Probabilities are of shape {p.shape} and classes of shape {y.shape}.",
                           "Give (records, classes) with two classes or more, and (records,).")
    unfit = ~(np.isfinite(p).all(axis=1) & (p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) < 1e-3))
    if unfit.any():
        row = int(unfit.argmax())
        raise BadData("CALIBRATION_SUM", f"The probabilities of record {row + 1} sum to {p[row].sum():.4g}, or are negative; "
                      f"so are those of {int(unfit.sum())} records.", "Give probabilities of classes, not scores.")
    if (y >= p.shape[1]).any() or not np.issubdtype(y.dtype, np.integer):
        raise BadData("CALIBRATION_LABEL", f"There are {p.shape[1]} classes, and a record has class {y.max()}.",
                      "Number classes from 0; -1 is unknown.")
    known = y >= 0
    if not known.any():
        raise BadData("CALIBRATION_FEW", "No record has a known class.", "Give records with their classes.")
    return p[known], y[known]
