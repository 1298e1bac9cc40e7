"""Vectors for words and for the characters of words."""

from __future__ import annotations

import gzip
import lzma
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnzoo.batches import WordCharacters
from rnnzoo.cells.views import view_of
from rnnzoo.errors import InputError, check_share, unknown_name
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.lengths import last_valid, length_mask

PADDING, UNKNOWN = 0, 1  # in every vocabulary
SHORT = (6, 10)  # words are encoded in groups of like length: below 6 characters, below 10, then
LIKE = 1.6  # each as long as a word of this many times the characters that the shortest of the group has


class WordEmbedding(nn.Module):
    """Vectors of tokens, with dropout on their numbers and on whole tokens.

    A token that `word_dropout` takes is read as the unknown one, whose vector is learnt from that alone: a
    vocabulary of all training words knows no other unknown word. Without it the unknown vector stays zero.

    Args:
        vocabulary_size: V.
        size: E, numbers per token.
        dropout: dropout on the numbers.
        word_dropout: share of tokens that are read as unknown in training.
        embedding_dropout: share of rows of the table that are dropped in training for a whole batch: all places of
            such a word are zeros, and the vectors of the others are scaled by 1/(1-p). Tied weights are not dropped
            where they are those of the logits.

    Source of `embedding_dropout`: Gal & Ghahramani 2016; Merity, Keskar & Socher 2018.

    Raises:
        InputError: for a share outside [0, 1).
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        size: int,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        shares = {"dropout": dropout, "word_dropout": word_dropout, "embedding_dropout": embedding_dropout}
        for name, share in shares.items():
            check_share(f"words.{name}", share)
        self.size = size
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.embedding_dropout = embedding_dropout
        self.rows: Tensor | None = None  # [V, 1], 0 or 1/(1-p); drawn in a view that `hold_masks` returns, only there
        self.table = nn.Embedding(vocabulary_size, size, padding_idx=PADDING)
        bound = (3.0 / size) ** 0.5  # unit norm on average, whatever the size
        with torch.no_grad():
            self.table.weight.uniform_(-bound, bound)
            self.table.weight[[PADDING, UNKNOWN]] = 0.0

    def load_vectors(self, vectors: Tensor) -> None:
        """Copy pretrained vectors [V, E]; a row of NaN keeps the vector it has, and padding always does."""
        with torch.no_grad():
            found = ~vectors.isnan().any(1)  # [V]
            found[PADDING] = False
            self.table.weight[found] = vectors[found].to(self.table.weight)

    def hold_masks(self) -> WordEmbedding:
        """Return a view of this table with one draw of `embedding_dropout`, for several calls on the same batch."""
        if not self.training or self.embedding_dropout == 0:
            return self
        view = view_of(self)
        view.rows = F.dropout(self.table.weight.new_ones(self.table.num_embeddings, 1), self.embedding_dropout)
        return view

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up token ids [...] → [..., E]."""
        if self.training and self.word_dropout > 0:
            dropped = torch.rand(tokens.shape, device=tokens.device) < self.word_dropout  # [...]
            tokens = torch.where(dropped & (tokens != PADDING), UNKNOWN, tokens)
        vectors = self.table(tokens)  # [..., E]
        rows = self.rows if self.rows is not None else self.hold_masks().rows
        if rows is not None:
            vectors = vectors * rows[tokens]
        return F.dropout(vectors, self.dropout, self.training)


class CharacterEmbedding(nn.Module):
    """A vector for each word from its characters, so that unknown words have a form too.

    ``rnn`` joins the last outputs of a bidirectional recurrent layer (Ling et al. 2015); ``cnn`` takes the maximum
    over the word of convolutions of width 3 (Ma & Hovy 2016). Each different word of a batch is computed once, together
    with words of like length, so that a long word costs what its characters cost.

    Args:
        vocabulary_size: V.
        size: numbers per character.
        output_size: O, numbers per word; even for ``rnn``.
        kind: ``cnn`` or ``rnn``.
        cell: the cell of ``rnn``.

    Raises:
        InputError: for an unknown kind or an odd size of ``rnn``.
    """

    def __init__(
        self, *, vocabulary_size: int, size: int, output_size: int, kind: str = "cnn", cell: str = "lstm"
    ) -> None:
        super().__init__()
        if kind not in ("cnn", "rnn"):
            raise unknown_name("characters.kind", kind, ("cnn", "rnn"))
        if kind == "rnn" and output_size % 2:
            raise InputError("characters.output_size", expected="an even number for rnn", got=str(output_size))
        self.output_size = output_size
        self.table = nn.Embedding(vocabulary_size, size, padding_idx=PADDING)
        self.recurrent: Recurrent | None = None
        self.convolution: nn.Conv1d | None = None
        if kind == "rnn":
            self.recurrent = Recurrent(cell=cell, input_size=size, hidden_size=output_size // 2, bidirectional=True)
        else:
            self.convolution = nn.Conv1d(size, output_size, kernel_size=3, padding=1)

    def forward(self, characters: WordCharacters) -> Tensor:
        """Encode the words of a batch → [B, T, O]; zeros for a word without characters."""
        lengths = characters.lengths.tolist()  # rising
        starts = characters.lengths.cumsum(0) - characters.lengths  # [D]
        encoded = [self.table.weight.new_zeros(bisect_right(lengths, 0), self.output_size)]
        for first, last in like_lengths(lengths):
            own = characters.lengths[first:last]  # [n]
            steps = torch.arange(lengths[last - 1], device=own.device)  # [W]
            words = characters.ids[(starts[first:last].unsqueeze(1) + steps).clamp(max=len(characters.ids) - 1)]
            words = words.masked_fill(steps >= own.unsqueeze(1), PADDING)  # [n, W]
            encoded.append(self._encode(words, own).to(encoded[0].dtype))
        return F.embedding(characters.indices, torch.cat(encoded))

    def _encode(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Encode different words [N, W] of `lengths` [N], all above 0 → [N, O]."""
        vectors = self.table(words)  # [N, W, E]
        if self.recurrent is not None:
            outputs, _ = self.recurrent(vectors, lengths)  # [N, W, O]
            half = self.output_size // 2
            return torch.cat([last_valid(outputs[..., :half], lengths), outputs[:, 0, half:]], dim=-1)
        assert self.convolution is not None
        outputs = self.convolution(vectors.transpose(1, 2)).transpose(1, 2)  # [N, W, O]
        mask = length_mask(lengths, words.shape[1]).unsqueeze(-1)
        return outputs.masked_fill(~mask, torch.finfo(outputs.dtype).min).amax(1)


def like_lengths(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where groups of words begin and end, whose lengths are alike enough to be padded to the longest.

    Args:
        lengths: characters of words, rising; words without characters are in no group.

    >>> list(like_lengths([0, 1, 5, 6, 9, 10, 16, 17, 50_000]))
    [(1, 3), (3, 5), (5, 7), (7, 8), (8, 9)]
    """
    first = bisect_right(lengths, 0)
    while first < len(lengths):
        shortest = lengths[first]
        limit = next((short for short in SHORT if shortest < short), int(shortest * LIKE) + 1)
        last = bisect_left(lengths, limit, first)
        yield first, last
        first = last


def load_text_vectors(path: str | Path, words: Sequence[str]) -> tuple[Tensor, int]:
    """Read vectors of `words` from a text file in the format of GloVe, word2vec or fastText.

    A line is a word and its numbers, separated by blanks; a first line of two numbers (count and size) is skipped.
    A word may have blanks in it, as some of GloVe's have, but not in the first line.
    A word that the file lacks takes its lower-case form's vector.

    Args:
        path: the file, plain or compressed (.gz, .xz).
        words: V words in the order of their ids.

    Returns:
        The vectors [V, E], with NaN for the words that the file lacks, and how many it has.

    Raises:
        InputError: if the file is missing, or a line does not have as many numbers as the first.
    """
    wanted: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        wanted.setdefault(word, []).append(place)
        if word.lower() != word:
            wanted.setdefault(word.lower(), []).append(place)
    exact: dict[int, list[float]] = {}
    lowered: dict[int, list[float]] = {}
    size = 0
    for number, line in enumerate(text_lines(path), start=1):
        word, *fields = line.rstrip("\n").rstrip(" ").split(" ")
        if number == 1 and len(fields) == 1:
            continue
        size = size or len(fields)
        if len(fields) > size and not _is_number(fields[-size - 1]):  # a word with blanks
            word, fields = " ".join([word, *fields[:-size]]), fields[-size:]
        if len(fields) != size:
            raise InputError(f"{path}, line {number}", expected=f"a word and {size} numbers", got=f"{len(fields)}")
        for place in wanted.get(word, ()):
            try:
                numbers = [float(field) for field in fields]
            except ValueError as error:
                raise InputError(f"{path}, line {number}", expected="numbers", got=str(error)) from error
            (exact if words[place] == word else lowered)[place] = numbers
    if size == 0:
        raise InputError(str(path), expected="lines of a word and its numbers", got="none")
    vectors = torch.full((len(words), size), float("nan"))
    for place, numbers in {**lowered, **exact}.items():
        vectors[place] = torch.tensor(numbers)
    return vectors, len({**lowered, **exact})


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def text_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file that may be compressed."""
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    opener = openers.get(Path(path).suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(str(path), expected="a readable UTF-8 text file", got=str(error)) from error
