"""Sentences with a tag for each word."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import datasets

from rnnzoo.data.conll import split_words
from rnnzoo.data.labelled import LabelledData, label_text
from rnnzoo.data.readers import Row
from rnnzoo.data.tables import Sample
from rnnzoo.errors import InputError
from rnnzoo.processors.tagging import TaggingProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tags import LETTERS, SCHEMES, scheme_of, split_tag, standard_tag, tags_of
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions


class TaggingData(LabelledData):
    """Sentences to be tagged.

    Files are CoNLL columns (a word a line, a blank line between sentences), CoNLL-U, or tables (JSONL, Parquet) with
    lists of words and tags; in CSV and TSV words and tags are separated by ASCII blanks.

    Args:
        words: how words are normalised; each is one token.
        characters: how the characters of words are read; None leaves them out.
        scheme: for tags that mark spans, the scheme in which the model computes: ``bio`` or ``bioes``. The data may
            be in any scheme (IOB1 and BILOU too); answers and metrics are in that of the training data. None takes
            tags as they are.
        source: where the data come from, and `missing_labels`; see `LabelledData`.
    """

    item = "word"
    words_for_none = ()  # words such as None are tags
    formats = ("conll", "conllu", "jsonl", "parquet", "csv", "tsv")
    canonical = ("tokens", "tags")

    def __init__(
        self,
        *,
        words: TokenizerOptions = TokenizerOptions(),
        characters: TokenizerOptions | None = TokenizerOptions(kind="characters"),
        scheme: str | None = None,
        **source: Any,
    ) -> None:
        super().__init__(**source)
        if scheme not in (None, "bio", "bioes"):
            known = ", ".join((*SCHEMES, *LETTERS))
            raise InputError(
                "data.scheme", expected="bio or bioes", got=repr(scheme), fix=f"the data may be in any of {known}"
            )
        self.words = words
        self.characters = characters
        self.scheme = scheme

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"tokens", "tags"}``, with an empty tag for a word that has none.

        Rows of different lengths and empty sentences are refused.
        """
        for where, row in self.with_label_columns(rows):
            tokens = words_of(self.pick(row, "tokens", where), where)
            tags = tags_of_row(self.pick(row, "tags", where), len(tokens), where)
            if len(tokens) != len(tags):
                raise InputError(where, expected=f"as many tags as tokens, {len(tokens)}", got=f"{len(tags)} tags")
            if not tokens:
                raise InputError(where, expected="a sentence", got="one without words", fix="drop the row")
            yield {"tokens": tokens, "tags": tags}

    def label_columns(self) -> list[str]:
        """Return the column of the tags."""
        return [self.columns["tags"]]

    def known_labels(self) -> Collection[str] | None:
        """Return the tags of the trained model that the data are for, if there is one."""
        return self._processor.data_tags.labels if isinstance(self._processor, TaggingProcessor) else None

    def learn_processor(self, train: datasets.Dataset) -> TaggingProcessor:
        """Collect words, characters and tags."""
        sentences = list(train["tokens"])
        tags = list(train["tags"])
        labels = {tag for sentence in tags for tag in sentence if tag}
        if self.scheme is not None:  # a scheme's tags come in sets, whether training has seen them all or not
            labels = tags_of({split_tag(standard_tag(tag))[1] for tag in labels if tag != "O"}, self.scheme)
        words = (word for sentence in sentences for word in sentence)
        return TaggingProcessor(
            words=Tokenizer.train_words(words, self.words),
            characters=None
            if self.characters is None
            else Tokenizer.train((word for sentence in sentences for word in sentence), self.characters),
            tags=LabelMap.learn(labels),
            scheme=self.scheme,
            data_scheme=None if self.scheme is None else scheme_of(tags),
        )


def words_of(value: Any, where: str) -> list[str]:
    """Return a list of words, or the words of a text between blanks.

    >>> words_of("The cat", ""), words_of(["New York"], "")
    (['The', 'cat'], ['New York'])
    """
    if isinstance(value, str):
        return split_words(value)
    if not isinstance(value, list):
        raise InputError(where, expected="a list of words, or words between blanks", got=repr(value)[:60])
    if any(word is None for word in value):
        raise InputError(where, expected="words", got=f"null among {value}"[:80], fix="drop the row")
    return [str(word) for word in value]


def tags_of_row(value: Any, length: int, where: str) -> list[str]:
    """Return the tags of a sentence of `length` words, an empty one for a word without a tag.

    >>> tags_of_row("O B", 2, ""), tags_of_row([0, None], 2, ""), tags_of_row(None, 2, "")
    (['O', 'B'], ['0', ''], ['', ''])
    """
    if value is None:
        return [""] * length
    return [label_text(tag) for tag in value] if isinstance(value, list) else words_of(value, where)
