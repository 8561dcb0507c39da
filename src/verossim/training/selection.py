"""How many components, of which shape: candidates side by side, and how far the choice can be trusted.

Three criteria look at every candidate, each fitted to the same records (n of them, d free parameters, L their total
log-likelihood at the fit):

    BIC = d ln n - 2 L                             smaller is better; Schwarz, "Estimating the dimension of a model",
                                                   Ann. Stat. 1978
    ICL = BIC + 2 sum_i H(P(component | x_i))      smaller is better, prefers separate groups; Biernacki, Celeux and Govaert,
                                                   "Assessing a mixture model for clustering with the integrated completed
                                                   likelihood", PAMI 2000
    mean log-likelihood of held-out records        larger is better

BIC chooses. The choice is then tried on bootstrap resamples: refitted to each, it should put the same records together.
Agreement is the adjusted Rand index (Hubert and Arabie, "Comparing partitions", J. Classif. 1985): 1 the same groups,
0 no better than chance. Below 0.7, or where the criteria disagree, the journal says so loudly.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ..config import plain
from ..errors import BadConfig, BadData, Diverged
from ..families import LearnsByStatistics
from ..spaces import Batch, Space
from .journal import Journal
from .statistics import InMemory, Learning, Split, begin, learn, subsample

__all__ = ["Row", "Selection", "candidates", "select", "wants_selection"]

STABLE = 0.7  # mean adjusted Rand index below which groups change with the sample
RESAMPLES = 10
STARTS = 2  # a candidate is judged by the best of so many fits, or a bad start would be mistaken for a bad size
PATIENCE = 2  # larger sizes that are worse, one after the other, before no larger one is tried
BATCH_NUMBERS = 1 << 21  # in a batch
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
RECORDS_A_COMPONENT = 5
CHOSEN = ("components", "covariance")
BIC_TOLERANCE = 0.2  # fits are carried on until an update changes BIC by less

Build = Callable[[Any], LearnsByStatistics]


@dataclass(frozen=True)
class Row:
    """One candidate: its settings and what the criteria say (bic, icl: smaller is better; held_out: larger, nats a unit).

    unseen : log-likelihoods of the held-out records (B,), nats, whose mean is `held_out`.
    """

    config: Any
    settings: dict[str, Any]
    freedom: int
    log_likelihood: float
    bic: float
    icl: float
    held_out: float
    converged: bool
    unseen: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class Selection:
    """All candidates that were tried, in order, and the chosen one.

    choice : the row of the smallest BIC. scores : adjusted Rand index of each resample with the choice; stability: their mean.
    agreed : whether BIC and ICL choose the same row, and no other is clearly better on held-out records (by more than two
    standard errors of the difference). warnings : what a person should know before trusting it.
    """

    rows: tuple[Row, ...]
    choice: Row
    scores: tuple[float, ...]
    stability: float
    agreed: bool
    warnings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """All of it as JSON-ready values: one dictionary a row."""
        names = ("settings", "freedom", "log_likelihood", "bic", "icl", "held_out", "converged")
        rows = [{name: _finite(getattr(row, name)) for name in names} for row in self.rows]
        return {"rows": rows, "choice": self.choice.settings, "scores": list(self.scores), "stability": _finite(self.stability),
                "agreed": self.agreed, "warnings": list(self.warnings)}


def wants_selection(config: Any) -> bool:
    """Whether the size or the shape is "auto", to be chosen by looking at the data."""
    return any(vars(config).get(name) == "auto" for name in CHOSEN)


def candidates(kind: type[LearnsByStatistics], config: Any, space: Space, records: int) -> list[Any]:
    """The configs to try: the shapes that the family offers, and a ladder of sizes where `components` is "auto".

    The sizes of a shape follow each other and grow, as `select` wants them.
    """
    sizes = [size for size in SIZES if size == 1 or size * RECORDS_A_COMPONENT <= records]
    tried = kind.shapes(config, space)
    if config.components == "auto":
        tried = [replace(one, components=size) for one in tried for size in sizes]
    return tried


def select(build: Build, configs: Sequence[Any], train: Split, held_out: Split, seed: int,
           journal: Journal | None = None, resamples: int = RESAMPLES) -> Selection:
    """Fits the candidates to (at most 20,000 of) the training records and chooses the one of the smallest BIC.

    build(config) makes a family that has not started. A candidate that cannot be fitted (too large for memory, too many
    components for the records) is left out. Raises BadData SELECT_NONE when none can be.
    """
    journal = journal or Journal()
    known, unknown = InMemory(subsample(train, seed)), InMemory(subsample(held_out, seed))
    rows: list[Row] = []
    for _, group in groupby(configs, key=_shape):
        rows += _tried(build, group, known, unknown, seed, journal, [row.config for row in rows])
    if not rows:
        raise BadData("SELECT_NONE", f"None of the {len(configs)} candidates can be fitted to these {len(train)} records.",
                      "Set the number of components and the covariance yourself, or give more records.")
    choice = min(rows, key=lambda row: row.bic)
    scores = _stability(build, choice, known, seed, resamples)
    return _judged(tuple(rows), choice, scores, journal)


def _shape(config: Any) -> list[Any]:
    """All settings but the size: the ladder of sizes is climbed once for each."""
    return sorted((name, repr(value)) for name, value in plain(config).items() if name != "components")


def _tried(build: Build, ladder: Iterator[Any], known: InMemory, unknown: InMemory, seed: int, journal: Journal,
           before: list[Any]) -> list[Row]:
    """Rows of one ladder of sizes, until BIC has worsened PATIENCE times in a row; what was tried `before` is passed over.

    A family may settle a setting that was left open, so two candidates can turn out to be one.
    """
    rows: list[Row] = []
    worse = 0
    for config in ladder:
        try:
            config = build(config).config
            if config in before:
                continue
            row = _row(build, config, known, unknown, seed)
        except (BadConfig, BadData, Diverged) as error:
            journal.event("candidate left out", settings=plain(config), why=str(error))
            continue
        journal.event("candidate", settings=row.settings, bic=row.bic, icl=row.icl, held_out=row.held_out)
        worse = worse + 1 if rows and row.bic > rows[-1].bic else 0
        rows.append(row)
        if worse == PATIENCE:
            break
    return rows


def _row(build: Build, config: Any, known: InMemory, unknown: InMemory, seed: int) -> Row:
    family, converged = _fitted(build, config, known, seed, STARTS)
    data = known.whole
    n, d = float(data.units.sum()), family.freedom
    L = float(_log_prob(family, data) @ data.units.double())
    bic = d * math.log(n) - 2 * L
    icl = bic + 2 * _entropy(family.assign(data), data.units)
    unseen, units = _log_prob(family, unknown.whole), unknown.whole.units.double()
    held_out = float(unseen @ units / units.sum()) if len(unseen) else math.nan
    return Row(config, plain(config), d, L, bic, icl, held_out, converged, unseen)


def _fitted(build: Build, config: Any, data: InMemory, seed: int, starts: int) -> tuple[LearnsByStatistics, bool]:
    """The family of highest objective of several starts, and whether its learning converged."""
    best: tuple[float, LearnsByStatistics, bool] | None = None
    fit = Learning(iterations=200, tolerance=BIC_TOLERANCE / 2 / max(float(data.whole.units.sum()), 1.0))
    for start in range(starts):
        family = build(config)
        begin(family, data, seed + start)
        history = learn(family, data, batch=max(64, BATCH_NUMBERS // family.space.dims), config=fit)
        if best is None or history.objectives[-1] > best[0]:
            best = history.objectives[-1], family, history.converged
    assert best is not None
    return best[1], best[2]


def _log_prob(family: LearnsByStatistics, data: Batch) -> Tensor:
    return family.log_prob(data.x, data.condition).log_prob.double()


def _entropy(p: Tensor, units: Tensor) -> float:
    """sum_i units_i H(p_i) in nats, p (B, K)."""
    return float(torch.special.entr(p.double()).sum(1) @ units.double())


def _stability(build: Build, choice: Row, known: InMemory, seed: int, resamples: int) -> tuple[float, ...]:
    """Adjusted Rand index between the groups of the choice and those of its refits to bootstrap resamples."""
    from sklearn.metrics import adjusted_rand_score

    generator = torch.Generator().manual_seed(seed)
    family, _ = _fitted(build, choice.config, known, seed, STARTS)
    groups = family.assign(known.whole).argmax(1).numpy()
    scores = []
    for number in range(resamples):
        resample = InMemory(known.take(torch.randint(len(known), (len(known),), generator=generator)))
        refit, _ = _fitted(build, choice.config, resample, seed + STARTS * (number + 1), STARTS)
        scores.append(float(adjusted_rand_score(groups, refit.assign(known.whole).argmax(1).numpy())))
    return tuple(scores)


def _judged(rows: tuple[Row, ...], choice: Row, scores: tuple[float, ...], journal: Journal) -> Selection:
    stability = sum(scores) / len(scores) if scores else math.nan
    chosen = {"BIC": choice, "ICL": min(rows, key=lambda row: row.icl), "held-out log-likelihood": _best_unseen(rows, choice)}
    agreed = all(row is choice for row in chosen.values())
    warnings = []
    if stability < STABLE:
        warnings.append(f"The groups are not stable: refitted to resampled records they agree only to {stability:.2f} "
                        f"(adjusted Rand index; 1 is the same groups, below {STABLE} they depend on the sample).")
    if not agreed:
        told = ", ".join(f"{name} chooses {_told(row, rows)}" for name, row in chosen.items())
        warnings.append(f"The criteria disagree: {told}. BIC's choice is taken.")
    for warning in warnings:
        journal.warn("SELECT_UNSTABLE" if "stable" in warning else "SELECT_DISAGREE", warning,
                     "Compare the candidates, and set the number of components if you know it.")
    journal.event("selected", settings=choice.settings, stability=stability, agreed=agreed)
    return Selection(rows, choice, scores, stability, agreed, tuple(warnings))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _best_unseen(rows: tuple[Row, ...], choice: Row) -> Row:
    """The candidate of the highest held-out log-likelihood, or the choice where the difference may be chance."""
    best = max(rows, key=lambda row: row.held_out) if len(choice.unseen) > 1 else choice
    gain = best.unseen - choice.unseen
    return best if best is not choice and gain.mean() > 2 * gain.std() / len(gain) ** 0.5 else choice


def _told(row: Row, rows: tuple[Row, ...]) -> str:
    """The settings in which the candidates differ, as words."""
    varied = [name for name in row.settings if len({repr(other.settings[name]) for other in rows}) > 1]
    return " ".join(f"{row.settings[name]} {name}" if name == "components" else f"{row.settings[name]}" for name in varied)
