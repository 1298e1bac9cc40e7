"""Sentences of words and their tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rnnzoo.batches import IGNORED, TaggingBatch, WordCharacters
from rnnzoo.errors import InputError
from rnnzoo.processors.base import Processor, Row, need, pad, row_ids
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tags import convert, split_tag, tags_of
from rnnzoo.text.tokenizer import Tokenizer


class TaggingProcessor(Processor):
    """``{"tokens": [str], "tags": [str]}`` ↔ `TaggingBatch`.

    Args:
        words: gives each word an id.
        characters: gives each character of a word an id; None leaves characters out.
        tags: the tags, in the scheme of the model.
        scheme: the scheme of tags that mark spans in which the model computes (``bio``, ``bioes``): the tags of
            samples, in whatever scheme they are, are converted to it. None takes tags as they are.
        data_scheme: the scheme in which the model answers and is measured, that of the training data; `scheme` if left
            out.
    """

    kind = "tagging"
    inputs = ("tokens",)
    answer = "tags"

    def __init__(
        self,
        *,
        words: Tokenizer,
        characters: Tokenizer | None,
        tags: LabelMap,
        scheme: str | None = None,
        data_scheme: str | None = None,
    ) -> None:
        self.words = words
        self.characters = characters
        self.tags = tags
        self.scheme = scheme
        self.data_scheme = data_scheme or scheme
        self.data_tags = tags  # the tags as the data write them
        if self.data_scheme is not None and self.data_scheme != scheme:
            kinds = {split_tag(tag)[1] for tag in tags if tag != "O"}
            self.data_tags = LabelMap.learn(tags_of(kinds, self.data_scheme))

    def as_data(self, tags: Sequence[str]) -> list[str]:
        """Return tags of the model as the data write them."""
        return list(tags) if self.data_scheme in (None, self.scheme) else convert(tags, str(self.data_scheme))

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``words``, ``characters``, ``length`` and, if the sample has tags, ``targets`` and ``tags``.

        ``targets`` are numbers of `tags`, ``tags`` texts in the scheme of the data; an empty one is not labelled.
        """
        tokens = need(sample, "tokens", list, "a list of words")
        if not all(isinstance(token, str) for token in tokens):
            raise InputError("sample, 'tokens'", expected="a list of words", got=repr(tokens)[:80])
        row: Row = {"words": self.words.encode_words(tokens), "length": len(tokens)}
        if self.characters is not None:
            row["characters"] = self.characters.encode_many(tokens) if tokens else []
        tags = sample.get("tags")
        if tags is not None:
            if len(tags) != len(tokens):
                raise InputError(
                    f"sample {' '.join(tokens)[:60]!r}",
                    expected=f"as many tags as tokens, {len(tokens)}",
                    got=f"{len(tags)} tags",
                )
            tags = ["" if tag is None else tag for tag in tags]
            names = tags if self.scheme is None else convert(tags, self.scheme)
            row["targets"] = [self.tags.id(tag) for tag in names]
            row["tags"] = self.as_data(names)
        return row

    def collate(self, rows: Sequence[Row]) -> TaggingBatch:
        """Pad words, characters and tags."""
        tagged = all("targets" in row for row in rows)
        characters = None
        if self.characters is not None:
            characters = WordCharacters.of([row["characters"] for row in rows])
        return TaggingBatch(
            ids=row_ids(rows),
            words=pad([row["words"] for row in rows]),
            lengths=torch.tensor([row["length"] for row in rows], dtype=torch.int64),
            characters=characters,
            targets=pad([row["targets"] for row in rows], IGNORED) if tagged else None,
            tags=tuple(tuple(row["tags"]) for row in rows) if tagged else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return tokenizers, tags and scheme."""
        return {
            "kind": self.kind,
            "words": self.words.to_json(),
            "characters": None if self.characters is None else self.characters.to_json(),
            "tags": self.tags.labels,
            "scheme": self.scheme,
            "data_scheme": self.data_scheme,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TaggingProcessor:
        """Make a processor from what `to_json` gave."""
        characters = values["characters"]
        return cls(
            words=Tokenizer(values["words"]),
            characters=None if characters is None else Tokenizer(characters),
            tags=LabelMap(values["tags"]),
            scheme=values["scheme"],
            data_scheme=values.get("data_scheme"),
        )
