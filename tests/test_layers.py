"""A file imports only from levels below its own, and from its own folder without circles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rnnzoo

ROOT = Path(rnnzoo.__file__).parent
GROUND = {
    "version",
    "errors",
    "limits",
    "documents",
    "schema",
    "imports",
    "registry",
    "state",
    "lengths",
    "batches",
    "memory",
    "files",
    "terminal",
    "numerics",
}
# What models are made of: no data.
PARTS = {"kernels", "cells", "backends", "layers", "decoding", "decoders", "text", "processors", "metrics"}
ALLOWED: dict[str, set[str]] = {  # folder → the others that it may import
    "kernels": GROUND,  # knows no cell
    "cells": GROUND,
    "backends": GROUND | {"kernels", "cells"},
    "layers": GROUND | {"kernels", "cells", "backends"},
    "decoding": GROUND | {"kernels", "cells", "backends", "layers"},
    "decoders": GROUND | {"layers", "decoding"},
    "text": GROUND,
    "processors": GROUND | {"text"},
    "data": GROUND | {"text", "processors"},
    "metrics": GROUND | {"text"},  # the rules of tag spans are text's
    "models": GROUND | PARTS | {"plots"},  # a model draws what it attended to
    "callbacks": GROUND | PARTS | {"models"},
    "diagnostics": GROUND | PARTS | {"models"},
    "checkpoints": GROUND | {"recipes"},
    "weights": GROUND,
    "bundle": GROUND | PARTS | {"models", "weights", "checkpoints", "recipes"},
    "bench": GROUND | PARTS | {"models"},
    "testing": GROUND | {"cells", "backends", "layers"},
    "report": GROUND,
    "comparison": GROUND | {"report"},
    "plots": GROUND,
    "recipes": GROUND,
}
EVERYTHING = {*ALLOWED, *GROUND}
ALLOWED |= dict.fromkeys(GROUND, GROUND)
ALLOWED |= {"cli": EVERYTHING, "__init__": EVERYTHING, "__main__": {"cli"}}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py")) if "_recipes" not in path.parts}


def folder_of(module: str) -> str:
    return module.split(".")[0]


def imported(tree: ast.AST) -> set[str]:
    """Return the modules of the package that a module imports, late and for types alone too; without ``rnnzoo.``."""
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            package, _, inner = (node.module or "").partition(".")
            if package == "rnnzoo":
                for alias in node.names:
                    deeper = f"{inner}.{alias.name}".strip(".")
                    modules.add(deeper if deeper in MODULES else inner or "__init__")
        elif isinstance(node, ast.Import):
            names = [alias.name.partition(".") for alias in node.names]
            modules |= {inner or "__init__" for package, _, inner in names if package == "rnnzoo"}
    return modules


def read(module: str) -> ast.AST:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    folder = folder_of(module)
    assert folder in ALLOWED, f"{folder} has no level: add it to ALLOWED, and to rnnzoo/README.md"
    folders = {folder_of(name) for name in imported(read(module))}
    forbidden = folders - ALLOWED[folder] - {folder}
    assert not forbidden, f"rnnzoo.{module} may not import {', '.join(sorted(forbidden))}"


def test_no_circles():
    graph = {module: imported(read(module)) & set(MODULES) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"imports in a circle: {' → '.join((*path, module))}"
        if module not in done:
            for name in sorted(graph[module] - {module}):
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_every_folder_has_a_level():
    assert {folder_of(module) for module in MODULES} == set(ALLOWED)


def test_the_reader_of_imports_sees_them():
    source = "import rnnzoo.state\nfrom rnnzoo import bundle\nfrom rnnzoo.cells import base\nimport os\n"
    source += "def later():\n    from rnnzoo.data.base import ZooData\n"
    source += "if TYPE_CHECKING:\n    from rnnzoo.cli import main\n"
    assert imported(ast.parse(source)) == {"state", "bundle", "cells.base", "data.base", "cli.main"}
