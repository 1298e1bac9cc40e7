"""Text as a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rnnzoo.batches import IGNORED, StreamBatch
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.processors.base import Processor, Row, need, row_ids
from rnnzoo.text.tokenizer import UNKNOWN, UNKNOWN_ID, Tokenizer
from rnnzoo.text.writer import TextWriter

BLOCK = 1000  # lines that are encoded together
UNKNOWN_RULES = ("refuse", "skip", "keep")


class LanguageProcessor(Processor):
    r"""``{"text": str}`` ↔ `StreamBatch`: a text is read from the end token on, and each of its tokens predicted.

    A text is encoded line by line, so that its tokens do not depend on how it is cut at line ends.

    Args:
        tokenizer: turns a line into ids.
        line_end: the end token stands for the end of each line, as is the custom with words (PTB's ``<eos>``); else a
            line end is a token like others (characters, bytes, byte pairs) or white space (words).
        document_end: the end token follows each document, so that the model learns where to stop; the last line end
            of a document is no other token.

    >>> from rnnzoo.text.tokenizer import TokenizerOptions
    >>> tokenizer = Tokenizer.train(["a b"], TokenizerOptions())
    >>> processor = LanguageProcessor(tokenizer=tokenizer, line_end=True)
    >>> processor.encode({"text": "a b\nb\n"})["tokens"].tolist(), processor.end_id
    ([2, 3, 4, 3, 4], 4)
    """

    kind = "language"
    inputs = ("text",)
    answer = "text"

    def __init__(self, *, tokenizer: Tokenizer, line_end: bool = False, document_end: bool = False) -> None:
        self.tokenizer = tokenizer
        self.line_end = line_end
        self.document_end = document_end

    @property
    def end_id(self) -> int:
        """The id of the end token."""
        return self.tokenizer.end_id

    @property
    def vocabulary_size(self) -> int:
        """Ids that there are, the end token included."""
        return self.tokenizer.vocabulary_size + 1

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``tokens``, how many ``characters`` and ``words`` each stands for, and ``length``, their number.

        The characters between two tokens belong to the later one, those after the last to the last. A word is what
        stands between white space; a line end is a character and a word, and so is every end token.
        """
        text = need(sample, "text", str, "a text")
        if (self.document_end or self.line_end) and not text.endswith("\n"):
            text += "\n"  # what the end token stands for
        tokens: list[np.ndarray] = [np.zeros(0, dtype=np.int32)]
        ends: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]  # where in the text each token ends
        place = 0
        lines = list(split_lines(text))
        for first in range(0, len(lines), BLOCK):
            block = lines[first : first + BLOCK]
            closed = [self.line_end] * len(block)
            closed[-1] |= self.document_end and first + len(block) == len(lines)
            read = [line.removesuffix("\n") if end else line for line, end in zip(block, closed, strict=True)]
            for line, end, (ids, found) in zip(block, closed, self.tokenizer.encode_spans(read), strict=True):
                tokens.append(np.asarray([*ids, self.end_id] if end else ids, dtype=np.int32))
                ends.append(np.asarray([*found, len(line)] if end else found, dtype=np.int64) + place)
                place += len(line)
        joined = np.concatenate(tokens)
        characters, words = count_text(text, np.concatenate(ends))
        return {"tokens": joined, "characters": characters, "words": words, "length": len(joined)}

    def encode_prompt(self, prompt: str, unknown: str = "refuse") -> list[int]:
        """Return the ids of a text that is to be continued; a last line without an end stays open.

        Args:
            prompt: the text.
            unknown: what becomes of a character or word that training never saw: ``refuse``, ``skip`` it, or ``keep``
                it as the unknown token.

        Raises:
            InputError: naming what is unknown, if it is refused.
        """
        if unknown not in UNKNOWN_RULES:
            raise unknown_name("--unknown", unknown, UNKNOWN_RULES)
        found: list[int] = []
        strange: list[str] = []
        for line in split_lines(need({"text": prompt, "name": "prompt"}, "text", str, "a text")):
            read = line.removesuffix("\n") if self.line_end else line
            [(ids, ends)] = self.tokenizer.encode_spans([read])
            for number, begin, end in zip(ids, [0, *ends], ends, strict=False):
                piece = read[begin:end]
                if number == UNKNOWN_ID and piece.strip() != UNKNOWN:
                    strange.append(piece if len(piece) == 1 else piece.strip())
                    if unknown == "skip":
                        continue
                found.append(number)
            if self.line_end and line.endswith("\n"):
                found.append(self.end_id)
        if strange and unknown == "refuse":
            listed = list(dict.fromkeys(strange))
            more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
            raise InputError(
                "prompt",
                expected="a text of the model's vocabulary",
                got=f"unknown {', '.join(map(repr, listed[:10]))}{more}",
                fix="leave them out (--unknown skip), or have them read as unknown (--unknown keep)",
            )
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; an end token is a line end."""
        writer = TextWriter(self.tokenizer)
        return writer.write(tokens) + writer.finish()

    def collate(self, rows: Sequence[Row]) -> StreamBatch:
        """Put encoded texts, or chunks of lanes, into a batch.

        A chunk has ``inputs``, ``resets``, ``begins`` and ``scale`` beside what `encode` gives; a text is a lane of
        its own from its beginning.
        """
        lengths = [len(row["tokens"]) for row in rows]
        size = (len(rows), max(lengths, default=0))  # [B, T]
        inputs, targets = np.zeros(size, dtype=np.int64), np.full(size, IGNORED, dtype=np.int64)
        resets = np.zeros(size, dtype=bool)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            targets[place, :length] = row["tokens"]
            if "inputs" in row:
                inputs[place, :length] = row["inputs"]
                resets[place, :length] = row["resets"]
            elif length:
                inputs[place, 0], inputs[place, 1:length] = self.end_id, row["tokens"][:-1]
                resets[place, 0] = True
        return StreamBatch(
            ids=row_ids(rows),
            tokens=torch.from_numpy(inputs),
            targets=torch.from_numpy(targets),
            lengths=torch.tensor(lengths, dtype=torch.int64),
            resets=torch.from_numpy(resets),
            begins=torch.tensor([bool(row.get("begins", True)) for row in rows]),
            characters=torch.tensor([int(np.sum(row["characters"])) for row in rows], dtype=torch.int64),
            words=torch.tensor([int(np.sum(row["words"])) for row in rows], dtype=torch.int64),
            scale=torch.tensor(float(rows[0].get("scale", 1.0)) if rows else 1.0),
        )

    def to_json(self) -> dict[str, Any]:
        """Return tokenizer and options."""
        return {
            "kind": self.kind,
            "tokenizer": self.tokenizer.to_json(),
            "line_end": self.line_end,
            "document_end": self.document_end,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LanguageProcessor:
        """Make a processor from what `to_json` gave."""
        return cls(
            tokenizer=Tokenizer(values["tokenizer"]),
            line_end=values["line_end"],
            document_end=values["document_end"],
        )


def split_lines(text: str) -> Iterator[str]:
    r"""Yield the lines of a text with their ends; only ``\n`` ends a line.

    >>> list(split_lines("a\n\nb"))
    ['a\n', '\n', 'b']
    """
    start = 0
    while start < len(text):
        stop = text.find("\n", start) + 1 or len(text)
        yield text[start:stop]
        start = stop


def count_text(text: str, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return how many characters and words each of N tokens of a text stands for.

    Args:
        text: the text.
        ends: where in it each token ends, [N].

    >>> [counts.tolist() for counts in count_text("a  cat \n", np.array([1, 6, 8]))]
    [[1, 5, 2], [1, 1, 1]]
    """
    if not len(ends):
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    kinds, inverse = np.unique(codes, return_inverse=True)
    space = np.array([chr(code).isspace() for code in kinds])[inverse]
    counted = ~space
    counted[1:] &= space[:-1]  # the first character of each word
    counted |= codes == ord("\n")
    places = np.maximum.accumulate(np.concatenate([[0], ends]))  # [N + 1]
    places[-1] = len(text)
    before = np.concatenate([[0], counted.cumsum()])
    return np.diff(places).astype(np.int32), np.diff(before[places]).astype(np.int32)
