"""Shelves: the members of one contract, found by file name and loaded on use.

A folder such as `families/` is a shelf: the file `families/gmm.py` holds the member "gmm", and so does an installed
package's entry point named "gmm" in the group "verossim.families". Listing a shelf imports nothing.
"""

import importlib
import importlib.metadata
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Incompatible, near

__all__ = ["CODECS", "FAMILIES", "FEATURES", "METRICS", "Shelf"]


@dataclass(frozen=True)
class Shelf:
    """Members of one contract: modules of `package`, each naming its class in `MEMBER`; `kind` is the word for one."""

    package: str
    kind: str

    def names(self) -> list[str]:
        """Every member's name, those of other packages included, in alphabetical order."""
        folder = Path(__file__).parent / self.package
        own = [m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")]
        return sorted({*own, *(entry.name for entry in self._entries())})

    def load(self, name: str) -> Any:
        """The class of a member. Raises Incompatible SHELF_UNKNOWN with near names."""
        if name not in self.names():
            raise Incompatible("SHELF_UNKNOWN", f"There is no {self.kind.lower()} '{name}'.", near(name, self.names()))
        for entry in self._entries():
            if entry.name == name:
                return entry.load()
        module = importlib.import_module(f"verossim.{self.package}.{name}")
        return module.MEMBER

    def _entries(self) -> list[importlib.metadata.EntryPoint]:
        return list(importlib.metadata.entry_points(group=f"verossim.{self.package}"))


FAMILIES = Shelf("families", "Family")
CODECS = Shelf("codecs", "Codec")
METRICS = Shelf("metrics", "Metric")
FEATURES = Shelf("features", "Features")
