"""Running text to be predicted, token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from rnnzoo.data.base import FileFormat, ZooData
from rnnzoo.data.description import DataDescription
from rnnzoo.data.lanes import LaneSampler, TokenStream
from rnnzoo.data.named_files import in_order
from rnnzoo.data.readers import Row, decode_lines, open_bytes
from rnnzoo.data.sources import fingerprint
from rnnzoo.data.tables import Sample, table_of
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.processors.language import LanguageProcessor, split_lines
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

DOCUMENTS = ("file", "line", "paragraph", "row")


class LanguageData(ZooData):
    r"""Text as one long stream of tokens, or as documents.

    Text files are read as they are, ``\r\n`` as ``\n``. Tables (CSV, TSV, JSONL, Parquet, the Hub) have a column
    ``text``. Within a document the state of a model is carried from chunk to chunk; each document begins anew, from
    the end token.

    A split that is missing is cut from the training text by position, never by chance: the last share is the test
    split, the one before it the validation split. A document that is a file or a whole table is cut at the very
    character, others are kept whole.

    Args:
        tokenizer: what a token is.
        documents: ``file``: each file, or table, is one document, its rows joined by line ends; ``line``: each line
            of a text file; ``paragraph``: what stands between its empty lines; ``row``: each row of a table. By
            default ``file`` for text files and ``row`` for tables. Documents other than files end with the end
            token.
        line_end: the end token stands for the end of each line, as is the custom with words; else a line end is a
            character like others, or for words white space.
        chunk_length: steps through which gradients flow; the state is carried on.
        vary_chunks: draw the length of each training chunk around `chunk_length`, and scale the learning rate of the
            step by the drawn length over `chunk_length` (Merity et al. 2018).
        begin_anew: share of training chunks before which the state of a lane is forgotten. A long text begins only
            once; a network that never sees how may drift to states that it cannot reach from the initial one.
        batch_size: lanes per process that the training text is cut into, and read side by side.
        eval_lanes: lanes that validation and test text are cut into. 1 is exact: every token is predicted from all
            that comes before it in its document. More are faster, but each lane begins without a past. While a
            training runs, validation takes `batch_size` lanes if that is more.
        eval_chunk_length: steps that are computed together in evaluation, of which no number depends; `chunk_length`
            if left out.
        validation_fraction: share of the training text that becomes a validation split where there is none.
        test_fraction: likewise for a test split; 0 makes none.
        source: where the data come from; see `ZooData`.
    """

    formats: tuple[str, ...] = ("text", "csv", "tsv", "jsonl", "parquet")
    canonical = ("text",)

    def __init__(
        self,
        *,
        tokenizer: TokenizerOptions = TokenizerOptions(kind="characters"),
        documents: str | None = None,
        line_end: bool = False,
        chunk_length: int = 64,
        vary_chunks: bool = False,
        begin_anew: float = 0.0,
        batch_size: int = 32,
        eval_lanes: int = 1,
        eval_chunk_length: int | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **source: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, validation_fraction=validation_fraction, **source)
        if not 0 <= test_fraction < 0.5:
            raise InputError("data.test_fraction", expected="a share of at least 0, below 0.5", got=str(test_fraction))
        if not 0 <= begin_anew <= 1:
            raise InputError("data.begin_anew", expected="a share from 0 to 1", got=str(begin_anew))
        for name, size in (
            ("chunk_length", chunk_length),
            ("eval_lanes", eval_lanes),
            ("eval_chunk_length", eval_chunk_length or chunk_length),
        ):
            if size < 1:
                raise InputError(f"data.{name}", expected="at least 1", got=str(size))
        if documents is not None and documents not in DOCUMENTS:
            raise unknown_name("data.documents", documents, DOCUMENTS)
        if self.max_tokens is not None:
            raise InputError(
                "data.max_tokens",
                expected="none for running text",
                got=str(self.max_tokens),
                fix="a batch has data.batch_size lanes of data.chunk_length tokens",
            )
        self.tokenizer_options = tokenizer
        self.documents = documents
        self.line_end = line_end
        self.chunk_length = chunk_length
        self.vary_chunks = vary_chunks
        self.begin_anew = begin_anew
        self.eval_lanes = eval_lanes
        self.eval_chunk_length = eval_chunk_length or chunk_length
        self.fractions["test"] = test_fraction
        self._read_format = ""  # of the files, if there are any

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"text"}`` for each row of a table that is not empty, or one of all rows."""
        if self.documents in ("line", "paragraph"):
            raise InputError(
                "data.documents", expected="'row' or 'file' for a table", got=repr(self.documents), fix="leave it out"
            )
        joined = []
        for where, row in rows:
            text = self.pick(row, "text", where)
            if not isinstance(text, str):
                raise InputError(where, expected="a text", got=repr(text)[:60], fix="drop the row")
            if self.documents == "file":
                joined.append(text if text.endswith("\n") else f"{text}\n")
            elif text.strip():
                yield {"text": text}
        if joined:
            yield {"text": "".join(joined)}

    def learn_processor(self, train: datasets.Dataset) -> LanguageProcessor:
        """Train the tokenizer, on lines; no token is learnt for what end tokens stand for."""
        document_end = self._unit() != "file"
        texts = (text.removesuffix("\n") if document_end else text for text in train["text"])
        lines = (line for text in texts for line in split_lines(text))
        read = (line.removesuffix("\n") for line in lines) if self.line_end else lines
        return LanguageProcessor(
            tokenizer=Tokenizer.train(read, self.tokenizer_options),
            line_end=self.line_end,
            document_end=document_end,
        )

    def describe(self) -> DataDescription:
        """Return where the text comes from, and how many tokens and characters it has once it is encoded."""
        description = super().describe()
        if self._processor is None:
            return description
        streams = {split: self.encoded(split) for split in description.split_sizes}
        parts = [
            f"{len(stream.tokens):,} tokens of {stream.characters.sum():,} characters in {split}"
            for split, stream in streams.items()
        ]
        return dataclasses.replace(description, notes=[*description.notes, ", ".join(parts)])

    def encoded(self, split: str) -> TokenStream:  # type: ignore[override]
        """Return a split as a stream of tokens, cached on disk by data, processor and version."""
        if split not in self._encoded:
            raw, processor = self.raw(split), self.processor
            table = raw.map(
                processor.encode,
                remove_columns=raw.column_names,
                new_fingerprint=fingerprint(raw._fingerprint, processor.checksum, "encode"),
            )
            rows_of_one = self.documents == "file" and self.path is None and self.synthetic is not None
            assert isinstance(processor, LanguageProcessor)
            stream = TokenStream(table, joined=rows_of_one, end_id=processor.end_id, chunk_length=self.chunk_length)
            if not len(stream):
                raise InputError(f"split {split}", expected="a text with tokens", got="none")
            self._encoded[split] = stream  # type: ignore[assignment]
        return self._encoded[split]  # type: ignore[return-value]

    def _loader(self, split: str) -> DataLoader:
        stream = self.encoded(split)
        trainer = self.trainer
        processes = trainer.world_size if trainer is not None else 1
        training = split == "train"
        lanes = self.batch_size * processes if training else self.eval_lanes
        if not training and trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            lanes = max(lanes, self.batch_size)
        if training and len(stream.tokens) < lanes:
            raise InputError(
                "data.batch_size",
                expected=f"at most as many lanes as there are training tokens, {len(stream.tokens)}",
                got=str(lanes),
            )
        sampler = LaneSampler(
            len(stream.tokens),
            lanes=min(lanes, len(stream.tokens)),
            chunk_length=self.chunk_length if training else self.eval_chunk_length,
            vary=self.vary_chunks and training,
            anew=self.begin_anew if training else 0.0,
            seed=self.seed,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=processes,
        )
        return self._batches(stream, sampler)

    def _build(self, files: Sequence[FileFormat], key: str) -> datasets.Dataset:
        self._read_format = files[0][1]
        return super()._build(files, key)

    def _generate(self, files: Sequence[FileFormat]) -> Iterator[Sample]:
        for path, format in files:
            if format == "text":
                yield from self._texts(path)
            else:
                yield from super()._generate([(path, format)])

    def _texts(self, path: str) -> Iterator[Sample]:
        """Yield the documents of a text file."""
        if self.documents == "row":
            raise InputError(
                "data.documents", expected="'file', 'line' or 'paragraph' for text", got="'row'", fix="leave it out"
            )
        text = read_whole(path)
        if self.documents == "line":
            found = [line.removesuffix("\n") for line in split_lines(text)]
        elif self.documents == "paragraph":
            found = paragraphs(text)
        else:
            found = [text]
        found = [document for document in found if document.strip()]
        if not found:
            raise InputError(path, expected="text", got="white space alone")
        yield from ({"text": document} for document in found)

    def _complete(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Cut missing splits from the end of the training text."""
        missing = [split for split in ("validation", "test") if split not in splits and self.fractions[split] > 0]
        texts = list(splits["train"]["text"]) if missing else []
        total = sum(map(len, texts))
        exact = self._unit() == "file"
        left = 1.0
        for split in reversed(missing):
            left -= self.fractions[split]
            texts, cut = cut_texts(texts, int(total * left), exact=exact)
            if not texts or not cut:
                raise InputError(
                    "data",
                    expected=f"enough training text to make a {split} split",
                    got=f"{len(splits['train'])} documents, {total} characters",
                    fix=f"name a file with --data.{split}",
                )
            splits[split] = table_of([{"text": text} for text in cut])
            share = sum(map(len, cut))
            notes.append(
                f"the data have no {split} split: {share} of {total} characters of the training text were set aside "
                "by position"
            )
        if missing:
            splits["train"] = table_of([{"text": text} for text in texts])
        return {split: splits[split] for split in in_order(splits)}

    def _unit(self) -> str:
        """Return what a document is."""
        if self.documents is not None:
            return self.documents
        return "file" if self._read_format == "text" else "row"

    def _reading(self) -> list[Any]:
        return [*super()._reading(), self.documents]


def read_whole(path: str) -> str:
    r"""Return a text file as it is, but for a byte order mark and ``\r`` at line ends."""
    last = b""

    def lines() -> Iterator[bytes]:
        nonlocal last
        for line in open_bytes(Path(path)):
            last = line
            yield line

    text = "\n".join(line for _, line in decode_lines(lines(), path))
    return text + "\n" if last.endswith(b"\n") else text


def paragraphs(text: str) -> list[str]:
    r"""Return what stands between empty lines.

    >>> paragraphs("a\nb\n\n\nc")
    ['a\nb', 'c']
    """
    found: list[list[str]] = [[]]
    for line in split_lines(text):
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["".join(lines).removesuffix("\n") for lines in found if lines]


def cut_texts(texts: Sequence[str], place: int, *, exact: bool) -> tuple[list[str], list[str]]:
    """Cut texts after `place` characters in all: there exactly, or after the text that holds that character.

    >>> cut_texts(["abc", "de"], 4, exact=True)
    (['abc', 'd'], ['e'])
    >>> cut_texts(["abc", "de"], 2, exact=False)
    (['abc'], ['de'])
    """
    before: list[str] = []
    after: list[str] = []
    for text, end in zip(texts, accumulate(map(len, texts)), strict=True):
        start = end - len(text)
        if end <= place or (start < place and not exact):
            before.append(text)
        elif start >= place:
            after.append(text)
        else:
            before.append(text[: place - start])
            after.append(text[place - start :])
    return before, after
