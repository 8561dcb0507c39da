"""verossim: generative models under one contract, for pictures, tables, text, sound and film.

Public names are resolved on first use, so that `import verossim` is quick and loads no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import VerossimError

if TYPE_CHECKING:
    from .model import Model, fit
    from .spaces import Likelihood, Records

__version__ = "0.1.0"
__all__ = ["Likelihood", "Model", "Records", "VerossimError", "__version__", "fit"]

_HOMES = {"Likelihood": "spaces", "Records": "spaces", "Model": "model", "fit": "model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'verossim' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
