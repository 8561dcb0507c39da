"""What people hold: a codec and a family under one set of verbs. Glue only; every verb is a walk through the rooms.

    files -> data -> codec -> family            fit, log_prob, predict_proba, complete
    files <- people's types <- codec <- family  sample, complete
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__, data, store
from .codecs import Codec
from .codecs.label import Label
from .config import build, knobs, plain
from .errors import BadConfig, BadData, CorruptStore, Incompatible, near
from .families import Family, LearnsByStatistics
from .seeds import Noise, check_seed
from .shelves import CODECS, FAMILIES
from .spaces import Likelihood, Problem, Records, Space, space_from, space_plain
from .training import Engine, Journal, Learning, Row, begin, candidates, learn, plan, select, wants_selection

__all__ = ["Model", "Scored", "fit"]

HELD_OUT_BATCH = 4096


@dataclass(frozen=True)
class Scored:
    """A block of records and what the model says of them."""

    records: Records
    likelihood: Likelihood


class Model:
    """A fitted generative model of somebody's records: makes new ones, and says how probable given ones are."""

    def __init__(self, codec: Codec, family: Family, label: Label | None = None, card: Mapping[str, Any] | None = None):
        if not isinstance(codec.space, family.accepts):
            wanted = " or ".join(kind.__name__ for kind in family.accepts)
            raise Incompatible("SPACE", f"This family learns {wanted} spaces; the codec gives {type(codec.space).__name__}.")
        self.codec, self.family, self.label, self.card = codec, family, label, dict(card or {})
        self.problems: list[Problem] = []
        self.sha256: str | None = None  # of the saved model, once there is one

    def draw(self, n: int, condition: Any = None, seed: int = 0, first: int = 0, **settings: Any) -> Records:
        """n new records, samples number `first` to `first + n - 1` of a seed, with their labels where the model has them.

        Without a condition a conditional model draws the label too: the records are samples of P(X, Y).
        """
        if n < 1:
            raise BadConfig("SETTING_RANGE", f"'n' is {n}; it should be at least 1.")
        noise = Noise(check_seed(seed), n, first)
        y = self._condition(condition, noise)
        with torch.inference_mode():
            x = self.family.sample(noise, y, **settings)
        records = self.codec.decode(x, first)
        if self.label is None or y is None:
            return records
        return replace(records, columns={**records.columns, **self.label.decode(y).columns})

    def sample(self, n: int, condition: Any = None, seed: int = 0, first: int = 0, **settings: Any) -> Any:
        """The same as people hold them: a list of PIL images, or a table of the frame library that the data came in with."""
        return data.to_people(self.draw(n, condition, seed, first, **settings), self.card.get("frame", "arrow"))

    def score(self, source: Any, condition: Any = None) -> Iterator[Scored]:
        """log p(x), or log p(x | condition), block by block, in the raw units of the records; memory is bounded."""
        for records, x, _ in self._points(source):
            y = None if condition is None else self._condition(condition, Noise(0, len(x)))
            noise = Noise(0, len(x), records.first)
            with torch.inference_mode():
                likelihood = self.family.log_prob(x, y, noise)
            yield Scored(records, replace(likelihood, log_prob=likelihood.log_prob + self.codec.log_volume(x)))

    def log_prob(self, source: Any, condition: Any = None) -> Likelihood:
        """Nats per record, (B,): log mass where values are whole or 8-bit, log density in raw units elsewhere."""
        parts = [scored.likelihood for scored in self.score(source, condition)]
        if not parts:
            raise BadData("DATA_EMPTY", "No record of the source can be scored.", _first(self.problems))
        stderr = torch.cat([p.stderr for p in parts if p.stderr is not None]) if parts[0].stderr is not None else None
        return replace(parts[0], log_prob=torch.cat([p.log_prob for p in parts]), stderr=stderr)

    @property
    def classes(self) -> list[Any]:
        """The labels that the model was fitted with, in the order of `predict_proba`'s columns."""
        return list(self._labels("it has no classes", "Fit again with a label column: --label COLUMN.").classes)

    def classify(self, source: Any) -> Iterator[tuple[Records, Tensor, Tensor]]:
        """Blocks of (records, P(Y | X) (B, C), true label (B,) or -1): Bayes' rule, p(y | x) = p(x | y) p(y) / p(x)."""
        for records, x, y in self._points(source):
            with torch.inference_mode():
                yield records, self.posterior(x), y

    def posterior(self, x: Tensor) -> Tensor:
        """P(Y | X), (B, C), of points x (B, *event) of the codec's space."""
        label = self._labels("it has no classes", "Fit again with a label column: --label COLUMN.")
        log_p = [self.family.log_prob(x, torch.full((len(x),), c), Noise(0, len(x))).log_prob + log_prior
                 for c, log_prior in enumerate(label.prior.log())]
        return torch.stack(log_p, dim=1).softmax(dim=1)

    def predict_proba(self, source: Any) -> Tensor:
        """P(Y | X), (B, C), by Bayes' rule from the model's own P(X | Y) and P(Y)."""
        parts = [probabilities for _, probabilities, _ in self.classify(source)]
        if not parts:
            raise BadData("DATA_EMPTY", "No record of the source can be classified.", _first(self.problems))
        return torch.cat(parts)

    def fill(self, source: Any, seed: int | None = None) -> Iterator[tuple[Records, Records]]:
        """Blocks of (records as given, the same with what was missing filled in): draws of the model, or its conditional
        means where `seed` is None. A label in the source is used as the condition."""
        for records, x, y in self._points(source, unknown=True):
            noise = None if seed is None else Noise(check_seed(seed), len(x), records.first)
            with torch.inference_mode():
                filled = self.family.complete(x, y if self.label is not None else None, noise)
            yield records, self.codec.decode(filled, records.first, known=records)

    def complete(self, source: Any, seed: int | None = None) -> Any:
        """The records with their missing cells or masked pixels filled in, as people hold them; see `fill`."""
        blocks = [filled for _, filled in self.fill(source, seed)]
        if not blocks:
            raise BadData("DATA_EMPTY", "No record of the source can be completed.", _first(self.problems))
        return data.to_people(data.joined(blocks), self.card.get("frame", "arrow"))

    def describe(self) -> dict[str, Any]:
        """Family, space, settings, what the codec inferred, and the card: data manifest and training history."""
        return {
            "family": self.card.get("family", type(self.family).__name__), "likelihood": self.family.likelihood,
            "settings": plain(self.family.config), "space": space_plain(self.codec.space),
            "classes": None if self.label is None else self.classes, "columns": self.codec.describe(), **self.card,
        }

    def save(self, path: str | Path) -> None:
        """Writes model.json, weights.safetensors and card.json; the folder holds the old model or the new, never half."""
        def shelved(codec: Codec, name: str) -> dict[str, Any]:
            return {"name": name, "config": plain(codec.config), "state": codec.state()}
        label = self.label
        model = {
            "verossim": __version__,
            "family": {"name": self.card["family"], "config": plain(self.family.config)},
            "codec": shelved(self.codec, self.codec.modality), "label": label and shelved(label, "label"),
            "space": space_plain(self.codec.space), "condition": label and space_plain(label.space),
        }
        self.sha256 = store.save(path, model, self.family.state_dict(), self.card)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "Model":
        """A saved model. Raises CorruptStore where a file is damaged, from a newer version, or not ours."""
        stored = store.load(path)
        model = stored.model
        try:
            store.check_family(path, model["family"]["name"], FAMILIES.names())
            kind = FAMILIES.load(model["family"]["name"])
            codec = _unshelved(model["codec"])
            label: Label | None = model["label"] and _unshelved(model["label"])
            condition = model["condition"] and space_from(model["condition"])
            family = kind(build(kind.Config, model["family"]["config"]), space_from(model["space"]), condition)
        except (KeyError, TypeError) as error:
            raise CorruptStore("CKPT_FORMAT", f"{path}: model.json lacks or misuses {error}.") from error
        store.check_shapes(path, family.state_dict(), stored.tensors)
        family.load_state_dict(stored.tensors)
        loaded = cls(codec, family.to(device).eval(), label, stored.card)
        loaded.sha256 = stored.sha256
        return loaded

    def _labels(self, lacking: str, hint: str) -> Label:
        """The label codec. Raises Incompatible NOT_CONDITIONAL where there is none."""
        if self.label is None:
            raise Incompatible("NOT_CONDITIONAL", f"This model was fitted without labels, so {lacking}.", hint)
        return self.label

    def _condition(self, condition: Any, noise: Noise) -> Tensor | None:
        """Labels as tokens (B,): the one that was asked for, or drawn from the class prior."""
        if self.label is None and condition is None:
            return None
        label = self._labels("it takes no condition", "Leave the condition out, or fit again with a label column.")
        if condition is not None:
            value = next(iter(condition.values())) if isinstance(condition, Mapping) else condition
            return torch.full((len(noise),), label.index(value))
        edges = label.prior.cumsum(0)[:-1]
        return torch.bucketize(noise.uniform(dtype=torch.float64), edges, right=True)

    def _points(self, source: Any, unknown: bool = False) -> Iterator[tuple[Records, Tensor, Tensor]]:
        """Blocks of (parsed records, x (B, *event), label (B,) or -1) of anything that `open_source` opens."""
        opened = data.open_source(source, modality=self.codec.modality)
        column = None if self.label is None else self.label.config.column
        found: list[Problem] = []
        for block in opened.blocks():
            features = _features(block, opened.label, column, self.card.get("weight"))
            parsed = self.codec.parse(features, found, unknown)
            if len(parsed):
                y = torch.full((len(block),), -1) if self.label is None else self.label.encode(block)
                yield parsed, self.codec.encode(parsed, unknown), y[data.rows_of(block, parsed)]
        self.problems = [*opened.problems, *found]


def fit(source: Any, family: str = "gmm", *, label: str | None = None, weight: str | None = None, modality: str | None = None,
        seed: int = 0, held_out: float = 0.1, strict: bool = False, journal: Journal | None = None,
        **settings: Any) -> Model:
    """Learns the distribution of `source` and returns the model.

    source : a path (folder of pictures, CSV, Parquet, JSON lines, Arrow, npy, npz, zip), an array, tensor, frame, list of
        PIL images, iterator of dictionaries, or "hf:NAME"; what it is, is found by looking inside.
    label : the column that holds the class; the model is then P(X, Y). Pictures in sub-folders have it already.
    weight : the column that says how much each record counts.
    held_out : the share of records set aside by a hash of their content, to say how well the model does on new ones.
    strict : stop at the first record that cannot be used instead of passing over it.
    settings : those of the family, of learning and of the codec, e.g. components=20, covariance="full", stepwise=True, size=32.

    Raises BadConfig for settings, BadData for the source; both say the value, the place and the way out.
    """
    check_seed(seed)
    if not 0 <= held_out < 1:
        raise BadConfig("SETTING_RANGE", f"'held_out' is {held_out}; it should be from 0 to below 1.")
    kind = FAMILIES.load(family)
    config, settings = _taken(kind.Config, settings, family)
    learning, settings = _taken(Learning, settings, "learning")
    opened = data.open_source(source, label=label, weight=weight, modality=modality, strict=strict)
    reader = CODECS.load(opened.modality)
    for name in settings.keys() - knobs(reader.Config).keys():
        raise BadConfig("CONFIG_KEY", f"Neither family '{family}' nor codec '{opened.modality}' has a setting '{name}'.",
                        near(name, {**knobs(kind.Config), **knobs(Learning), **knobs(reader.Config)}))
    journal = journal or Journal()
    codec, labels = _fitted_codecs(opened, reader(build(reader.Config, settings, opened.modality)))
    journal.event("codec", modality=opened.modality, columns=[*codec.describe(), *(labels.describe() if labels else [])],
                  notes=[*opened.notes, *codec.notes])
    encoded = data.prepare(opened, codec, labels, held_out=held_out, strict=strict)
    journal.event("data", manifest=encoded.manifest.plain(), problems=[vars(p) for p in opened.problems])
    learned, history = _learned(kind, config, codec.space, labels.space if labels else None, encoded, learning, seed, journal)
    card = {
        "family": family, "verossim": __version__, "seed": seed, "share_held_out": held_out, "weight": opened.weight,
        "frame": data.frame_of(source), "manifest": encoded.manifest.plain(), "notes": [*opened.notes, *codec.notes],
        "problems": len(opened.problems), "history": history,
    }
    model = Model(codec, learned.eval(), labels, card)
    model.problems = list(opened.problems)
    model.card["held_out"] = _on_held_out(model, encoded.held_out)
    journal.event("held out", result=model.card["held_out"])
    return model


def _learned(kind: type, config: Any, space: Space, condition: Space | None, encoded: data.Encoded, learning: Learning,
             seed: int, journal: Journal) -> tuple[LearnsByStatistics, dict[str, Any]]:
    """The family, its open settings chosen, its parameters learned; and how that went."""
    history: dict[str, Any] = {}
    if wants_selection(config):
        def built(candidate: Any) -> LearnsByStatistics:
            plan(space, len(encoded.train), candidate, condition)  # one that would not fit in memory is left out
            return kind(candidate, space, condition)
        tried = candidates(kind, config, space, len(encoded.train))
        chosen = select(built, tried, encoded.train, encoded.held_out, seed, journal)
        config = chosen.choice.config
        history["selection"] = [{"chosen": row is chosen.choice, **_criteria(row)} for row in chosen.rows]
        history |= {"stability": chosen.stability, "agreed": chosen.agreed, "warnings": chosen.warnings}
    planned = plan(space, len(encoded.train), config, condition)
    journal.event("plan", **vars(planned))
    family = kind(config, space, condition)
    with contextlib.closing(Engine.start()) as engine:
        begin(family, encoded.train, seed, engine)
        history |= vars(learn(family, encoded.train, batch=planned.batch, config=learning, engine=engine, journal=journal))
    return family, history


def _on_held_out(model: Model, split: data.Split) -> dict[str, Any] | None:
    """Mean log-likelihood, bits per dimension and accuracy on records that were not learned from; None without any."""
    if not len(split):
        return None
    nats = right = labelled = 0.0
    kind, coordinates = "exact", model.codec.space.coordinates
    with torch.inference_mode():
        for batch in split.sweep(HELD_OUT_BATCH):
            likelihood = model.family.log_prob(batch.x, None, Noise(0, len(batch.x)))
            nats += float((likelihood.log_prob + model.codec.log_volume(batch.x)).sum())
            kind = likelihood.kind
            if batch.condition is not None:
                known = batch.condition >= 0
                right += float((model.posterior(batch.x).argmax(1) == batch.condition)[known].sum())
                labelled += float(known.sum())
    return {"records": len(split), "log_prob": nats / len(split), "kind": kind,
            "bits": -nats / len(split) / coordinates / math.log(2), "accuracy": right / labelled if labelled else None}


def _fitted_codecs(source: data.Source, codec: Codec) -> tuple[Codec, Label | None]:
    """The codec of the records, and that of their labels where the source has any: one pass for both."""
    if source.label is None:
        return codec.fit(source.features()), None
    labels = Label(Label.Config(column=source.label))
    codec.fit(_features(block, source.label, source.weight) for block in labels.observing(source.blocks()))
    return codec, labels.settled()


def _taken(kind: type, settings: dict[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
    """The config made of those settings that are its own, and the settings that are left."""
    own = {name: value for name, value in settings.items() if name in knobs(kind)}
    return build(kind, own, where), {name: value for name, value in settings.items() if name not in own}


def _criteria(row: Row) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name not in ("config", "unseen")}


def _features(block: Records, *aside: str | None) -> Records:
    return block.without(*(name for name in aside if name is not None))


def _first(problems: list[Problem]) -> str:
    return f"The first problem: {problems[0].where}: {problems[0].message}" if problems else ""


def _unshelved(shelved: Mapping[str, Any]) -> Any:
    kind = CODECS.load(shelved["name"])
    return kind.restore(build(kind.Config, shelved["config"]), shelved["state"])
