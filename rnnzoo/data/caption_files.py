"""Files of captions: Flickr8k's token file, Karpathy's JSON, and tables; each image once, with all its captions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnzoo.data.named_files import items_of, split_of_set
from rnnzoo.data.readers import Row, decode_lines, open_bytes
from rnnzoo.data.sources import find_named, format_of, split_of
from rnnzoo.documents import parse_json
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.limits import check_limit

TABLES = ("csv", "tsv", "jsonl", "parquet")
FORMATS = (*TABLES, "flickr", "karpathy")
LIST_NAME = re.compile(r"(train|dev|val|valid|validation|test)_?images?", re.IGNORECASE)
SPLIT_NAMES = {"restval": "train", "dev": "validation", "val": "validation", "valid": "validation"}


@dataclass
class Captioned:
    """An image and what is said about it.

    Args:
        image: its name; or its bytes, from a table that holds them.
        captions: the captions.
        split: the split that the file puts it into, or None.
        where: the line that names it first.
    """

    image: Any
    captions: list[str]
    split: str | None
    where: str


@dataclass
class CaptionFiles:
    """The files of a data set.

    Args:
        captions: a file of captions → the split that all its images are in, or None.
        formats: file of captions → format.
        lists: file with the names of images, one a line → their split (or test set).
    """

    captions: dict[Path, str | None]
    formats: dict[Path, str]
    lists: dict[Path, str] = field(default_factory=dict)


def find_caption_files(
    path: str, *, captions: str | None, format: str | None, named: Mapping[str, str | None]
) -> CaptionFiles:
    """Find the files of captions, and the lists of images that make the splits.

    A list is a text file that is named for a split, or whose name speaks of its images
    (``Flickr_8k.trainImages.txt``). Files of captions are the one that is named, or those named for a split, or the
    only candidate in the folder, or several whose names speak of splits.

    Args:
        path: a folder, or the file of captions.
        captions: the file of captions, in the folder or anywhere.
        format: its format; by its name and first line if left out.
        named: split (or test set, ``test/NAME``) → file; a comma separates several.

    Raises:
        InputError: if they cannot be told, or a file is named twice.
    """
    folder = Path(path)
    if not folder.exists():
        raise InputError(f"data.path {path}", expected="a folder, or a file of captions", got="nothing")
    if folder.is_file():
        captions, folder = captions or str(folder.resolve()), folder.parent
    present = sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith("."))
    lists = {path: split for path in present if (split := split_of_list(path.name)) is not None}
    settled = {split_of_set(split) for split, _ in items_of(named)}
    lists = {path: split for path, split in lists.items() if split not in settled}
    parts: dict[Path, str | None] = {}
    for split, name in items_of(named):
        chosen = find_named(folder, name, split_of_set(split))
        is_table = format_of(chosen) in TABLES or chosen.suffix == ".json"
        if chosen.resolve() in (file.resolve() for file in (*parts, *lists)):
            where = f"data.{split_of_set(split)}"
            raise InputError(where, expected="each file once", got=f"{chosen.name} twice", fix="name it once")
        (parts if is_table else lists)[chosen] = split
    candidates = [each for each in present if each not in lists and is_candidate(each)]
    if captions is not None:
        parts = {find_named(folder, captions, "captions"): None}
    elif not parts and len(candidates) == 1:
        parts = {candidates[0]: None}
    elif not parts and candidates and all(split_of(each.name) for each in candidates):
        parts = {each: split_of(each.name) for each in candidates}
    if not parts:
        raise InputError(
            f"data.path {path}",
            expected="one file of captions (" + ", ".join(FORMATS) + "), or one for each split",
            got=f"files {', '.join(each.name for each in candidates or present[:12]) or 'none'}",
            fix="name it with --data.captions FILE",
        )
    formats = {each: format or caption_format(each) for each in parts}
    return CaptionFiles(parts, formats, lists)


def split_of_list(name: str) -> str | None:
    """Return the split whose images a file lists, by its name.

    >>> split_of_list("Flickr_8k.devImages.txt"), split_of_list("captions.txt")
    ('validation', None)
    """
    found = LIST_NAME.search(name)
    if found is None or not name.endswith(".txt"):
        return None
    word = found[1].lower()
    return SPLIT_NAMES.get(word, word)


def is_candidate(path: Path) -> bool:
    """Return whether a file's name is one that captions may have."""
    if format_of(path) in TABLES or path.suffix == ".json":
        return True
    return path.suffix == ".txt" and re.search("token|caption", path.name.lower()) is not None


def caption_format(path: Path) -> str:
    """Return the format of a file of captions, by its name and, for text, by its first line."""
    if path.suffix == ".json":
        return "karpathy"
    if "token" in path.name.lower():
        return "flickr"
    known = format_of(path)
    if known in TABLES:
        return str(known)
    for _, line in decode_lines(open_bytes(path), str(path)):
        return "flickr" if re.match(r"[^\t]*#\d+\t", line) else "tsv" if "\t" in line else "csv"
    raise InputError(str(path), expected="a file of captions", got="an empty file")


def read_captions(
    path: Path,
    format: str,
    rows: Iterable[tuple[str, Row]],
    pick: Callable[[Row, str, str], Any],
    columns: Mapping[str, str],
) -> list[Captioned]:
    """Return the images of a file of captions in the order in which it names them first.

    Args:
        path: the file.
        format: one of `FORMATS`.
        rows: its rows, if it is a table.
        pick: returns one of our columns of a row.
        columns: our names of columns → those of the data.

    Raises:
        InputError: for what does not fit the format, with the line.
    """
    if format not in FORMATS:
        raise unknown_name("data.format", format, FORMATS)
    if format == "karpathy":
        captioned: Iterator[Captioned] = karpathy(path)
    elif format == "flickr":
        captioned = flickr(decode_lines(open_bytes(path), str(path)), str(path))
    else:
        captioned = table(rows, pick, columns)
    images: dict[Any, Captioned] = {}
    for place, row in enumerate(captioned):
        key = row.image if isinstance(row.image, str) else place
        if key not in images:
            images[key] = row
        elif images[key].split != row.split:
            raise InputError(row.where, expected=f"{key!r} in one split", got=f"{images[key].split} and {row.split}")
        else:
            images[key].captions.extend(row.captions)
    if not images:
        raise InputError(str(path), expected=f"captions in the format {format}", got="none")
    return list(images.values())


def flickr(lines: Iterable[tuple[int, str]], where: str) -> Iterator[Captioned]:
    """Yield the lines ``IMAGE#NUMBER<tab>CAPTION`` of Flickr8k and Flickr30k."""
    for number, line in lines:
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        place = f"{where}, line {number}"
        if not tab or not caption.strip():
            raise InputError(place, expected="IMAGE#NUMBER, a tab and a caption", got=repr(line)[:80])
        yield Captioned(re.sub(r"#\d+$", "", name.strip()), [caption.strip()], None, place)


def karpathy(path: Path) -> Iterator[Captioned]:
    """Yield the images of JSON as Karpathy's splits have it: ``images[].filename / split / sentences[].raw``."""
    parts, size = [], 0
    for line in open_bytes(path):
        parts.append(line)
        size += len(line)
        check_limit("FILE_BYTES", str(path), size)
    tree = parse_json(b"".join(parts), str(path), expected="JSON with the key 'images'")
    images = tree.get("images") if isinstance(tree, dict) else None
    if not isinstance(images, list):
        raise InputError(str(path), expected="JSON with the key 'images' and a list under it", got=repr(tree)[:80])
    for place, image in enumerate(images):
        where = f"{path}, image {place}"
        try:
            name = "/".join(part for part in (image.get("filepath"), image["filename"]) if part)
            captions = [sentence["raw"].strip() for sentence in image["sentences"]]
            split = split_name(image["split"], where)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                where, expected="filename, split and sentences, each with raw", got=f"no {error}"
            ) from error
        yield Captioned(name, [caption for caption in captions if caption], split, where)


def table(
    rows: Iterable[tuple[str, Row]], pick: Callable[[Row, str, str], Any], columns: Mapping[str, str]
) -> Iterator[Captioned]:
    """Yield the rows of a table with an image, a caption or several, and maybe a split."""
    for where, row in rows:
        image = pick(row, "image", where)
        if not image or not isinstance(image, str | bytes | dict):
            raise InputError(where, expected="an image", got=repr(image)[:80])
        split = row.get("split")
        yield Captioned(image, captions_of(row, pick, columns, where), split and split_name(split, where), where)


def captions_of(row: Row, pick: Callable[[Row, str, str], Any], columns: Mapping[str, str], where: str) -> list[str]:
    """Return all captions of a row: of one column (a text or a list), or of several.

    Without ``data.columns.captions``, the column ``captions`` or ``caption`` is taken, or all that are called
    ``caption`` with a number. Several columns are named with commas between.

    Raises:
        InputError: if there is no caption.
    """
    named = columns["captions"]
    if named != "captions":
        present = [name.strip() for name in named.split(",")]
    else:
        numbered = [name for name in row if re.fullmatch(r"captions?[_ ]?\d+", name)]
        present = next(([name] for name in ("captions", "caption") if name in row), numbered)
    if not present or any(name not in row for name in present):
        pick({name: value for name, value in row.items() if name != named}, "captions", where)  # complains
    values = [row[name] for name in present]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise InputError(where, expected="captions as text", got=repr(texts)[:80])
    found = [text.strip() for text in texts if text and text.strip()]
    if not found:
        raise InputError(where, expected="a caption", got="none", fix="drop the row")
    return found


def split_name(name: Any, where: str) -> str:
    """Return our name of a split.

    Raises:
        InputError: if it is none that we know.
    """
    found = SPLIT_NAMES.get(str(name).lower()) or split_of(str(name))
    if found is None:
        raise InputError(where, expected="a split: train, validation (val, dev) or test", got=repr(name))
    return found


def read_lists(lists: Mapping[Path, str]) -> dict[str, tuple[str, str]]:
    """Return image → (split, line) from lists of names.

    Raises:
        InputError: if an image is in two splits.
    """
    found: dict[str, tuple[str, str]] = {}
    for path, split in lists.items():
        for number, line in decode_lines(open_bytes(path), str(path)):
            name, where = line.strip(), f"{path}, line {number}"
            if name and found.setdefault(name, (split, where))[0] != split:
                raise InputError(where, expected="an image of one split", got=f"{name!r}, which is in {found[name][1]}")
    return found
