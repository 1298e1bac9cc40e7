"""Building the recurrent layers that a model's options describe."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError
from rnnzoo.layers import Recurrent, WordEmbedding
from rnnzoo.layers.embedding import load_text_vectors
from rnnzoo.models.options import RecurrentOptions, WordOptions
from rnnzoo.text.tokenizer import Tokenizer


def build_recurrent(
    *, cell: str, input_size: int, hidden_size: int, num_layers: int, dropout: float, options: RecurrentOptions
) -> Recurrent:
    """Return the stack of recurrent layers; `dropout` is left out where there is nothing between layers to drop."""
    return Recurrent(
        cell=cell,
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        dropout=dropout if num_layers > 1 else 0.0,
        **dataclasses.asdict(options),
    )


def output_size(cell: str, hidden_size: int, options: RecurrentOptions) -> int:
    """Return the numbers that a cell puts out in a step: `hidden_size`, unless it projects them."""
    with torch.random.fork_rng(devices=[]):  # what the cell draws must not shift what others draw
        made = make_cell(cell, input_size=1, hidden_size=hidden_size, **(options.cell_options or {}))
    return made.output_size


def build_words(tokenizer: Tokenizer, options: WordOptions, *, vocabulary_size: int | None = None) -> WordEmbedding:
    """Return the token embedding, started from pretrained vectors if the options name a file.

    Args:
        tokenizer: whose tokens have the first rows of the table.
        options: what the vectors are like.
        vocabulary_size: a larger table, whose last rows stand for tokens that no text spells, such as the end.

    Raises:
        InputError: if the vectors are not of the size that the options give, or none fits the vocabulary.
    """
    embedding = WordEmbedding(
        vocabulary_size=vocabulary_size or tokenizer.vocabulary_size,
        size=options.size,
        dropout=options.dropout,
        word_dropout=options.word_dropout,
        embedding_dropout=options.embedding_dropout,
    )
    if options.vectors is not None:
        vectors, found = load_text_vectors(options.vectors, tokenizer.vocabulary)
        if vectors.shape[1] != options.size or found == 0:
            raise InputError(
                "model.words.vectors",
                expected=f"vectors of {options.size} numbers for words of the vocabulary",
                got=f"vectors of {vectors.shape[1]} numbers, {found} of them for known words, in {options.vectors}",
                fix="set --model.words.size to the size of the vectors",
            )
        missing = embedding.table.num_embeddings - len(vectors)
        embedding.load_vectors(F.pad(vectors, (0, 0, 0, missing), value=float("nan")))
    return embedding
