"""Motion of clips: do made ones move as much, as smoothly and as seldom as real ones? Without optical flow.

For pixels x(t) in [0, 1] of one clip, all from differences d(t) = x(t + 1) - x(t):

    difference        how often each |d| occurs, over pixels and time
    energy            mean |d| between frames, times frames a second: how much of full scale changes in a second
    flicker           sum |d(t + 1) - d(t)|^2 / (2 sum over both of |d|^2): the mean of sin^2(w / 2) over the spectrum of d,
                      0 for smooth motion, 1 where each frame undoes the last, 1/2 for differences of no relation, 3/4 for noise
    stillness         share of pairs of frames with mean |d| below half a level of 255
    autocorrelation   sum (x(t) - m)(x(t + 1) - m) / sum (x(t) - m)^2 about each pixel's mean in time; 1 for a frozen clip

Sources: Box, Jenkins and Reinsel, "Time series analysis", section 2.1, for the autocorrelation; section 2.2 for the spectrum.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import BadData
from ..intervals import Interval
from . import Metric, Quantity, Sample
from ._distance import distance, wasserstein
from ._rates import shared_rate

__all__ = ["MEMBER", "Motion"]

LEVELS = 256
STILL = 0.5 / 255  # of full scale
NOT_SEEN = "Where it moves and what: only how much. Direction does not count."


@dataclass(frozen=True)
class _Seen:
    """One set of N clips: shares of each difference (N, 256), and numbers (N,) each."""

    shares: np.ndarray
    numbers: dict[str, np.ndarray]


class Motion(Metric):
    """Wasserstein-1 between how real and made clips move, clip by clip, and between all their differences pixel by pixel."""

    sees = "video"
    gives = (
        Quantity("difference_distance", "lower", "how far changes of single pixels from frame to frame differ: Wasserstein-1 "
                 "of their sizes over all clips", NOT_SEEN, "of full scale"),
        Quantity("energy_distance", "lower", "how far the amount of motion differs: Wasserstein-1 of the clips' mean change a "
                 "second", NOT_SEEN, "of full scale a second"),
        Quantity("flicker_distance", "lower", "how far smoothness differs: Wasserstein-1 of the clips' shares of change that "
                 "goes to and fro, 0 for smooth motion and 1 for what each frame undoes", "Slow drift of brightness."),
        Quantity("stillness_distance", "lower", "how far standing still differs: Wasserstein-1 of the clips' shares of frames "
                 "that do not change", "When it stands still."),
        Quantity("autocorrelation_distance", "lower", "how far the likeness of neighbouring frames differs: Wasserstein-1 of "
                 "the clips' autocorrelations at one frame; frames in the wrong order show here",
                 "What happens over many frames."),
    )
    numbers: ClassVar[tuple[str, ...]] = ("energy", "flicker", "stillness", "autocorrelation")

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Raises Incompatible METRIC_RATE where rates differ, METRIC_SHAPE without them; BadData METRIC_VALUE."""
        rate = shared_rate(real, made)
        x, y = (_seen(side, rate, what) for side, what in ((real, "real"), (made, "made")))
        shares = np.concatenate([x.shares, y.shares])

        def statistic(i: np.ndarray, j: np.ndarray) -> float:
            apart = (shares[i].mean(axis=0) - shares[j].mean(axis=0)).cumsum()[:-1]
            return float(np.abs(apart).sum() / (LEVELS - 1))
        out = {"difference_distance": distance(statistic, len(real), len(made), rng, most=1.0)}
        for name in self.numbers:
            most = {"energy": np.inf, "autocorrelation": 2.0}.get(name, 1.0)
            out[f"{name}_distance"] = wasserstein(x.numbers[name], y.numbers[name], rng, most)
        return out


def _seen(side: Sample, rate: float, what: str) -> _Seen:
    assert side.records is not None
    clips = [_clip(clip, rate, row, what) for row, clip in enumerate(side.records.columns["video"])]
    shares, numbers = zip(*clips, strict=True)
    return _Seen(np.stack(shares), {name: np.array([clip[k] for clip in numbers]) for k, name in enumerate(Motion.numbers)})


def _clip(clip: np.ndarray, rate: float, row: int, what: str) -> tuple[np.ndarray, list[float]]:
    """Shares (256,) and numbers of one clip (T, H, W, C), a frame at a time. Raises BadData METRIC_VALUE."""
    x = np.asarray(clip)
    if x.ndim != 4 or x.dtype != np.uint8 or len(x) < 3 or not x.size:
        raise BadData("METRIC_VALUE", f"The {what} clip {row + 1} is an array {x.shape} of {x.dtype}; it should be uint8 "
                      "(frames, height, width, channels) with 3 frames or more.", "Give longer clips, as bytes.")
    T, pixels = len(x), x[0].size
    counts, means = np.zeros(LEVELS), np.zeros(T - 1)
    squares, twice = np.zeros(T - 1), 0.0
    middle = x.mean(axis=0, dtype=np.float64)
    before, product, power = None, 0.0, float(np.square(x[0] - middle).sum())
    for t in range(T - 1):
        d = x[t + 1].astype(np.int16) - x[t]
        counts += np.bincount(np.abs(d).ravel(), minlength=LEVELS)
        means[t], squares[t] = np.abs(d).mean() / 255, np.square(d, dtype=np.float64).sum()
        twice += 0.0 if before is None else float(np.square(d - before, dtype=np.float64).sum())
        product += float(((x[t] - middle) * (x[t + 1] - middle)).sum())
        power += float(np.square(x[t + 1] - middle).sum())
        before = d
    both = squares[1:].sum() + squares[:-1].sum()
    flicker = twice / (2 * both) if both else 0.0
    return counts / ((T - 1) * pixels), [float(means.mean() * rate), float(flicker), float((means < STILL).mean()),
                                         product / power if power else 1.0]


MEMBER = Motion
