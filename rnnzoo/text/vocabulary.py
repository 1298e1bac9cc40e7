"""What the rows of a table stand for, and which rows of two tables stand for the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rnnzoo.text.tokenizer import PAD, UNKNOWN, Tokenizer

LABELS = "labels"
SPECIAL = (None, PAD, UNKNOWN)  # of tokens; None is the end, which no text spells
ABSENT = -1


@dataclass(frozen=True)
class Vocabulary:
    """The names of rows, in their order.

    Args:
        kind: what is named: ``labels``, or tokens of one of the kinds of `Tokenizer`. The same name of another kind
            is another thing: the letter a is no word.
        names: one for each row; None for the end token.

    >>> old, new = (Vocabulary("words", (PAD, UNKNOWN, *words.split())) for words in ("the cat", "cat The dog"))
    >>> new.places_in(old)
    [0, 1, 3, 2, -1]
    """

    kind: str
    names: tuple[str | None, ...]

    @classmethod
    def of_tokens(cls, tokenizer: Tokenizer, *, end: bool = False) -> Vocabulary:
        """Return the vocabulary of a tokenizer, followed by the end token where models of it have one."""
        return cls(tokenizer.kind, (*tokenizer.vocabulary, *([None] if end else [])))

    @classmethod
    def of_labels(cls, labels: Iterable[str]) -> Vocabulary:
        """Return a vocabulary of labels, or of other names that mean the same wherever they are spelt the same."""
        return cls(LABELS, tuple(labels))

    def __len__(self) -> int:
        return len(self.names)

    def places_in(self, other: Vocabulary) -> list[int]:
        """Return for each row the row of the same name in `other`, -1 where there is none.

        A word that the other lacks takes the row of its lower-case form, as with vectors from a file. Where nothing
        but special tokens is the same, no row is.
        """
        if self.kind != other.kind:
            return [ABSENT] * len(self)
        rows = {name: row for row, name in enumerate(other.names)}
        places = [rows.get(name, ABSENT) for name in self.names]
        if self.kind == "words":
            for row, name in enumerate(self.names):
                if places[row] == ABSENT and name is not None:
                    places[row] = rows.get(name.lower(), ABSENT)
        same = any(place != ABSENT and other.is_ordinary(place) for place in places)
        return places if same else [ABSENT] * len(self)

    def is_ordinary(self, row: int) -> bool:
        """Return whether a row is that of a token that texts spell, or of a label."""
        return self.kind == LABELS or self.names[row] not in SPECIAL
