"""The variants of a comparison: every combination of the values of the keys that are varied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from rnnzoo.cli.arguments import check_option
from rnnzoo.comparison import short_names
from rnnzoo.errors import InputError

CELL = "model.cell"
VARIED = ("model", "data", "trainer")  # the sections whose keys can be varied
RESERVED = {"seed_everything": "--seeds", "trainer.max_time": "--budget"}  # keys that have options of their own


@dataclass(frozen=True)
class Variant:
    """One combination of values.

    Args:
        settings: key → value as it would be written on the command line.
    """

    settings: tuple[tuple[str, str], ...]

    @property
    def words(self) -> list[str]:
        """The settings as words of a command line."""
        return [f"--{key}={value}" for key, value in self.settings]

    @property
    def label(self) -> str:
        """A short name, unique among the variants of a comparison.

        >>> Variant((("model.cell", "lstm"), ("model.num_layers", "2"))).label
        'lstm, num_layers=2'
        """
        names = short_names([key for key, _ in self.settings])
        return ", ".join(value if key == CELL else f"{names[key]}={value}" for key, value in self.settings)

    @property
    def folder(self) -> str:
        """The label as a folder name; a checksum is added where characters had to be replaced.

        >>> Variant((("model.num_layers", "2"),)).folder
        'num_layers=2'
        """
        plain = self.label.replace(", ", ",")
        safe = re.sub(r"[^\w.,=+-]", "_", plain)[:100]
        return safe if safe == plain else f"{safe}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def read_variants(cells: Sequence[str], words: Sequence[str]) -> tuple[Variant, ...]:
    """Return every combination of cells and of the values that ``--vary`` names, in the order given.

    Args:
        cells: of ``--cells``; the same as ``--vary model.cell=A,B``.
        words: the values of ``--vary``, such as ``model.num_layers=1,2,3``.

    Raises:
        InputError: for a key that cannot be varied or is named twice, and for a value that is missing or repeated.
    """
    varied: dict[str, tuple[str, ...]] = {CELL: tuple(cells)} if cells else {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.removeprefix("--")
        if not equals:
            raise InputError("--vary", expected="KEY=VALUE,VALUE,... such as model.num_layers=1,2,3", got=repr(word))
        if key in RESERVED:
            raise InputError("--vary", expected=f"{RESERVED[key]}, which sets it for each run", got=key)
        if "." not in key:
            raise InputError("--vary", expected=f"a key of {', '.join(VARIED)}, such as model.num_layers", got=key)
        check_option(f"--{key}", own=(), prefixes=VARIED)
        if key in varied:
            got = "--cells and --vary model.cell" if key == CELL and cells else f"{key} twice"
            raise InputError("--vary", expected="each key once", got=got)
        varied[key] = split_values(text)
        if not all(varied[key]) or len(set(varied[key])) < len(varied[key]):
            raise InputError(f"--vary {key}", expected="different values with commas between", got=repr(text))
    return tuple(Variant(tuple(zip(varied, values, strict=True))) for values in product(*varied.values()))


def split_values(text: str) -> tuple[str, ...]:
    """Split at the commas that are in no bracket and no quotation marks.

    >>> split_values("1,2"), split_values("[32,64],{size: 4, dropout: 0}"), split_values("'a,b',c")
    (('1', '2'), ('[32,64]', '{size: 4, dropout: 0}'), ("'a,b'", 'c'))
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (character in "[{(") - (character in "]})") if not quote else 0
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts)
