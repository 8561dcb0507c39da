"""Reading what was typed: settings given as options, conditions, names of output files."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..config import read_toml
from ..errors import BadConfig, near, printable

__all__ = ["SUFFIXES", "assignment", "assignments", "elsewhere", "from_file", "knobs_of", "spelled_out", "table_format"]

SUFFIXES = {".csv": "csv", ".parquet": "parquet"}


def spelled_out(arguments: list[str], command: Any) -> list[str]:
    """The arguments of `fit` with every option that is a setting, --NAME VALUE, written as --set NAME=VALUE.

    command : the whole command line, which knows its own options. Raises BadConfig USAGE with near names for an option that
    is neither; only then, or where there is such a setting, are the families and codecs loaded.
    """
    if arguments[:1] != ["fit"]:
        return arguments
    own = {option for parameter in command.commands["fit"].params for option in [*parameter.opts, *parameter.secondary_opts]}
    own |= {"--help", "-h", "--"}
    out, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if not option.startswith("--") or option in own:
            out.append(word)
            continue
        name = _setting(option, arguments, own)
        if not equals and not rest:
            raise BadConfig("USAGE", f"Option {option} needs a value.", "See: verossim list settings.")
        out += ["--set", f"{name}={value if equals else rest.pop(0)}"]
    return out


def _setting(option: str, arguments: list[str], own: set[str]) -> str:
    """The setting that an option names."""
    name = option.removeprefix("--").replace("-", "_")
    known = knobs_of(_family(arguments))
    if name not in known:
        elsewhere(name, f"--{name.replace('_', '-')}", _family(arguments))
        options = {f"--{knob.replace('_', '-')}" for knob in known} | {o for o in own if o.startswith("--") and o != "--"}
        raise BadConfig("USAGE", f"There is no option {printable(option)}.", near(option, options))
    return name


def _family(arguments: list[str]) -> str:
    """What --family says, before the arguments are parsed."""
    joined = [a.partition("=")[2] for a in arguments if a.startswith("--family=")]
    spaced = [value for option, value in pairwise(arguments) if option == "--family"]
    given: dict[str, str] = {}
    for option, after in pairwise([*arguments, ""]):
        name, equals, value = option.partition("=")
        if name.startswith("--"):
            given[name.removeprefix("--")] = value if equals else after
    from ..model import usual_family
    return [*joined, *spaced, usual_family(given)][0]


def knobs_of(family: str) -> dict[str, Any]:
    """Every setting that `fit` takes for a family: its own, those of learning and of each codec of records."""
    from ..config import knobs
    from ..model import learning_of
    from ..shelves import CODECS, FAMILIES
    members: list[Any] = [CODECS.load(name) for name in CODECS.names() if name != "label"]
    learner = FAMILIES.load(family)
    kinds = [*(member.Config for member in members), learning_of(learner), learner.Config]
    return {name: field for kind in kinds for name, field in knobs(kind).items()}


def elsewhere(name: str, said: str, family: str) -> None:
    """Raises BadConfig USAGE where other families have such a setting."""
    from ..shelves import FAMILIES
    having = [other for other in FAMILIES.names() if other != family and name in knobs_of(other)]
    if having:
        raise BadConfig("USAGE", f"{said} is for {' and '.join(having)}; family '{printable(family)}' has no such setting.",
                        f"Say --family {having[0]}, or leave it out.")


def assignment(text: str, option: str) -> tuple[str, str]:
    """NAME=VALUE in two. Raises BadConfig USAGE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadConfig("USAGE", f"{option} is '{printable(text)}'.", f"It should be NAME=VALUE, such as {option} label=3.")
    return name.strip(), value


def assignments(settings: list[str] | None, **given: Any) -> dict[str, Any]:
    """Settings as NAME=VALUE and those that have options of their own, in one. Raises BadConfig USAGE."""
    named = {name: value for name, value in given.items() if value is not None}
    return named | dict(assignment(setting, "--set") for setting in settings or [])


def from_file(path: str, known: Iterable[str]) -> dict[str, Any]:
    """Options and settings of a TOML file in one: what a table [settings] holds counts as if it stood outside.

    Raises BadConfig CONFIG_KEY with near names for a table of another name.
    """
    flat: dict[str, Any] = {}
    for name, value in read_toml(path).items():
        if isinstance(value, Mapping) and name != "settings":
            raise BadConfig("CONFIG_KEY", f"{printable(path)}: there is no table [{printable(name)}].",
                            near(name, [*known, "settings"]))
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


def table_format(output: str | None, format: str | None) -> str:
    """csv or parquet: what was asked for, or what the output's name says. Raises BadConfig USAGE."""
    named = SUFFIXES.get(Path(output or "").suffix.lower())
    if format is not None and format not in SUFFIXES.values():
        raise BadConfig("USAGE", f"--format is '{printable(format)}'.", near(format, SUFFIXES.values()))
    if format and named and format != named:
        raise BadConfig("USAGE", f"--format is '{format}' and the output is named {printable(output)}.", "Say one of them.")
    return format or named or "csv"
