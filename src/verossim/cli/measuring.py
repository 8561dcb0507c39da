"""The verbs that measure: evaluate, compare, audit, tour and utility; each one's work is in a file that is loaded when it is
called."""

from typing import Annotated

import typer

from .options import DATA, JSON, LABEL, MODEL, OVERWRITE, SEED, SETTINGS, TRACE, speaking

__all__ = ["audit", "compare", "evaluate", "tour", "utility"]

METRICS = Annotated[list[str] | None, typer.Option("--metric", help="One of list metrics; may be repeated. All that fit.")]
FEATURES = Annotated[str, typer.Option("--features", help="Of list features, or auto: what suits the records.")]
PAGE = Annotated[str | None, typer.Option("--output", "-o", help="A .html file: the same as a page, with pictures.")]
COUNT = Annotated[int | None, typer.Option("-n", help="Records of each side; all where nothing is said.")]


def evaluate(
    model: Annotated[str, typer.Argument(help="Saved model, or samples: anything that holds records.", metavar="MODEL")],
    source: DATA, metrics: METRICS = None, features: FEATURES = "auto", n: COUNT = None, label: LABEL = None, seed: SEED = 0,
    unusual: Annotated[str | None, typer.Option("--unusual", metavar="DATA", help="Records that it should find odd.")] = None,
    output: PAGE = None, settings: SETTINGS = None, overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Hold what a model makes against records that it has not seen, by every measure that fits."""
    with speaking(as_json) as voice:
        from .arguments import assignments
        from .evaluating import evaluate
        sampling = assignments(settings)
        voice.answer(evaluate(voice, model, source, metrics, features, n, label, seed, unusual, output, overwrite, sampling))


def compare(
    subjects: Annotated[list[str], typer.Argument(help="Saved models, or samples.", metavar="MODEL...")],
    against: Annotated[str, typer.Option("--reference", metavar="DATA", help="Real records that none has learned from.")],
    metrics: METRICS = None, features: FEATURES = "auto", n: COUNT = None, label: LABEL = None, seed: SEED = 0,
    as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Measure models and samples alike, and say which is surely better."""
    with speaking(as_json) as voice:
        from .evaluating import compare
        voice.answer(compare(voice, subjects, against, metrics, features, n, label, seed))


def audit(
    model: MODEL,
    train: Annotated[str, typer.Option("--train", metavar="DATA", help="What the model learned from.")],
    held_out: Annotated[str | None, typer.Option("--held-out", metavar="DATA",
                                                 help="What it has not seen; else what it held out of --train.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many records the model makes.")] = None,
    seed: SEED = 0, output: PAGE = None, overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Does it copy? Find made records that repeat what was learned from, and whether somebody can tell what that was."""
    with speaking(as_json) as voice:
        from .evaluating import audit
        voice.answer(audit(voice, model, train, held_out, n, seed, output, overwrite))


def tour(
    source: DATA,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for models, runs and report.html.")] = "tour",
    families: Annotated[str | None, typer.Option("--families", help="Between commas; else all that fit.")] = None,
    budget: Annotated[str, typer.Option("--budget", help="Time to learn in, for all together; measuring is extra.")] = "5m",
    label: LABEL = None,
    target: Annotated[str | None, typer.Option("--target", help="The column of the text, of texts in a table.")] = None,
    seed: SEED = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Begin runs anew instead of going on with them.")] = False,
    overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Which model should I use? Learn every family that fits DATA, measure all alike, and show them side by side."""
    with speaking(as_json) as voice:
        from .touring import tour
        voice.answer(tour(voice, source, output, families, budget, label, target, seed, restart, overwrite))


def utility(
    model: MODEL,
    train: Annotated[str, typer.Option("--train", metavar="DATA", help="What the model learned from.")],
    test: Annotated[str, typer.Option("--test", metavar="DATA", help="Other records, to judge classifiers by.")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="A .json file of all numbers.")] = None,
    label: LABEL = None,
    made: Annotated[str, typer.Option("--made", help="How many records the model makes, or auto.")] = "auto",
    sizes: Annotated[str, typer.Option("--sizes", help="Numbers of real records to try, such as 20,100, or auto.")] = "auto",
    seed: SEED = 0, settings: SETTINGS = None, overwrite: OVERWRITE = False, as_json: JSON = False, trace: TRACE = False,
) -> None:
    """Does synthetic data help a classifier? Train on made and real records, and test on real ones."""
    with speaking(as_json) as voice:
        from .arguments import assignments
        from .utility import utility
        voice.answer(utility(voice, model, train, test, output, label, made, sizes, seed, overwrite, assignments(settings)))
