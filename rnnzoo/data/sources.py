"""Where samples come from: files of a folder sorted into splits, or a data set of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from rnnzoo.data.named_files import in_order, items_of, refuse_repeated, split_of_set
from rnnzoo.data.readers import COMPRESSIONS, Row, read_rows
from rnnzoo.errors import InputError, unknown_name

WORDS = {  # what a file of a split has in its name
    "validation": r"(dev|valid|validation|val|testa)",
    "train": r"(.*train.*)",
    "test": r"(test|testb|datatest\d*|test\d+)",
}
EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".conll": "conll",
    ".iob": "conll",
    ".bio": "conll",
    ".conllu": "conllu",
}
READER_VERSION = 4  # of what readers make of a file: part of the fingerprint of cached data


@dataclass(frozen=True)
class Files:
    """Local files by split, each with its format.

    Args:
        splits: split → files.
        formats: file → format.
        checksums: file name → SHA-256.
    """

    splits: dict[str, list[Path]]
    formats: dict[Path, str]
    checksums: dict[str, str] = field(default_factory=dict)


def split_of(name: str) -> str | None:
    """Return the split that a file's name speaks of, or None.

    >>> split_of("eng.testa"), split_of("datatraining.txt"), split_of("LICENSE.txt")
    ('validation', 'train', None)
    """
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]
    for split, pattern in WORDS.items():
        if any(re.fullmatch(pattern, part) for part in parts):
            return split
    return None


def format_of(path: Path) -> str | None:
    """Return the format that a file's name ends in, before .gz or .xz, or None.

    >>> format_of(Path("train.jsonl.xz"))
    'jsonl'
    """
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return EXTENSIONS.get(plain.suffix.lower())


def find_files(
    path: str,
    *,
    format: str | None,
    allowed: Sequence[str],
    named: Mapping[str, str | None],
    trained: bool = False,
) -> Files:
    """Sort the files at `path` into splits.

    Args:
        path: a folder, or a single file of training data.
        format: the format of all files, whatever their names end in; None takes it from the names.
        allowed: the formats that the data module reads, the one for names that say nothing first.
        named: split (or test set, ``test/NAME``) → file (in the folder, or anywhere), for splits that are named one by
            one; a comma separates several. The other splits are recognised by their names; if none is, all other files
            are training data.
        trained: the data are for a trained model: files of no named split are test data, and training data need not
            be there.

    Raises:
        InputError: if the folder cannot be read, a named file is missing, or the formats are mixed.
    """
    folder = Path(path)
    if format is not None and format not in allowed:
        raise unknown_name("data.format", format, allowed)
    try:
        present = sorted(each for each in ([folder] if folder.is_file() else folder.iterdir()) if each.is_file())
    except OSError as error:
        raise InputError(
            f"data.path {path}",
            expected="a folder that can be read",
            got=error.strerror or str(error),
            fix="" if folder.is_absolute() else f"this path begins at {Path.cwd()}; give another by --data.path",
        ) from error
    other = "test" if trained else "train"  # what files are whose names say nothing
    splits: dict[str, list[Path]] = {}
    for split, name in items_of(named):
        file = find_named(folder, name, split_of_set(split))
        refuse_repeated(split, file, splits)
        splits.setdefault(split, []).append(file)
    taken = {each.resolve() for files in splits.values() for each in files}  # a file may be named in another way
    usable = [each for each in present if each.resolve() not in taken and not each.name.startswith(".")]
    usable = [each for each in usable if is_usable(each, format, allowed)] or [
        each for each in usable if format is not None and split_of(each.name)
    ]
    splits = sort_by_name([folder] if folder.is_file() else usable, splits, other, alone=folder.is_file())
    if not splits.get("train") and not (trained and splits):
        raise InputError(
            f"data.path {path}",
            expected=f"a file of {'test' if trained else 'training'} data as {format or ' or '.join(allowed)}",
            got=f"files {', '.join(each.name for each in present[:12]) or 'none'}",
            fix=f"name it with --data.{other} FILE, and its format with --data.format",
        )
    refuse_twins([each for files in splits.values() for each in files], path)
    formats = {each: format or format_of(each) or allowed[0] for files in splits.values() for each in files}
    if len(set(formats.values())) > 1:
        listed = ", ".join(f"{each.name} ({kind})" for each, kind in formats.items())
        raise InputError(f"data.path {path}", expected="one format", got=listed, fix="choose with --data.format")
    return Files({split: splits[split] for split in in_order(splits)}, formats, checksums(formats))


def refuse_twins(files: Sequence[Path], path: str) -> None:
    """See that no file is there both plain and compressed.

    Raises:
        InputError: naming the two.
    """
    found: dict[Path, Path] = {}
    for each in files:
        plain = each.resolve().with_suffix("") if each.suffix in COMPRESSIONS else each.resolve()
        other = found.setdefault(plain, each)
        if other != each:
            raise InputError(
                f"data.path {path}", expected="each file once", got=f"{other.name} and {each.name}", fix="remove one"
            )


def sort_by_name(
    files: Sequence[Path], named: Mapping[str, list[Path]], other: str, *, alone: bool = False
) -> dict[str, list[Path]]:
    """Return the files of each split: those named for it, or else those whose names speak of it.

    If no name speaks of a split, or if it is one file `alone`, they are of the split `other`.
    """
    told: dict[Path, str | None] = {each: split_of(each.name) for each in files}
    if alone or not any(told.values()):
        told = dict.fromkeys(files, other)
    splits = {split: list(paths) for split, paths in named.items()}
    settled = {split_of_set(split) for split in named}
    for each, split in told.items():
        if split is not None and split not in settled:
            splits.setdefault(split, []).append(each)
    return splits


def is_usable(path: Path, format: str | None, allowed: Sequence[str]) -> bool:
    """Return whether a file of a folder may hold samples: its format fits, or its name tells a split but no format."""
    own = format_of(path)
    if own is None:
        return split_of(path.name) is not None
    return own == format if format is not None else own in allowed


def find_named(folder: Path, name: str, split: str) -> Path:
    """Return a file named for a split: in the folder, or as a path of its own."""
    base = folder.parent if folder.is_file() else folder
    for candidate in (base / name, Path(name)):
        if candidate.is_file():
            return candidate
    names = [each.name for each in base.iterdir()] if base.is_dir() else []
    raise unknown_name(f"data.{split}", name, names)


def checksums(files: Mapping[Path, str]) -> dict[str, str]:
    """Return the SHA-256 of each file by its name, or by its path where two files have the same name.

    Raises:
        InputError: if a file cannot be read or is empty.
    """
    found = {}
    alone = Counter(path.name for path in files)
    names = {path: path.name if alone[path.name] == 1 else str(path) for path in files}
    for path in sorted(files):
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise InputError(str(path), expected="a file that can be read", got=error.strerror or "") from error
        if path.stat().st_size == 0:
            raise InputError(str(path), expected="a file with samples", got="an empty file")
        found[names[path]] = digest.hexdigest()
    return found


def file_checksum(files: Files, path: Path) -> str:
    """Return the checksum of a file."""
    return files.checksums.get(str(path)) or files.checksums[path.name]


def file_rows(
    path: Path,
    format: str,
    names: Sequence[str] | None,
    columns: Sequence[str] | None = None,
    *,
    skip: int | None = None,
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file with their positions, without the line `skip`.

    Parquet is read by `datasets`; of it, only `columns` are read if they are given.
    """
    if format != "parquet":
        yield from read_rows(path, format, names, skip)
        return
    try:
        yield from dataset_rows(datasets.Dataset.from_parquet(str(path)), str(path), columns)
    except InputError:
        raise
    except Exception as error:  # pyarrow and datasets raise many kinds, some of them only when a row is read
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        raise InputError(str(path), expected="a Parquet file", got=reason) from error


def dataset_rows(
    table: datasets.Dataset, where: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a data set, class numbers as their names, and images as ``{"bytes", "path"}``.

    With `columns`, only those of them that it has are read.
    """
    if columns is not None:
        table = table.select_columns([name for name in table.column_names if name in columns])
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    namers = {name: class_namer(feature) for name, feature in table.features.items()}
    for place, row in enumerate(table):
        yield f"{where}, row {place}", {name: namers[name](value) for name, value in row.items()}


def class_namer(feature: Any) -> Any:
    """Return the function that turns a value of a column into text where it is the number of a class."""
    if isinstance(feature, datasets.ClassLabel):
        return lambda value: class_name(feature, value)
    inner = getattr(feature, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        return lambda values: None if values is None else [class_name(inner, value) for value in values]
    return lambda value: value


def class_name(feature: datasets.ClassLabel, value: int | None) -> str | None:
    """Return the name of a class, or None for null and for a negative number, which is no class."""
    return None if value is None or value < 0 else feature.int2str(value)


def load_hub(hub: str, config: str | None, revision: str | None) -> dict[str, datasets.Dataset]:
    """Load a data set of the Hub and return its splits under our names.

    Raises:
        InputError: if it cannot be had, or has no training split.
    """
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "20")
    try:
        loaded = datasets.load_dataset(hub, config, revision=revision, trust_remote_code=False)
    except Exception as error:  # the Hub client raises many kinds, all with the reason in the first line
        raise InputError(
            f"data.hub {hub}",
            expected="a data set of the Hugging Face Hub" + (f" with the configuration {config}" if config else ""),
            got=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
            fix="check name and network, or use a local copy with --data.path FOLDER",
        ) from error
    splits: dict[str, datasets.Dataset] = {}
    for name, table in loaded.items():
        split = split_of(str(name))
        if split is not None and split not in splits:
            splits[split] = table
    if "train" not in splits:
        raise InputError(f"data.hub {hub}", expected="a split train", got=f"splits {', '.join(map(str, loaded))}")
    return splits


def hub_revision(table: datasets.Dataset) -> str:
    """Return the commit that a data set of the Hub was loaded from, or an empty string if it is not known."""
    for place in table.info.download_checksums or ():
        if found := re.search(r"@([0-9a-f]{40})/", str(place)):
            return found[1]
    return ""


def fingerprint(*parts: Any) -> str:
    """Return a checksum of JSON values: the key of cached data."""
    return hashlib.sha256(json.dumps([READER_VERSION, *parts], sort_keys=True, default=str).encode()).hexdigest()[:32]
