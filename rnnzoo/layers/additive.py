"""The scores of additive attention without holding a vector for each pair of query and place.

Axes: B batch, T queries, S places, A attention size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnnzoo.numerics import wide, widen

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
    dtype = queries.dtype
    if queries.device.type == "cpu":  # functions of narrow numbers take longer there, and sums of them lose digits
        queries, keys = widen(queries), widen(keys)
    scores: Tensor = AdditiveScores.apply(queries, keys, vector.to(queries.dtype))
    return scores.to(dtype)


class AdditiveScores(torch.autograd.Function):
    """(q [B, T, A], k [B, S, A], v [A]) → [B, T, S].

    On CPUs in float32 tanh(x) is 2 σ(2x) - 1, off by 2e-7 at most: torch takes six times as long for its tanh there.
    Only σ is held then, and the rest is done to the sums.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
        """Compute the scores; keep the arguments alone."""
        ctx.save_for_backward(queries, keys, vector)
        scores = queries.new_empty(*queries.shape[:2], keys.shape[1])
        by_sigmoid = tanh_is_slow(queries)
        for rows in blocks(queries, keys):
            features = squashed(queries[rows], keys[rows], by_sigmoid)  # [rows, T, S, A]
            scores[rows] = torch.mv(features.flatten(0, 2), vector).view_as(scores[rows])
        return scores.mul_(2).sub_(vector.sum()) if by_sigmoid else scores

    @staticmethod
    def backward(ctx: Any, g_scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make the features again, block by block.

        Raises:
            RuntimeError: with `create_graph`, for a second derivative would silently lack this part.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("additive attention cannot be differentiated twice: do not use create_graph=True")
        queries, keys, vector = ctx.saved_tensors
        by_sigmoid = tanh_is_slow(queries)
        backward = torch.ops.aten.sigmoid_backward if by_sigmoid else torch.ops.aten.tanh_backward
        g_queries, g_keys = torch.empty_like(queries), torch.empty_like(keys)
        g_vector = torch.zeros_like(vector, dtype=wide(vector.dtype))  # a sum over blocks
        for rows in blocks(queries, keys):
            features = squashed(queries[rows], keys[rows], by_sigmoid)
            grads = g_scores[rows]
            g_vector += torch.mv(features.flatten(0, 2).t(), grads.flatten())
            slopes = backward(grads.unsqueeze(-1), features)
            g_queries[rows] = slopes.sum(2)
            g_keys[rows] = slopes[:, 0] if slopes.shape[1] == 1 else slopes.sum(1)
        if by_sigmoid:
            vector = 4 * vector
            g_vector = 2 * g_vector - g_scores.sum()
        return g_queries * vector, g_keys * vector, g_vector.to(vector.dtype)


def tanh_is_slow(values: Tensor) -> bool:
    """Return whether a sigmoid takes much less time, and is as exact."""
    return values.device.type == "cpu" and values.dtype == torch.float32


def squashed(queries: Tensor, keys: Tensor, by_sigmoid: bool) -> Tensor:
    """Return tanh(q + k), or σ(2 (q + k)), for each pair: [rows, T, A] and [rows, S, A] → [rows, T, S, A]."""
    if by_sigmoid:
        return torch.add(2 * queries.unsqueeze(2), keys.unsqueeze(1), alpha=2).sigmoid_()
    return (queries.unsqueeze(2) + keys.unsqueeze(1)).tanh_()


def blocks(queries: Tensor, keys: Tensor) -> list[slice]:
    """Return the rows of the batch in parts that are held at once."""
    most = BLOCKS.get(queries.device.type, BLOCK)
    size = max(1, most // max(1, queries.shape[1] * keys.shape[1] * keys.shape[2]))
    return [slice(start, start + size) for start in range(0, len(queries), size)]
