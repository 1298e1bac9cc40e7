"""Names of classes and their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from rnnzoo.batches import IGNORED, UNSEEN
from rnnzoo.errors import InputError


class LabelMap:
    """Labels in a fixed order.

    Args:
        labels: the names, without repeats.

    Raises:
        InputError: if a label comes twice.

    >>> labels = LabelMap(["neg", "pos"])
    >>> labels.id("pos"), labels.id("mixed") == UNSEEN, len(labels)
    (1, True, 2)
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = list(labels)
        self._ids = {label: place for place, label in enumerate(self.labels)}
        if len(self._ids) < len(self.labels):
            twice = next(label for place, label in enumerate(self.labels) if self._ids[label] != place)
            raise InputError("labels", expected="each label once", got=f"{twice!r} twice")

    @classmethod
    def learn(cls, labels: Iterable[str]) -> LabelMap:
        """Collect the labels that occur, sorted: numbers by value, names by letter."""
        return cls(sorted(set(labels), key=_natural))

    def id(self, label: str) -> int:
        """Return the number of a label, UNSEEN if training never saw it, or IGNORED for an empty one, which is none."""
        return self._ids.get(label, UNSEEN) if label else IGNORED

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)


def _natural(label: str) -> tuple[bool, float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (True, 0.0, label) if math.isnan(number) else (False, number, label)
