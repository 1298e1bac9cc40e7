"""The tagger answers and is measured in the scheme of its data, and words without a tag count nowhere."""

from __future__ import annotations

import random

import pytest
import torch

from rnnzoo.batches import IGNORED
from rnnzoo.data import TaggingData
from rnnzoo.models import SequenceTagger
from rnnzoo.processors.base import load_processor
from rnnzoo.text.tags import LETTERS, SCHEMES, write_spans

WORDS = ["the", "cat", "sat", "on", "a", "mat"]


def sentences(scheme, kinds, count=12):
    """Return sentences of words and well-formed tags in a scheme, spans of one to three words among them."""
    rng = random.Random(0)
    drawn = []
    for _ in range(count):
        length = rng.randint(3, 8)
        spans, start = [], 0
        while start < length:
            end = min(length, start + rng.randint(1, 3))
            if rng.random() < 0.7:
                spans.append((rng.choice(kinds), start, end))
            start = end
        drawn.append((rng.choices(WORDS, k=length), write_spans(spans, length, scheme)))
    return drawn


def tagging_data(folder, drawn, **options):
    content = "\n\n".join("\n".join(map("\t".join, zip(*pair, strict=True))) for pair in drawn)
    path = folder({f"{split}.conll": content for split in ("train", "dev", "test")})
    return TaggingData(path=path, characters=None, **options)


class Oracle(SequenceTagger):
    """A tagger whose outputs are those of the right tags, so that what it answers must be the data."""

    def forward(self, batch):
        targets = torch.nn.functional.one_hot(batch.targets.clamp(min=0), len(self.processor.tags)).float()
        return 50 * targets * (batch.targets >= 0).unsqueeze(-1)


def measure(model, batch):
    metrics = model.split_metrics("test")
    model.update_metrics(metrics, model(batch), batch)
    return {name: float(value) for metric in metrics.values() for name, value in metric.compute().items()}


@pytest.mark.parametrize("crf", [False, True], ids=["softmax", "crf"])
@pytest.mark.parametrize("kinds", [("",), ("X", "Y-Z")], ids=["bare", "types"])
@pytest.mark.parametrize("inner", ["bio", "bioes", None])
@pytest.mark.parametrize("outer", [*SCHEMES, *LETTERS])
def test_tags_come_back_as_they_were_given(folder, outer, inner, kinds, crf):
    drawn = sentences(outer, kinds)
    data = tagging_data(folder, drawn, scheme=inner)
    model = Oracle(processor=load_processor(data.processor.to_json()), hidden_size=4, words={"size": 4}, crf=crf)
    batch = next(iter(data.test_dataloader()))
    answers = dict(zip(batch.ids.tolist(), model.answers(model(batch), batch), strict=True))
    assert [answers[number]["tags"] for number in range(len(drawn))] == [tags for _, tags in drawn]
    values = measure(model, batch)
    assert values["accuracy"] == values["macro_f1"] == 100
    assert values["unseen_labels"] == 0
    assert values.get("f1", 100) == 100
    used = {tag for _, tags in drawn for tag in tags}
    metric = model.split_metrics("test")["labels"]
    assert used <= set(metric.labels)
    assert {tag.partition("-")[0] for tag in metric.labels} == {tag.partition("-")[0] for tag in used}


def test_accuracy_is_over_the_tags_of_the_data(folder):
    drawn = [(["a"] * 4, ["B-X", "I-X", "I-X", "O"]), (["a"] * 2, ["O", "B-X"])]
    data = tagging_data(folder, drawn, scheme="bioes")
    model = SequenceTagger(processor=data.processor, hidden_size=4, words={"size": 4})
    ids = model.processor.tags.id
    batch = next(iter(data.test_dataloader()))
    predicted = {4: ["B-X", "E-X", "S-X", "O"], 2: ["O", "S-X"]}  # in the data's scheme B I B O and O B
    numbers = torch.full((2, 4), 0)
    for row, length in enumerate(batch.lengths.tolist()):
        numbers[row, :length] = torch.tensor([ids(tag) for tag in predicted[length]])
    metrics = model.split_metrics("test")
    model.update_metrics(metrics, torch.nn.functional.one_hot(numbers, len(model.processor.tags)).float(), batch)
    values = metrics["labels"].compute()
    assert float(values["accuracy"]) == pytest.approx(100 * 5 / 6)
    f1 = {
        "O": 1.0,
        "B-X": 4 / 5,
        "I-X": 2 / 3,
    }  # B: 2 right, 3 predicted, 2 gold; I: 1, 1, 2
    assert float(values["macro_f1"]) == pytest.approx(100 * sum(f1.values()) / 3)


@pytest.mark.parametrize("scheme", [None, "bio", "bioes"])
@pytest.mark.parametrize("crf", [False, True], ids=["softmax", "crf"])
def test_words_without_a_tag_count_nowhere(folder, scheme, crf):
    drawn = [(WORDS[:5], ["B-X", "I-X", "O", "B-Y", "O"])]
    data = tagging_data(folder, drawn, scheme=scheme)
    torch.manual_seed(0)
    model = SequenceTagger(processor=data.processor, hidden_size=4, words={"size": 4}, crf=crf).eval()
    gaps = [1, 4]
    tags = ["" if number in gaps else tag for number, tag in enumerate(drawn[0][1])]
    row = {**data.processor.encode({"tokens": WORDS[:5], "tags": tags}), "id": 0}
    batch = data.processor.collate([row])
    assert (batch.targets[0] == IGNORED).nonzero().flatten().tolist() == gaps
    outputs = model(batch).detach()
    total, items = model.objective(outputs, batch)
    assert int(items) == 3
    if not crf:  # under a CRF the unknown tags are summed over, see the tests of the layer
        own = [0, 2, 3]
        logs = outputs[0].log_softmax(-1)
        assert float(total.detach()) == pytest.approx(float(-sum(logs[t, batch.targets[0, t]] for t in own)), rel=1e-5)
    values = measure(model, batch)
    assert sum(map(sum, model.split_metrics("test")["labels"].matrix().tolist())) == 3
    assert values["loss"] == pytest.approx(float(total.detach()) / 3, rel=1e-5)
    if scheme is not None:
        perfect = Oracle(processor=data.processor, hidden_size=4, words={"size": 4}, crf=crf)
        assert measure(perfect, batch)["f1"] == 100


def test_a_model_of_before_answers_in_its_own_scheme(folder):
    values = tagging_data(folder, sentences("iob1", ("X",)), scheme="bioes").processor.to_json()
    assert values.pop("data_scheme") == "iob1"
    assert load_processor(values).data_scheme == "bioes"
