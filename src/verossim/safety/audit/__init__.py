"""Does it copy? An audit of made records against the records that were learned from and records held out, as arrays.

Three questions, each against what records do that were never learned from: do made records lie too close to training records
(`copying`), are records there twice (`duplicates`), and can it be told which were learned from (`membership`)? All tests
together call at most FALSE_ALARMS of those models to account that never saw the records and draw as the data is distributed.
One that draws from a thin part of it, such as a plane, lies closer to all real records, and may be called up more often: look
at the pairs. That nothing is found is said together with what could have been.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ...config import build, knob, plain
from ...errors import BadData, Incompatible
from ...intervals import Interval
from .copying import Copying, Pair, judge, most_alike, ratios
from .duplicates import Distinct, Duplicates, distinct, find_duplicates
from .membership import Attack, attack
from .neighbours import Frame, nearest

__all__ = ["Attack", "AuditReport", "AuditSettings", "Copying", "Duplicates", "Pair", "audit"]

FEWEST = 20  # different training records, and held-out ones
FALSE_ALARMS = 0.025  # of all tests together
LEAN = 0.1  # the excess of made records nearer to training records that is worth a word
AREA, GAIN = 0.55, 3.0  # the membership AUC, and the gain over chance at 1 % false positives, that are worth a word
NEEDED = 1000  # held-out records for a rate at 0.1 % false positives
TELLING, SENSITIVE = 100, 0.5  # records, and share of planted copies found, below which nothing found says nothing

Verdict = Literal["copies", "remembers", "clear", "cannot tell"]
Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """The settings of an audit."""

    rate: float = knob(0.001, "share of held-out records that the threshold of a copy lets cross", low=1e-6, high=0.5)
    standardise: bool = knob(False, "distances between entries over their deviations, for entries of different scales")
    pairs: int = knob(16, "closest pairs to show", low=0, high=10_000)
    most: int = knob(20_000, "training records that are looked at for near duplicates and for membership by distance",
                     low=100, high=10**9)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. verdict : in one word; words : the same for people, the gravest first; warnings : what is wrong with
    the records that it had, to be read before it; pairs : made records and the training records that they lie closest to, the
    most suspicious first; train, held_out, made : records given."""

    verdict: Verdict
    words: tuple[str, ...]
    warnings: tuple[str, ...]
    copying: Copying
    duplicates: Duplicates
    membership: tuple[Attack, ...]
    pairs: tuple[Pair, ...]
    train: int
    held_out: int
    made: int
    settings: Mapping[str, Any]
    seed: int

    @property
    def flagged(self) -> bool:
        """Whether it copies, or remembers what it learned from."""
        return self.verdict in ("copies", "remembers")

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values."""
        told = asdict(self)
        return {**told, **{name: list(told[name]) for name in ("words", "warnings", "membership", "pairs")},
                "settings": dict(self.settings), "flagged": self.flagged}


def audit(train: np.ndarray, held_out: np.ndarray, made: np.ndarray, *, scores: Pairs | None = None,
          losses: Pairs | None = None, scored: Pairs | None = None, labels: Pairs | None = None, seed: int = 0,
          **settings: Any) -> AuditReport:
    """Audits made records (S, D) against training records (N, D) and held-out ones (M, D), all by the same features.

    scores, losses : log_prob, or loss per record, of training and of held-out records, in order. scored : the places (n,), (m,)
    of the records that these are of, where they are not of all. labels : classes (N,) and (M,), within which membership is then
    compared. settings : those of AuditSettings. The same inputs and seed give the same report. Raises BadData AUDIT_EMPTY,
    AUDIT_FEW, AUDIT_NONFINITE or AUDIT_OVERLAP, Incompatible AUDIT_SHAPE, BadConfig.
    """
    chosen: AuditSettings = build(AuditSettings, settings, "audit")
    train, held_out, made = _checked(train, held_out, made)
    given = {"log_prob": scores, "loss": losses}
    numbers = {by: _numbers(pair, by, scored, len(train), len(held_out)) for by, pair in given.items() if pair is not None}
    kinds = _classes(labels, len(train), len(held_out))
    level = FALSE_ALARMS / (3 + 2 * (1 + len(numbers)))
    rng = np.random.default_rng(seed)
    frame = Frame.of(train, chosen.standardise)
    found = _distinct(train, held_out)
    known, unseen = train[found.train], held_out[found.held_out]
    its, mine = ratios(unseen, known, frame), ratios(made, known, frame)
    copying, chance = judge(made, known, held_out[found.fresh], found, its, mine, frame, chosen.rate, level, rng)
    duplicates = find_duplicates(known, found, its.near.distance[:, 0], frame, chosen.most, rng)
    attacks = [attack(by, *_kept(pair, scored, found.held_out, kinds)) for by, pair in numbers.items()]
    attacks.append(_by_distance(train, unseen, made, frame, kinds, found, chosen.most, rng))
    verdict, words = _verdict(copying, tuple(attacks), level, len(unseen), len(made))
    return AuditReport(verdict, words, _warnings(duplicates, len(train), len(held_out), len(unseen)), copying, duplicates,
                       tuple(attacks), most_alike(mine, chance, copying.threshold, found.train, chosen.pairs), len(train),
                       len(held_out), len(made), plain(chosen), seed)


def _by_distance(train: np.ndarray, unseen: np.ndarray, made: np.ndarray, frame: Frame, kinds: Pairs | None, found: Distinct,
                 most: int, rng: np.random.Generator) -> Attack:
    """Membership by the distance to the nearest made record, of at most `most` training records."""
    N = len(train)
    some = np.sort(rng.choice(N, most, replace=False)) if most < N else np.arange(N)
    own, other = (nearest(side, made, 1, frame).distance[:, 0] for side in (train[some], unseen))
    classes = None if kinds is None else (kinds[0][some], kinds[1][found.held_out])
    return attack("distance", -own, -other, classes, (float(np.median(own)), float(np.median(other))))


def _verdict(copying: Copying, attacks: tuple[Attack, ...], level: float, M: int, S: int) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and its words."""
    c, copies, remembers = copying, [], []
    if c.certain or c.rate.p_value <= level:  # type: ignore[operator]
        copies.append(f"Copies {max(c.copies, c.certain):,} of {S:,} made records (rate {c.rate.low:.2%} to {c.rate.high:.2%}; "
                      f"{c.expected:.2%} are expected of records never learned from), of {c.distinct:,} training records; "
                      f"{c.exact:,} are exact.")
    if c.nearer.p_value is not None and c.nearer.p_value <= level and c.excess >= LEAN:
        remembers.append(f"Made records lie nearer to training records than to held-out ones in {c.nearer.value:.1%} of cases, "
                         f"against {c.nearer_expected:.1%} by chance.")
    for a in attacks:
        if a.area.value >= AREA and _above(a.area) <= level:
            remembers.append(f"Remembers its training records (membership AUC {a.area.value:.3f} by {a.by}, "
                             f"{a.area.low:.3f} to {a.area.high:.3f}; 0.5 is none).")
        elif a.at_1_percent.value >= GAIN / 100 and a.at_1_percent.p_value <= level:  # type: ignore[operator]
            remembers.append(f"Remembers some of its training records ({a.at_1_percent.value:.1%} told by {a.by} at 1 % "
                             "false positives).")
    few = "" if M >= NEEDED else \
        f"With {M:,} held-out records no rate at 0.1 % false positives can be told; this needs {NEEDED:,}."
    if copies or remembers:
        return "copies" if copies else "remembers", tuple(filter(None, [*copies, *remembers, few]))
    if min(M, S) < TELLING:
        return "cannot tell", (f"Cannot tell: {M:,} held-out and {S:,} made records are too few; give {TELLING:,} of each, "
                               f"better {NEEDED:,}.",)
    if c.sensitivity.value < SENSITIVE:
        return "cannot tell", (f"Cannot tell: records lie so close to one another that only {c.sensitivity.value:.0%} of "
                               "planted copies would be found.", *filter(None, [few]))
    return "clear", (f"No sign of copying: {c.copies:,} of {S:,} made records are as close to a training record as "
                     f"{c.expected:.2%} of records never learned from; of planted copies {c.sensitivity.value:.0%} would be "
                     "found.",
                     *filter(None, [few]))


def _above(area: Interval) -> float:
    """The one-sided p-value of an AUC above a half."""
    assert area.p_value is not None
    return area.p_value / 2 if area.value > 0.5 else 1.0


def _warnings(d: Duplicates, N: int, M: int, left: int) -> tuple[str, ...]:
    """What is wrong with the records, the gravest first."""
    said = []
    if d.overlap and not d.natural:
        said.append(f"{d.overlap:,} of {M:,} held-out records are training records: the two were not kept apart, and what was "
                    f"measured on them before means nothing. They are left out here; {left:,} remain.")
    if d.overlap and d.natural:
        said.append(f"{d.overlap:,} of {M:,} held-out records are equal to training records, as such records are among each "
                    "other: the data coincides by nature, and an equal record is no sign of copying by itself.")
    if d.near_held_out.low > d.near.high:  # type: ignore[operator]
        said.append(f"{d.near_held_out.value:.1%} of held-out records nearly equal a training record, and only "
                    f"{d.near.value:.1%} of training records another one: held-out records may be changed training records.")
    if d.exact:
        said.append(f"{d.exact:,} of {N:,} training records repeat another one, the commonest {d.most:,} times in all: "
                    "repeated records are the first to be remembered.")
    return tuple(said)


def _distinct(train: np.ndarray, held_out: np.ndarray) -> Distinct:
    """Tells records apart; raises where too few are left."""
    found = distinct(train, held_out)
    if len(found.train) < FEWEST:
        raise BadData("AUDIT_FEW", f"An audit needs {FEWEST} different training records; there are {len(found.train)}.",
                      "Give more.")
    if len(found.held_out) < FEWEST:
        raise BadData("AUDIT_OVERLAP", f"{found.overlap} of {len(held_out)} held-out records are training records; only "
                      f"{len(found.held_out)} are not, and an audit needs {FEWEST}.",
                      "Give records that were not learned from.")
    return found


def _checked(*sides: np.ndarray) -> list[np.ndarray]:
    """Training, held-out and made records as arrays (n, D). Raises BadData or Incompatible."""
    told = ("training", "held-out", "made")
    arrays = [np.atleast_1d(side) for side in sides]
    for array, what in zip(arrays, told, strict=True):
        if not array.size:
            raise BadData("AUDIT_EMPTY", f"There are no {what} records to audit.", "Give training, held-out and made records.")
        if array.dtype.kind not in "fiub":
            raise Incompatible("AUDIT_SHAPE", f"The {what} records are {array.dtype}, and an audit compares numbers.",
                               "Give their features.")
    flat = [array.reshape(len(array), -1) for array in arrays]
    if len({array.shape[1] for array in flat}) > 1:
        widths = ", ".join(f"{what} records have {array.shape[1]}" for what, array in zip(told, flat, strict=True))
        raise Incompatible("AUDIT_SHAPE", f"Records of different widths cannot be compared: {widths} entries.",
                           "Make all by the same features.")
    for array, what in zip(flat, told, strict=True):
        unfit = ~np.isfinite(array).all(axis=1)
        if unfit.any():
            raise BadData("AUDIT_NONFINITE", f"The {what} record {int(unfit.argmax()) + 1} is not finite, and "
                          f"{int(unfit.sum())} in all.", "Leave these records out, or mend them.")
    if len(flat[1]) < FEWEST:
        raise BadData("AUDIT_FEW", f"An audit needs {FEWEST} held-out records; there are {len(flat[1])}.",
                      f"Give more (--held-out DATA, or fit with a larger share held out), better {NEEDED}: a rate at 0.1 % "
                      "false positives needs these.")
    return flat


def _numbers(pair: Pairs, by: str, scored: Pairs | None, N: int, M: int) -> Pairs:
    """Numbers of an attack, high for training records. Raises Incompatible AUDIT_SHAPE or BadData AUDIT_NONFINITE."""
    told = ("training", "held-out")
    mine = [np.asarray(side, dtype=np.float64).reshape(-1) for side in pair]
    for side, count, places, what in zip(mine, (N, M), scored or (None, None), told, strict=True):
        wanted = count if places is None else len(places)
        if places is not None and wanted and not 0 <= np.min(places) <= np.max(places) < count:
            raise Incompatible("AUDIT_SHAPE", f"`scored` names {what} records {np.min(places)} to {np.max(places)} of {count}.",
                               "Give places from 0.")
        if len(side) != wanted:
            raise Incompatible("AUDIT_SHAPE", f"There are {len(side)} {by} of {wanted} {what} records.",
                               "Give one for each, or say by `scored` which records they are of.")
        if np.isnan(side).any():
            raise BadData("AUDIT_NONFINITE", f"The {by} of {what} record {int(np.isnan(side).argmax()) + 1} is not a number, "
                          f"and {int(np.isnan(side).sum())} in all.", "Leave these records out by `scored`.")
    return (-mine[0], -mine[1]) if by == "loss" else (mine[0], mine[1])


def _classes(labels: Pairs | None, N: int, M: int) -> Pairs | None:
    """Classes of training and of held-out records. Raises Incompatible AUDIT_SHAPE."""
    if labels is None:
        return None
    mine, its = (np.asarray(side).reshape(-1) for side in labels)
    if (len(mine), len(its)) != (N, M):
        raise Incompatible("AUDIT_SHAPE", f"There are {len(mine)} and {len(its)} classes of {N} training and {M} held-out "
                           "records.", "Give one for each, or none.")
    return mine, its


def _kept(pair: Pairs, scored: Pairs | None, held_out: np.ndarray, kinds: Pairs | None) -> tuple[np.ndarray, np.ndarray,
                                                                                                Pairs | None]:
    """Numbers, and classes, of the scored records; of held-out ones those that are no training records."""
    mine, its = (np.arange(len(side)) if scored is None else np.asarray(scored[k]) for k, side in enumerate(pair))
    unseen = np.isin(its, held_out)
    return pair[0], pair[1][unseen], None if kinds is None else (kinds[0][mine], kinds[1][its[unseen]])
