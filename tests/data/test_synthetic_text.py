"""Text from a known source: its best loss against the frequencies of a large sample."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from rnnzoo.data.synthetic_text import MarkovText


def test_the_best_loss_is_that_of_the_source_itself():
    task = MarkovText(sizes={"train": 1, "validation": 3000, "test": 1})
    samples = task.sample("validation")
    assert all(sample["text"].endswith("\n") and sample["text"].count("\n") == 1 for sample in samples)
    best = task.best(samples)
    counts: dict[tuple, Counter] = {}
    for sample in samples:
        symbols = "\n\n" + sample["text"]
        for place in range(2, len(symbols)):
            key = (symbols[place - 2] in "aeio", symbols[place - 1])
            counts.setdefault(key, Counter())[symbols[place]] += 1
    total = sum(sum(each.values()) for each in counts.values())
    empirical = -sum(
        number * math.log(number / sum(each.values())) for each in counts.values() for number in each.values()
    )
    assert best["loss"] == pytest.approx(empirical / total, abs=0.01)  # the best fit to this very text, a little less
    assert best["loss"] >= empirical / total
    assert best["perplexity"] == pytest.approx(math.exp(best["loss"]))
    assert best["bits_per_character"] == pytest.approx(best["loss"] / math.log(2))
