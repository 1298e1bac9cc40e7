"""Captions against references: BLEU-1 to 4, ROUGE-L and CIDEr-D, without Java."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rnnzoo.metrics.caption_tokens import caption_tokens
from rnnzoo.metrics.cider import ORDERS, SIGMA, CiderD, Tokens, ngram_counts
from rnnzoo.metrics.texts import TextMetric, TextSample

BETA = 1.2  # how much more recall weighs than precision in ROUGE-L


class CaptionScores(TextMetric):
    """BLEU-1 to 4, ROUGE-L and CIDEr-D of captions, as the evaluation of the COCO captions computes them.

    A sample is an image: it has one caption, which is scored once against all its references. Captions are plain
    text; both sides go through `caption_tokens`.

    >>> import torch
    >>> metric = CaptionScores()
    >>> metric.update(
    ...     torch.tensor([0, 1]),
    ...     ["A dog runs.", "A cat sleeps on a sofa."],
    ...     [["A dog is running.", "The dog runs."], ["A cat sleeps on the sofa."]],
    ... )
    >>> {name: round(float(value), 1) for name, value in metric.compute().items()}
    {'bleu1': 88.9, 'bleu2': 79.7, 'bleu3': 63.3, 'bleu4': 53.9, 'rouge_l': 75.0, 'cider_d': 4.5}
    """

    names = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")

    def score(self, samples: Sequence[TextSample]) -> dict[str, float]:
        """Return the scores of a corpus."""
        hypotheses = [caption_tokens(sample.hypothesis) for sample in samples]
        references = [[caption_tokens(text) for text in sample.references] for sample in samples]
        values = {f"bleu{order}": 100 * value for order, value in enumerate(corpus_bleu(hypotheses, references), 1)}
        rouge = [rouge_l(hypothesis, texts) for hypothesis, texts in zip(hypotheses, references, strict=True)]
        values["rouge_l"] = 100 * math.fsum(rouge) / len(rouge)
        values["cider_d"] = float(CiderD(references).score(hypotheses, references).mean())
        return values

    @property
    def definitions(self) -> dict[str, str]:
        """What the scores are."""
        rule = "each image once against all its references; lower case, Penn Treebank words, no punctuation"
        definitions = {
            f"bleu{order}": f"BLEU-{order} of the corpus (0 to 100), closest reference length, no smoothing; {rule}"
            for order in range(1, ORDERS + 1)
        }
        definitions["rouge_l"] = f"mean over images of ROUGE-L (0 to 100), beta {BETA}; {rule}"
        definitions["cider_d"] = (
            f"mean over images of CIDEr-D (0 to 10; papers print it times 100), sigma {SIGMA:g}, "
            f"document frequencies of these references; {rule}"
        )
        return definitions


def corpus_bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Return BLEU-1 to BLEU-4 (0 to 1) of a corpus: clipped counts, summed over it; 0 where no n-gram is right.

    The reference length of a hypothesis is that of the reference nearest in length, the shorter of two. There is no
    smoothing; pycocoevalcap adds 1e-15 to counts, which shows where nothing matches only.

    Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation" (2002).
    """
    right, found = [0] * ORDERS, [0] * ORDERS
    length = wanted = 0
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        most: Counter[tuple] = Counter()
        for text in texts:
            most |= ngram_counts(text)
        for ngram, count in ngram_counts(hypothesis).items():
            right[len(ngram) - 1] += min(count, most[ngram])
            found[len(ngram) - 1] += count
        length += len(hypothesis)
        wanted += min((abs(len(text) - len(hypothesis)), len(text)) for text in texts)[1]
    if length == 0:
        return [0.0] * ORDERS
    brevity = min(1.0, math.exp(1 - wanted / length))
    scores, product = [], 1.0
    for order, (correct, total) in enumerate(zip(right, found, strict=True), 1):
        product *= correct / total if total else 0.0
        scores.append(brevity * product ** (1 / order))
    return scores


def rouge_l(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """Return ROUGE-L (0 to 1) of a text: F of the longest common subsequence, recall weighted by 1.2² over precision.

    Precision and recall are the best over the references, each by itself, as in coco-caption.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004).

    >>> round(rouge_l(["a", "dog", "runs"], [["a", "brown", "dog", "runs"]]), 3)
    0.836
    """
    common = [(common_length(hypothesis, text), len(text)) for text in references]
    precision = max(shared for shared, _ in common) / max(1, len(hypothesis))
    recall = max(shared / max(1, length) for shared, length in common)
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_length(one: Tokens, other: Tokens) -> int:
    """Return the length of the longest common subsequence.

    >>> common_length("abcde", "xbxdx")
    2
    """
    best = [0] * (len(other) + 1)  # best[j]: of what was read of `one`, and other[:j]
    for token in one:
        diagonal = 0
        for place, each in enumerate(other, 1):
            above = best[place]
            best[place] = diagonal + 1 if token == each else max(above, best[place - 1])
            diagonal = above
    return best[-1]
