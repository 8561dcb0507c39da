"""The settings of a file that came from outside, each looked at before it is believed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CorruptStore, Incompatible, printable

__all__ = ["Settings", "parsed"]

MOST = 2 ** 31 - 1  # of a whole number
LARGEST = 1e30  # of any


def parsed(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises CorruptStore CKPT_FORMAT for anything else."""
    try:
        values = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise CorruptStore("CKPT_FORMAT", f"{where} is not JSON: {printable(error)}.", "Get the file again.") from error
    if not isinstance(values, dict):
        raise CorruptStore("CKPT_FORMAT", f"{where} is a JSON {type(values).__name__}, not an object.", "Get the file again.")
    return values


class Settings:
    """Values by name; those of `prefix` + name, for messages of the file `where`. Each verb raises Incompatible
    IMPORT_SETTING for a value that is none, and gives `default` for one that is absent or null."""

    def __init__(self, values: Mapping[str, Any], where: str | Path, prefix: str = ""):
        self.values, self.where, self.prefix = values, where, prefix

    def refused(self, name: str, wanted: str) -> Incompatible:
        """The error for a value that cannot be."""
        key = self.prefix + name
        said = printable(json.dumps(self.values.get(key), default=str))
        return Incompatible("IMPORT_SETTING", f"{self.where}: '{key}' is {said}; {wanted} is what can be read.",
                            "Choose a model without that.")

    def get(self, name: str) -> Any:
        """The value, None where absent."""
        return self.values.get(self.prefix + name)

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = default if self.get(name) is None else self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise self.refused(name, "a whole number of at least 1")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number above 0."""
        value = default if self.get(name) is None else self.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LARGEST:
            raise self.refused(name, "a finite number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = default if self.get(name) is None else self.get(name)
        if not isinstance(value, bool):
            raise self.refused(name, "true or false")
        return value

    def word(self, name: str, default: str, known: Mapping[str, str]) -> str:
        """What `known` has for a word."""
        value = default if self.get(name) is None else self.get(name)
        if not isinstance(value, str) or value not in known:
            raise self.refused(name, " or ".join(f"'{word}'" for word in known))
        return known[value]

    def only(self, name: str, *allowed: Any) -> None:
        """Nothing, where the value is absent or one of `allowed`."""
        value = self.get(name)
        if value is not None and value not in allowed:
            raise self.refused(name, " or ".join(json.dumps(a) for a in allowed) if allowed else "none")

    def token(self, name: str, vocabulary: int) -> int | None:
        """The number of a token, the first of several; None where there is none within the vocabulary."""
        value = self.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.refused(name, "the number of a token")
        return value if value is not None and 0 <= value < vocabulary else None
