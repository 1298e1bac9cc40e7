"""Code of users, such as cells of their own: run because someone named it, never because a saved model did."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from rnnzoo.errors import InputError

_stems: set[str] = set()  # of the files that were run
_named: set[str] = set()  # the modules that were named, those of files by their stems
_running: list[str] = []  # the files and modules whose code runs now, the innermost last


def import_code(name: str) -> None:
    """Run a file of Python, or import a module that is installed; once, however often it is named.

    A file becomes a module of its stem, and finds the modules beside it. A file that is not there passes for one of the
    same name that was run before: a recipe may name where it once was.

    Args:
        name: ``my_cells.py`` or ``my_package.cells``.

    Raises:
        InputError: if there is nothing of the name, if its stem is that of another module, or with what its code
            raised.
    """
    _running.append(name)
    try:
        if name.endswith(".py"):
            run_file(Path(name))
        else:
            import_module(name)
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"import of {name}",
                expected="a file that ends in .py, or an installed module",
                got="neither",
                fix=f"give {name}.py" if Path(f"{name}.py").is_file() else "",
            ) from error
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, SyntaxError) else f" ({Path(frame.filename).name}, line {frame.lineno})"
        raise InputError(
            f"import of {name}", expected="Python that runs", got=f"{type(error).__name__}: {error}{place}"
        ) from error
    finally:
        _running.pop()
    _named.add(Path(name).stem if name.endswith(".py") else name)


def named_modules() -> tuple[str, ...]:
    """Return the modules that `import_code` was asked for so far."""
    return tuple(_named)


def run_file(path: Path) -> None:
    """Run a file as the module of its stem, unless it was."""
    file, stem = path.resolve(), path.stem
    if not file.is_file():
        if stem in _stems and stem in sys.modules:  # the same file, named where it is now
            return
        raise InputError(
            f"import of {path}", expected="a file of Python", got="nothing", fix=f"say where {path.name} is by --import"
        )
    known = sys.modules.get(stem)
    other = getattr(find_spec(stem), "origin", None) if known is None else getattr(known, "__file__", None)
    if (known is not None or other is not None) and (other is None or Path(other).resolve() != file):
        raise InputError(
            f"import of {path}", expected="a file whose name is not that of another module", got=stem, fix="rename it"
        )
    if known is not None:
        return
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: nothing beside it stands in for an installed module
    _stems.add(stem)
    spec = spec_from_file_location(stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[stem] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[stem]
        _stems.discard(stem)
        raise


def origin_of(kind: type) -> str:
    """Return what has to be named so that a class is there again: a file, a module, or ``__main__``."""
    return _running[-1] if _running else kind.__module__
