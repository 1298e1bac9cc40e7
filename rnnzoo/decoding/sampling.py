"""Sampling, with noise of each row's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rnnzoo.decoding.decoder import Decoder
from rnnzoo.decoding.loop import IMPOSSIBLE, Choice, Finished, Limits, SearchLoop
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.state import State, map_state, select_rows, where

BLOCK = 128  # steps of noise that are drawn at once
NUCLEUS = 256  # the most probable tokens that are tried before all are sorted for top-p


class SampleLoop(SearchLoop):
    """Each of the n slots of a row is an independent sample, in the order in which they were drawn.

    A step uses one number of a stream that belongs to the row's seed and the sample, so a sample depends neither on
    the other rows of the batch nor on how many samples are drawn, nor on the device, but for rounding.

    Args:
        seeds: a number for each row, by which, with `options.seed`, its noise is known again.
    """

    def __init__(
        self,
        decoder: Decoder,
        context: State,
        options: SearchOptions,
        *,
        limits: Limits,
        suppressed: Tensor,
        seeds: Sequence[int],
    ) -> None:
        super().__init__(decoder, context, options, limits=limits, suppressed=suppressed)
        self.seeds = seeds
        self.noise = torch.zeros(0, dtype=torch.float32)  # [B, K, BLOCK]; torch may have another type as usual
        repeated = self.rows.ids.repeat_interleave(options.n_best)
        self.state = select_rows(self.state, repeated)
        self.tokens = self.tokens.expand(-1, options.n_best)
        self.log_probabilities = self.log_probabilities.expand(-1, options.n_best)
        if self.history is not None:
            self.history = self.history.expand(-1, options.n_best, -1)

    def choose(self, logits: Tensor, normalisers: Tensor) -> Choice:
        """Draw the next token of each slot."""
        tokens = self._draw(logits)  # [b, K]
        drawn = logits.gather(2, tokens.unsqueeze(2)).squeeze(2)
        over = self.log_probabilities == IMPOSSIBLE
        log_probabilities = (self.log_probabilities + drawn - normalisers).masked_fill(over, IMPOSSIBLE)
        is_end = tokens == self.end_id
        return Choice(
            parents=torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens),
            tokens=tokens,
            log_probabilities=log_probabilities.masked_fill(is_end, IMPOSSIBLE),
            ends=log_probabilities.masked_fill(~is_end, IMPOSSIBLE),
        )

    def distribution(self) -> Tensor:
        """Return the probabilities [b, K, V] from which the latest step drew: with temperature, top-k and top-p."""
        assert self.permitted is not None
        probabilities, ids = self._candidates(self.permitted / self.options.temperature)  # [b, K, c]
        if ids is not None:
            probabilities = torch.zeros_like(self.permitted).scatter(2, ids, probabilities.to(self.permitted.dtype))
        return probabilities / probabilities.sum(2, keepdim=True)

    def merge(self, found: Finished, new: Finished) -> Finished:
        """Put each new sample in its slot."""
        fresh = ((found.scores == IMPOSSIBLE) & (new.scores > IMPOSSIBLE)).flatten()
        chosen = where(fresh, map_state(torch.flatten, new), map_state(torch.flatten, found))
        return map_state(lambda field: field.reshape(found.scores.shape), chosen)

    def lost(self, choice: Choice, done: Tensor) -> Tensor:
        """Say which samples [b, K] cannot go on: each comes to its end alone."""
        return choice.log_probabilities == IMPOSSIBLE

    def enough(self, log_probabilities: Tensor) -> Tensor:
        """Say that every sample must come to its end."""
        return torch.zeros_like(self.rows.ids, dtype=torch.bool)

    def _draw(self, logits: Tensor) -> Tensor:
        """Draw a token for each slot [b, K], where none is possible any of them."""
        probabilities, ids = self._candidates(logits / self.options.temperature)  # [b, K, c]
        sums = probabilities.cumsum(2)
        noise = self._numbers().to(sums).clamp(max=1 - torch.finfo(sums.dtype).eps)
        beyond = (sums > (noise * sums[..., -1]).unsqueeze(2)) & (probabilities > 0)
        places = beyond.byte().argmax(2)  # the first
        return places if ids is None else ids.gather(2, places.unsqueeze(2)).squeeze(2)

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities [b, K, c] to draw from, and the tokens they belong to; None where c is V."""
        options, vocabulary = self.options, logits.shape[2]
        if options.top_k == 0 and options.top_p == 1:
            return logits.softmax(2), None
        count = min(options.top_k or NUCLEUS, vocabulary)
        best, ids = logits.topk(count)
        whole = best if options.top_k > 0 else logits
        probabilities = (best - whole.logsumexp(2, keepdim=True)).exp()
        if options.top_p < 1:
            if options.top_k == 0 and count < vocabulary and bool((probabilities.sum(2) < options.top_p).any()):
                probabilities, ids = logits.softmax(2).sort(dim=2, descending=True, stable=True)
            above = probabilities.cumsum(2) - probabilities  # what the more probable ones have together
            probabilities = probabilities.masked_fill(above >= options.top_p, 0.0)
        return probabilities, ids

    def _numbers(self) -> Tensor:
        """Return the noise of this step [b, K], uniform in [0, 1)."""
        block, place = divmod(self.length, BLOCK)
        if place == 0:
            self.noise = torch.zeros(len(self.seeds), self.options.n_best, BLOCK, dtype=torch.float32)
            for row in self.rows.ids.tolist():
                for sample in range(self.options.n_best):
                    self.noise[row, sample] = noise(self.options.seed, self.seeds[row], sample, block)
            self.noise = self.noise.to(self.tokens.device)
        return self.noise[self.rows.ids, :, place]


def content_seeds(rows: Iterable[Tensor]) -> list[int]:
    """Return a seed for each row that is a checksum of its numbers: equal rows have equal seeds, in any batch.

    Args:
        rows: what a decoder is given of each sample, without padding.
    """
    return [content_seed(row) for row in rows]


def content_seed(row: Tensor) -> int:
    """Return the checksum of a tensor, whatever its device."""
    numbers = row.detach().cpu().contiguous()
    return int.from_bytes(hashlib.blake2b(numbers.view(torch.uint8).numpy().tobytes(), digest_size=8).digest(), "big")


def noise(*names: int) -> Tensor:
    """Return `BLOCK` numbers, uniform in [0, 1), that are always the same for the same names."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    return torch.rand(BLOCK, generator=generator, dtype=torch.float32)
