"""How well log p tells unusual records from usual ones: the less probable, the more unusual.

The area under the curve is P(log p of a usual record > log p of an unusual one), 0.5 where they are alike. A likelihood can be
higher on unusual records than on usual ones, where these are simpler (Nalisnick et al., arXiv:1810.09136): then it is below
0.5.
"""

from dataclasses import dataclass

import numpy as np

from ..intervals import Interval, auc, rate_at

__all__ = ["Anomaly", "summary"]


@dataclass(frozen=True)
class Anomaly:
    """auc: area under the curve; one_percent, one_per_mille: share of unusual records that are found while 1 % and 0.1 % of the
    usual ones are taken for unusual; curve: points (false positive rate, true positive rate); notes: to be read beside it."""

    auc: Interval
    one_percent: Interval
    one_per_mille: Interval
    usual: int
    unusual: int
    curve: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


def summary(usual: np.ndarray, unusual: np.ndarray, points: int = 101) -> Anomaly:
    """Of log_prob (N,) of usual records that were not learned from, and (M,) of unusual ones. Raises BadData SCORES_FEW or
    SCORES_NAN."""
    positive, negative = -np.asarray(unusual, dtype=np.float64), -np.asarray(usual, dtype=np.float64)
    area = auc(positive, negative)
    few = [share for share in (0.01, 0.001) if len(negative) * share < 1]
    notes = [f"{len(negative)} usual records are too few for a false positive rate of {share:.1%}: the threshold is their most "
             "unusual one" for share in few]
    if area.high is not None and area.high < 0.5:
        notes.insert(0, "unusual records are more probable than usual ones: likelihood does not tell them here")
    falls = np.unique(np.floor(np.linspace(0, 1, points) * len(negative)).astype(int))
    thresholds = np.concatenate([np.sort(negative)[::-1], [-np.inf]])[falls]
    curve = ((0.0, 0.0), *((float((negative > t).mean()), float((positive > t).mean())) for t in thresholds))
    return Anomaly(area, rate_at(positive, negative, 0.01), rate_at(positive, negative, 0.001), len(negative), len(positive),
                   curve, tuple(notes))
