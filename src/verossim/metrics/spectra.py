"""Spectra of sounds: are made ones as bright, as noisy, as loud, as quiet between, and as lively as real ones?

Each clip is cut into windows of about 32 ms, a quarter of a window apart; |STFT|^2 gives the power P(t, f). Sources: Peeters,
"A large set of audio features for sound description" (2004) for centroid, spread and flatness; Stevens, Volkmann and Newman
(1937) for the mel scale, by O'Shaughnessy's formula; Gray and Markel (1976) for the log-spectral distance; Houtgast and
Steeneken (1985) for the spectrum of the envelope, by octaves.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..config import knob
from ..errors import BadData
from ..intervals import Interval
from . import Metric, Quantity, Sample
from ._distance import distance, wasserstein
from ._rates import shared_rate

__all__ = ["MEMBER", "Spectra", "SpectraConfig"]

WINDOW = 0.032  # seconds, about
FLOOR = 1e-10  # of power, 100 dB below a full-scale one
OCTAVES = tuple(0.5 * 2.0 ** k for k in range(8))  # hertz of modulation
BLOCK = 4096  # windows at a time

NOT_HEARD = "Order in time, pitch, words: clips with the same spectra in another order score the same."


@dataclass(frozen=True, kw_only=True)
class SpectraConfig:
    """Settings of the spectra of sounds."""

    bands: int = knob(64, "mel bands of the spectrum", low=4, high=512)
    silence: float = knob(-60.0, "decibels below full scale, under which a window is silent", low=-100.0, high=-1.0)


@dataclass(frozen=True)
class _Heard:
    """One set of N clips: band powers (N, bands), modulation (N, octaves) with nan where the clip is too short, and numbers
    (N,) each of centroid, bandwidth, flatness, loudness, silence."""

    power: np.ndarray
    modulation: np.ndarray
    numbers: dict[str, np.ndarray]


class Spectra(Metric):
    """Distances of long-term spectra and modulation in decibels, and Wasserstein-1 of what each clip sounds like on average."""

    Config = SpectraConfig
    sees = "audio"
    gives = (
        Quantity("spectrum_distance", "lower", "how far the average spectra of made and real sound lie apart, root mean square "
                 "over mel bands; a difference in level counts, too", NOT_HEARD, "dB"),
        Quantity("centroid_distance", "lower", "how far brightness differs: Wasserstein-1 of the clips' spectral centroids",
                 NOT_HEARD, "Hz"),
        Quantity("bandwidth_distance", "lower", "how far the width of spectra differs: Wasserstein-1 of the clips' spread "
                 "about the centroid", NOT_HEARD, "Hz"),
        Quantity("flatness_distance", "lower", "how far noisiness differs: Wasserstein-1 of the clips' spectral flatness, 0 dB "
                 "for white noise, far below for tones", NOT_HEARD, "dB"),
        Quantity("loudness_distance", "lower", "how far levels differ: Wasserstein-1 of the clips' root mean square level",
                 "Loudness as ears weigh frequencies.", "dB"),
        Quantity("silence_distance", "lower", "how far the share of silence differs: Wasserstein-1 of the clips' shares of "
                 "windows below the level of silence", "Where in the clip the silence is."),
        Quantity("modulation_distance", "lower", "how far the pace differs at which sound swells and fades: spectra of the "
                 "clips' envelopes by octaves from 0.5 Hz, root mean square",
                 "The rhythm itself: only how strong each pace is.", "dB"),
    )
    numbers: ClassVar[tuple[str, ...]] = ("centroid", "bandwidth", "flatness", "loudness", "silence")

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Raises Incompatible METRIC_RATE where rates differ; BadData METRIC_EMPTY, METRIC_NONFINITE or METRIC_VALUE."""
        rate = shared_rate(real, made)
        x, y = (self._heard(side, rate, what) for side, what in ((real, "real"), (made, "made")))
        n, m = len(real), len(made)
        out = {"spectrum_distance": distance(_apart(np.concatenate([x.power, y.power])), n, m, rng),
               "modulation_distance": distance(_apart(np.concatenate([x.modulation, y.modulation])), n, m, rng)}
        for name in self.numbers:
            out[f"{name}_distance"] = wasserstein(x.numbers[name], y.numbers[name], rng, 1.0 if name == "silence" else np.inf)
        return out

    def _heard(self, side: Sample, rate: float, what: str) -> _Heard:
        assert side.records is not None
        size = 2 ** round(np.log2(max(WINDOW * rate, 16)))
        mel = _mel(self.config.bands, size, rate)
        rows = [self._clip(_sound(clip, row, what), size, rate, mel) for row, clip in enumerate(side.records.columns["audio"])]
        power, modulation, numbers = zip(*rows, strict=True)
        return _Heard(np.stack(power), np.stack(modulation),
                      {name: np.array([clip[k] for clip in numbers]) for k, name in enumerate(self.numbers)})

    def _clip(self, x: torch.Tensor, size: int, rate: float, mel: torch.Tensor) -> tuple[np.ndarray, np.ndarray, list[float]]:
        """Band powers (bands,), modulation (octaves,) and the numbers of one clip (T,), a block of windows at a time."""
        hop = size // 4
        x = torch.nn.functional.pad(x, (0, max(size - len(x), 0)))
        count = 1 + (len(x) - size) // hop
        window = torch.hann_window(size, dtype=torch.float64)
        f = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
        bands, levels, shapes = torch.zeros(len(mel), dtype=torch.float64), [], []
        for first in range(0, count, BLOCK):
            part = x[first * hop:(min(first + BLOCK, count) - 1) * hop + size]
            P = torch.stft(part, size, hop, window=window, center=False, return_complex=True).abs().square()
            P = P / window.square().sum() / (size / 2)    # a full-scale sine has power 1/2 in all
            bands += (mel @ P).sum(dim=1)
            whole = P.sum(dim=0)
            centroid = (f @ P) / whole.clamp(min=FLOOR)
            spread = ((f[:, None] - centroid).square() * P).sum(dim=0) / whole.clamp(min=FLOOR)
            level = P.clamp(min=FLOOR / size)
            flat = level.log().mean(dim=0) - level.mean(dim=0).log()
            levels.append(whole)
            shapes.append(torch.stack([centroid, spread.sqrt(), flat * 10 / np.log(10)]))
        power, shape = torch.cat(levels), torch.cat(shapes, dim=1)
        weight = power / power.sum() if power.sum() > 0 else torch.full_like(power, 1 / len(power))
        quiet = (power < 10 ** (self.config.silence / 10)).double().mean()
        loud = 10 * np.log10(max(float(x.square().mean()), FLOOR))
        return ((bands / count).numpy(), _modulation(power.clamp(min=0).sqrt(), rate / hop),
                [*(shape @ weight).tolist(), loud, float(quiet)])


def _apart(power: np.ndarray):  # type: ignore[no-untyped-def]
    """The log-spectral distance in decibels between the means of rows of powers (N, bands), as a statistic of rows; a band that
    one side lacks does not count."""
    def statistic(i: np.ndarray, j: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):
            L = [10 * np.log10(np.maximum(_mean(power[rows]), FLOOR)) for rows in (i, j)]
        apart = np.square(L[0] - L[1])
        return float(np.sqrt(np.nanmean(apart))) if np.isfinite(apart).any() else 0.0
    return statistic


def _mean(rows: np.ndarray) -> np.ndarray:
    """The mean of rows (n, bands) without what is nan, nan where all of it is."""
    there = np.isfinite(rows)
    return np.where(there, rows, 0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan)


def _modulation(envelope: torch.Tensor, rate: float) -> np.ndarray:
    """The power of an envelope's swell (octaves,), over that of its mean, in each octave from 0.5 Hz; nan for octaves that
    the clip is too short for, or beyond half the envelope's rate in hertz."""
    E = envelope / envelope.mean().clamp(min=FLOOR ** 0.5) - 1
    spectrum = torch.fft.rfft(E).abs().square() / len(E) ** 2
    f = torch.fft.rfftfreq(len(E), 1 / rate)
    out = [spectrum[(f >= low) & (f < 2 * low)].sum() * 2 for low in OCTAVES]
    able = [rate / len(E) <= low and 2 * low <= rate / 2 for low in OCTAVES]
    return np.array([float(p) if there else np.nan for p, there in zip(out, able, strict=True)])


def _mel(bands: int, size: int, rate: float) -> torch.Tensor:
    """Triangles (bands, size / 2 + 1) of equal width in mel, m = 2595 log10(1 + f / 700), which overlap by halves. Each is at
    least as wide as the step between frequencies, so that none is empty."""
    f = np.linspace(0, rate / 2, size // 2 + 1)
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), bands + 2) / 2595) - 1)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    low, high = np.minimum(low, middle - f[1]), np.maximum(high, middle + f[1])
    return torch.from_numpy(np.maximum(0, np.minimum((f - low) / (middle - low), (high - f) / (high - middle))))


def _sound(clip: np.ndarray, row: int, what: str) -> torch.Tensor:
    """A clip (T,) as float64. Raises BadData."""
    x = np.asarray(clip)
    if x.ndim != 1 or x.dtype.kind != "f":
        raise BadData("METRIC_VALUE", f"The {what} sound {row + 1} is an array {x.shape} of {x.dtype}; it should be one "
                      "channel of floating numbers in [-1, 1].", "Mix channels into one, and divide integers by their largest.")
    if not len(x):
        raise BadData("METRIC_EMPTY", f"The {what} sound {row + 1} has no sample.", "Leave it out.")
    if not np.isfinite(x).all():
        raise BadData("METRIC_NONFINITE", f"The {what} sound {row + 1} has samples that are not finite.", "Leave it out.")
    return torch.from_numpy(x.astype(np.float64))


MEMBER = Spectra
