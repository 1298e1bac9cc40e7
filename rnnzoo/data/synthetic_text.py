"""Text from a known source, whose entropy is the best loss that any language model can reach."""

from __future__ import annotations

import math
import string
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rnnzoo.data.synthetic import PROCESS_SEED, Sample, SyntheticTask

SYMBOLS = "\n" + string.ascii_lowercase[:18] + " "  # the first ends a line
VOWELS = "aeio"
SPARSITY = 0.15  # of the Dirichlet distribution: few characters follow another


class MarkovText(SyntheticTask):
    r"""Lines of characters x_1 … x_T, of which each depends on the one before, and on the kind k of that before it.

    p(x) = ∏ A(k(x_{t-2}), x_{t-1}, x_t), with line ends for x_{-1} and x_0; x_T is the line end

    The kind is that of a vowel or of another character. A line begins in the same way whatever came before, so the
    lines one after the other are text of the same source: the best loss is the same for single lines and for a stream.
    """

    columns = ("text",)
    default_sizes: ClassVar[dict[str, int]] = {"train": 6000, "validation": 400, "test": 801}
    end_share = 0.02  # the probability that a line ends after any character

    def __init__(self, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(seed=seed, sizes=sizes)
        random = np.random.default_rng([PROCESS_SEED, 4])
        size = len(SYMBOLS)
        letters = random.dirichlet(np.full(size - 1, SPARSITY), size=(2, size))  # [2, V, V - 1]
        letters = 0.95 * letters + 0.05 / (size - 1)
        ends = np.full((2, size, 1), self.end_share)
        ends[:, 0] = 0.0  # no line is empty
        self.transitions = np.concatenate([ends, (1 - ends) * letters], axis=2)  # [2, V, V]
        self.sums = self.transitions.cumsum(2).tolist()  # to draw by
        self.kinds = [int(symbol in VOWELS) for symbol in SYMBOLS]

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw characters until the line ends."""
        symbols = [0, 0]
        while len(symbols) == 2 or symbols[-1] != 0:
            sums = self.sums[self.kinds[symbols[-2]]][symbols[-1]]
            symbols.append(min(bisect(sums, random.random()), len(SYMBOLS) - 1))
        return {"text": "".join(SYMBOLS[symbol] for symbol in symbols[2:])}

    def log_probabilities(self, text: str) -> Iterator[float]:
        """Yield the log-probability in nats of each character of a line."""
        symbols = [0, 0, *(SYMBOLS.index(character) for character in text)]
        for place in range(2, len(symbols)):
            kind = self.kinds[symbols[place - 2]]
            yield math.log(self.transitions[kind, symbols[place - 1], symbols[place]])

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return loss in nats and perplexity per character, and bits per character."""
        logs = [log for sample in samples for log in self.log_probabilities(sample["text"])]
        loss = -sum(logs) / len(logs)
        return {"loss": loss, "perplexity": math.exp(loss), "bits_per_character": loss / math.log(2)}
