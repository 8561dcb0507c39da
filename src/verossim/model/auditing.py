"""Does a model copy what it learned from? Its records and its scores, put to the audit of `safety`."""

from typing import Any

import numpy as np

from .. import data
from ..errors import BadConfig, BadData, NoLikelihood, printable
from ..safety.audit import AuditReport, audit
from ..spaces import Records
from .reference import SCORED, Reference, as_read
from .verbs import Model

__all__ = ["CLOSE", "Audited", "audited"]

#: The features in which copies are looked for, by modality: those that change with every detail.
CLOSE = {"image": "pixels", "table": "columns", "text": "ngrams"}
MOST = 100_000  # records of a side
MADE = 2_000  # records that are made where nobody says how many


class Audited:
    """An audit with the records that it is of: seen and unseen ones as the model reads them, and made ones."""

    def __init__(self, report: AuditReport, seen: Records, unseen: Records, made: Records):
        self.report, self.seen, self.unseen, self.made = report, seen, unseen, made


def audited(model: Model, train: Any, held_out: Any = None, *, n: int | None = None, seed: int = 0, **settings: Any) -> Audited:
    """The audit of `Model.audit`, and the records that it looked at."""
    if n is not None and not 20 <= n <= MOST:
        raise BadConfig("SETTING_RANGE", f"'n' is {n}; it should be from 20 to {MOST:,}.")
    if held_out is None:
        train, held_out = _parted(model, train)
    known = Reference(train, codec=model.codec, labels=model.label, features=CLOSE[model.codec.modality], metrics=(),
                      most=MOST, seed=seed, read=model.card.get("read"))
    unseen = known.hold(held_out, MOST)
    made = known.hold(known.draw(model, n or min(MADE, known.n), seed))
    assert unseen.records is not None and made.records is not None and known.sample.features is not None
    try:
        scores, scored = _scores(model, seed, known.records, unseen.records)
    except NoLikelihood:
        scores = scored = None
    close = known.features
    y, y_unseen = known.classes, unseen.labels
    named = model.label is not None and y_unseen is not None and bool(len(y)) and bool((y >= 0).all() and (y_unseen >= 0).all())
    standard = {"standardise": model.codec.modality == "table", **settings}
    report = audit(known.sample.features, close(unseen.records), close(made.records), scores=scores, scored=scored,
                   labels=(y, y_unseen) if named and y_unseen is not None else None, seed=seed, **standard)
    return Audited(report, known.records, unseen.records, made.records)


def _scores(model: Model, seed: int, *sides: Records) -> tuple[Any, Any]:
    """log_prob (n,), (m,) of records of both sides, as many as the kind of likelihood allows, and their places: by lot, for the
    first may be of one class, and of another on the other side."""
    places = [data.lots(np.arange(len(side)), SCORED[model.likelihood_kind], seed) for side in sides]
    scores = tuple(model.log_prob(as_read(model, side.take(rows.tolist()))).log_prob.double().numpy()
                   for side, rows in zip(sides, places, strict=True))
    return scores, tuple(places)


def _parted(model: Model, train: Any) -> tuple[Any, Any]:
    """Records that were learned from and held out, found again by the share that the model held out. Raises BadData."""
    share = model.card.get("share_held_out")
    if not share:
        raise BadData("AUDIT_HELD_OUT", "The model held nothing out, so there is nothing to tell copies by.",
                      "Give records that it has not seen: --held-out DATA.")
    label = None if model.label is None else model.label.config.column
    opened = data.open_source(train, modality=model.codec.modality, label=label, weight=model.card.get("weight"),
                              **model.card.get("read", {}))
    seen, unseen = data.sides(opened, model.codec, share, MOST)
    if not len(unseen):
        raise BadData("AUDIT_HELD_OUT", f"{printable(opened.origin)}: none of its records was held out.",
                      "Give records that the model has not seen: --held-out DATA.")
    return as_read(model, seen), as_read(model, unseen)


