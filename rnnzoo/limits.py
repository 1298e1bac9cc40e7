"""Limits on the sizes of what is read: each is checked before the memory is taken, and can be raised.

A file from elsewhere may ask for more memory than there is: an archive of 3 MB that unpacks to 3 GB, a configuration of
a hundred thousand layers. The defaults are far above what real data need.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from rnnzoo.errors import InputError

PREFIX = "RNNZOO_MAX_"  # of the environment variables
MIB = 2**20


@dataclass(frozen=True)
class Limit:
    """The largest size of one kind of thing.

    Args:
        default: the limit, unless the environment variable gives another.
        unit: what is counted.
        summary: what it is the limit of.
    """

    default: int
    unit: str
    summary: str


LIMITS: dict[str, Limit] = {
    "LINE_BYTES": Limit(64 * MIB, "bytes", "a line of a text file, uncompressed"),
    "FILE_BYTES": Limit(256 * MIB, "bytes", "a file or member of an archive that is read as a whole, uncompressed"),
    "PIXELS": Limit(50_000_000, "pixels", "an image that is decoded"),
    "IMAGE_SIZE": Limit(1024, "pixels a side", "the square that a model takes images in"),
    "JSON_VALUES": Limit(20_000_000, "values", "JSON among data"),
    "CONFIG_DEPTH": Limit(100, "levels", "a YAML file"),
    "CONFIG_BYTES": Limit(16 * MIB, "bytes", "a YAML file, or the config.json of a model"),
    "CONFIG_VALUES": Limit(200_000, "values", "a YAML file whose aliases are written out, or a config.json"),
    "PROCESSOR_BYTES": Limit(256 * MIB, "bytes", "the processor.json of a model"),
    "PROCESSOR_VALUES": Limit(5_000_000, "values", "the processor.json of a model, tokens of a vocabulary included"),
    "HEADER_BYTES": Limit(16 * MIB, "bytes", "the header of a safetensors file"),
    "PARAMETERS": Limit(2**31, "numbers", "the weights of a model that is loaded"),
    "WORKERS": Limit(64, "processes", "worker processes that a model folder asks for"),
    "BEAM_SIZE": Limit(10_000, "hypotheses", "the beam of a search, or its samples"),
}


def limit(name: str) -> int:
    """Return a limit: the value of the environment variable ``RNNZOO_MAX_<name>``, or the default.

    Raises:
        InputError: if the variable holds anything but a whole number of at least 1.

    >>> limit("PIXELS")
    50000000
    """
    text = os.environ.get(PREFIX + name)
    if text is None:
        return LIMITS[name].default
    if not text.isdecimal() or int(text) < 1:
        raise InputError(PREFIX + name, expected="a whole number of at least 1", got=repr(text))
    return int(text)


def check_limit(name: str, where: str, size: int, *, what: str = "") -> None:
    """Refuse a size above its limit.

    Args:
        name: of the limit.
        where: the file, line or key in question.
        size: how much there is.
        what: a word on what has this size, for the message.

    Raises:
        InputError: naming the limit and the environment variable that raises it.
    """
    if size > limit(name):
        raise over_limit(name, where, f"{size:,}{f' {what}' if what else ''}")


def over_limit(name: str, where: str, got: str) -> InputError:
    """Return the error for something that is larger than its limit.

    >>> str(over_limit("LINE_BYTES", "a.txt.gz, line 1", "more"))
    'a.txt.gz, line 1: expected at most 67,108,864 bytes, got more; set RNNZOO_MAX_LINE_BYTES to raise this limit'
    """
    return InputError(
        where,
        expected=f"at most {limit(name):,} {LIMITS[name].unit}",
        got=got,
        fix=f"set {PREFIX}{name} to raise this limit",
    )
