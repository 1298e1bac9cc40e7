"""Samples and encoded rows as tables of `datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError
from torch.utils.data import Dataset

from rnnzoo.data.readers import Row
from rnnzoo.errors import InputError

Sample = Mapping[str, Any]


class EncodedDataset(Dataset[Row]):
    """Encoded rows, each with its place in the split as its id."""

    def __init__(self, table: datasets.Dataset) -> None:
        self.table = table
        self.lengths: np.ndarray = np.asarray(table.with_format("numpy")["length"][:]) if len(table) else np.zeros(0)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, place: int) -> Row:
        return {**self.table[place], "id": place}

    def __getitems__(self, places: list[int]) -> list[Row]:
        """Return several rows at once."""
        return [{**row, "id": place} for place, row in zip(places, rows_of(self.table, places), strict=True)]


def rows_of(table: datasets.Dataset, places: Sequence[int]) -> list[Row]:
    """Return rows of a table as dicts."""
    columns: dict[str, list[Any]] = table[[int(place) for place in places]]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def table_of(samples: Sequence[Sample]) -> datasets.Dataset:
    """Return samples in memory as a data set."""
    return datasets.Dataset.from_list([dict(sample) for sample in samples])


def from_generator(function: Any, arguments: dict[str, Any], key: str) -> datasets.Dataset:
    """Build a data set from a generator, cached under `key`.

    Raises:
        InputError: the one that the generator raised, or one for samples that cannot be stored as columns of one type
            each.
    """
    try:
        return datasets.Dataset.from_generator(function, gen_kwargs=arguments, fingerprint=key)
    except DatasetGenerationError as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        raise InputError(
            "data",
            expected="samples whose columns have one type each",
            got=f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:200]}",
            fix="look for a value of another type, or for text that is no valid Unicode",
        ) from error
