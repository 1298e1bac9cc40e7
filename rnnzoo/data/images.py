"""Where images, or features of their regions, lie: a folder, a zip or an ``.npz``, and what each is called."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rnnzoo.data.readers import Row
from rnnzoo.errors import InputError, did_you_mean
from rnnzoo.processors.images import ARRAY_SUFFIXES, IMAGE_SUFFIXES, reference


@dataclass(frozen=True)
class ImageStore:
    """All images of one place, by name; none is read.

    Args:
        place: the folder or archive.
        kind: ``image``, or ``regions`` for arrays.
        references: path within the place → what `read_image` or `read_regions` opens.
        checksum: of names, sizes and CRC-32 (of an archive) or times of change (of a folder).
    """

    place: str
    kind: str
    references: dict[str, str]
    checksum: str

    @cached_property
    def short(self) -> dict[str, list[str]]:
        """File name → paths within the place; of arrays, the name without its ending too."""
        found: dict[str, list[str]] = {}
        for path in self.references:
            name = path.rpartition("/")[2]
            for key in {name, name.rpartition(".")[0]} if self.kind == "regions" else {name}:
                found.setdefault(key, []).append(path)
        return found

    def find(self, name: str, where: str) -> str:
        """Return the reference of an image by its path within the place, or by its file name alone.

        Arrays are found by the name of their image too, whatever its ending.

        Raises:
            InputError: naming `where` it is spoken of, if there is no such image, or several.
        """
        if name in self.references:
            return self.references[name]
        last = name.replace("\\", "/").rpartition("/")[2]
        found = self.short.get(last, [])
        if not found and self.kind == "regions":
            found = self.short.get(last.rpartition(".")[0], [])
        if len(found) == 1:
            return self.references[found[0]]
        what = "image" if self.kind == "image" else "array"
        if found:
            raise InputError(where, expected="an image of one name", got=f"{name!r}, which is {' and '.join(found)}")
        raise InputError(
            where,
            expected=f"one of the {len(self.references):,} {what}s of {self.place}",
            got=repr(name),
            fix=did_you_mean(name, self.references) or "say where the images are with --data.images",
        )


def list_images(place: Path, setting: str = "data.images") -> ImageStore:
    """List the images, or the arrays if there are no images, of a folder and all in it, of a zip or of an ``.npz``.

    Args:
        place: the folder or archive.
        setting: what messages call it.

    Raises:
        InputError: if there are none, or the place cannot be read.
    """
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.is_file())
        listed = {path.relative_to(place).as_posix(): str(path.resolve()) for path in files}
        facts = {path.relative_to(place).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    else:
        try:
            with zipfile.ZipFile(place) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except FileNotFoundError as error:
            raise InputError(f"{setting} {place}", expected="a folder or a zip", got="nothing") from error
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(str(place), expected="a folder, a zip or an .npz", got=str(error)) from error
        listed = {member.filename: reference(place.resolve(), member.filename) for member in members}
        facts = {member.filename: [member.file_size, member.CRC] for member in members}
    for kind, suffixes in (("image", IMAGE_SUFFIXES), ("regions", ARRAY_SUFFIXES)):
        chosen = {name: target for name, target in listed.items() if is_one(name, suffixes)}
        if chosen:
            text = json.dumps({name: facts[name] for name in sorted(chosen)})
            return ImageStore(str(place), kind, chosen, hashlib.sha256(text.encode()).hexdigest())
    raise InputError(
        f"{setting} {place}",
        expected="images, or arrays of features",
        got=f"{len(listed)} files, none of which ends in {', '.join((*IMAGE_SUFFIXES, *ARRAY_SUFFIXES))}",
    )


def is_one(name: str, suffixes: Iterable[str]) -> bool:
    """Return whether a path ends in one of `suffixes`; hidden files, and what macOS puts into zips, never do."""
    parts = name.split("/")
    hidden = any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"
    return not hidden and name.lower().endswith(tuple(suffixes))


def image_sample(value: Any, name: str) -> Row:
    """Return an image, or features of regions (numbers, or the path of an array), as a raw sample."""
    is_array = isinstance(value, list) or (isinstance(value, str) and value.lower().endswith(ARRAY_SUFFIXES))
    return {"regions" if is_array else "image": value, "name": name}


def is_image(path: Path) -> bool:
    """Return whether a file, by its name, is an image, an array of regions, or a zip of either."""
    return is_one(path.name, (*IMAGE_SUFFIXES, *ARRAY_SUFFIXES, ".zip"))


def image_samples(place: str) -> Iterator[Row]:
    """Yield a raw sample for each image (or array) of a folder or a zip, in the order of names, or for one file.

    Raises:
        InputError: if there are none.
    """
    path = Path(place)
    if path.is_file() and is_one(path.name, (*IMAGE_SUFFIXES, ".npy")):
        yield image_sample(str(path), path.name)
        return
    store = list_images(path, "--input")
    for name in sorted(store.references):
        yield {store.kind: store.references[name], "name": name}
