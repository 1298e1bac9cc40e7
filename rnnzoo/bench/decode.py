"""Beam search: all sentences in batches, against the same search one sentence at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from rnnzoo.bench.measure import Comparison, Contest, Row, Setting, Task, run_contest
from rnnzoo.bench.training import collate, sentences, word_tokenizer
from rnnzoo.models import Translator
from rnnzoo.processors.translation import TranslationProcessor


def decode(setting: Setting) -> list[Task]:
    """Beam search over 200 sentences, width 5."""
    work = "beam 5, 200 sentences of 5-30 words, LSTM 512 with attention, vocabulary 4,000"
    return [Task(work, partial(one_search, work, setting))]


def one_search(work: str, setting: Setting) -> list[Row]:
    """Measure both ways of going through the sentences; see that they find the same."""
    size, words, count, rows = (8, 20, 4, 2) if setting.quick else (512, 4000, 200, 100)
    torch.manual_seed(0)
    known = word_tokenizer(words)
    processor = TranslationProcessor(source=known, target=known)
    model = Translator(
        processor=processor, hidden_size=size, tied=False, words={"size": size // 2},
        search={"beam_size": 5, "max_length": 18},
    ).to(setting.device).eval()  # fmt: skip
    samples = [
        {**processor.encode({"source": " ".join(words)}), "id": place}
        for place, words in enumerate(sentences(count, words, 5, 30, seed=1))
    ]
    many, single = (
        [move_data_to_device(batch, torch.device(setting.device)) for batch in collate(processor, samples, size)]
        for size in (rows, 1)
    )
    contest = Contest(
        work,
        {"batches": partial(find, model, many), "one by one": partial(find, model, single)},
        (Comparison("batches", "one by one", 0.15),),
    )
    return run_contest("decode", contest, setting)


@torch.inference_mode()
def find(model: Any, batches: list[Any]) -> list[str]:
    """Return the best translation of each sentence."""
    return [
        " ".join(map(str, hypotheses[0].tokens))
        for batch in batches
        for hypotheses in model.hypotheses(model.encode(batch), batch)
    ]
