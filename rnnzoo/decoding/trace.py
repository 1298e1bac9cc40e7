"""What a search leaves behind: the tokens of each step with pointers back, and the hypotheses read from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """A sequence that was found.

    Args:
        tokens: its ids, a forced prefix included, without the end.
        score: what it was ranked by; see `SearchOptions`.
        log_probability: log p in nats of the tokens, and of the end if it ended, as the model gives it.
        finished: whether it ended; one that did not was cut off at its greatest length, or nothing could follow.
        weights: [T, S] the attention paid to each place of the memory for each token; None without attention.
    """

    tokens: list[int]
    score: float
    log_probability: float
    finished: bool
    weights: Tensor | None = None


class Trace:
    """The tokens that the slots of a beam took, step by step, each with the slot before that it continues.

    Rows leave a search when they are done, so a step has fewer rows than the one before; `rows` says which.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []  # [b], ascending
        self._tokens: list[Tensor] = []  # [b, K]
        self._parents: list[Tensor] = []  # [b, K]
        self._weights: list[Tensor | None] = []  # [b, K of the step before, S]

    def add(self, rows: Tensor, parents: Tensor, tokens: Tensor, weights: Tensor | None) -> None:
        """Keep a step."""
        self._rows.append(rows)
        self._parents.append(parents)
        self._tokens.append(tokens)
        self._weights.append(weights)

    def read(self, rows: Tensor, slots: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Follow the pointers back from the slots [H] after `lengths` [H] steps of the rows [H].

        Returns:
            Tokens [H, T] and attention weights [H, T, S], zeros past each length; no weights without attention.
        """
        steps = int(lengths.max()) if len(lengths) else 0
        tokens = rows.new_zeros(len(rows), steps)
        attended = self._weights[0] if self._weights else None
        weights = None if attended is None else attended.new_zeros(len(rows), steps, attended.shape[-1])
        for step in reversed(range(steps)):
            valid = lengths > step
            place = torch.searchsorted(self._rows[step], rows).clamp(max=len(self._rows[step]) - 1)
            slots = slots.clamp(max=self._tokens[step].shape[1] - 1)
            tokens[:, step] = torch.where(valid, self._tokens[step][place, slots], 0)
            parents = self._parents[step][place, slots]
            attended = self._weights[step]
            if weights is not None and attended is not None:
                weights[:, step] = torch.where(valid.unsqueeze(1), attended[place, parents], 0.0)
            slots = torch.where(valid, parents, slots)
        return tokens, weights
