"""Linear-chain conditional random field over right-padded sequences.

score(y) = s_{y_1} + Σ_t e_{t,y_t} + Σ_t A_{y_{t-1},y_t} + z_{y_T},   p(y) = exp(score(y)) / Σ_{y'} exp(score(y'))

All sums over tag sequences are in float32, or float64 if the emissions are. Axes: B batch, T time, C tags.

Source: Lafferty, McCallum & Pereira 2001; as an output layer of recurrent networks: Lample et al. 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnzoo.batches import IGNORED
from rnnzoo.layers.calls import CalledByMethods, as_call
from rnnzoo.lengths import length_mask
from rnnzoo.numerics import widen

Allowed = tuple[list[bool], list[list[bool]], list[bool]]  # which tags may begin [C], follow each other [C, C], end [C]
FORBIDDEN = -1e4  # the score of what cannot be: low enough to vanish, finite so that gradients stay so


class CRF(CalledByMethods):
    """A linear-chain CRF.

    Args:
        num_tags: C.
        allowed: transitions that may occur; the others are given no probability. None allows all.

    >>> crf = CRF(num_tags=3)
    >>> crf.decode(torch.zeros(2, 4, 3), torch.tensor([4, 2])).shape
    torch.Size([2, 4])
    """

    start_penalty: Tensor
    transition_penalty: Tensor
    end_penalty: Tensor

    def __init__(self, *, num_tags: int, allowed: Allowed | None = None) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        names = ("start_penalty", "transition_penalty", "end_penalty")
        for name, mask in zip(names, allowed or (None, None, None), strict=True):
            penalty = (
                torch.zeros(()) if mask is None else (~torch.as_tensor(mask, dtype=torch.bool)).float() * FORBIDDEN
            )
            self.register_buffer(name, penalty, persistent=False)

    @as_call
    def negative_log_likelihood(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return -log p(tags) of each sequence in nats [B]; 0 for a sequence of length 0.

        Args:
            emissions: [B, T, C].
            tags: [B, T]; at a valid position a negative tag is unknown, and all its possible values are summed over.
            lengths: [B].
        """
        emissions = widen(emissions)
        # All paths relative to the given one: of a long row, large sums would leave no digits of their difference.
        relative = emissions - self._local_scores(emissions, tags, lengths).unsqueeze(-1)
        total = self._log_partition(relative, lengths)
        if bool(((tags < 0) & length_mask(lengths, tags.shape[1])).any()):
            # A sequence with the tags known is the same sum over paths, with all other paths shut.
            wanted = tags.unsqueeze(-1) == torch.arange(emissions.shape[-1], device=tags.device)  # [B, T, C]
            wanted = wanted | (tags < 0).unsqueeze(-1)
            total = total - self._log_partition(torch.where(wanted, relative, relative + FORBIDDEN * 10), lengths)
        return torch.where(lengths > 0, total, 0.0)

    @as_call
    @torch.no_grad()
    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return the most probable tags [B, T] (Viterbi); IGNORED at and past each row's length."""
        emissions = widen(emissions)
        steps = emissions.shape[1]
        start, transitions, end = self._scores()
        if steps == 0:
            return emissions.new_zeros(emissions.shape[:2], dtype=torch.long)
        score = start + emissions[:, 0]  # [B, C]
        back = []
        for t in range(1, steps):
            best, origin = (score.unsqueeze(2) + transitions).max(1)  # [B, C]
            score = torch.where((t < lengths).unsqueeze(1), best + emissions[:, t], score)
            back.append(origin)
        tag = (score + end).argmax(1)  # [B]
        found = torch.full(emissions.shape[:2], IGNORED, dtype=torch.long, device=emissions.device)
        for t in range(steps - 1, -1, -1):
            valid = t < lengths
            found[:, t] = torch.where(valid, tag, IGNORED)
            if t > 0:
                tag = torch.where(valid, back[t - 1].gather(1, tag.unsqueeze(1)).squeeze(1), tag)
        return found

    @as_call
    def marginals(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return p(y_t = c) of each position [B, T, C]; zeros at and past each row's length."""
        if emissions.shape[1] == 0:
            return torch.zeros_like(widen(emissions))
        with torch.inference_mode(False), torch.enable_grad():  # trainers predict in inference mode
            # The derivative of log Z by an emission is the probability of its tag.
            leaves = widen(emissions.detach().clone()).requires_grad_()
            lengths = lengths.clone()
            total = self._log_partition(leaves, lengths).sum()
            (probabilities,) = torch.autograd.grad(total, leaves)
        return probabilities

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            widen(self.start) + self.start_penalty,
            widen(self.transitions) + self.transition_penalty,
            widen(self.end) + self.end_penalty,
        )

    def _log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return log Z of each sequence [B]; 0 for a sequence of length 0."""
        start, transitions, end = self._scores()
        if emissions.shape[1] == 0:
            return emissions.new_zeros(emissions.shape[0])
        score = start + emissions[:, 0]  # [B, C]
        for t in range(1, emissions.shape[1]):
            after = torch.logsumexp(score.unsqueeze(2) + transitions, 1) + emissions[:, t]
            score = torch.where((t < lengths).unsqueeze(1), after, score)
        return torch.where(lengths > 0, torch.logsumexp(score + end, 1), 0.0)

    def _local_scores(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return what each step adds to the score of the given tags [B, T]; of unknown ones about as much."""
        if tags.shape[1] == 0:
            return emissions.new_zeros(tags.shape)
        start, transitions, end = self._scores()
        known = tags >= 0
        tags = torch.where(known, tags, emissions.argmax(-1))
        entered = torch.cat([start[tags[:, :1]], transitions[tags[:, :-1], tags[:, 1:]]], dim=1)  # [B, T]
        linked = torch.cat([known[:, :1], known[:, 1:] & known[:, :-1]], dim=1)
        steps = torch.arange(tags.shape[1], device=tags.device)
        ends = known & (steps == lengths.unsqueeze(1) - 1)
        found = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)
        return found + torch.where(linked, entered, 0.0) + torch.where(ends, end[tags], 0.0)
