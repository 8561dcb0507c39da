"""`verossim fit`: from data to a saved model, with a word on everything that was inferred, passed over and learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import store
from ..errors import BadConfig, CannotWrite, Interrupted, near, printable
from ..families import LearnsByGradient
from ..folders import writable
from ..model import Model, fit, usual_family
from ..shelves import FAMILIES
from ..training import Journal
from .arguments import assignment, elsewhere, from_file, knobs_of
from .console import Voice, first_rank, told
from .narrating import narrator

__all__ = ["Request", "learn", "requested"]

OPTIONS = ("source", "output", "family", "label", "weight", "modality", "seed", "held_out", "strict", "restart", "force",
           "device", "over", "start", "condition", "target", "documents")
CRITERIA = ("components", "covariance", "rank", "freedom", "bic", "icl", "held_out", "converged")


@dataclass(frozen=True)
class Request:
    """One fit as it was asked for: where from, where to, and the arguments of `verossim.fit`."""

    source: str
    output: str
    arguments: Mapping[str, Any]


def requested(given: Mapping[str, Any], settings: list[str], config: str | None) -> Request:
    """Options, settings and the file of them in one; what was given on the command line wins. Raises BadConfig."""
    asked = from_file(config, OPTIONS) if config else {}
    asked |= {name: value for name, value in given.items() if value is not None}
    asked |= dict(assignment(setting, "--set") for setting in settings)
    asked.setdefault("family", usual_family(asked))
    known = {*OPTIONS, *knobs_of(asked["family"])}
    for name in asked.keys() - known:
        elsewhere(name, f"'{printable(name)}'", asked["family"])
        raise BadConfig("CONFIG_KEY", f"There is no setting '{printable(name)}'.", near(name, known))
    for name, meaning in (("source", "the data to learn from"), ("output", "a folder for the model: -o FOLDER")):
        if name not in asked:
            raise BadConfig("USAGE", f"Give {meaning}.", "See: verossim fit --help.")
    return Request(str(asked.pop("source")), str(asked.pop("output")), asked)


def learn(voice: Voice, request: Request, overwrite: bool) -> dict[str, Any]:
    """Fits and saves. The place for the model is tried first: nobody should learn for hours and then have nowhere to save."""
    journal = Journal()
    journal.listen(narrator(voice))
    if issubclass(FAMILIES.load(request.arguments["family"]), LearnsByGradient):
        model = fit(request.source, journal=journal, folder=request.output, **request.arguments)
    else:
        if first_rank():
            _check_place(request.output, overwrite)
        model = fit(request.source, journal=journal, **request.arguments)
        if first_rank():
            model.save(request.output)
    voice.quiet_bars()
    if not first_rank():
        return {}
    _show(voice, model, request.output)
    return {"model": request.output, "sha256": store.identity(request.output), **model.describe(),
            "problems": [vars(problem) for problem in model.problems]}


def _check_place(output: str, overwrite: bool) -> None:
    place = store.check_vacant(output)
    if not overwrite and place.is_dir() and any(place.iterdir()):
        raise CannotWrite("OUT_EXISTS", f"{printable(output)} holds a model already.",
                          "Choose another folder, or say --overwrite to replace it.")
    writable(place)


def _show(voice: Voice, model: Model, output: str) -> None:
    """What was learned."""
    history, held_out = model.card["history"], model.card["held_out"]
    if "selection" in history:
        names = [name for name in CRITERIA if any(name in {**row, **row["settings"]} for row in history["selection"])]
        tried = [{**row["settings"], **row} for row in history["selection"]]
        voice.table("Candidates (* chosen by BIC)", ["", *names],
                    (["*" if row["chosen"] else "", *(row.get(name) for name in names)] for row in tried))
        voice.say(f"stability of the choice: {told(history['stability'])} (adjusted Rand index over resamples)")
    settings = model.describe()["settings"]
    rows = [["family", model.card["family"]],
            *((name, settings[name]) for name in ("components", "covariance", "width") if name in settings)]
    if "objectives" in history:
        rows += [["objective, nats a scaled record", history["objectives"][-1] if history["objectives"] else None],
                 ["sweeps", history["sweeps"]], ["converged", history["converged"]]]
    else:
        rows += [["records seen", history["samples"]], ["steps", history["steps"]], ["steps skipped", history["skipped"]]]
    rows += [["seconds", round(history["seconds"], 2)]]
    if held_out:
        kind = held_out["kind"]
        error = f" +- {told(held_out['bits_stderr'])}" if held_out.get("bits_stderr") is not None else ""
        rows += [["held-out records", held_out["records"]],
                 [f"held-out log {held_out['of']}, nats ({kind})", held_out["log_prob"]],
                 [f"held-out bits per dimension ({kind})", told(held_out["bits"]) + error],
                 ["held-out accuracy", held_out["accuracy"]]]
    voice.table("What was learned", ["", ""], ([name, told(value)] for name, value in rows if value is not None))
    if not history.get("converged", True):
        voice.warn(f"NOT_CONVERGED: learning stopped after {history['sweeps']} sweeps. Raise --iterations, or --tolerance.")
    voice.say(f"saved: {printable(output)}")
    if history.get("interrupted"):
        raise Interrupted(history["interrupted"], history["samples"], history["training"]["samples"])
