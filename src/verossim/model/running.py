"""A fit by gradient, in a folder of its own.

    run/model/         what ships: the averaged weights so far
    run/state/         what resumes: the last two checkpoints
    run/data/          the encoded records
    run/previews/      sheets of samples as they sharpen
    run/events.jsonl   the journal
    run/settings.json  what was asked for and what was settled

The same call again goes on from the newest checkpoint. What was asked for must be the same, or the difference is shown.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from .. import data
from ..config import build, plain
from ..data.people import to_pictures
from ..errors import BadConfig, CannotWrite, CorruptStore, printable
from ..families import LearnsByGradient
from ..folders import rewrite
from ..safety import Provenance, contact_sheet, gate, release_file
from ..seeds import Noise, untouched
from ..spaces import Batch
from ..store import RUN_MODEL
from ..training import Checkpoints, Engine, Settled, settle, subsample, train
from .task import Task
from .verbs import Model

__all__ = ["DATA", "EVENTS", "by_gradient", "check_place"]

DATA, EVENTS, STATE, PREVIEWS, SETTINGS = "data", "events.jsonl", "state", "previews", "settings.json"
SHOWN = 36  # samples of a preview
JUDGED, AT_ONCE = 4096, 256  # held-out records, at most, in all and at once
FINISHED = 64  # records that a family may measure itself on at the end
FOREVER = 10**15


def check_place(place: Path) -> None:
    """Raises CannotWrite OUT_EXISTS where something else than a run is."""
    if place.is_file():
        raise CannotWrite("OUT_EXISTS", f"{printable(place)} is a file, and a run is a folder.", "Give a folder's name.")
    if not place.is_dir() or (place / SETTINGS).exists():
        return
    foreign = sorted({entry.name for entry in place.iterdir() if not entry.name.startswith(".")}
                     - {DATA, EVENTS, STATE, PREVIEWS, RUN_MODEL})
    if foreign:
        raise CannotWrite("OUT_EXISTS", f"{printable(place)} is there and is no run: it holds "
                          f"{', '.join(map(printable, foreign[:5]))}{', ...' if len(foreign) > 5 else ''}.",
                          "Choose a folder that does not exist yet.")


def by_gradient(task: Task, place: Path, restart: bool) -> Model:
    """The model after its run in the folder `place`; its card says how that went.

    Raises BadConfig RUN_CHANGED where the folder holds a run of other settings or data, PLAN_MEMORY, PLAN_BUDGET, PLAN_DISK,
    SETTING_RANGE where weights are to be shared out that cannot be.
    """
    if task.learning.sharded and task.kind.twice:
        raise BadConfig("SETTING_RANGE", "'sharded' is on, and this family's loss differentiates twice through its networks, "
                        "which FSDP2 cannot.", "Leave it out: several ranks then share the gradients alone.")
    space, condition, split = task.codec.space, task.condition, task.encoded.train

    def built(config: Any) -> LearnsByGradient:
        with untouched():
            torch.manual_seed(task.seed)
            family: LearnsByGradient = task.kind(config, space, condition)
            if task.tensors is not None:
                family.go_on(task.tensors)
            return family
    found = task.engine.tell(lambda: (None if restart else _recorded(place, task)) or _settled(place, task, built))
    config, training = build(task.kind.Config, found["config"]), Settled(**found["training"])
    family = built(config)
    model = Model(task.codec, family, task.labels, dict(task.card))
    model.base = task.base
    with contextlib.ExitStack() as held:
        def batches(samples: int) -> data.Loader:
            engine = task.engine
            return held.enter_context(data.Loader(split, training.batch, task.seed, samples, engine.rank, engine.ranks))
        course = train(family, batches, training, data=split, held=task.encoded.held_out, seed=task.seed, engine=task.engine,
                       journal=task.journal, checkpoints=Checkpoints(place / STATE),
                       show=lambda samples: _preview(model, place, samples),
                       publish=lambda state: model.save(place / RUN_MODEL, state))
    if course.interrupted is None:
        unseen = subsample(task.encoded.held_out if len(task.encoded.held_out) else split, task.seed, most=FINISHED, least=1)
        family.finish(task.engine.placed(unseen), Noise(task.seed, len(unseen.x)))
    if task.engine.first and course.interrupted is None:
        at_once = min(AT_ONCE, -(-training.batch // (training.accumulate * task.engine.ranks)))
        model.card["held_out"] = nats_on_held_out(model, task.encoded.held_out, task.engine, at_once)
    model.family.to("cpu")
    model.card["history"] = {"training": vars(training), **vars(course)}
    return model


def nats_on_held_out(model: Model, split: data.Split, engine: Engine, at_once: int = AT_ONCE) -> dict[str, Any] | None:
    """Mean l of the bound on the log-likelihood that learning follows, over records of weights u that were not learned from,
    with its standard error over them; given their labels where the model has labels. None without records, or where there is no
    such bound. at_once : records, as many as memory allowed while learning.

        l = sum_i u_i l_i / sum_i u_i,      stderr^2 = sum_i u_i^2 (l_i - l)^2 / (sum_i u_i)^2
    """
    if not len(split) or model.codec.lossy:
        return None
    nats, units, family, variables, tokens = [], [], cast(LearnsByGradient, model.family), 0, 0.0
    with torch.no_grad():
        for first in range(0, min(len(split), JUDGED), at_once):
            given = split.slice(first, min(first + at_once, JUDGED))
            noise = Noise(0, len(given.x), FOREVER + first)
            batch = engine.placed(Batch(given.x, given.condition, given.units, given.index, noise))
            parts = family.loss(batch, family.turns[0]).parts
            if "nats" not in parts:
                return None
            nats.append(parts["nats"].double().cpu() - model.codec.log_volume(given.x))
            units.append(given.units.double())
            variables += int(model.codec.sizes(given.x).sum())
            tokens += float(model.codec.units(given.x).sum())
    l, u = torch.cat(nats), torch.cat(units)
    mean = float(u @ l / u.sum())
    error = float((u * (l - mean)).norm() / u.sum()) if len(l) > 1 else math.nan
    each = model.codec.space.coordinates  # of texts, windows of so many tokens, whose bits are told for a byte
    scale = math.log(2) * each * (variables / max(tokens, 1) if model.codec.windowed else 1)
    kind = "exact" if family.likelihood == "exact" else "bound"
    return {"records": len(l), "log_prob": -mean, "kind": kind, "bits": mean / scale, "bits_stderr": error / scale,
            "of": "p(x)" if given.condition is None else "p(x | y)", "accuracy": None}


def _settled(place: Path, task: Task, built: Callable[[Any], LearnsByGradient]) -> dict[str, Any]:
    """Settles what was left open, and writes it down; only then is the run that was there removed."""
    config, training, forecast = settle(built, task.config, task.learning, task.encoded.train, task.engine, place,
                                        began=task.began, kind=task.kind)
    task.journal.event("forecast", **vars(forecast), disk=forecast.disk, config=plain(config), training=vars(training))
    settled = {"asked": task.asked, "data": task.encoded.manifest.hash, "config": plain(config), "training": vars(training)}
    _clear(place)
    rewrite(place / SETTINGS, (json.dumps(settled, indent=1, default=str) + "\n").encode())
    return {"config": settled["config"], "training": settled["training"]}


def _recorded(place: Path, task: Task) -> dict[str, Any] | None:
    """What the folder's run settled, where there is one. Raises BadConfig RUN_CHANGED showing what differs, CorruptStore."""
    path = place / SETTINGS
    if not path.exists():
        if Checkpoints(place / STATE).places():
            raise CorruptStore("CKPT_MISSING", f"{printable(path)} is not there, without which its checkpoints mean nothing.",
                               "Begin anew with --restart, or choose another folder.")
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before, data_before, *_ = (found[name] for name in ("asked", "data", "config", "training"))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore("CKPT_CORRUPT", f"{printable(path)} is damaged.", "Begin anew with --restart.") from error
    now = json.loads(json.dumps(task.asked, default=str))
    changes = [f"'{name}' was {before.get(name)!r} and is {now.get(name)!r}" for name in sorted({*before, *now})
               if before.get(name) != now.get(name)]
    if data_before != task.encoded.manifest.hash:
        changes.append("the data has changed")
    if changes:
        raise BadConfig("RUN_CHANGED", f"{printable(place)} holds a run that was begun otherwise: {'; '.join(changes)}.",
                        "Give the same settings to go on, another folder, or --restart to begin anew.")
    return found


def _clear(place: Path) -> None:
    """Removes what a run has made, so that another may begin; its settings stay until those of the other take their place, and
    files that no run makes are left. Raises CannotWrite where a checkpoint would stay, for it would be gone on from."""
    Checkpoints(place / STATE).clear()
    for folder in (PREVIEWS, RUN_MODEL):
        shutil.rmtree(place / folder, ignore_errors=True)


def _preview(model: Model, place: Path, samples: int) -> None:
    """A sheet of samples of the same noise each time; nothing where records are not pictures."""
    if model.codec.modality != "image":
        return
    with torch.inference_mode():
        pictures = to_pictures(model.draw(SHOWN, seed=0))
    source = Provenance(verb="preview", model=None, data=model.card["manifest"]["hash"], seed=0, settings={"samples": samples})
    with release_file(place / PREVIEWS / f"{samples:012d}.png", source, overwrite=True) as file:
        file.write_bytes(gate.png(contact_sheet(pictures)))
