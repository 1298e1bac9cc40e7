"""Attention: for each query, a weighted mean of the vectors of a memory.

Axes: B batch, T queries, S places of the memory, Q query size, M memory size, A attention size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.errors import InputError
from rnnzoo.layers.additive import additive_scores
from rnnzoo.lengths import length_mask
from rnnzoo.registry import Registry

ATTENTIONS = Registry("attention")
ATTENTIONS.add("additive", "rnnzoo.layers.attention:AdditiveAttention", "v · tanh(W q + U m)", source="Bahdanau 2015")
ATTENTIONS.add("dot", "rnnzoo.layers.attention:DotAttention", "q · m", source="Luong et al. 2015")
ATTENTIONS.add("general", "rnnzoo.layers.attention:GeneralAttention", "q · W m", source="Luong et al. 2015")


class Memory(NamedTuple):
    """What is attended to, with everything that does not depend on the query computed once."""

    keys: Tensor  # [B, S, A]
    values: Tensor  # [B, S, M]
    mask: Tensor  # [B, S] bool, true on valid places


class Attention(nn.Module, ABC):
    """Scores of the places of a memory for a query, as weights that are zero on padding and sum to one elsewhere.

    A row without any valid place has weights of zero, never NaN. Scores are masked and normalised in float32.

    Args:
        query_size: Q.
        memory_size: M.

    >>> attention = DotAttention(query_size=4, memory_size=4)
    >>> memory = attention.prepare(torch.ones(2, 3, 4), torch.tensor([2, 0]))
    >>> attention(torch.ones(2, 1, 4), memory)[1].tolist()
    [[[0.5, 0.5, 0.0]], [[0.0, 0.0, 0.0]]]
    """

    def __init__(self, *, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query_size = query_size
        self.memory_size = memory_size

    @abstractmethod
    def keys(self, values: Tensor) -> Tensor:
        """Compute what does not depend on the query: [B, S, M] → [B, S, A]."""

    @abstractmethod
    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """Score each place for each query: queries [B, T, Q], keys [B, S, A], coverage [B, T, S] → [B, T, S]."""

    def prepare(self, values: Tensor, lengths: Tensor | None) -> Memory:
        """Make the memory of `values` [B, S, M] with `lengths` [B] valid places; None means S for all."""
        if lengths is None:
            mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        else:
            mask = length_mask(lengths, values.shape[1])
        return Memory(self.keys(values), values, mask)

    def forward(self, queries: Tensor, memory: Memory, coverage: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend with each query alone.

        Args:
            queries: [B, T, Q].
            memory: what `prepare` made.
            coverage: [B, T, S], how much each place was attended to before; only for attention that takes it.

        Returns:
            The weighted means [B, T, M] and the weights [B, T, S].
        """
        weights = masked_softmax(self.scores(queries, memory.keys, coverage), memory.mask)  # [B, T, S]
        return torch.bmm(weights.to(memory.values.dtype), memory.values), weights


class AdditiveAttention(Attention):
    """Score v · tanh(W q + U m + b), with ``coverage`` also + w c_s (See et al. 2017).

    Args:
        query_size: Q.
        memory_size: M.
        size: A; None takes Q.
        coverage: whether the sum of earlier weights enters the score.

    Source: Bahdanau, Cho & Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate".
    """

    def __init__(self, *, query_size: int, memory_size: int, size: int | None = None, coverage: bool = False) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        size = size or query_size
        self.query = nn.Linear(query_size, size)
        self.memory = nn.Linear(memory_size, size, bias=False)
        self.coverage = nn.Linear(1, size, bias=False) if coverage else None
        self.vector = ScoreVector(size)

    def keys(self, values: Tensor) -> Tensor:
        """Map the memory by U."""
        return self.memory(values)

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """The product of v with tanh(W q + U m (+ w c))."""
        queries = self.query(queries)  # [B, T, A]
        if self.coverage is None:
            scores: Tensor = self.vector(queries, keys.to(queries.dtype))
            return scores
        assert coverage is not None
        features = queries.unsqueeze(2) + keys.unsqueeze(1)  # [B, T, S, A]
        features = features + self.coverage(coverage.unsqueeze(-1).to(features.dtype))
        return self.vector(features.tanh()).squeeze(-1)


class ScoreVector(nn.Linear):
    """The vector v of additive attention: [..., A] → [..., 1].

    Args:
        size: A.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, 1, bias=False)

    def forward(self, queries: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return v · q; with keys [B, S, A], v · tanh(q + k) [B, T, S] of queries [B, T, A], see `additive_scores`."""
        return super().forward(queries) if keys is None else additive_scores(queries, keys, self.weight[0])


class DotAttention(Attention):
    """Score q · m; queries and memory have the same size.

    Raises:
        InputError: if they have not.

    Source: Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation".
    """

    def __init__(self, *, query_size: int, memory_size: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        if query_size != memory_size:
            raise InputError(
                "attention dot",
                expected="a decoder as wide as the encoder's output",
                got=f"{query_size} and {memory_size} units",
                fix="use general attention, or other sizes",
            )

    def keys(self, values: Tensor) -> Tensor:
        """The memory itself."""
        return values

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """The product of query and memory."""
        return torch.bmm(queries, keys.transpose(1, 2))


class GeneralAttention(Attention):
    """Score q · W m.

    Source: Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation".
    """

    def __init__(self, *, query_size: int, memory_size: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        self.memory = nn.Linear(memory_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """Map the memory by W."""
        return self.memory(values)

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """The product of the query with W m."""
        return torch.bmm(queries, keys.transpose(1, 2))


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Normalise scores [B, T, S] over the places where `mask` [B, S] is true, in float32; 0 elsewhere."""
    mask = mask.unsqueeze(1)  # [B, 1, S]
    scores = scores if scores.dtype == torch.float64 else scores.float()
    masked = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return masked.softmax(-1).masked_fill(~mask, 0.0)
