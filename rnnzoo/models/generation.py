"""Text that goes on from a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from rnnzoo.decoding.continuation import Continuation, ReadText
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.decoding.search import search, stream, stream_distributions
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.models.options import as_options
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.text.tokenizer import PAD_ID, UNKNOWN_ID
from rnnzoo.text.writer import TextWriter

READ_STEPS = 1024  # of a long text that are read at once


class TextModel(Protocol):
    """What is used of `LanguageModel`, which imports this module."""

    processor: LanguageProcessor
    recurrent: Recurrent
    training: bool

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def train(self, mode: bool = True) -> Any:
        """Set training mode."""

    def eval(self) -> Any:
        """Set evaluation mode."""

    def start_state(self, batch_size: int) -> Any:
        """Return the state before the first token."""

    def read_step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read one token [B] of each row: return the logits [B, V] of the next, and the state."""

    def vectors(self, tokens: Tensor) -> Tensor:
        """Return what the recurrent layers read for tokens."""


def stream_text(
    model: TextModel,
    prompt: str,
    *,
    max_tokens: int | None,
    options: SearchOptions | Mapping[str, Any] | None,
    unknown: str,
    seed: int,
) -> Iterator[str]:
    """Yield the pieces of a continuation; see `LanguageModel.stream`."""
    chosen = generation_options(options, max_tokens)
    ids = model.processor.encode_prompt(prompt, unknown)
    writer = TextWriter(model.processor.tokenizer)
    writer.write(ids)  # so that blanks between words come right
    decoder, context = continuation(model), read_text(model, ids)
    if chosen.method == "beam":
        best = search(decoder, context, chosen, suppressed=never(model), seeds=[seed], read=[ids])[0][0]
        yield writer.write(best.tokens)
    else:
        for token in stream(decoder, context, chosen, suppressed=never(model), seed=seed, read=ids):
            if piece := writer.push(token):
                yield piece
    if piece := writer.finish():
        yield piece


def token_distributions(
    model: TextModel, prompt: str, *, options: SearchOptions, unknown: str = "refuse", seed: int = 0
) -> tuple[list[int], Tensor]:
    """Return the tokens [T] that `stream_text` goes on with, and the distributions [T, V] that they were chosen from.

    Raises:
        InputError: for a beam, whose tokens are not chosen one by one, and as `LanguageModel.stream`.
    """
    ids = model.processor.encode_prompt(prompt, unknown)
    was_training = model.training
    model.eval()
    tokens, distributions = [], []
    try:
        decoder, context = continuation(model), read_text(model, ids)
        steps = stream_distributions(decoder, context, options, suppressed=never(model), seed=seed, read=ids)
        for token, loop in steps:
            tokens.append(token)
            distributions.append(loop.distribution()[0, 0, : model.processor.vocabulary_size].float().cpu())
    finally:
        model.train(was_training)
    empty = torch.zeros(0, model.processor.vocabulary_size)
    return tokens, torch.stack(distributions) if distributions else empty


def generation_options(options: SearchOptions | Mapping[str, Any] | None, max_tokens: int | None) -> SearchOptions:
    """Return search options that sample unless they say otherwise.

    Raises:
        InputError: for a name or value that does not exist.
    """
    given = options if isinstance(options, SearchOptions) else {"method": "sample", **(options or {})}
    chosen = as_options(SearchOptions, given, "options")
    return chosen if max_tokens is None else dataclasses.replace(chosen, max_length=max_tokens)


def continuation(model: TextModel) -> Continuation:
    """Return the decoder that goes on from a text."""

    def read(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return model.read_step(tokens, state)

    size = model.processor.vocabulary_size
    return Continuation(read, vocabulary_size=size, endless=not model.processor.document_end)


def read_text(model: TextModel, ids: list[int]) -> ReadText:
    """Return the context of a continuation: the end token and all tokens but the last are read at once."""
    ids = [model.processor.end_id, *ids]
    tokens = torch.tensor([ids], device=model.device)  # [1, T]
    state = model.start_state(1)
    for part in tokens[:, :-1].split(READ_STEPS, dim=1):
        if part.shape[1]:
            state = model.recurrent(model.vectors(part), None, state)[1]
    return ReadText(state, tokens[:, -1])


def never(model: TextModel) -> tuple[int, ...]:
    """Return the ids that a text never goes on with: what stands for no text, and an end where there is none."""
    processor = model.processor
    end = () if processor.line_end or processor.document_end else (processor.end_id,)
    return (PAD_ID, UNKNOWN_ID, *end)
