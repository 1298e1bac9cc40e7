"""Caption decoders that look at another place of the image for each word.

Axes as in `rnnzoo.decoders.visual`; K rows for each image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.decoders.hard_attention import HardChoice
from rnnzoo.decoders.visual import Glance, VisualContext, VisualDecoder, masked_mean, region_mask, top_hidden
from rnnzoo.layers.attention import Attention, masked_softmax
from rnnzoo.layers.embedding import WordEmbedding
from rnnzoo.layers.initial_state import InitialState
from rnnzoo.layers.recurrent import Recurrent, States
from rnnzoo.layers.vocabulary import VocabularyHead


class GazeState(NamedTuple):
    """What a `GazeDecoder` carries from step to step. N rows."""

    layers: States
    expected: Tensor  # [N] bool, whether a caption takes weighted means instead of single places


class GazeDecoder(VisualDecoder):
    """Show, Attend and Tell: attention with the last hidden vector, then a step of the recurrent layers.

        α_t = softmax(f_att(h_{t-1}, a))        ẑ_t = Σ_l α_tl a_l    (soft), or a_s with s ~ α_t    (hard)
        β_t = σ(f_β(h_{t-1}))                   h_t = RNN([E y_{t-1}; β_t ẑ_t], h_{t-1})
        p(y_t) ∝ exp(L_o tanh(E y_{t-1} + L_h h_t + L_z β_t ẑ_t))

    The first state is tanh(W_x ā + b_x) for each field x of the state (h, and c where the cell has one) of each layer,
    where ā is the mean of the grid. Teacher forcing goes step by step, since each look depends on the word before.

    Args:
        embedding: vectors of tokens.
        recurrent: layers of one direction, with inputs of E + M numbers.
        attention: with queries of H numbers and a memory of M.
        head: logits from E numbers with `deep_output`, else from H.
        choice: hard attention; None for soft.
        gate: whether β_t is learnt; 1 if not.
        deep_output: whether the word before and the place enter the output too; if not, p(y_t) = softmax(head(h_t)).
        dropout: on token vectors, on h_t in the output, and before the logits.

    Source: Xu et al. 2015, "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention". The tanh in
    the output and in the first state is that of the authors' code; the paper has none in its equation (7).
    """

    def __init__(
        self,
        *,
        embedding: WordEmbedding,
        recurrent: Recurrent,
        attention: Attention,
        head: VocabularyHead,
        choice: HardChoice | None = None,
        gate: bool = True,
        deep_output: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding=embedding, head=head, dropout=dropout)
        self.recurrent = recurrent
        self.attention = attention
        self.choice = choice
        self.start = InitialState(input_size=attention.memory_size, recurrent=recurrent)
        self.gate = nn.Linear(attention.query_size, 1) if gate else None
        self.hidden_output: nn.Linear | None = None
        self.place_output: nn.Linear | None = None
        if deep_output:
            self.hidden_output = nn.Linear(recurrent.output_size, embedding.size)
            self.place_output = nn.Linear(attention.memory_size, embedding.size, bias=False)

    def context(self, regions: Tensor, counts: Tensor | None) -> VisualContext:
        """Compute keys and mean of the regions."""
        return VisualContext(
            self.attention.prepare(regions, counts), masked_mean(regions, region_mask(regions, counts))
        )

    def initial_state(self, context: VisualContext) -> GazeState:
        """Return the state that the mean of the grid makes; hard attention decides which captions draw places."""
        rows = len(context.mean)
        if self.choice is None:
            expected = torch.ones(rows, dtype=torch.bool, device=context.mean.device)
        else:
            expected = self.choice.expected(rows, context.mean.device)
        return GazeState(self.start(context.mean), expected)

    def advance(
        self, vectors: Tensor, state: GazeState, context: VisualContext, places: Tensor | None = None
    ) -> Glance:
        """Look, then read."""
        query = top_hidden(state.layers)  # [N, H]
        weights = attend(self.attention, query, context)  # [N, L]
        used = weights
        if self.choice is not None:
            used, places = self.choice(weights, state.expected, places)
        found = weighted_mean(used, context)  # [N, M]
        if self.gate is not None:
            found = torch.sigmoid(self.gate(query)) * found
        hidden, layers = self.recurrent.step(torch.cat([vectors, found], dim=-1), state.layers)  # [N, H]
        return Glance(hidden, found, GazeState(layers, state.expected), weights, places)

    def finish(self, vectors: Tensor, hidden: Tensor, found: Tensor) -> Tensor:
        """Return the deep output [·, E], or the hidden vectors [·, H] without it."""
        hidden = self.dropout(hidden)
        if self.hidden_output is None or self.place_output is None:
            return hidden
        return self.dropout((vectors + self.hidden_output(hidden) + self.place_output(found)).tanh())


class TopDownState(NamedTuple):
    """What a `TopDownDecoder` carries from step to step. N rows."""

    attention: States
    language: States


class TopDownDecoder(VisualDecoder):
    """Two recurrent layers with the attention between them.

        h¹_t = RNN¹([h²_{t-1}; v̄; E y_{t-1}], h¹_{t-1})
        v̂_t = Σ_l α_tl v_l  with  α_t = softmax(f_att(h¹_t, v))
        h²_t = RNN²([v̂_t; h¹_t], h²_{t-1})
        p(y_t) = softmax(head(h²_t))

    where v̄ is the mean of the regions. Teacher forcing goes step by step, since the first layer reads the second's
    last output.

    Args:
        embedding: vectors of tokens.
        first: RNN¹, of one layer, with inputs of H + M + E numbers.
        second: RNN², of one layer, with inputs of M + H numbers.
        attention: with queries of H numbers and a memory of M.
        head: logits from H numbers.
        dropout: on token vectors, and before the logits.

    Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention for Image Captioning and Visual Question
    Answering"; any cell instead of the LSTM.
    """

    def __init__(
        self,
        *,
        embedding: WordEmbedding,
        first: Recurrent,
        second: Recurrent,
        attention: Attention,
        head: VocabularyHead,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding=embedding, head=head, dropout=dropout)
        self.first = first
        self.second = second
        self.attention = attention

    def context(self, regions: Tensor, counts: Tensor | None) -> VisualContext:
        """Compute keys and mean of the regions."""
        return VisualContext(
            self.attention.prepare(regions, counts), masked_mean(regions, region_mask(regions, counts))
        )

    def initial_state(self, context: VisualContext) -> TopDownState:
        """Return the initial states of both layers."""
        rows = len(context.mean)
        return TopDownState(self.first.initial_state(rows), self.second.initial_state(rows))

    def advance(
        self, vectors: Tensor, state: TopDownState, context: VisualContext, places: Tensor | None = None
    ) -> Glance:
        """Do a step of the first layer, look, and do a step of the second."""
        rows = len(vectors) // len(context.mean)  # K
        mean = context.mean if rows == 1 else context.mean.repeat_interleave(rows, dim=0)  # [N, M]
        query, attention = self.first.step(
            torch.cat([top_hidden(state.language), mean, vectors], dim=-1), state.attention
        )
        weights = attend(self.attention, query, context)  # [N, L]
        found = weighted_mean(weights, context)  # [N, M]
        hidden, language = self.second.step(torch.cat([found, query], dim=-1), state.language)  # [N, H]
        return Glance(hidden, found[:, :0], TopDownState(attention, language), weights)


def attend(attention: Attention, queries: Tensor, context: VisualContext) -> Tensor:
    """Return the weights [N, L] of each place of its image for queries [N, Q]."""
    memory = context.memory
    images = len(memory.mask)
    grouped = queries.reshape(images, len(queries) // images, queries.shape[-1])  # [B, K, Q]
    return masked_softmax(attention.scores(grouped, memory.keys, None), memory.mask).reshape(len(queries), -1)


def weighted_mean(weights: Tensor, context: VisualContext) -> Tensor:
    """Return Σ_l w_l a_l [N, M] of the values of each row's image with weights [N, L]."""
    values = context.memory.values  # [B, L, M]
    grouped = weights.reshape(len(values), len(weights) // len(values), -1)  # [B, K, L]
    return torch.bmm(grouped.to(values.dtype), values).reshape(len(weights), -1)
