"""Log-likelihood over records: bits per dimension with their interval, and whether stated standard errors are honest.

    bits = -sum_i log p(x_i) / (ln 2 sum_i c_i)        c_i: the coordinates of record i

A ratio of sums, so that long records count by their length; its interval over records is that of the linearised ratio (Cochran,
"Sampling techniques", section 6.3). An estimate's own error is part of the spread over records already, and is told apart.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import BadData, Incompatible
from ..intervals import Interval, bootstrap, of_mean
from ..spaces import Kind, Likelihood

__all__ = ["Honesty", "Summary", "calibrated", "summary"]


@dataclass(frozen=True)
class Summary:
    """How probable records are. bits: per dimension; nats: log_prob of a record; estimate_error: the standard error of bits
    that is due to the estimate itself, None where there is none; impossible: records of probability zero, which leave no
    interval."""

    bits: Interval
    nats: Interval
    kind: Kind
    records: int
    estimate_error: float | None = None
    impossible: int = 0


@dataclass(frozen=True)
class Honesty:
    """Whether standard errors are as stated. ratio: spread over repeats divided by the stated error; verdict: in words."""

    ratio: Interval
    verdict: str
    repeats: int
    records: int

    @property
    def honest(self) -> bool:
        """Whether the interval of the ratio holds 1."""
        return self.ratio.low is not None and self.ratio.high is not None and self.ratio.low <= 1 <= self.ratio.high


def summary(likelihood: Likelihood) -> Summary:
    """Means over the records of a likelihood. Raises BadData LIKELIHOOD_FEW or LIKELIHOOD_NAN."""
    log_p = likelihood.log_prob.detach().double().cpu().numpy()
    n = len(log_p)
    if not n:
        raise BadData("LIKELIHOOD_FEW", "There is no record whose likelihood could be told.", "Give at least one.")
    if np.isnan(log_p).any() or np.isposinf(log_p).any():
        unfit = np.isnan(log_p) | np.isposinf(log_p)
        raise BadData("LIKELIHOOD_NAN", f"The log-likelihood of record {int(unfit.argmax()) + 1} is {log_p[unfit.argmax()]}, "
                      f"and {int(unfit.sum())} of {n} are not numbers.", "Leave these records out, or mend the model.")
    c = torch.as_tensor(likelihood.coordinates).double().cpu().expand(n).numpy() * math.log(2)
    error = None if likelihood.stderr is None else float(likelihood.stderr.double().square().sum().sqrt()) / float(c.sum())
    impossible = int(np.isneginf(log_p).sum())
    if impossible:
        return Summary(Interval(math.inf), Interval(-math.inf), likelihood.kind, n, error, impossible)
    value = float(-log_p.sum() / c.sum())
    around = of_mean((-log_p - value * c) / c.mean())     # the residuals of the linearised ratio, of mean zero
    ends = (None if around.low is None else value + around.low, None if around.high is None else value + around.high)
    return Summary(Interval(value, *ends), of_mean(log_p), likelihood.kind, n, error)


def calibrated(repeats: Tensor, stderr: Tensor, seed: int = 0) -> Honesty:
    """Whether stated standard errors are honest, by R independent estimates of the same B records: (R, B), in nats.

        ratio^2 = mean_b var_r(repeats) / mean_rb stderr^2,        1 where they are

    The interval is the bootstrap's over records. Raises Incompatible LIKELIHOOD_SHAPE, BadData LIKELIHOOD_FEW or
    LIKELIHOOD_NAN.
    """
    if repeats.ndim != 2 or repeats.shape != stderr.shape:
        raise Incompatible("LIKELIHOOD_SHAPE", f"Repeats are {tuple(repeats.shape)} and standard errors {tuple(stderr.shape)}.",
                           "Give both as (repeats, records).")
    R, B = repeats.shape
    if R < 2 or B < 2:
        raise BadData("LIKELIHOOD_FEW", f"There are {R} repeats of {B} records; two of each are needed.", "Estimate again.")
    if not (repeats.isfinite().all() and stderr.isfinite().all()):
        raise BadData("LIKELIHOOD_NAN", "Some estimates or standard errors are not finite.", "Leave these records out.")
    spread = repeats.double().var(dim=0).cpu().numpy()
    stated = stderr.double().square().mean(dim=0).cpu().numpy()
    if not stated.sum() > 0:
        raise BadData("LIKELIHOOD_FEW", "All stated standard errors are zero.", "Exact numbers have none to calibrate.")

    def ratio(rows: np.ndarray) -> float:
        return float(np.sqrt(spread[rows].sum() / max(stated[rows].sum(), 1e-300)))
    found = bootstrap(ratio, (B,), np.random.default_rng(seed))
    if found.low is not None and found.low > 1:
        verdict = f"too small: estimates scatter {found.value:.2f} times as far as their standard errors say"
    elif found.high is not None and found.high < 1:
        verdict = f"too large: estimates scatter {found.value:.2f} times as far as their standard errors say"
    else:
        verdict = "honest: estimates scatter as far as their standard errors say"
    return Honesty(found, verdict, R, B)
