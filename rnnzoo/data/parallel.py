"""Parallel text: a file for each language, and line for line the same sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

from rnnzoo.data.named_files import in_order, items_of, refuse_repeated, split_of_set
from rnnzoo.data.readers import COMPRESSIONS, Row, decode_lines, open_bytes
from rnnzoo.data.sources import refuse_twins, sort_by_name
from rnnzoo.errors import InputError, unknown_name

Pair = tuple[Path, Path]  # the files of source and target


def language_of(path: Path) -> str:
    """Return what a file's name ends in, before .gz or .xz.

    >>> language_of(Path("train.de.gz")), language_of(Path("README"))
    ('de', '')
    """
    return (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix.removeprefix(".")


def stem_of(path: Path) -> Path:
    """Return a file's path without compression and language.

    >>> stem_of(Path("news.2016.de.gz")).name
    'news.2016'
    """
    return (path.with_suffix("") if path.suffix in COMPRESSIONS else path).with_suffix("")


def sides_in(folder: Path, languages: tuple[str, str]) -> dict[Path, dict[str, Path]]:
    """Return for each name without language the files of a folder in these languages."""
    found: dict[Path, dict[str, Path]] = {}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if language_of(path) in languages]
    refuse_twins(files, str(folder))
    for path in files:
        found.setdefault(stem_of(path), {})[language_of(path)] = path
    return found


def find_pairs(
    path: str, languages: tuple[str, str], *, named: Mapping[str, str | None], trained: bool = False
) -> dict[str, list[Pair]] | None:
    """Sort the pairs of files at `path` into splits; None if no file has a language for its ending.

    Args:
        path: a folder, or one file of a pair of training data.
        languages: the endings of source and target.
        named: split (or test set, ``test/NAME``) → names without the language (or the file of one side, or of both),
            in the folder or anywhere; a comma separates several. The other splits are recognised by their names.
        trained: the data are for a trained model; see `find_files`.

    Raises:
        InputError: if a name has a file in one of the languages only, or there are no training data.
    """
    place = Path(path)
    folder = place.parent if place.is_file() else place
    if not folder.is_dir():
        return None
    try:
        sides = sides_in(folder, languages)
    except OSError as error:
        raise InputError(f"data.path {path}", expected="a folder that can be read", got=str(error.strerror)) from error
    if place.is_file():
        sides = {stem: files for stem, files in sides.items() if place in files.values()}
    if not sides:
        return None
    other = "test" if trained else "train"
    chosen: dict[str, list[Path]] = {}
    sides_named: dict[tuple[str, Path], set[str]] = {}
    for split, name in items_of(named):
        stem, files = find_named_pair(folder, name, split_of_set(split), languages)
        sides[stem] = files
        language = language_of(Path(name))
        named_before = sides_named.setdefault((split, stem.resolve()), set())
        other_side = {language} | named_before == set(languages) and language not in named_before
        if not other_side:
            refuse_repeated(split, stem, chosen)
            chosen.setdefault(split, []).append(stem)
        named_before.add(language)
    taken = {stem.resolve() for stems in chosen.values() for stem in stems}  # it may be named in another way
    splits = sort_by_name([stem for stem in sides if stem.resolve() not in taken], chosen, other, alone=place.is_file())
    if not splits.get("train") and not (trained and splits):
        raise InputError(
            f"data.path {path}",
            expected=f"files of {'test' if trained else 'training'} data in {' and '.join(languages)}",
            got=f"files {', '.join(file.name for files in sides.values() for file in files.values())}",
            fix=f"name them, without the language, with --data.{other} NAME",
        )
    return {split: [whole_pair(sides[stem], languages) for stem in splits[split]] for split in in_order(splits)}


def find_named_pair(folder: Path, name: str, split: str, languages: tuple[str, str]) -> tuple[Path, dict[str, Path]]:
    """Return the stem and the files of a pair that is named for a split."""
    for candidate in (folder / name, Path(name)):
        stem = stem_of(candidate) if language_of(candidate) in languages else candidate
        if stem.parent.is_dir():
            sides = sides_in(stem.parent, languages)
            if stem in sides:
                return stem, sides[stem]
    raise unknown_name(f"data.{split}", name, [stem.name for stem in sides_in(folder, languages)])


def whole_pair(files: Mapping[str, Path], languages: tuple[str, str]) -> Pair:
    """Return the files of both languages.

    Raises:
        InputError: if one is missing.
    """
    for language in languages:
        if language not in files:
            there = next(iter(files.values()))
            raise InputError(
                str(there), expected=f"{stem_of(there).name}.{language} beside it", got="none", fix="add the file"
            )
    return files[languages[0]], files[languages[1]]


def read_pair(pair: Pair, languages: tuple[str, str]) -> Iterator[tuple[str, Row]]:
    """Yield the lines of two files with their places, as language → line.

    Raises:
        InputError: if one file has more lines than the other, with both counts.
    """
    place = f"{pair[0]} and {pair[1].name}"
    lines = [decode_lines(open_bytes(path), str(path)) for path in pair]
    counts = [0, 0]
    for both in zip_longest(*lines):
        counts = [line[0] if line is not None else count for line, count in zip(both, counts, strict=True)]
        if counts[0] == counts[1]:
            yield f"{place}, line {counts[0]}", {name: line[1] for name, line in zip(languages, both, strict=True)}
    if counts[0] != counts[1]:
        raise InputError(
            place,
            expected="as many lines in both files",
            got=f"{counts[0]:,} lines in {pair[0].name} and {counts[1]:,} in {pair[1].name}",
            fix="line for line they must be the same sentences",
        )
