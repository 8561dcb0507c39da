"""`verossim utility`: do records that a model makes help a classifier of real ones?"""

import json
from typing import Any

from ..errors import BadConfig, printable
from ..folders import writable
from ..model import Model
from ..safety import release_file
from ..safety.gate import check_vacant
from .console import Voice, first_rank, told
from .records import provenance

__all__ = ["utility"]

COLUMNS = ("real records", "made", "against", "before", "after", "difference", "95 %", "p", "verdict")


def utility(voice: Voice, path: str, train: str, test: str, output: str | None, label: str | None, made: str, sizes: str,
            seed: int, overwrite: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """The verdict, the gain at each number of real records, and how well made records do alone; as JSON to `output`."""
    if not first_rank():
        return {}
    from ..uses.utility import utility_of
    if output is not None and not output.lower().endswith(".json"):
        raise BadConfig("USAGE", f"The output is named {printable(output)}.", "Name it .json.")
    if output is not None:
        writable(check_vacant(output, overwrite, file=True))  # before minutes are spent
    model = Model.load(path)
    report = utility_of(model, train, test, label=label, made=made, seed=seed, sizes=sizes,
                        progress=lambda done, of: voice.bar("classifiers", done, of, f"{done} of {of}"), **settings)
    voice.quiet_bars()
    for warning in report.warnings:
        voice.warn(warning)
    voice.say(report.words())
    voice.table(f"What made records add ({report.measure})", COLUMNS, (
        [gain.real, gain.made, gain.against, gain.before, gain.after, f"{gain.difference.value:+.4f}",
         _ends(gain.difference, "+"), told(gain.difference.p_value), gain.verdict] for gain in report.gains))
    voice.table(f"Learned and judged ({report.measure})", ["", "", "95 %"], (
        [name.replace("_", " "), score.value, _ends(score)] for name, score in report.scores.items()))
    document = report.plain()
    if output is not None:
        with release_file(output, provenance("utility", path, model, seed, train=train, test=test, label=label, sizes=sizes,
                                             made=made, **settings), overwrite) as file:
            file.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
        voice.say(f"written: {told(output)}")
    return {**document, "output": output}


def _ends(interval: Any, sign: str = "") -> str:
    return f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"
