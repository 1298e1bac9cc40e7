"""CIDEr-D: how much a caption says what people say about the picture, and about no other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

ORDERS = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # of the penalty for another length than the reference's

Tokens = Sequence[Hashable]


class _Vector(NamedTuple):
    weights: list[dict[tuple, float]]  # n-gram → tf·idf, for each order
    norms: list[float]
    length: int


class CiderD:
    """CIDEr-D with the document frequencies of a corpus of references.

    For n-grams of each order n, with tf-idf vectors g(hypothesis) and g(reference),

        CIDErD_n = 10/M · Σ_j exp(-(l - l_j)² / 2σ²) · min(g(c), g(s_j)) · g(s_j) / (‖g(c)‖ ‖g(s_j)‖)

    and the score is the mean over n = 1..4. It goes from 0 to 10, and is 10 only if all M references are the
    hypothesis. tf is a count; idf is log(images) - log(max(1, images with the n-gram)), so that all scores against
    a corpus of one image are 0.

    Tokens are words, or ids. Where the score is to reward that a caption ends, END stands at the end of all references
    (also of those that frequencies are learned from) and of the hypotheses that ended.

    Args:
        references: the references of each image of the corpus.

    Source: Vedantam et al. (2015), as the ``Cider`` of pycocoevalcap computes it, with sigma 6. (It counts
    bigrams for l, which changes no difference.)

    >>> corpus = [[["a", "dog", "runs"]], [["a", "cat", "sits"]]]
    >>> CiderD(corpus).score([["a", "dog", "runs"], ["a", "dog", "runs"]], corpus).round(3).tolist()
    [7.5, 0.0]
    """

    def __init__(self, references: Iterable[Sequence[Tokens]]) -> None:
        frequencies: Counter[tuple] = Counter()
        images = 0
        for texts in references:
            frequencies.update({ngram for text in texts for ngram in ngram_counts(text)})
            images += 1
        self.unseen = math.log(max(1, images))  # idf of an n-gram that no reference has
        self.idf: Mapping[tuple, float] = {ngram: self.unseen - math.log(df) for ngram, df in frequencies.items()}

    def score(self, hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
        """Return the score of each of N hypotheses against its own one or more references [N]."""
        known: dict[tuple, _Vector] = {}  # several hypotheses of one image have the same references
        scores = []
        for hypothesis, texts in zip(hypotheses, references, strict=True):
            vector = self._vector(hypothesis)
            total = 0.0
            for text in texts:
                key = tuple(text)
                if key not in known:
                    known[key] = self._vector(text)
                total += _similarity(vector, known[key])
            scores.append(10 * total / len(texts))
        return np.array(scores, dtype=np.float64)

    def _vector(self, tokens: Tokens) -> _Vector:
        weights: list[dict[tuple, float]] = [{} for _ in range(ORDERS)]
        for ngram, count in ngram_counts(tokens).items():
            weights[len(ngram) - 1][ngram] = count * self.idf.get(ngram, self.unseen)
        norms = [math.sqrt(sum(weight * weight for weight in each.values())) for each in weights]
        return _Vector(weights, norms, len(tokens))


def ngram_counts(tokens: Tokens) -> Counter[tuple]:
    """Return how often each n-gram of 1 to 4 tokens occurs."""
    tokens = tuple(tokens)
    return Counter(
        tokens[start : start + order] for order in range(1, ORDERS + 1) for start in range(len(tokens) - order + 1)
    )


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    total = 0.0
    for mine, norm, theirs, other in zip(
        hypothesis.weights, hypothesis.norms, reference.weights, reference.norms, strict=True
    ):
        if norm > 0 and other > 0:
            shared = ((weight, theirs[ngram]) for ngram, weight in mine.items() if ngram in theirs)
            total += sum(min(weight, their) * their for weight, their in shared) / (norm * other)
    distance = hypothesis.length - reference.length
    return total / ORDERS * math.exp(-(distance**2) / (2 * SIGMA**2))
