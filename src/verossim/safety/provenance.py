"""Where made things come from: which model made them, from which data, with which seed and settings.

The document is deterministic, without time or place, so that the same request gives the same bytes again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import __version__

__all__ = ["MADE_BY", "Provenance", "document"]

MADE_BY = f"verossim {__version__}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """verb: what was asked of the model; model, data: sha256 of the saved model and of the manifest of what it learned from;
    seed and settings: what the outputs follow from."""

    verb: str
    model: str | None
    data: str | None
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def document(provenance: Provenance, outputs: Mapping[str, str], replaces: str | None = None) -> bytes:
    """The JSON that lies beside outputs; `outputs` gives each one's sha256 by name, `replaces` that of the file before this."""
    said = {"made_by": MADE_BY, "synthetic": True, **vars(provenance), "outputs": dict(outputs), "replaces": replaces}
    return (json.dumps(said, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
