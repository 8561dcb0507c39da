"""`fit`: from anything that holds records to a model of their distribution."""

import contextlib
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__, data
from ..codecs import Codec
from ..codecs.label import Label
from ..codecs.latent import Latent
from ..config import build, knobs
from ..errors import BadConfig, BadData, Incompatible, near, printable
from ..families import Family, LearnsByGradient
from ..seeds import Noise, check_seed
from ..shelves import CODECS, FAMILIES
from ..spaces import Discrete, Records
from ..store import RUN_MODEL
from ..training import Engine, Journal, Learning, Row, Training, begin, candidates, learn, locked, plan, select, wants_selection
from .running import DATA, EVENTS, by_gradient, check_place
from .speaking import speaking
from .task import Task
from .verbs import Model, features

__all__ = ["fit", "learning_of", "usual_family"]

HELD_OUT_BATCH, HELD_OUT_NUMBERS = 4096, 1 << 22  # records judged at a time, and numbers in them


def fit(source: Any, family: str | None = None, *, label: str | None = None, weight: str | None = None,
        modality: str | None = None, seed: int = 0, held_out: float = 0.1, strict: bool = False,
        folder: str | Path | None = None, restart: bool = False, force: bool = False, device: str = "auto",
        journal: Journal | None = None, over: str | Path | None = None, start: str | Path | None = None,
        condition: str | None = None, target: str | None = None, documents: str = "auto", **settings: Any) -> Model:
    """Learns the distribution of `source` and returns the model.

    source : a path (folder of pictures, CSV, Parquet, JSON lines, Arrow, npy, npz, zip), an array, tensor, frame, list of
        PIL images, iterator of dictionaries, or "hf:NAME"; what it is, is found by looking inside.
    family : what `verossim list families` shows; where nothing is said "autoregressive" for pairs and modality "text",
        else "gmm".
    label : the column that holds the class; the model is then P(X, Y). Pictures in sub-folders have it already.
    weight : the column that says how much each record counts, beside the others.
    held_out : the share of records set aside by a hash of their content, to say how well the model does on new ones.
    strict : stop at the first record that cannot be used instead of passing over it.
    folder : for families that learn by gradient, where the run lives: checkpoints, previews, journal and the model so far.
        The same call again goes on from there; with `restart` it begins anew. Without a folder nothing is kept.
    force : learn from fewer or less different records than the family should have.
    device : "cpu", "cuda" or "auto".
    over : a saved model with latents (family vae) of such records. What is learned are the latents that it gives them, and
        what is sampled is decoded by it; it goes into the new model whole. Such a model has no log_prob.
    start : a saved model of the same family to go on from, with its codec and its settings: fine-tuning.
    condition, target : the columns of pairs of texts, of which the second is learned given the first; the condition may name
        several, a comma between two, and is then a record.
    documents : how text files are cut into documents: "file", "line", "blank" (at blank lines), "tune", or "auto".
    settings : those of the family, of learning and of the codec, e.g. components=20, samples=200_000, size=32.

    Raises BadConfig for settings, BadData for the source; both say the value, the place and the way out.
    """
    began = time.perf_counter()
    check_seed(seed)
    if not 0 <= held_out < 1:
        raise BadConfig("SETTING_RANGE", f"'held_out' is {held_out}; it should be from 0 to below 1.")
    family = family or usual_family({"modality": modality, "condition": condition, "target": target})
    kind = FAMILIES.load(family)
    if modality is None and kind.accepts == (Discrete,):
        modality = "text"
    if modality == "text":
        _check_texts(kind, family, weight)
    config, rest = _taken(kind.Config, settings, family)
    learning, rest = _taken(learning_of(kind), rest, "learning")
    base = None if over is None else Model.load(over)
    begun = None if start is None else Model.load(start)
    if begun is not None:
        config = _going_on(begun, kind, family, config, settings, start)
        _check_label(begun, label, start)
    apart = vars(config).get("adapter_rank")
    if apart and begun is None:
        raise BadConfig("SETTING_RANGE", f"'adapter_rank' is {apart}, and adapters rest on a model.", "Name it: --from MODEL.")
    opened = data.open_source(source, label=label, weight=weight, modality=modality if base is None else base.codec.modality,
                              strict=strict, condition=condition, target=target, documents=documents)
    if opened.modality == "text":
        _check_texts(kind, family, weight)
    if begun is not None and not apart and {"messages", "given"} & {*opened.columns}:
        begun = speaking(begun)
    reader = CODECS.load(opened.modality if base is None else "latent")
    for name in rest.keys() - knobs(reader.Config).keys():
        raise BadConfig("CONFIG_KEY", f"Neither family '{family}' nor codec '{opened.modality if base is None else 'latent'}' "
                        f"has a setting '{name}'.",
                        near(name, {**knobs(kind.Config), **knobs(learning_of(kind)), **knobs(reader.Config)}))
    unfitted = reader(build(reader.Config, rest, opened.modality)) if base is None else Latent(base.codec, base.family)
    asked = {"family": family, "label": label, "weight": weight, "seed": seed, "held_out": held_out,
             "over": base and base.sha256, "start": begun and begun.sha256, "condition": condition, "target": target,
             "documents": None if documents == "auto" else documents, **settings}
    journal = journal or Journal()
    with contextlib.ExitStack() as held:
        if device == "cuda" and not issubclass(kind, LearnsByGradient):
            raise BadConfig("SETTING_RANGE", f"'device' is 'cuda', and family '{family}' learns on the CPU.", "Leave it out.")
        engine = held.enter_context(contextlib.closing(Engine.start(device)))
        engine = engine if issubclass(kind, LearnsByGradient) else replace(engine, device="cpu")
        place: Path | None = None
        if issubclass(kind, LearnsByGradient):
            if folder is not None:
                check_place(Path(folder))
            place = Path(folder or held.enter_context(tempfile.TemporaryDirectory(prefix="verossim-")))
            if engine.first:
                held.enter_context(locked(place))
                journal = held.enter_context(contextlib.closing(Journal(place / EVENTS, *journal.listeners)))
        if base is not None:
            base.family.to(engine.device)
        codec, labels = _fitted_codecs(opened, unfitted) if begun is None else (begun.codec, begun.label)
        journal.event("codec", modality=opened.modality, columns=[*codec.describe(), *(labels.describe() if labels else [])],
                      notes=[*opened.notes, *codec.notes])
        encoded = data.prepare(opened, codec, labels, held_out=held_out, strict=strict, folder=place and place / DATA)
        journal.event("data", manifest=encoded.manifest.plain(), problems=[vars(p) for p in opened.problems])
        if opened.weight is not None:
            encoded.train.unit = encoded.held_out.unit = _mean_weight(encoded.train)
        if labels is not None and opened.label is not None and not codec.windowed:  # windows are no records
            labels.counts = _weights(encoded.train, len(labels.classes))
        if issubclass(kind, LearnsByGradient) and not force:
            _check_enough(kind, family, encoded, None if opened.label is None else labels)
        card = {
            "family": family, "verossim": __version__, "seed": seed, "share_held_out": held_out, "weight": opened.weight,
            "frame": data.frame_of(source), "manifest": encoded.manifest.plain(), "notes": [*opened.notes, *codec.notes],
            "problems": len(opened.problems), "held_out": None,
        }
        if opened.asked:
            card["read"] = opened.asked
        if begun is not None:
            card["start"] = {"model": str(start), "sha256": begun.sha256}
        if apart:
            card["base"] = str(Path(str(start)).resolve())
        if base is not None:
            card["over"] = {"model": str(over), "sha256": base.sha256, "family": base.card["family"]}
        task = Task(kind, config, learning, codec, labels, encoded, seed, journal, engine, card, asked, began,
                    None if begun is None else begun.family.state_dict(), begun.sha256 if begun and apart else None)
        model = _by_statistics(task) if place is None else by_gradient(task, place, restart)
        model.problems = list(opened.problems)
        if base is not None:
            base.family.to("cpu")
            model.card["held_out"] = None  # of latents there are figures, of records there are none
        elif place is None:
            model.card["held_out"] = _on_held_out(model, encoded.held_out)
        journal.event("held out", result=model.card["held_out"])
        if folder is not None and place is not None and engine.first:
            model.save(place / RUN_MODEL)
    return model


def usual_family(asked: Mapping[str, Any]) -> str:
    """The family where none is named, by what else `fit` is asked for: pairs are texts."""
    texts = asked.get("modality") == "text" or asked.get("condition") is not None or asked.get("target") is not None
    return "autoregressive" if texts else "gmm"


def _check_texts(kind: type[Family], family: str, weight: str | None) -> None:
    """Raises Incompatible SPACE for a family that does not learn texts, BadConfig USAGE for what they do not have."""
    if kind.accepts != (Discrete,):
        raise Incompatible("SPACE", f"Family '{family}' does not learn texts.", "Say --family autoregressive.")
    if weight is not None:
        raise BadConfig("USAGE", f"'weight' is {printable(weight)!r}, and texts are learned without.", "Leave it out.")


def _going_on(begun: Model, kind: type[Family], family: str, config: Any, settings: dict[str, Any], start: Any) -> Any:
    """The config of the model that is to be gone on from, but for what may be had anew. Raises Incompatible START_FAMILY,
    BadConfig SETTING_FIXED."""
    if type(begun.family) is not kind or not issubclass(kind, LearnsByGradient):
        raise Incompatible("START_FAMILY", f"{printable(start)} is a model of family '{begun.card.get('family')}', and "
                           f"'{family}' was asked for.", "Name that family, if it learns by gradient.")
    fixed = settings.keys() & {*knobs(kind.Config), *knobs(type(begun.codec).Config)} - {*kind.anew}
    if fixed:
        raise BadConfig("SETTING_FIXED", f"'{sorted(fixed)[0]}' is that of the model which is gone on from.", "Leave it out.")
    return replace(begun.family.config, **{name: getattr(config, name) for name in kind.anew})


def _check_label(begun: Model, label: str | None, start: Any) -> None:
    """Raises Incompatible NOT_CONDITIONAL, BadConfig SETTING_FIXED for a label that the model which is gone on from has not."""
    if label is not None and begun.label is None:
        raise Incompatible("NOT_CONDITIONAL", f"'label' is {printable(label)!r}, and {printable(start)} was fitted without "
                           "labels.", "Leave it out, or fit a model anew.")
    if label is not None and begun.label is not None and label != begun.label.config.column:
        raise BadConfig("SETTING_FIXED", f"'label' is {printable(label)!r}, and that of {printable(start)} is "
                        f"{printable(begun.label.config.column)!r}.", "Give the column that name.")


def learning_of(kind: type[Family]) -> type:
    """The settings of learning that a family has: by gradient or by statistics."""
    return Training if issubclass(kind, LearnsByGradient) else Learning


def _by_statistics(task: Task) -> Model:
    """The model, its open settings chosen, its parameters learned; its card says how that went."""
    space, condition, encoded, config = task.codec.space, task.condition, task.encoded, task.config
    history: dict[str, Any] = {}
    if wants_selection(config):
        def built(candidate: Any) -> Any:
            plan(space, len(encoded.train), candidate, condition)  # one that would not fit in memory is left out
            return task.kind(candidate, space, condition)
        tried = candidates(task.kind, config, space, len(encoded.train))
        chosen = select(built, tried, encoded.train, encoded.held_out, task.seed, task.journal)
        first = task.engine.share({"choice": torch.tensor(chosen.rows.index(chosen.choice))})["choice"]
        config = chosen.rows[int(first)].config  # every rank takes the first one's
        history["selection"] = [{"chosen": row is chosen.choice, **_criteria(row)} for row in chosen.rows]
        history |= {"stability": chosen.stability, "agreed": chosen.agreed, "warnings": chosen.warnings}
    family: Any = task.kind(config, space, condition)
    planned = plan(space, len(encoded.train), family.config, condition)
    task.journal.event("plan", **vars(planned))
    begin(family, encoded.train, task.seed, task.engine)
    history |= vars(learn(family, encoded.train, batch=planned.batch, config=task.learning, engine=task.engine,
                          journal=task.journal))
    return Model(task.codec, family.eval(), task.labels, {**task.card, "history": history})


def _on_held_out(model: Model, split: data.Split) -> dict[str, Any] | None:
    """Mean log-likelihood, bits per dimension and accuracy on records that were not learned from; None without any."""
    if not len(split):
        return None
    nats = right = labelled = units = told = 0.0
    kind = "exact"
    with torch.inference_mode():
        for batch in split.sweep(max(64, min(HELD_OUT_BATCH, HELD_OUT_NUMBERS // model.codec.space.dims))):
            likelihood = model.family.log_prob(batch.x, None, Noise(0, len(batch.x)))
            nats += float((likelihood.log_prob + model.codec.log_volume(batch.x)).double() @ batch.units.double())
            units += float(batch.units.sum())
            told += float((torch.as_tensor(likelihood.coordinates) * batch.units).sum())
            kind = likelihood.kind
            if batch.condition is not None:
                known = batch.condition >= 0
                right += float(((model.posterior(batch.x).argmax(1) == batch.condition) * batch.units)[known].sum())
                labelled += float(batch.units[known].sum())
    return {"records": len(split), "log_prob": nats / units, "kind": kind, "bits": -nats / told / math.log(2),
            "of": "p(x)", "accuracy": right / labelled if labelled else None}


def _fitted_codecs(source: data.Source, codec: Codec) -> tuple[Codec, Label | None]:
    """The codec of the records, and that of their labels where the source has any: one pass for both."""
    if source.label is None:
        return codec.fit(source.features()), None
    labels = Label(Label.Config(column=source.label))
    if codec.windowed:  # documents come in stretches, and are counted once
        return codec.fit(source.features()), labels.fit(map(_begun, source.blocks()))
    codec.fit(features(block, source.label, source.weight) for block in labels.observing(source.blocks()))
    return codec, labels.settled()


def _begun(block: Records) -> Records:
    """The records of a block at which a document begins, or all where they are no documents."""
    begins = block.columns.get("begins")
    return block if begins is None else block.take([row for row, there in enumerate(begins) if there])


def _check_enough(kind: type[LearnsByGradient], family: str, encoded: data.Encoded, labels: Label | None) -> None:
    """Raises BadData DATA_CONSTANT, DATA_TOO_FEW or CLASS_TOO_FEW where a family would learn nothing, or records by heart."""
    manifest = encoded.manifest
    different, hint = manifest.records - manifest.duplicates, "Give more data, use family gmm, or --force it."
    if kind.fewest > 1 and different == 1 and manifest.records > 1:
        raise BadData("DATA_CONSTANT", f"All {manifest.records:,} records are the same.", hint)
    if different < kind.fewest:
        raise BadData("DATA_TOO_FEW", f"There are {different} different records, and family '{family}' needs {kind.fewest} to "
                      "learn more than these by heart.", hint)
    if labels is None or kind.fewest == 1:
        return
    counts = torch.zeros(len(labels.classes), dtype=torch.int64)
    for batch in encoded.train.sweep(HELD_OUT_BATCH):
        assert batch.condition is not None
        counts += batch.condition[batch.condition >= 0].bincount(minlength=len(counts))
    for name, count in zip(labels.classes, counts.tolist(), strict=True):
        if count < 2:
            raise BadData("CLASS_TOO_FEW", f"Class {printable(name)} has so few records to learn from, {count}, that they "
                          "would be learned by heart.", "Give more of it, leave it out, or --force it.")


def _mean_weight(split: data.Split) -> float:
    """The mean weight of the records. Weights are relative: what counts is how they compare, not their size."""
    mean = sum(float(batch.units.double().sum()) for batch in split.sweep(HELD_OUT_BATCH)) / len(split)
    return mean if mean > 0 else 1.0


def _weights(split: data.Split, classes: int) -> tuple[float, ...]:
    """How much the records of each class weigh together."""
    total = torch.zeros(classes, dtype=torch.float64)
    for batch in split.sweep(HELD_OUT_BATCH):
        assert batch.condition is not None
        known = batch.condition >= 0
        total.index_add_(0, batch.condition[known], batch.units[known].double())
    return tuple(total.tolist())


def _taken(kind: type, settings: dict[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
    """The config made of those settings that are its own, and the settings that are left."""
    own = {name: value for name, value in settings.items() if name in knobs(kind)}
    return build(kind, own, where), {name: value for name, value in settings.items() if name not in own}


def _criteria(row: Row) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name not in ("config", "unseen")}
