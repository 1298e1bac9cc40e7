"""How well running text is predicted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rnnzoo.metrics.base import SampleMetric, ratio


class LanguageModelLoss(SampleMetric):
    """The negative log-likelihood of a stream, per token, character and word.

    A total over the whole stream is divided once; neither chunks nor batches nor processes change it.

    >>> loss = LanguageModelLoss()
    >>> counts = torch.tensor([2]), torch.tensor([4]), torch.tensor([1])
    >>> loss.update(torch.tensor([0]), torch.tensor([4.0]), *counts, torch.tensor([True]))
    >>> values = loss.compute()
    >>> float(values["loss"]), round(float(values["perplexity"]), 4)
    (2.0, 7.3891)
    """

    def __init__(self) -> None:
        super().__init__(width=5)

    def update(
        self, ids: Tensor, totals: Tensor, tokens: Tensor, characters: Tensor, words: Tensor, begins: Tensor
    ) -> None:
        """Add chunks of lanes.

        Args:
            ids: [B] place in the stream of each chunk's first token.
            totals: [B] negative log-likelihood in nats.
            tokens: [B] predicted tokens; a chunk without any is left out.
            characters: [B] characters of the raw text that they stand for.
            words: [B] words that they stand for.
            begins: [B] whether the lane begins here.
        """
        numbers = torch.stack([each.double() for each in (totals, tokens, characters, words, begins)], dim=1)  # [B, 5]
        there = tokens > 0  # the next lane's first token has the id of an empty chunk at the end of a lane
        self.update_rows(ids[there], numbers[there])

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return nats and perplexity per token, bits per character, perplexity per word."""
        total, tokens, characters, words, _ = sums
        loss = ratio(total, tokens)
        return {
            "loss": loss,
            "perplexity": loss.exp(),
            "bits_per_character": ratio(total, characters) / math.log(2),
            "word_perplexity": ratio(total, words).exp(),
        }

    @property
    def definitions(self) -> dict[str, str]:
        """What the values are, with the counts of the latest `compute`."""
        if self.latest_sums is None:
            tokens = characters = words = lanes = "all"
        else:
            tokens, characters, words, lanes = (f"{int(count):,}" for count in self.latest_sums[1:].tolist())
        read = "in one lane" if lanes == "1" else f"in {lanes} lanes that each begin without a past"
        return {
            "loss": f"negative log-likelihood in nats of the whole text over its {tokens} tokens, end tokens included; "
            f"an unknown token counts as the token <unk>; the text was read {read}",
            "perplexity": f"exp of the loss: per token, of {tokens}",
            "bits_per_character": f"negative log-likelihood in bits over the {characters} characters of the raw text, "
            "line ends included",
            "word_perplexity": f"exp of the negative log-likelihood in nats over {words} words: what stands between "
            "white space, and each line end (or end token) as one more",
        }
