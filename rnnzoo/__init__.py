"""A model zoo of recurrent networks on PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnnzoo.version import __version__

if TYPE_CHECKING:
    from rnnzoo.bundle import load, save, warm_start
    from rnnzoo.cells import list_cells
    from rnnzoo.cells.registration import register_cell
    from rnnzoo.models import list_models
    from rnnzoo.recipes import list_recipes

# Resolved on first use: `import rnnzoo` must stay light for the command line.
_HOMES = {
    "list_cells": "rnnzoo.cells",
    "list_models": "rnnzoo.models",
    "list_recipes": "rnnzoo.recipes",
    "load": "rnnzoo.bundle",
    "register_cell": "rnnzoo.cells.registration",
    "save": "rnnzoo.bundle",
    "warm_start": "rnnzoo.bundle",
}

__all__ = ["__version__", "list_cells", "list_models", "list_recipes", "load", "register_cell", "save", "warm_start"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rnnzoo' has no attribute {name!r}")
