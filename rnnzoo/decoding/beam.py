"""Beam search; with one hypothesis it is the greedy one."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnzoo.decoding.loop import IMPOSSIBLE, Choice, Finished, SearchLoop
from rnnzoo.state import map_state


class BeamLoop(SearchLoop):
    """The K most probable beginnings are followed.

    Of all continuations of all hypotheses of a row, an end that is among the best K leaves the beam as a hypothesis;
    the best K that do not end go on. So the beam stays full, and no end is taken that a greedy choice would not take
    in a beam of one. At first there is one hypothesis, and the beam widens as there are more.

    A row is done when K hypotheses have ended, or when none that could still grow can become better than the worst of
    the n best that ended: log p only falls, so its score is at most log p / lp(greatest length), with full coverage.
    """

    def choose(self, logits: Tensor, normalisers: Tensor) -> Choice:
        """Take the best continuations over all slots of a row."""
        size = 1 if self.options.method == "greedy" else self.options.beam_size
        rows, width, vocabulary = logits.shape
        count = min(size + 1, vocabulary)  # one more than can go on, since one may be the end
        best, tokens = logits.topk(count)  # [b, K, c]
        scores = self.log_probabilities.unsqueeze(2) + best - normalisers.unsqueeze(2)  # [b, K, c]
        empty = (self.log_probabilities == IMPOSSIBLE).unsqueeze(2)
        scores = scores.masked_fill(empty, IMPOSSIBLE).flatten(1)  # [b, K · c]
        is_end = tokens.flatten(1) == self.end_id
        among = torch.zeros_like(is_end).scatter_(1, scores.topk(min(size, width * count)).indices, True)
        ends = scores.masked_fill(~(is_end & among), IMPOSSIBLE).reshape(rows, width, count).amax(2)
        going = 1 if self.length < self.all_forced else min(size, width * count)
        log_probabilities, places = scores.masked_fill(is_end, IMPOSSIBLE).topk(going)  # [b, K]
        return Choice(places // count, tokens.flatten(1).gather(1, places), log_probabilities, ends)

    def merge(self, found: Finished, new: Finished) -> Finished:
        """Keep the n best; those that ended come before those that did not."""
        both = map_state(lambda *fields: torch.cat(fields, 1), found, new)
        order = both.scores.argsort(stable=True, dim=1, descending=True)
        rank = torch.where(both.scores > IMPOSSIBLE, 1 + both.finished.long(), 0).gather(1, order)
        order = order.gather(1, rank.argsort(stable=True, dim=1, descending=True))[:, : self.options.n_best]
        return map_state(lambda field: field.gather(1, order), both)

    def lost(self, choice: Choice, done: Tensor) -> Tensor:
        """Say which hypotheses [b, K] are cut off: all of a row that is done."""
        return done.unsqueeze(1).expand_as(choice.ends)

    def enough(self, log_probabilities: Tensor) -> Tensor:
        """Say which rows are done; see the class."""
        size = 1 if self.options.method == "greedy" else self.options.beam_size
        penalties = self.options.length_penalties((self.rows.limits.most + 1).to(log_probabilities.dtype))
        bound = log_probabilities.amax(1) / penalties  # [b]
        found = self.rows.found
        worst = found.scores.masked_fill(~found.finished, IMPOSSIBLE).amin(1)
        return (self.rows.ended >= size) | (worst >= bound)
