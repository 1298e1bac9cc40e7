"""What a processor is."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnzoo.batches import Batch
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.processors import PROCESSORS
from rnnzoo.processors.normalisation import Normalisation
from rnnzoo.schema import check_value, members, type_hints
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import PAD_ID, Tokenizer

VERSION = 2  # of what `encode` makes: part of the fingerprint of cached data
STORED_AS: dict[Any, Any] = {  # class → its form in JSON
    Tokenizer: str,
    LabelMap: list[str],
    Normalisation: dict[str, list[str] | list[float]],
}
Row = dict[str, Any]  # an encoded sample: lists of numbers, by name


class Processor(ABC):
    """Turns raw samples into rows of numbers, and rows into batches; remembers all it needs as JSON.

    A raw sample is a mapping with the names in `inputs` and, unless it is there to be answered, `answer`.
    """

    kind: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    answer: ClassVar[str]
    json_types: ClassVar[dict[str, tuple[Any, ...]]] = {}  # key → types that the constructor does not say

    @abstractmethod
    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Turn a raw sample into numbers; `length` in the row is what batches are bucketed by.

        Raises:
            InputError: if the sample is not what `inputs` and `answer` promise.
        """

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> Batch:
        """Put rows, each with its `id`, into a batch; targets are None if a row has none."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return all that this processor is, as JSON values with its kind."""

    @classmethod
    @abstractmethod
    def from_json(cls, values: Mapping[str, Any]) -> Processor:
        """Make a processor from what `to_json` gave."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the JSON and of the version of the encoding."""
        text = json.dumps([VERSION, self.to_json()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_processor(values: Mapping[str, Any]) -> Processor:
    """Make the processor that `to_json` described.

    Raises:
        InputError: if the kind is unknown, a key is missing, or a value is not of the type that the constructor of the
            processor says.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in PROCESSORS:
        raise unknown_name("processor.kind", kind, PROCESSORS)
    cls = PROCESSORS[kind]
    for name, hint in type_hints(cls).items():
        if name in values:
            forms = [STORED_AS.get(option, option) for option in (*members(hint), *cls.json_types.get(name, ()))]
            check_value(values[name], functools.reduce(operator.or_, forms), f"processor.{name}")
    try:
        return cls.from_json(values)
    except KeyError as error:
        raise InputError("processor", expected=f"JSON with the key {error}", got=f"keys {list(values)}") from error


def row_ids(rows: Sequence[Row]) -> Tensor:
    """Return the ids of rows as [B]."""
    return torch.tensor([row["id"] for row in rows], dtype=torch.int64)


def pad(lists: Sequence[Sequence[Any]], value: float = PAD_ID, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return lists of numbers, padded on the right to the longest, as [B, T].

    >>> pad([[3], [4, 5]])
    tensor([[3, 0],
            [4, 5]])
    """
    longest = max((len(each) for each in lists), default=0)
    padded = [[*each, *[value] * (longest - len(each))] for each in lists]
    return torch.tensor(padded, dtype=dtype).reshape(len(lists), longest)


def need(sample: Mapping[str, Any], name: str, kind: type | tuple[type, ...], expected: str) -> Any:
    """Return a value of a raw sample.

    Raises:
        InputError: if it is missing or of another kind.
    """
    where = str(sample.get("name", "sample"))
    if name not in sample:
        raise InputError(where, expected=f"{expected} under {name!r}", got=f"keys {list(sample)}")
    value = sample[name]
    if not isinstance(value, kind):
        raise InputError(f"{where}, {name!r}", expected=expected, got=repr(value)[:80])
    for text in (value,) if isinstance(value, str) else value if isinstance(value, list) else ():
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{where}, {name!r}", expected="Unicode text", got="half of a surrogate pair")
    return value
