"""Texts and what they are translated to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from rnnzoo.batches import IGNORED, PairBatch
from rnnzoo.errors import InputError
from rnnzoo.processors.base import Processor, Row, need, pad, row_ids
from rnnzoo.text.detokenizer import join_words
from rnnzoo.text.tokenizer import PAD_ID, Tokenizer


class TranslationProcessor(Processor):
    """``{"source": str, "target": str}`` (or a list of reference texts, the first to be learnt) ↔ `PairBatch`.

    Args:
        source: turns a source text into ids.
        target: turns a target text into ids, and ids into text.
        shared: source and target have the same vocabulary, so that a model may share their vectors.
        source_end: a source ends with a token of its own, as a target always does.
        max_source_length: the longest text in tokens that is translated; a longer one is refused, unless it comes
            with its translation, to be trained on or measured by. None translates texts of any length.

    Raises:
        InputError: if `shared` is said of different tokenizers.
    """

    kind = "translation"
    inputs = ("source",)
    answer = "target"
    json_types: ClassVar = {"target": (type(None),)}  # the source's tokenizer

    def __init__(
        self,
        *,
        source: Tokenizer,
        target: Tokenizer,
        shared: bool = False,
        source_end: bool = True,
        max_source_length: int | None = None,
    ) -> None:
        if shared and source.to_json() != target.to_json():
            raise InputError("processor.shared", expected="one tokenizer for source and target", got="two")
        if max_source_length is not None and max_source_length < 1:
            raise InputError("max_source_length", expected="at least 1", got=str(max_source_length))
        self.source = source
        self.target = target
        self.shared = shared
        self.source_end = source_end
        self.max_source_length = max_source_length

    @property
    def source_vocabulary_size(self) -> int:
        """Ids that a source may hold, the end included."""
        return self.source.vocabulary_size + 1

    @property
    def target_vocabulary_size(self) -> int:
        """Ids that a target may hold, the end included."""
        return self.target.vocabulary_size + 1

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``source``, ``pieces``, ``length``; if there is a translation, ``target`` and ``references`` too.

        ``length`` is that of the longer side.
        """
        where = str(sample.get("name", "sample"))
        ids, pieces = self.source.encode_pieces(need(sample, "source", str, "a text").strip())
        if not ids:
            raise InputError(where, expected="a text to translate", got="an empty one", fix="drop it")
        answer = sample.get("target")
        if answer is None and self.max_source_length is not None and len(ids) > self.max_source_length:
            raise InputError(
                where,
                expected=f"a text of at most {self.max_source_length} tokens (max_source_length)",
                got=f"{len(ids)} tokens",
                fix="split it into sentences",
            )
        row: Row = {"source": [*ids, self.source.end_id] if self.source_end else ids, "pieces": pieces}
        row["length"] = len(row["source"])
        if answer is not None:
            given = need(sample, "target", (str, list), "a text or a list of texts")
            row["references"] = [given] if isinstance(given, str) else given
            if not row["references"]:
                raise InputError(where, expected="a translation", got="none")
            row["target"] = [*self.target.encode(row["references"][0]), self.target.end_id]
            row["length"] = max(row["length"], len(row["target"]))
        return row

    def collate(self, rows: Sequence[Row]) -> PairBatch:
        """Pad sources and targets."""
        answered = all("target" in row for row in rows)
        source_lengths = torch.tensor([len(row["source"]) for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row["target"]) for row in rows], dtype=torch.int64) if answered else source_lengths
        return PairBatch(
            ids=row_ids(rows),
            source=pad([row["source"] for row in rows]),  # [B, S]
            source_lengths=source_lengths,
            pieces=tuple(tuple(row["pieces"]) for row in rows),
            targets=pad([row["target"] for row in rows], IGNORED) if answered else None,  # [B, T]
            lengths=lengths,
            references=tuple(tuple(row["references"]) for row in rows) if answered else None,
        )

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each target token; of the end it is empty."""
        return ["" if number == self.target.end_id else self.target.decode([number]) for number in ids]

    def detokenize(self, ids: Sequence[int], copied: Mapping[int, str] | None = None) -> str:
        """Return the text of target ids, with and without the end.

        Args:
            ids: of target tokens.
            copied: place among `ids` → text that takes the place of the token, as of an unknown word.
        """
        texts = dict(copied or {})
        if self.target.split is not None:
            pieces = [texts.get(place, piece) for place, piece in enumerate(self.target_pieces(ids))]
            words = [piece for piece in pieces if piece]
            return join_words(words) if self.target.split == "punctuation" else " ".join(words)
        numbers = [PAD_ID if number == self.target.end_id else number for number in ids]
        parts, start = [], 0
        for place in sorted(texts):  # the bytes of a character are decoded together, so whole runs are
            parts += [self.target.decode(numbers[start:place]), texts[place]]
            start = place + 1
        return "".join([*parts, self.target.decode(numbers[start:])])

    def to_json(self) -> dict[str, Any]:
        """Return tokenizers and options; a shared tokenizer is there once."""
        return {
            "kind": self.kind,
            "source": self.source.to_json(),
            "target": None if self.shared else self.target.to_json(),
            "source_end": self.source_end,
            "max_source_length": self.max_source_length,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TranslationProcessor:
        """Make a processor from what `to_json` gave."""
        source = Tokenizer(values["source"])
        shared = values["target"] is None
        return cls(
            source=source,
            target=source if shared else Tokenizer(values["target"]),
            shared=shared,
            source_end=values["source_end"],
            max_source_length=values["max_source_length"],
        )
