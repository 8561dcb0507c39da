"""Utility: does synthetic data help a classifier? Asked of real test records that neither it nor the model has seen.

    real on real            learn from train, judge by test                 Esteban et al., arXiv:1706.02633
    made on real            learn from made records, judge by test
    real on made            learn from train, judge by made records
    real + made             learn from n real records and made ones, n from few to all, against
        real                the n real records alone, and
        real + augmented    these and as many that ordinary augmentation makes of them

Every classifier of a size n is shown the same number of records, B, the n real ones in equal numbers: all B of them, or half
beside B/2 made or augmented ones. Settings, seeds and what is spent are the same, and the loss weighs what n records weigh, so
what differs is what was added. A record of test counts where one is right and the other wrong; see `paired` for the interval.

The null of each verdict: on new records of the kind of test, over the repeats' draws of the n records, of the made ones and of
the classifier's start, the two are right equally often. "helps": refused, for a gain. "does not": a gain of the margin or
more is refused. Else "cannot tell". Where classes are uneven all is said of balanced accuracy, the mean over classes.
The verdict of all is that of all real records: at smaller sizes what is made still carries what its model learned of the rest.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ... import __version__, data
from ...config import build, knob, plain
from ...errors import BadConfig, Incompatible, printable
from ...intervals import Interval
from ...metrics import Measured, Quantity, Stamp
from ...model import Model
from ...seeds import check_seed
from ...spaces import Records
from .classifiers import KINDS, chosen
from .comparison import Arms, arms, judged
from .paired import Verdict, contrast, shares, verdicts
from .sets import Sets, labels_of, opened, read

__all__ = ["Gain", "UtilityReport", "UtilitySettings", "utility", "utility_of"]

SIZES = (20, 50, 100, 500, 2000)  # of real records, where nothing is said; and all
UNEVEN = 1.5  # times as many of the commonest class of test as of the rarest
DRAWN = 1024  # records that a model makes at a time
FEWEST_MADE, MOST_MADE = 1000, 10_000  # records made, where nothing is said

SCORES = {
    "real_on_real": "learned from real records, judged by real ones",
    "made_on_real": "learned from made records, judged by real ones",
    "real_on_made": "learned from real records, judged by made ones",
}
SAID = {"helps": "help", "does not": "do not help", "cannot tell": "cannot be told to help"}
MISSES = "Says nothing of other classifiers or other questions, and nothing of whether records are copies."


@dataclass(frozen=True, kw_only=True)
class UtilitySettings:
    """How utility is judged."""

    classifier: str = knob("auto", "what learns; auto: network for pictures, for tables what does better on train alone",
                           choices=("auto", *KINDS))
    repeats: int = knob(5, "times that all is drawn and learned anew", low=2, high=1000)
    augmentation: bool = knob(True, "whether ordinary augmentation is tried beside")
    flips: bool = knob(False, "whether augmented pictures are mirrored, which digits and letters must not be")
    margin: float = knob(0.01, "a gain in accuracy that would be worth having", low=1e-6, high=0.5)
    budget: int = knob(4000, "records shown to a classifier, unless there are more real ones", low=2, high=10_000_000)
    steps: int = knob(200, "steps of 64 records that the network learns", low=1, high=1_000_000)


@dataclass(frozen=True, kw_only=True)
class MakingSettings:
    """How many records a model makes to be judged."""

    made: int | str = knob("auto", "records made; auto: as many as train has, from 1,000 to 10,000", low=2, high=10_000_000,
                           choices=("auto",))


@dataclass(frozen=True)
class Gain:
    """What made records add to `real` real ones: shares of test records that are right before and after, and the difference,
    with its p-value corrected over sizes. against: "real" (these alone) or "augmentation"; made: how many different made ones
    were used; measure: "accuracy" or "balanced accuracy", of before, after and difference; accuracy: the plain difference."""

    real: int
    made: int
    against: str
    measure: str
    before: float
    after: float
    difference: Interval
    accuracy: Interval
    verdict: Verdict


@dataclass(frozen=True)
class UtilityReport:
    """Whether made records help. scores: see `SCORES`; gains: by size, against the real records alone and against augmentation;
    protocol: all that has to be equal for two reports to be compared; warnings: in words, the gravest first."""

    verdict: Verdict
    measure: str
    scores: Mapping[str, Interval]
    gains: tuple[Gain, ...]
    labels: tuple[Any, ...]
    protocol: Stamp
    warnings: tuple[str, ...] = field(default=())

    @property
    def gain(self) -> Gain:
        """The gain over all real records, which the verdict is of."""
        return [gain for gain in self.gains if gain.against == "real"][-1]

    def words(self) -> str:
        """The verdict, in a sentence."""
        gain, d = self.gain, self.gain.difference
        return (f"Made records {SAID[self.verdict]}: {self.measure} goes from {gain.before:.4f} with {gain.real:,} real "
                f"records to {gain.after:.4f} with made ones beside, a difference of {d.value:+.4f} (95 %: {d.low:+.4f} to "
                f"{d.high:+.4f}).")

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The gain over all real records, and the scores, as measures give theirs."""
        gain = Quantity("utility", "higher", "what made records add to the accuracy of a classifier of real ones", MISSES)
        rest = [Quantity(name, "higher", f"{self.measure}: {means}", MISSES) for name, means in SCORES.items()]
        return (Measured(gain, self.gain.difference, self.protocol, (self.verdict,)),
                *(Measured(quantity, self.scores[quantity.name], self.protocol) for quantity in rest))

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"verdict": self.verdict, "words": self.words(), "measure": self.measure,
                "scores": {name: asdict(score) for name, score in self.scores.items()},
                "gains": [asdict(gain) for gain in self.gains], "labels": list(self.labels),
                "warnings": list(self.warnings), "protocol": asdict(self.protocol)}


def utility(made: Any, train: Any, test: Any, *, label: str | None = None, seed: int = 0, sizes: Sequence[int] | str = "auto",
            progress: Callable[[int, int], None] | None = None, **settings: Any) -> UtilityReport:
    """Whether made records help a classifier of test records, beside train records and in their place.

    made, train, test : anything that `verossim.fit` learns from, tables or pictures; or pairs (records, labels). label : the
    column of the class; pictures in sub-folders have it already. sizes : of real records, such as (20, 100) or "20,100"; all
    are added. progress : is told how many classifiers have learned, of how many. settings : see `UtilitySettings`.

    Raises BadConfig CONFIG_KEY, SETTING_RANGE; BadData LABEL_MISSING, LABEL_SINGLE, LABEL_COUNT, UTILITY_CLASSES, UTILITY_FEW,
    UTILITY_OVERLAP, DATA_FORMAT; Incompatible TAB_SCHEMA, UTILITY_MODALITY.
    """
    config = build(UtilitySettings, settings, "utility")
    check_seed(seed)
    asked = _asked(sizes)
    sets = read(made, train, test, label)
    counted = _sizes(asked, len(sets.train), len(sets.labels))
    kind = _kind(config.classifier, sets, seed)
    rights = arms(sets, counted, Arms(kind, len(sets.labels), config.repeats, config.augmentation, config.flips, config.budget,
                                      config.steps, seed), progress)
    strata, measure = _strata(sets)
    gains: list[Gain] = []
    for against in ("real", "augmentation")[:1 + config.augmentation]:
        gains += _gains(rights.sizes, against, strata, measure, config.margin)
    scores = {"real_on_real": shares(rights.real_on_real, strata), "made_on_real": shares(rights.made_on_real, strata),
              "real_on_made": shares(rights.real_on_made, _strata_of(sets.made.y, measure))}
    verdict = next(gain.verdict for gain in gains if gain.against == "real" and gain.real == counted[-1])
    protocol = Stamp(metric="utility", settings={**plain(config), "sizes": list(counted), "learns": kind, "measure": measure},
                     reference=f"{sets.train.digest()}+{sets.test.digest()}", real=len(sets.train), made=len(sets.made),
                     features=f"codec {sets.modality}", seed=seed, version=__version__)
    return UtilityReport(verdict, measure, scores, tuple(gains), sets.labels, protocol,
                         (*sets.warnings, *_warnings(gains, verdict)))


def utility_of(model: Model, train: Any, test: Any, *, label: str | None = None, made: int | str = "auto", seed: int = 0,
               sizes: Sequence[int] | str = "auto", progress: Callable[[int, int], None] | None = None,
               sampling: Mapping[str, Any] | None = None, **settings: Any) -> UtilityReport:
    """The utility of records that a model makes, of each class the share that train has of it.

    train : what the model learned from; test : what it did not. made : how many to make; auto: as many as train has, from
    1,000 to 10,000. sampling : settings of the model's sampling. settings : as of `utility`. Raises as `utility` does, and
    Incompatible NOT_CONDITIONAL from a model that knows no classes, BadConfig LABEL_UNKNOWN from one that knows others.
    """
    build(UtilitySettings, settings, "utility")  # before anything is made
    asked, total = _asked(sizes), build(MakingSettings, {"made": made}, "utility").made
    own = None if model.label is None else model.label.config.column
    learned, judging = (opened(source, name, label or own, model.codec.modality, model.card.get("weight"))
                        for source, name in ((train, "train"), (test, "test")))
    classes = labels_of(learned)
    if own is None and not (model.codec.modality == "table" and learned.label in _columns(model)):
        raise Incompatible("NOT_CONDITIONAL", "This model was fitted without labels, so what it makes has no classes to learn.",
                           f"Fit again with the label: --label {printable(learned.label)}.")
    _sizes(asked, round(sum(classes.counts)), len(classes.classes))
    if total == "auto":
        total = min(max(round(sum(classes.counts)), FEWEST_MADE), MOST_MADE)
    wanted = {None: total} if own is None else _shared(dict(zip(classes.classes, classes.counts, strict=True)), total)
    records = data.joined(list(_made(model, wanted, seed, sampling or {})))
    if own is not None and own != learned.label:
        records = records.without(own).with_columns(**{learned.label: records.columns[own]})
    return utility(opened(records, "made", learned.label, model.codec.modality), learned, judging, label=learned.label,
                   seed=seed, sizes=sizes, progress=progress, **settings)


def _made(model: Model, wanted: Mapping[Any, int], seed: int, sampling: Mapping[str, Any]) -> Iterator[Records]:
    """Blocks of records of each class; all of one seed, one number after another."""
    first = 0
    for value, count in wanted.items():
        for start in range(0, count, DRAWN):
            n = min(DRAWN, count - start)
            yield model.draw(n, value, seed, first, **sampling)
            first += n


def _columns(model: Model) -> list[str]:
    return [row["column"] for row in model.codec.describe()]


def _shared(counts: Mapping[Any, float], total: int) -> dict[Any, int]:
    """`total` records over classes as `counts` are, each at least twice: by largest remainders."""
    share = {value: total * count / sum(counts.values()) for value, count in counts.items()}
    out = {value: int(s) for value, s in share.items()}
    for value in sorted(share, key=lambda value: out[value] - share[value])[:total - sum(out.values())]:
        out[value] += 1
    return {value: max(count, 2) for value, count in out.items()}


def _asked(sizes: Sequence[int] | str) -> tuple[int, ...] | None:
    """The sizes that were asked for; None for auto. Raises BadConfig SETTING_RANGE."""
    if sizes == "auto":
        return None
    parts = [part for part in sizes.split(",") if part.strip()] if isinstance(sizes, str) else list(sizes)
    try:
        return tuple(sorted({int(part) for part in parts}))
    except (TypeError, ValueError) as error:
        raise BadConfig("SETTING_RANGE", f"'sizes' is {printable(sizes)}; it should be whole numbers, such as 20,100, or auto."
                        ) from error


def _sizes(asked: tuple[int, ...] | None, N: int, classes: int) -> tuple[int, ...]:
    """Sizes of real records, all of them last; two a class at least. Raises BadConfig SETTING_RANGE."""
    if asked is None:
        return (*(n for n in SIZES if 2 * classes <= n < N), N)
    outside = [n for n in asked if not 2 * classes <= n <= N]
    if outside:
        raise BadConfig("SETTING_RANGE", f"'sizes' has {outside[0]}; there are {N:,} train records of {classes} classes.",
                        f"Give numbers from {2 * classes}, two a class, to {N}; all records are added in any case.")
    return tuple(sorted({*asked, N}))


def _kind(asked: str, sets: Sets, seed: int) -> str:
    if asked == "network" and sets.modality != "image":
        raise BadConfig("SETTING_RANGE", "'classifier' is 'network', which is for pictures, and the records are a table.",
                        "Use logistic, trees or auto.")
    if asked != "auto":
        return asked
    return "network" if sets.modality == "image" else chosen(sets.train.x, sets.train.y, len(sets.labels), seed)


def _strata(sets: Sets) -> tuple[list[np.ndarray], str]:
    """Which test records are averaged first, and what that is called: each class where they are uneven, else all."""
    counts = Counter(sets.test.y.tolist()).values()
    measure = "balanced accuracy" if max(counts) > UNEVEN * min(counts) else "accuracy"
    return _strata_of(sets.test.y, measure), measure


def _strata_of(y: np.ndarray, measure: str) -> list[np.ndarray]:
    return [np.arange(len(y))] if measure == "accuracy" else [np.flatnonzero(y == c) for c in np.unique(y)]


def _gains(found: Sequence[Any], against: str, strata: list[np.ndarray], measure: str, margin: float) -> list[Gain]:
    """The gains of each size, and what each says."""
    whole = [np.arange(found[0].made.shape[1])]
    pairs = [(size.augmented if against == "augmentation" else size.real, size.made) for size in found]
    contrasts = [contrast(judged(after, before), strata) for before, after in pairs]
    plainly = [contrast(judged(after, before), whole) for before, after in pairs]
    out = []
    for size, (before, after), c, p, (verdict, p_value) in zip(found, pairs, contrasts, plainly, verdicts(contrasts, margin),
                                                               strict=True):
        out.append(Gain(size.n, size.added, against, measure, _mean(before, strata), _mean(after, strata),
                        c.interval(p_value=p_value), p.interval(), verdict))
    return out


def _mean(right: np.ndarray, strata: list[np.ndarray]) -> float:
    return float(np.mean([right[:, rows].mean() for rows in strata]))


def _warnings(gains: Sequence[Gain], verdict: Verdict) -> Iterator[str]:
    last = {gain.against: gain for gain in gains}
    real, beside = last["real"], last.get("augmentation")
    if real.difference.high is not None and real.difference.high < 0:
        yield "Made records do harm: the classifier is surely worse with them."
    if verdict == "helps" and beside is not None and beside.verdict != "helps":
        yield "Ordinary augmentation may do as well: over it, made records " + (
            "cannot be told to help." if beside.verdict == "cannot tell" else "do not help.")
    if any(gain.verdict == "helps" for gain in gains if gain.against == "real") and verdict != "helps":
        yield (f"They help where fewer than all {real.real:,} real records are used, which may be what their model learned "
               "from the others.")
