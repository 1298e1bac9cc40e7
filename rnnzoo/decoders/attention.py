"""The decoder of an encoder-decoder model: recurrent layers that may attend to a memory after each step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.decoding.decoder import Step
from rnnzoo.errors import InputError
from rnnzoo.layers.attention import Attention, Memory
from rnnzoo.layers.dropout import hold_masks
from rnnzoo.layers.embedding import WordEmbedding
from rnnzoo.layers.recurrent import Recurrent, States
from rnnzoo.layers.vocabulary import VocabularyHead


class DecoderContext(NamedTuple):
    """What a decoder reads: the memory, and the state that the encoder hands over. B rows."""

    memory: Memory  # S = 0 without attention
    initial: States


class DecoderState(NamedTuple):
    """What a decoder carries from step to step. N rows."""

    layers: States
    feed: Tensor  # [N, H], the last output; [N, 0] without input feeding
    coverage: Tensor  # [N, S], the sum of the attention so far; [N, 0] without coverage


class AttentionDecoder(nn.Module):
    """Recurrent layers, then attention with their output as the query (the order of Luong et al.).

        h_t = RNN([e(y_{t-1}); ĥ_{t-1}], h_{t-1})     (ĥ_{t-1} with input feeding only)
        c_t = attention(h_t, memory)
        ĥ_t = tanh(W [c_t; h_t])                      (ĥ_t = h_t without attention)
        p(y_t) = softmax(head(ĥ_t))

    Teacher forcing runs the whole target at once on the fast backend. It goes step by step only where a step needs
    the one before: with input feeding, coverage, or scheduled sampling.

    Args:
        embedding: vectors of target tokens, the end included.
        recurrent: layers of one direction, whose inputs are E numbers, or E + H with input feeding.
        attention: None leaves attention out: the initial state is all that is known of the source.
        head: logits from H numbers.
        input_feeding: the last output ĥ enters the next step beside the token.
        coverage: the attention takes the sum of its earlier weights.
        dropout: on token vectors and on ĥ.

    Raises:
        InputError: for input feeding without attention.

    Source: Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation".
    """

    def __init__(
        self,
        *,
        embedding: WordEmbedding,
        recurrent: Recurrent,
        attention: Attention | None,
        head: VocabularyHead,
        input_feeding: bool = False,
        coverage: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if attention is None and (input_feeding or coverage):
            raise InputError(
                "model.input_feeding" if input_feeding else "model.coverage",
                expected="a decoder with attention",
                got="attention none",
                fix="choose an attention, or leave the option out",
            )
        self.embedding = embedding
        self.recurrent = recurrent
        self.attention = attention
        self.head = head
        self.vocabulary_size = head.vocabulary_size
        self.end_id = head.vocabulary_size - 1
        self.input_feeding = input_feeding
        self.coverage = coverage
        self.dropout = nn.Dropout(dropout)
        self.combine: nn.Linear | None = None
        if attention is not None:
            size = recurrent.output_size
            self.combine = nn.Linear(attention.memory_size + size, size, bias=False)

    def context(self, values: Tensor, lengths: Tensor, initial: States) -> DecoderContext:
        """Make the context of encoder outputs [B, S, M] with `lengths` [B] and the initial state of the layers."""
        if self.attention is None:
            values = values[:, :0]
            return DecoderContext(Memory(values, values, values.new_zeros(values.shape[:2], dtype=torch.bool)), initial)
        return DecoderContext(self.attention.prepare(values, lengths), initial)

    def initial_state(self, context: DecoderContext) -> DecoderState:
        """Return the state before the first token."""
        values = context.memory.values
        rows, places, _ = values.shape
        return DecoderState(
            layers=context.initial,
            feed=values.new_zeros(rows, self.recurrent.output_size if self.input_feeding else 0),
            coverage=values.new_zeros(rows, places if self.coverage else 0, dtype=torch.float32),
        )

    def step(self, tokens: Tensor, state: DecoderState, context: DecoderContext) -> Step:
        """Do one step; see `Decoder.step`."""
        output, state, weights = self.advance(tokens, state, context)
        return Step(self.head(self.dropout(output)), state, weights)

    def advance(
        self, tokens: Tensor, state: DecoderState, context: DecoderContext
    ) -> tuple[Tensor, DecoderState, Tensor | None]:
        """Do one step up to the head: tokens [N] → ĥ [N, H], the state, and the weights [N, S]."""
        inputs = self.dropout(self.embedding(tokens))  # [N, E]
        if self.input_feeding:
            inputs = torch.cat([inputs, state.feed.to(inputs.dtype)], dim=-1)
        hidden, layers = self.recurrent.step(inputs, state.layers)  # [N, H]
        contexts = len(context.memory.mask)
        grouped = hidden.reshape(contexts, -1, hidden.shape[-1])  # [B, K, H]
        before = state.coverage.reshape(contexts, -1, state.coverage.shape[-1]) if self.coverage else None
        outputs, weights = self.attend(grouped, context.memory, before)
        output = outputs.reshape(hidden.shape)
        weights = None if weights is None else weights.reshape(len(hidden), -1)  # [N, S]
        state = DecoderState(
            layers=layers,
            feed=self.dropout(output) if self.input_feeding else state.feed,
            coverage=state.coverage + weights if self.coverage and weights is not None else state.coverage,
        )
        return output, state, weights

    def attend(self, hidden: Tensor, memory: Memory, coverage: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Combine layer outputs [B, T, H] with what they attend to → ĥ [B, T, H] and weights [B, T, S]."""
        if self.attention is None or self.combine is None:
            return hidden, None
        found, weights = self.attention(hidden, memory, coverage)
        return self.combine(torch.cat([found, hidden], dim=-1)).tanh(), weights

    def forward(
        self, targets: Tensor, context: DecoderContext, *, sampling: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Read the right targets and return what the head is given for each.

        Args:
            targets: [B, T] with the end, a negative number on padding.
            context: what `context` made, B rows.
            sampling: the share of tokens read that are the decoder's own best guess instead of the target
                (scheduled sampling; Bengio et al. 2015).

        Returns:
            ĥ with dropout [B, T, H] and the weights [B, T, S], None without attention.
        """
        inputs = shifted(targets, self.end_id)  # [B, T]
        state = self.initial_state(context)
        if not (self.input_feeding or self.coverage or sampling > 0):
            lengths = (targets >= 0).sum(1)  # [B]
            hidden, _ = self.recurrent(self.dropout(self.embedding(inputs)), lengths, state.layers)  # [B, T, H]
            outputs, weights = self.attend(hidden, context.memory, None)
            return self.dropout(outputs), weights
        held = hold_masks(self)
        collected, kept = [], []
        guesses = inputs[:, 0]
        for step in range(targets.shape[1]):
            tokens = inputs[:, step]
            if sampling > 0 and step > 0:
                own = torch.rand(tokens.shape, device=tokens.device) < sampling
                tokens = torch.where(own, guesses, tokens)
            output, state, step_weights = held.advance(tokens, state, context)
            if sampling > 0:
                with torch.no_grad():
                    guesses = self.head(output).argmax(-1)
            collected.append(output)
            kept.append(step_weights)
        outputs = torch.stack(collected, dim=1)  # [B, T, H]
        weights = None if kept[0] is None else torch.stack([each for each in kept if each is not None], dim=1)
        return self.dropout(outputs), weights


def shifted(targets: Tensor, start_id: int) -> Tensor:
    """Return what a decoder reads to put out targets [B, T]: the start, then all but the last; 0 for padding.

    >>> shifted(torch.tensor([[5, 6, 9], [7, 9, -100]]), 9).tolist()
    [[9, 5, 6], [9, 7, 9]]
    """
    start = torch.full_like(targets[:, :1], start_id)
    return torch.cat([start, targets[:, :-1].clamp(min=0)], dim=1)
