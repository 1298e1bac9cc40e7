"""Self-critical training: captions that a model samples itself are rewarded by their CIDEr-D.

Axes: B images, K samples of each, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rnnzoo.batches import IGNORED
from rnnzoo.decoders.visual import VisualContext, VisualDecoder
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.decoding.search import search
from rnnzoo.decoding.trace import Hypothesis
from rnnzoo.metrics.cider import CiderD
from rnnzoo.models.caption_options import SelfCriticalOptions
from rnnzoo.models.losses import Objective, RegularisedObjective
from rnnzoo.state import detach, select_rows
from rnnzoo.text.tokenizer import UNKNOWN_ID, Tokenizer

NOTHING = -1  # in the place of an unknown token, so that it matches no word


class SelfCritical:
    """The policy gradient of CIDEr-D with a baseline of the model's own.

        L = -Σ_k (r_k - b_k) Σ_t log p(w_kt)

    for K captions w_k that are sampled of each image, where r is the CIDEr-D of a caption against the references of
    its image. The baseline b is the reward of the greedy caption (``greedy``, Rennie et al.), or the mean reward of
    the other samples (``others``, Luo). Captions and references are ids of tokens with the end, so that a caption is
    rewarded for ending where people do; one that does not end gets no such reward. Document frequencies are those of
    the training references.

    Samples are drawn, and their probabilities computed again with gradient, in evaluation mode: the distribution that
    is improved is the one that answers.

    Args:
        options: see `SelfCriticalOptions`.
        tokenizer: what makes ids of references.
        corpus: the references of each training image.

    Source: Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning"; Luo 2020, "A Better Variant of
    Self-Critical Sequence Training".
    """

    def __init__(self, *, options: SelfCriticalOptions, tokenizer: Tokenizer, corpus: Iterable[Sequence[str]]) -> None:
        self.options = options
        self.tokenizer = tokenizer
        self.scorer = CiderD(self.tokens(texts) for texts in corpus)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return texts as ids, with the end."""
        return [[*ids, self.tokenizer.end_id] for ids in self.tokenizer.encode_many(list(texts))]

    def objective(
        self,
        decoder: VisualDecoder,
        context: VisualContext,
        references: Sequence[Sequence[str]],
        *,
        ids: Sequence[int],
        seed: int,
        longest: int,
    ) -> Objective:
        """Return the loss of a batch, and the number of tokens sampled.

        Args:
            decoder: the decoder, in evaluation mode.
            context: of B images, with gradient.
            references: of B images.
            ids: of B images; with the seed they decide what is sampled.
            seed: another one in each step.
            longest: tokens of a caption.
        """
        count = self.options.samples
        options = SearchOptions(method="sample", n_best=count, seed=seed, max_length=longest)
        sampled = search(decoder, detach(context), options, seeds=ids)  # B lists of K
        rewards = self.rewards([each for row in sampled for each in row], references)  # [B, K]
        if self.options.baseline == "greedy":
            greedy = search(decoder, detach(context), SearchOptions(method="greedy", max_length=longest))
            baselines = self.rewards([row[0] for row in greedy], references)  # [B, 1]
        else:
            baselines = (rewards.sum(1, keepdim=True) - rewards) / (count - 1)  # [B, K]
        device = context.mean.device
        advantages = (rewards - baselines).flatten().to(device)  # [B · K]
        targets = padded([self.with_end(each) for row in sampled for each in row]).to(device)  # [B · K, T]
        rows = torch.arange(len(sampled), device=device).repeat_interleave(count)
        reading = decoder(targets, select_rows(context, rows))
        logs = decoder.head.log_likelihoods(reading.hidden, targets).sum(1)  # [B · K]
        total = -(advantages.to(logs.dtype) * logs).sum()
        return RegularisedObjective(total, (targets >= 0).sum().to(logs.dtype), None)

    def rewards(self, hypotheses: Sequence[Hypothesis], references: Sequence[Sequence[str]]) -> Tensor:
        """Return the CIDEr-D of the same number of hypotheses for each of B images, [B, ·]."""
        count = len(hypotheses) // len(references)
        texts = [self.tokens(each) for each in references]
        captions = [[NOTHING if id == UNKNOWN_ID else id for id in self.with_end(each)] for each in hypotheses]
        scores = self.scorer.score(captions, [text for text in texts for _ in range(count)])
        return torch.from_numpy(scores).float().reshape(len(references), count)

    def with_end(self, hypothesis: Hypothesis) -> list[int]:
        """Return the tokens of a hypothesis, with the end if it ended."""
        return [*hypothesis.tokens, self.tokenizer.end_id] if hypothesis.finished else hypothesis.tokens


def padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return sequences of ids as [N, T], IGNORED on padding."""
    longest = max(map(len, sequences))
    return torch.tensor([[*each, *[IGNORED] * (longest - len(each))] for each in sequences])
