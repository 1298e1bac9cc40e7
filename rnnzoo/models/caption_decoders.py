"""Building the decoder that a captioner's options describe."""

from __future__ import annotations

import dataclasses

from rnnzoo.decoders.hard_attention import HardChoice, HardOptions
from rnnzoo.decoders.visual import PlainDecoder, VisualDecoder
from rnnzoo.decoders.visual_attention import GazeDecoder, TopDownDecoder
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.layers import Recurrent, VocabularyHead
from rnnzoo.layers.attention import AdditiveAttention
from rnnzoo.models.caption_options import GridOptions
from rnnzoo.models.encoder import build_recurrent, build_words, output_size
from rnnzoo.models.options import RecurrentOptions, WordOptions
from rnnzoo.text.tokenizer import Tokenizer

ATTENTIONS = ("none", "soft", "hard", "top_down")
IMAGE_AS = ("state", "input")


def build_decoder(
    attention: str,
    *,
    tokenizer: Tokenizer,
    words: WordOptions,
    cell: str,
    hidden_size: int,
    num_layers: int,
    memory_size: int,
    dropout: float,
    image_as: str,
    grid: GridOptions,
    hard: HardOptions,
    tied: bool,
    recurrent: RecurrentOptions,
) -> VisualDecoder:
    """Return the decoder of a captioner.

    Raises:
        InputError: for an unknown name, or an option that would change nothing with this attention.
    """
    check(attention, image_as=image_as, grid=grid, hard=hard, num_layers=num_layers)
    vocabulary_size = tokenizer.vocabulary_size + 1
    embedding = build_words(tokenizer, words, vocabulary_size=vocabulary_size)

    def layers(input_size: int) -> Recurrent:
        return build_recurrent(
            cell=cell,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            options=dataclasses.replace(recurrent, bidirectional=False),
        )

    def head(input_size: int) -> VocabularyHead:
        return VocabularyHead(
            input_size=input_size, vocabulary_size=vocabulary_size, tied=embedding.table if tied else None
        )

    if attention == "none":
        plain = layers(words.size)
        return PlainDecoder(
            embedding=embedding,
            recurrent=plain,
            head=head(plain.output_size),
            memory_size=memory_size,
            image_as=image_as,
            dropout=dropout,
        )
    width = output_size(cell, hidden_size, recurrent)  # of the hidden state that asks
    score = AdditiveAttention(query_size=width, memory_size=memory_size, size=grid.size or hidden_size)
    if attention == "top_down":
        first = layers(width + memory_size + words.size)
        second = layers(memory_size + first.output_size)
        return TopDownDecoder(
            embedding=embedding,
            first=first,
            second=second,
            attention=score,
            head=head(second.output_size),
            dropout=dropout,
        )
    gaze = layers(words.size + memory_size)
    return GazeDecoder(
        embedding=embedding,
        recurrent=gaze,
        attention=score,
        head=head(words.size if grid.deep_output else gaze.output_size),
        choice=HardChoice(hard) if attention == "hard" else None,
        gate=grid.gate,
        deep_output=grid.deep_output,
        dropout=dropout,
    )


def check(attention: str, *, image_as: str, grid: GridOptions, hard: HardOptions, num_layers: int) -> None:
    """Refuse unknown names, and options that would change nothing with this attention.

    Raises:
        InputError: for the first of them.
    """
    for name, value, known in (("attention", attention, ATTENTIONS), ("image_as", image_as, IMAGE_AS)):
        if value not in known:
            raise unknown_name(f"model.{name}", value, known)
    if attention == "top_down" and num_layers != 1:
        raise InputError("model.num_layers", expected="1 for attention top_down", got=str(num_layers))
    useless = (
        ("image_as", "the default 'state' with attention", attention != "none" and image_as != "state", image_as),
        ("hard", "no option without hard attention", attention != "hard" and hard != HardOptions(), hard),
        ("grid", "no option without attention", attention == "none" and grid != GridOptions(), grid),
        (
            "grid",
            "no option but size with attention top_down",
            attention == "top_down" and grid != GridOptions(size=grid.size),
            grid,
        ),
    )
    for name, expected, wrong, got in useless:
        if wrong:
            raise InputError(f"model.{name}", expected=expected, got=str(got), fix="leave it out")
