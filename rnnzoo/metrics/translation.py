"""Translations against references: sacreBLEU and exact matches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.metrics.base import SampleMetric, percent
from rnnzoo.metrics.texts import TextMetric, TextSample


class SacreBleu(TextMetric):
    """BLEU and chrF2 of a corpus, as the `sacrebleu` package computes them.

    Outputs and references are plain text, as people write it: the metric has a tokenizer of its own. Samples may have
    different numbers of references. BLEU is 0 if no output of the corpus has four tokens.

    Args:
        lowercase: ignore case.
        tokenize: sacreBLEU's name for the tokenizer of BLEU, such as ``13a``, ``intl``, ``zh`` or ``char``.

    Raises:
        InputError: if there is no such tokenizer, or its package is not installed.

    Source: Post, "A Call for Clarity in Reporting BLEU Scores" (2018).

    >>> metric = SacreBleu()
    >>> metric.update(torch.tensor([0]), ["A man sleeps on the sofa."], [["A man sleeps on a sofa.", "He sleeps."]])
    >>> round(float(metric.compute()["bleu"]), 1)
    48.9
    """

    names = ("bleu", "chrf")

    def __init__(self, *, lowercase: bool = False, tokenize: str = "13a") -> None:
        super().__init__()
        self.lowercase = lowercase
        self.tokenize = tokenize
        self.latest_references: int | str = "?"  # of each sample of the latest `compute`; "var" if not all have as many
        self._scorers()

    def score(self, samples: Sequence[TextSample]) -> dict[str, float]:
        """Return BLEU and chrF2 of a corpus."""
        hypotheses = [sample.hypothesis for sample in samples]
        references = list(zip_longest(*(sample.references for sample in samples)))  # None where a sample has fewer
        counts = {len(sample.references) for sample in samples}
        self.latest_references = counts.pop() if len(counts) == 1 else "var"
        return {name: each.corpus_score(hypotheses, references).score for name, each in self._scorers().items()}

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.latest_references = "?"

    @property
    def definitions(self) -> dict[str, str]:
        """What the values are, with sacreBLEU's signatures."""
        signatures = {}
        for name, scorer in self._scorers().items():
            scorer.num_refs = -1  # a signature wants it
            signature = scorer.get_signature()
            signature.update("nrefs", self.latest_references)
            signatures[name] = str(signature)
        text = "of the whole corpus of detokenised text against raw references"
        return {
            "bleu": f"BLEU (0 to 100) {text}; sacreBLEU signature {signatures['bleu']}",
            "chrf": f"chrF2 (0 to 100) {text}; sacreBLEU signature {signatures['chrf']}",
        }

    def _scorers(self) -> dict[str, Any]:
        from sacrebleu.metrics import BLEU, CHRF  # not needed by those who translate without references

        if self.tokenize not in BLEU.TOKENIZERS:
            raise unknown_name("tokenize", self.tokenize, BLEU.TOKENIZERS)
        try:
            bleu = BLEU(lowercase=self.lowercase, tokenize=self.tokenize)
        except (ImportError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise InputError("tokenize", expected="an installed tokenizer", got=self.tokenize, fix=message) from error
        return {"bleu": bleu, "chrf": CHRF(lowercase=self.lowercase)}


class ExactMatch(SampleMetric):
    """The share of outputs that are a reference, word for word.

    >>> metric = ExactMatch()
    >>> metric.update(torch.tensor([0, 1]), ["2024-05-01", "2024-05-02"], [["2024-05-01"], ["2024-05-03"]])
    >>> float(metric.compute()["exact_match"])
    50.0
    """

    def __init__(self) -> None:
        super().__init__(width=2)

    def update(self, ids: Tensor, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add samples with `ids` [B]: one output, and one reference or more, for each."""
        matches = [
            hypothesis.split() in [text.split() for text in texts]
            for hypothesis, texts in zip(hypotheses, references, strict=True)
        ]
        right = torch.tensor(matches, dtype=torch.float64, device=ids.device)  # [B]
        self.update_rows(ids, torch.stack([right, torch.ones_like(right)], dim=1))

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the share."""
        return {"exact_match": percent(*sums)}

    @property
    def definitions(self) -> dict[str, str]:
        """What the share is."""
        return {"exact_match": "percent of outputs that equal a reference, but for blanks"}
