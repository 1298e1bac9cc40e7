"""An answer depends on its sample alone: not on the batch size, the order, or what else is in the batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from small_models import build
from torch.utils.data import DataLoader

from rnnzoo.models import MODELS

WORDS = ["the", "cat", "sat", "on", "mat"]
TEXTS = [" ".join(WORDS[(start + step) % 5] for step in range(length)) for start, length in enumerate([2, 5, 1, 3, 9])]
SEARCHES = {
    "greedy": {"method": "greedy"},
    "beam": {"method": "beam", "beam_size": 3},
    "n_best": {"method": "beam", "beam_size": 4, "n_best": 3, "length_penalty": "mean"},
    "sample": {"method": "sample"},
    "samples": {"method": "sample", "n_best": 3, "temperature": 0.7},
    "top_k": {"method": "sample", "top_k": 4, "top_p": 0.8, "seed": 5},
}
GENERATING = ("Captioner", "Translator")


def samples(name):
    """Return five different samples of different lengths."""
    numbers = np.random.default_rng(0)
    frames = [numbers.normal(size=(length, 2)).tolist() for length in (3, 1, 6, 2, 4)]
    return {
        "VectorClassifier": lambda: [{"vector": each[0]} for each in frames],
        "SequenceClassifier": lambda: [{"text": text} for text in TEXTS],
        "SequenceTagger": lambda: [{"tokens": text.split()} for text in TEXTS],
        "FrameLabeller": lambda: [{"frames": each} for each in frames],
        "LanguageModel": lambda: [{"text": text} for text in TEXTS],
        "Translator": lambda: [{"source": text} for text in TEXTS],
        "Captioner": lambda: [{"image": numbers.integers(0, 256, (8, 8, 3), np.uint8)} for _ in TEXTS],
    }[name]()


def comparable(value):
    """Return an answer with its numbers rounded: batches of other sizes are summed in another order."""
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


CASES = [(name, None) for name in MODELS if name not in GENERATING] + list(itertools.product(GENERATING, SEARCHES))


@pytest.mark.parametrize(("name", "search"), CASES)
def test_answers_do_not_depend_on_batch_size_or_order(name, search):
    options = {} if search is None else {"search": {"max_length": 8, **SEARCHES[search]}}
    model = build(name, " ".join(WORDS), **options)
    given = samples(name)
    expected = list(model.answer(given, batch_size=len(given)))
    assert len({str(answer) for answer in expected}) > 1
    alone = [answer for sample in given for answer in model.answer([sample])]
    assert alone == comparable(expected)
    for order, batch_size in itertools.product(((4, 3, 2, 1, 0), (2, 0, 4, 1, 3), (1, 1, 0, 3, 1)), (1, 2, 5)):
        found = list(model.answer([given[place] for place in order], batch_size=batch_size))
        assert found == comparable([expected[place] for place in order]), (order, batch_size)


@pytest.mark.parametrize("method", ["sample", "samples"])
def test_features_of_regions_are_sampled_by_the_valid_regions_alone(method):
    """Images with fewer regions are padded in company."""
    model = build("Captioner", " ".join(WORDS), search={"max_length": 8, **SEARCHES[method]})
    model.encoder = None
    model.processor.region_size = 8
    model.region_size = 8
    model.projection = None
    given = [{"regions": torch.rand(count, 8).numpy()} for count in (2, 5, 1)]
    together = list(model.answer(given, batch_size=3))
    assert [answer for sample in given for answer in model.answer([sample])] == comparable(together)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning
@pytest.mark.parametrize("name", GENERATING)
def test_measured_and_predicted_texts_do_not_depend_on_the_batch_size(name):
    model = build(name, " ".join(WORDS), search={"method": "sample", "max_length": 8})
    answer = {"Captioner": "captions", "Translator": "target"}[name]
    given = [
        {**each, answer: [text] if name == "Captioner" else text}
        for each, text in zip(samples(name), TEXTS, strict=True)
    ]
    rows = [{**model.processor.encode(each), "id": place} for place, each in enumerate(given)]
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    found = []
    for batch_size, order in ((1, rows), (2, rows[::-1]), (5, rows)):
        batches = DataLoader(order, batch_size, collate_fn=model.processor.collate)
        trainer.test(model, batches, verbose=False)
        predicted = [answer for batch in trainer.predict(model, batches) for answer in batch]
        predicted = [{**each, "id": 0} for each in sorted(predicted, key=lambda each: each["id"])]
        found.append([model.results["test"], predicted])
    assert found[1:] == [comparable(found[0])] * 2
    answers = list(model.answer(samples(name)))
    assert [{"id": 0, **each} for each in answers] == comparable(found[0][1])


@pytest.mark.parametrize("name", GENERATING)
def test_another_seed_draws_other_samples(name):
    found = []
    for seed in (0, 1):
        model = build(name, " ".join(WORDS), search={"method": "sample", "max_length": 8, "seed": seed})
        found.append(list(model.answer(samples(name))))
    assert found[0] != found[1]
    noise = [len({str(answer) for answer in each}) for each in found]
    assert min(noise) > 2, "different sources draw different samples"


@pytest.mark.parametrize("options", [{"method": "sample"}, {"method": "sample", "top_k": 3}, {"method": "greedy"}])
def test_a_continuation_follows_from_prompt_and_seed(options):
    model = build("LanguageModel", " ".join(WORDS))
    prompts = ["the cat", "sat", "on the mat"]
    expected = {prompt: model.generate(prompt, max_tokens=12, options=options, seed=3) for prompt in prompts}
    torch.rand(7)  # another state of the global generator
    assert expected == {p: model.generate(p, max_tokens=12, options=options, seed=3) for p in prompts[::-1]}
