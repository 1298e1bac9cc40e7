"""Finding and reading recipes: YAML files that say what to train on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnzoo.documents import parse_yaml, read_whole
from rnnzoo.errors import InputError, unknown_name


@dataclass(frozen=True)
class Recipe:
    """A recipe of the zoo, or a file of the user's.

    Args:
        name: ``pattern/dataset`` or, for a file, its path.
        path: the YAML file.
        title: the first line of its comment.
    """

    name: str
    path: Path
    title: str

    @property
    def pattern(self) -> str:
        """The first part of the name."""
        return self.name.split("/")[0]


def recipe_folder() -> Path:
    """Return the folder of recipes: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / "_recipes" if (here / "_recipes").is_dir() else here.parent / "recipes"


def list_recipes(pattern: str | None = None) -> list[Recipe]:
    """Return the recipes of the zoo in the order of their names, of one pattern if it is given.

    Raises:
        InputError: for a pattern without recipes.
    """
    folder = recipe_folder()
    found = [
        Recipe(path.relative_to(folder).with_suffix("").as_posix(), path, title_of(path))
        for path in sorted(folder.glob("*/*.yaml"))
    ]
    patterns = sorted({recipe.pattern for recipe in found})
    if pattern is not None and pattern not in patterns:
        raise unknown_name("pattern", pattern, patterns)
    return [recipe for recipe in found if pattern in (None, recipe.pattern)]


def title_of(path: Path) -> str:
    """Return the first line of a file's head comment, or its name."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else path.stem


def find_recipe(name: str) -> Recipe:
    """Return a recipe by its name (the part after the slash is enough if it is unique) or by its file.

    Raises:
        InputError: if there is none, with the nearest name; if the file cannot be used.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise InputError(name, expected="a YAML file", got="a folder" if path.is_dir() else "nothing")
        return Recipe(name, path, title_of(path))
    recipes = list_recipes()
    matches = [recipe for recipe in recipes if name in (recipe.name, recipe.name.split("/")[1])]
    if len(matches) > 1:
        listed = " and ".join(recipe.name for recipe in matches)
        raise InputError(f"recipe {name!r}", expected="one recipe", got=listed, fix="give the whole name")
    if not matches:
        raise unknown_name("recipe", name, [recipe.name for recipe in recipes])
    return matches[0]


def read_recipe(path: str | Path) -> Mapping[str, Any]:
    """Read a YAML file.

    Raises:
        InputError: if it cannot be read or is not a mapping; malformed YAML with its line.
    """
    tree = parse_yaml(read_whole(Path(path), "CONFIG_BYTES"), str(path))
    if not isinstance(tree, Mapping):
        raise InputError(str(path), expected="keys with values", got=type(tree).__name__)
    return tree
