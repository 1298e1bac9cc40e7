"""The scores of additive attention without holding a vector for each pair of query and place.

Axes: B batch, T queries, S places, A attention size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCKS = {"cpu": 2**19}  # numbers of [rows, T, S, A] that are held at once: 2 MiB stay in a cache
BLOCK = 2**26  # the same on other devices


def additive_scores(queries: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
    """Return v · tanh(q + k) for each query and place.

    The vectors tanh(q + k) are made block by block, and made again for the gradient.

    Args:
        queries: q [B, T, A].
        keys: k [B, S, A], of the same type.
        vector: v [A].

    Returns:
        Scores [B, T, S].

    Raises:
        RuntimeError: in a second backward pass through the first (``create_graph``), whose gradient there is not.
    """
    scores: Tensor = AdditiveScores.apply(queries, keys, vector.to(queries.dtype))
    return scores


class AdditiveScores(torch.autograd.Function):
    """(q [B, T, A], k [B, S, A], v [A]) → [B, T, S]."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
        """Compute the scores; keep the arguments alone."""
        ctx.save_for_backward(queries, keys, vector)
        scores = queries.new_empty(*queries.shape[:2], keys.shape[1])
        for rows in blocks(queries, keys):
            features = squashed(queries[rows], keys[rows])  # [rows, T, S, A]
            scores[rows] = torch.mv(features.flatten(0, 2), vector).view_as(scores[rows])
        return scores

    @staticmethod
    def backward(ctx: Any, g_scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make the features again, block by block.

        Raises:
            RuntimeError: with `create_graph`, for a second derivative would silently lack this part.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("additive attention cannot be differentiated twice: do not use create_graph=True")
        queries, keys, vector = ctx.saved_tensors
        g_queries, g_keys, g_vector = torch.empty_like(queries), torch.empty_like(keys), torch.zeros_like(vector)
        for rows in blocks(queries, keys):
            features = squashed(queries[rows], keys[rows])
            grads = g_scores[rows]
            g_vector += torch.mv(features.flatten(0, 2).t(), grads.flatten())
            slopes = features.square_().neg_().add_(1).mul_(grads.unsqueeze(-1))  # (1 - tanh²) g
            g_queries[rows] = slopes.sum(2)
            g_keys[rows] = slopes.sum(1)
        return g_queries * vector, g_keys * vector, g_vector


def squashed(queries: Tensor, keys: Tensor) -> Tensor:
    """Return tanh(q + k) for each pair: [rows, T, A] and [rows, S, A] → [rows, T, S, A].

    On CPUs in float32 it is 2 σ(2x) - 1, off by 2e-7 at most: torch takes six times as long for its tanh there.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.float32 or keys.dtype != torch.float32:
        return (queries.unsqueeze(2) + keys.unsqueeze(1)).tanh_()
    return ((2 * queries).unsqueeze(2) + (2 * keys).unsqueeze(1)).sigmoid_().mul_(2).sub_(1)


def blocks(queries: Tensor, keys: Tensor) -> list[slice]:
    """Return the rows of the batch in parts that are held at once."""
    most = BLOCKS.get(queries.device.type, BLOCK)
    size = max(1, most // max(1, queries.shape[1] * keys.shape[1] * keys.shape[2]))
    return [slice(start, start + size) for start in range(0, len(queries), size)]
