"""Settings: one line per knob, with its default, meaning and bounds; everything else is derived from that line.

A config is a frozen, keyword-only dataclass whose fields are knobs. The command line, the documentation and the saved
model read the same lines, so a setting stands in one place.

    @dataclass(frozen=True, kw_only=True)
    class Config:
        components: int = knob(10, "number of Gaussians in the mixture", low=1, high=100_000)
"""

import dataclasses
import math
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from .errors import BadConfig, near

__all__ = ["NoSettings", "build", "knob", "knobs", "plain", "read_toml"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The config of what has no settings."""


def knob(default: Any, meaning: str, *, low: float | None = None, high: float | None = None,
         choices: tuple[Any, ...] | None = None) -> Any:
    """One setting: its default, what it means in words, and the values it may take.

    `choices` lists the words a text setting may be; `low` and `high` bound the numbers, both included. A setting that
    is a number or a word (an annotation such as `int | str`) takes either a number in bounds or one of the choices.
    """
    return dataclasses.field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices})


def knobs(kind: type) -> dict[str, dataclasses.Field]:
    """The settings of a config class by name, in order."""
    return {f.name: f for f in dataclasses.fields(kind)}


def plain(config: Any) -> dict[str, Any]:
    """The settings as JSON-ready values; `build(type(config), plain(config)) == config`."""
    return {name: list(v) if isinstance(v := getattr(config, name), tuple) else v for name in knobs(type(config))}


def build(kind: type, settings: dict[str, Any], where: str = "settings") -> Any:
    """A checked config from plain values; text is read as the type of its knob, as it comes from a command line (2M is
    2,000,000).

    Raises BadConfig: CONFIG_KEY for an unknown name (with near names), CONFIG_TYPE and SETTING_RANGE for bad values.
    """
    known = knobs(kind)
    for name in settings:
        if name not in known:
            raise BadConfig("CONFIG_KEY", f"{where}: there is no setting '{name}'.", near(name, known))
    types_of = typing.get_type_hints(kind)
    return kind(**{name: _checked(name, value, types_of[name], known[name], where) for name, value in settings.items()})


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises BadConfig CONFIG_SYNTAX with the line."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig("CONFIG_SYNTAX", f"{path}: not TOML: {error}.") from error
    except OSError as error:
        raise BadConfig("CONFIG_SYNTAX", f"{path}: cannot be read: {error.strerror}.") from error


def _checked(name: str, value: Any, annotation: Any, field: dataclasses.Field, where: str) -> Any:
    allowed = _members(annotation)
    value = _converted(value, allowed)
    kinds = tuple(typing.get_origin(a) or a for a in allowed)
    low, high, choices = (field.metadata.get(k) for k in ("low", "high", "choices"))
    numbers = _numbers_of(allowed) if isinstance(value, tuple) else 0
    unfit = isinstance(value, tuple) and numbers and (len(value) != numbers or not all(type(v) is float for v in value))
    if unfit or not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        pair = f"{_numbers_of(allowed)} numbers" if _numbers_of(allowed) else "tuple"
        wanted = " or ".join("nothing" if k is type(None) else pair if k is tuple else k.__name__ for k in kinds)
        raise BadConfig("CONFIG_TYPE", f"{where}: '{name}' is {value!r}; it should be {wanted}.", _bounds(field))
    outside = any(isinstance(v, int | float) and not isinstance(v, bool) and (
        not math.isfinite(v) or (low is not None and v < low) or (high is not None and v > high))
        for v in (value if isinstance(value, tuple) else (value,)))
    unlisted = isinstance(value, str) and choices is not None and value not in choices
    if outside or unlisted:
        only_words = unlisted and set(kinds) <= {str, type(None)}
        hint = near(str(value), choices or ()) if only_words else _bounds(field)
        raise BadConfig("SETTING_RANGE", f"{where}: '{name}' is {value!r}, which it cannot be.", hint)
    return value


def _members(annotation: Any) -> tuple[Any, ...]:
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def _numbers_of(allowed: tuple[Any, ...]) -> int:
    """How many numbers a setting is that is some of them, such as tuple[float, float]; 0 for others."""
    parts = next((typing.get_args(a) for a in allowed if typing.get_origin(a) is tuple), ())
    return len(parts) if set(parts) == {float} else 0


def _converted(value: Any, allowed: tuple[Any, ...]) -> Any:
    origins = [typing.get_origin(a) or a for a in allowed]
    if isinstance(value, str) and _numbers_of(allowed):
        value = value.split(",")
    if isinstance(value, list | tuple) and _numbers_of(allowed):
        return tuple(_converted(v.strip() if isinstance(v, str) else v, (float,)) for v in value)
    if isinstance(value, list) and tuple in origins:
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in origins and int not in origins:
        return float(value)
    if not isinstance(value, str):
        return value
    if bool in origins and value.lower() in ("true", "false", "yes", "no"):
        return value.lower() in ("true", "yes")
    if tuple in origins:
        return tuple(part for part in value.split(",") if part)
    for kind in (int, float):
        if kind in origins:
            try:
                return kind(value)
            except ValueError:
                continue
    if int in origins and (counted := re.fullmatch(r"(\d+(?:\.\d+)?)([kKMG])", value)):
        return round(float(counted[1]) * {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}[counted[2]])
    return value


def _bounds(field: dataclasses.Field) -> str:
    low, high, choices = (field.metadata.get(k) for k in ("low", "high", "choices"))
    ends = f"a number from {'-inf' if low is None else low} to {'inf' if high is None else high}"
    numbers = "" if low is None and high is None else ends
    words = " or ".join(repr(c) for c in choices or ())
    told = " or ".join(part for part in (numbers, words) if part)
    usual = "" if field.default is None else f" (default {field.default!r})"
    return f"It means: {field.metadata['meaning']}; {told or 'see the documentation'}{usual}."
