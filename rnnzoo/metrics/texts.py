"""The metric from which all metrics of whole texts are made: samples are gathered as text and scored once."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rnnzoo.errors import InputError
from rnnzoo.metrics.base import ZooMetric


class TextSample(NamedTuple):
    """What a model wrote for one sample, and what it could have written."""

    id: int
    hypothesis: str
    references: tuple[str, ...]  # one or more


class TextMetric(ZooMetric):
    """A metric of a whole corpus of texts, such as BLEU, which is no mean over samples.

    The state is text: JSON, one line for each sample, as bytes. The lines of all processes are put together; a sample
    that a distributed sampler handed out twice counts once; and every process scores the same corpus, in the order of
    the ids.
    """

    full_state_update = False
    names: tuple[str, ...]  # of the values; without samples each is 0
    lines: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # Empty lines to begin with: a process without samples must still take part when states are gathered.
        self.add_state("lines", default=[], dist_reduce_fx="cat")
        self.lines.append(self._bytes(""))

    @abstractmethod
    def score(self, samples: Sequence[TextSample]) -> Mapping[str, float]:
        """Return the values by name of a corpus of one sample or more."""

    def update(self, ids: Tensor, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add samples with `ids` [B]: one output, and one reference or more, for each.

        Raises:
            InputError: if a sample has no reference.
        """
        lines = []
        for number, hypothesis, texts in zip(ids.tolist(), hypotheses, references, strict=True):
            if not texts or isinstance(texts, str):
                got = "none" if not texts else f"the string {texts!r}"
                raise InputError(f"sample {number}", expected="a list of one reference or more", got=got)
            lines.append(json.dumps([number, hypothesis, list(texts)]) + "\n")
        self.lines.append(self._bytes("".join(lines)))

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.lines.append(self._bytes(""))

    def samples(self) -> list[TextSample]:
        """Return the different samples in the order of their ids."""
        parts = self.lines if isinstance(self.lines, list) else [self.lines]
        text = "".join(part.cpu().numpy().tobytes().decode() for part in parts)
        rows = sorted(json.loads(line) for line in text.splitlines())  # [number, hypothesis, references]
        found = {number: TextSample(number, hypothesis, tuple(texts)) for number, hypothesis, texts in rows}
        return list(found.values())

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name, over the samples of all processes."""
        samples = self.samples()
        values = self.score(samples) if samples else dict.fromkeys(self.names, 0.0)
        return {name: torch.tensor(values[name], dtype=torch.float64, device=self.device) for name in self.names}

    def _bytes(self, text: str) -> Tensor:
        data = bytearray(text, "ascii")  # JSON escapes all other characters
        flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
        return flat.to(self.device)
