"""Texts and their translations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import datasets

from rnnzoo.data.base import ZooData
from rnnzoo.data.labelled import leave_out
from rnnzoo.data.named_files import file_notes
from rnnzoo.data.parallel import Pair, find_pairs, read_pair
from rnnzoo.data.readers import Row
from rnnzoo.data.sources import Files, checksums, file_checksum, fingerprint
from rnnzoo.data.tables import Sample, from_generator
from rnnzoo.errors import InputError, did_you_mean, unknown_name
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

SIDES = ("source", "target")
TRANSLATION = "translation"  # the column of the Hub that holds language → text
LENGTH_UNITS = ("words", "characters")
SPLIT_BY = ("source", "target", "sample")


class TranslationData(ZooData):
    """Texts to be translated.

    Files are parallel text, a file for each language with its code as the ending (``train.en``, ``train.de``), or
    tables (TSV, JSONL, Parquet, CSV) with a column for each side. Data of the Hub have a column for each language, or
    one called ``translation`` with both.

    The filters `min_length`, `max_length`, `max_ratio` and `max_source_length` drop training samples, and the report
    counts them; validation and test splits are never filtered. An empty side is dropped from training and refused
    elsewhere; a validation or test split without any targets is left out.

    Args:
        source: the language to translate from: the ending of files, or the name of a column.
        target: the language to translate to.
        tokenizer: what a token is, on both sides.
        source_tokenizer: what a token of the source is, where it differs.
        target_tokenizer: what a token of the target is, where it differs.
        joint: one vocabulary for both sides, learnt from both, so that a model may share their vectors.
        source_end: a source ends with a token of its own.
        min_length: fewest words of either side of a training sample.
        max_length: most words of either side of a training sample.
        max_ratio: most words of the longer side for each word of the shorter one, in training.
        length_unit: what these three count: ``words`` between blanks, or ``characters``.
        max_source_length: the longest source in tokens; longer ones are no training samples, and are refused when a
            trained model is to translate them.
        split_by: where splits are made, samples with the same ``source`` (or ``target``) text stay together;
            ``sample`` sets each aside by itself.
        place: where the data come from; see `ZooData`.
    """

    formats: tuple[str, ...] = ("tsv", "jsonl", "parquet", "csv")
    canonical = SIDES

    def __init__(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        tokenizer: TokenizerOptions = TokenizerOptions(kind="bpe"),
        source_tokenizer: TokenizerOptions | None = None,
        target_tokenizer: TokenizerOptions | None = None,
        joint: bool = False,
        source_end: bool = True,
        min_length: int = 1,
        max_length: int | None = None,
        max_ratio: float | None = None,
        length_unit: str = "words",
        max_source_length: int | None = 1000,
        split_by: str = "source",
        **place: Any,
    ) -> None:
        super().__init__(**place)
        if (source is None) != (target is None) or (source is not None and source == target):
            raise InputError("data.source and data.target", expected="two languages", got=f"{source!r} and {target!r}")
        if joint and (source_tokenizer is not None or target_tokenizer is not None):
            raise InputError(
                "data.joint", expected="one tokenizer", got="one for a side", fix="set data.tokenizer alone"
            )
        for name, value, choices in (("length_unit", length_unit, LENGTH_UNITS), ("split_by", split_by, SPLIT_BY)):
            if value not in choices:
                raise unknown_name(f"data.{name}", value, choices)
        limits = {"min_length": min_length, "max_length": max_length, "max_ratio": max_ratio}
        for name, limit in {**limits, "max_source_length": max_source_length}.items():
            if limit is not None and limit < 1:
                raise InputError(f"data.{name}", expected="at least 1", got=str(limit))
        if max_length is not None and max_length < min_length:
            raise InputError("data.max_length", expected=f"at least min_length, {min_length}", got=str(max_length))
        self.languages = {"source": source, "target": target}
        self.tokenizers = {"source": source_tokenizer or tokenizer, "target": target_tokenizer or tokenizer}
        self.joint = joint
        self.source_end = source_end
        self.min_length, self.max_length, self.max_ratio = min_length, max_length, max_ratio
        self.length_unit = length_unit
        self.max_source_length = max_source_length
        self.split_by = split_by

    # Reading

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"source", "target", "name"}``; empty texts too, which `accept` drops or refuses."""
        many: bool | None = None  # whether the samples have lists of references
        for where, row in rows:
            source, target = (self.side(row, name, where) for name in SIDES)
            several = isinstance(target, list)
            many = several if many is None else many
            if isinstance(source, list) or (several and not many):
                raise InputError(where, expected="a text, as in the rows before", got="a list")
            yield {"source": source, "target": [target] if many and not several else target, "name": where}

    def column_roles(self) -> dict[str, str]:
        """Return column of the data → our name of it; a language is one, too."""
        languages = {language: name for name, language in self.languages.items() if language is not None}
        return {**languages, **super().column_roles()}

    def side(self, row: Row, name: str, where: str) -> str | list[str]:
        """Return the text of one side of a row without blanks around it; of the target it may be a list.

        Raises:
            InputError: if the row has none, naming its columns, or it is no text.
        """
        language = self.languages[name]
        texts = row[TRANSLATION] if isinstance(row.get(TRANSLATION), dict) else row
        column = self.columns[name]
        if column == name and language is not None and (language in texts or name not in row):
            column = language
        found = texts if column in texts else row
        if column not in found:
            if name == "target" and self.reading_split in ("validation", "test"):
                return ""
            raise InputError(
                f"{where}: data.{name}",
                expected=f"a column among {', '.join(map(repr, texts))}",
                got=repr(column),
                fix=did_you_mean(column, texts) or "name the columns of files without a header by --data.file_columns",
            )
        value = found[column]
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return [text.strip() for text in value]
        if not isinstance(value, str | None):
            raise InputError(f"{where}, {column!r}", expected="a text", got=repr(value)[:60])
        return (value or "").strip()

    def _load_files(self, path: str) -> tuple[dict[str, datasets.Dataset], dict[str, str]]:
        source, target = self.languages["source"], self.languages["target"]
        if source is None or target is None or self.format is not None:
            return super()._load_files(path)
        languages = (source, target)
        pairs = find_pairs(path, languages, named=self.named, trained=self.for_testing)
        if pairs is None:
            return super()._load_files(path)
        files = {each: "parallel" for split in pairs.values() for pair in split for each in pair}
        found = Files({}, files, checksums(files))
        tables = {}
        contents: dict[str, list[tuple[str, str]]] = {split: [] for split in pairs}
        for split, one, other in ((split, *pair) for split, listed in pairs.items() for pair in listed):
            both = fingerprint(file_checksum(found, one), file_checksum(found, other))
            contents[split].append((f"{one.name} and {other.name}", both))
        self._notes += file_notes(contents, pooled=True)
        for split, listed in pairs.items():
            read = [(side.name, file_checksum(found, side)) for pair in listed for side in pair]
            key = fingerprint(type(self).__name__, self._reading(), "parallel", read)
            tables[split] = from_generator(self._generate_pairs, {"pairs": listed}, key)
        return tables, found.checksums

    def _generate_pairs(self, pairs: Sequence[Pair]) -> Iterator[Sample]:
        languages = (str(self.languages["source"]), str(self.languages["target"]))
        for pair in pairs:
            yield from self.samples(read_pair(pair, languages), str(pair[0]))

    # Choosing

    def accept(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Drop training samples with an empty side; refuse others."""
        accepted = {}
        for split, table in splits.items():
            empty = {place: name for name in SIDES for place, text in enumerate(table[name][:]) if is_empty(text)}
            if split != "train" and all(empty.get(number) == "target" for number in range(len(table))):
                leave_out(self, split, len(table), "target", notes)
                continue
            if split == "train" and empty:
                table = without(table, empty)
                notes.append(f"{len(empty):,} training samples with an empty source or target were left out")
            for place, name in empty.items() if split != "train" else ():
                side = f"{name} {self.languages[name] or ''}".strip()
                raise InputError(
                    f"{table[place]['name']}, {side}", expected="a text", got="an empty one", fix="fill or drop it"
                )
            accepted[split] = table.remove_columns("name") if "name" in table.column_names else table
        return accepted

    def groups(self, train: datasets.Dataset) -> Sequence[Any]:
        """Return the text that keeps samples together where splits are made."""
        if self.split_by == "sample":
            return range(len(train))
        return [text if isinstance(text, str) else "\n".join(text) for text in train[self.split_by][:]]

    def filter_training(self, train: datasets.Dataset, notes: list[str]) -> datasets.Dataset:
        """Drop samples that are too short, too long or of too unequal sides."""
        sides = [[self.measure(text) for text in train[name][:]] for name in SIDES]
        dropped = set()
        for place, (source, target) in enumerate(zip(*sides, strict=True)):
            shorter, longer = sorted((source, target))
            if (
                shorter < self.min_length
                or (self.max_length is not None and longer > self.max_length)
                or (self.max_ratio is not None and longer > self.max_ratio * shorter)
            ):
                dropped.add(place)
        if dropped:
            limits = {"min_length": self.min_length, "max_length": self.max_length, "max_ratio": self.max_ratio}
            said = ", ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)
            notes.append(
                f"{len(dropped):,} of {len(train):,} training samples were left out ({said}, in {self.length_unit})"
            )
        return without(train, dropped)

    def measure(self, text: str | list[str]) -> int:
        """Return the length of a text, of the first of several, in `length_unit`."""
        first = text if isinstance(text, str) else text[0]
        return len(first.split()) if self.length_unit == "words" else len(first)

    def training_rows(self, table: datasets.Dataset) -> datasets.Dataset:
        """Drop sources that are longer than `max_source_length`."""
        longest = self.max_source_length
        long = (
            [] if longest is None else [place for place, pieces in enumerate(table["pieces"]) if len(pieces) > longest]
        )
        note = f"{len(long):,} training samples with a source of more than {longest} tokens were left out"
        if long and note not in self._description.notes:
            self._description.notes.append(note)
        return without(table, long)

    # Learning

    def learn_processor(self, train: datasets.Dataset) -> TranslationProcessor:
        """Train the tokenizers: one on both sides, or one on each."""
        texts = {name: list(texts_of(train[name][:])) for name in SIDES}
        if self.joint:
            source = target = Tokenizer.train([*texts["source"], *texts["target"]], self.tokenizers["source"])
        else:
            source, target = (Tokenizer.train(texts[name], self.tokenizers[name]) for name in SIDES)
        return TranslationProcessor(
            source=source,
            target=target,
            shared=self.joint,
            source_end=self.source_end,
            max_source_length=self.max_source_length,
        )

    def _reading(self) -> list[Any]:
        return [*super()._reading(), self.languages]


def without(table: datasets.Dataset, dropped: Iterable[int]) -> datasets.Dataset:
    """Return a table without some of its rows."""
    gone = set(dropped)
    return table.select([place for place in range(len(table)) if place not in gone]) if gone else table


def texts_of(column: Iterable[str | list[str]]) -> Iterator[str]:
    """Yield the texts of a column, each of several references by itself."""
    for value in column:
        yield from [value] if isinstance(value, str) else value


def is_empty(text: str | list[str]) -> bool:
    """Return whether a text is empty, or one of several, or there is none."""
    return not text or (isinstance(text, list) and not all(text))
