"""The captioner: what is minimised and what is reported, searches, frozen and fine-tuned encoders, the report."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rnnzoo import bundle, plots
from rnnzoo.batches import IGNORED
from rnnzoo.data.captions import CAPTION_WORDS
from rnnzoo.errors import InputError
from rnnzoo.models import Captioner, captioner
from rnnzoo.processors.captions import CaptionProcessor
from rnnzoo.processors.images import ImageOptions
from rnnzoo.text.tokenizer import Tokenizer

ATTENTIONS = ("none", "soft", "hard", "top_down")
CAPTIONS = [["a red dog", "a dog that is red"], ["a blue cat sits"], ["the cat", "a cat", "a cat sits on the red mat"]]
SIZE = 4  # numbers of a region
ENCODER = {"name": "small_cnn", "channels": [8, 8]}


def make_processor(region_size=SIZE):
    texts = [text for texts in CAPTIONS for text in texts]
    tokenizer = Tokenizer.train(texts, CAPTION_WORDS)
    return CaptionProcessor(tokenizer=tokenizer, images=ImageOptions(16), region_size=region_size)


def make_model(processor=None, seed=0, **arguments):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 6, "words": {"size": 5}, "dropout": 0.0}
    return Captioner(processor=processor or make_processor(), **{**sizes, **arguments})


def picture(place=0):
    return np.random.default_rng(place).integers(0, 255, (16, 16, 3), dtype=np.uint8)


def make_samples(counts=(3, 2, 1)):
    random = np.random.default_rng(0)
    tables = [random.normal(size=(count, SIZE)).tolist() for count in counts]
    return [{"regions": table, "captions": texts} for table, texts in zip(tables, CAPTIONS, strict=True)]


def make_batch(processor, samples):
    return processor.collate([{**processor.encode(each), "id": place} for place, each in enumerate(samples)])


# The loss


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_any_attention_and_cell_trains(attention, cell):
    model = make_model(attention=attention, cell=cell, dropout=0.1)
    batch = make_batch(model.processor, make_samples())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        total, items = model.objective(model(batch), batch)
        optimizer.zero_grad()
        (total / items).backward()
        optimizer.step()
        losses.append(float(reported(model, batch)["loss"]))
    assert losses[-1] < 0.9 * losses[0]


def reported(model, batch):
    was_training = model.training
    metrics = model.eval().build_metrics()
    with torch.no_grad():
        model.update_metrics(metrics, model(batch), batch)
    model.train(was_training)
    return {name: value for metric in metrics.values() for name, value in metric.compute().items()}


def test_the_penalty_is_added_in_training_and_never_reported():
    model = make_model(grid={"doubly_stochastic": 0.7}).eval()
    batch = make_batch(model.processor, make_samples())
    outputs = model(batch)
    total, items = model.objective(outputs, batch)
    penalty = 0.0
    for row, caption, weights in zip(batch.caption_rows, batch.captions, outputs.reading.weights, strict=True):
        for place in range(int(batch.region_counts[row])):
            penalty += (1 - weights[caption >= 0, place].sum()) ** 2
    logs = model.decoder.head.log_likelihoods(outputs.reading.hidden, batch.captions)
    torch.testing.assert_close(total, -logs.sum() + 0.7 * penalty)
    assert items == (batch.captions != IGNORED).sum() == sum(batch.lengths)
    torch.testing.assert_close(reported(model, batch)["loss"].float(), (-logs.sum() / items).detach())


def test_padding_of_captions_and_regions_never_changes_the_objective():
    for attention in ("soft", "hard"):
        model = make_model(attention=attention, hard={"evaluation": "argmax"} if attention == "hard" else None).eval()
        batch = make_batch(model.processor, make_samples())
        more = torch.nn.functional.pad(batch.regions, (0, 0, 0, 2), value=50.0)
        longer = torch.nn.functional.pad(batch.captions, (0, 3), value=IGNORED)
        padded = batch._replace(regions=more, captions=longer)
        first, second = (model.objective(model(each), each) for each in (batch, padded))
        torch.testing.assert_close(first, second)


def test_label_smoothing_changes_the_objective_but_not_the_report():
    plain, smooth = make_model(), make_model(label_smoothing=0.2)
    batch = make_batch(plain.processor, make_samples())
    first, second = (model.objective(model(batch), batch).total for model in (plain, smooth))
    assert abs(float(first.detach() - second.detach())) > 0.01
    assert reported(plain, batch)["loss"] == reported(smooth, batch)["loss"]


# Captions


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_captions_do_not_depend_on_the_batch(attention):
    model = make_model(attention=attention, search={"beam_size": 3, "n_best": 2, "max_length": 8})
    samples = [{"regions": sample["regions"]} for sample in make_samples()]
    together = list(model.answer(samples))
    alone = list(model.answer(samples[::-1], batch_size=1))[::-1]
    assert [each["n_best"] for each in together] == [
        [{**best, "log_probability": pytest.approx(best["log_probability"], abs=2e-4)} for best in each["n_best"]]
        for each in alone
    ]
    assert together[0]["caption"] == together[0]["n_best"][0]["caption"]
    greedy, beam = (
        make_model(attention=attention, search={"method": method, "beam_size": 1}).caption([samples[0]["regions"]])
        for method in ("greedy", "beam")
    )
    assert greedy == beam


def test_an_image_may_be_a_path_bytes_an_array_or_a_picture(tmp_path):
    model = make_model(make_processor(None), image=ENCODER)
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    captions = model.caption([str(tmp_path / "a.png"), file.getvalue(), picture(), Image.fromarray(picture())])
    assert len(set(captions)) == 1
    with pytest.raises(InputError, match="an image"):
        model.caption([b"text"])


def test_a_model_is_loaded_without_data(tmp_path):
    for place, processor in enumerate((make_processor(), make_processor(None))):
        model = make_model(processor, attention="hard", hard={"credit": "rest"}).eval()
        model.decoder.choice.baseline.fill_(-3.0)
        loaded = bundle.load(bundle.save(model, tmp_path / str(place)))
        given = [picture()] if place else [make_samples()[0]["regions"]]
        assert loaded.caption(given) == model.caption(given)
        assert loaded.decoder.choice.baseline == -3.0
        assert dict(loaded.hparams) == dict(model.hparams)


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
def test_hard_attention_that_has_no_baseline_yet_is_loaded_too(tmp_path, estimator):
    model = make_model(attention="hard", hard={"estimator": estimator}).eval()
    regions = [make_samples()[0]["regions"]]
    assert bundle.load(bundle.save(model, tmp_path / "model")).caption(regions) == model.caption(regions)


# The encoder


def test_a_learning_rate_of_the_encoder_makes_a_group_of_its_own():
    model = make_model(make_processor(None), image={**ENCODER, "learning_rate": 1e-4})
    optimizer = model.configure_optimizers()
    rates = {group["lr"]: {id(each) for each in group["params"]} for group in optimizer.param_groups}
    assert set(rates) == {1e-3, 1e-4}
    assert rates[1e-4] == {id(each) for each in model.encoder.parameters()}
    assert rates[1e-3] | rates[1e-4] == {id(each) for each in model.parameters()}


def test_a_frozen_encoder_does_not_change_and_its_features_give_the_same_loss():
    model = make_model(make_processor(None), image={**ENCODER, "frozen": True}, region_size=3)
    samples = [{"image": picture(place), "captions": texts} for place, texts in enumerate(CAPTIONS)]
    batch = make_batch(model.processor, samples)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.objective(model(batch), batch).total.backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert model.projection[0].weight.grad.abs().sum() > 0
    features = batch._replace(images=None, regions=model.encode(batch.images), region_counts=None)
    torch.testing.assert_close(*(model.objective(model.eval()(each), each) for each in (batch, features)))


def test_a_trained_encoder_gets_a_gradient():
    model = make_model(make_processor(None), image=ENCODER)
    batch = make_batch(model.processor, [{"image": picture(), "captions": CAPTIONS[0]}])
    model.objective(model(batch), batch).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Options


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"attention": "sof"}, "did you mean 'soft'"),
        ({"image_as": "input"}, "model.image_as"),
        ({"attention": "none", "image_as": "inputs"}, "did you mean 'input'"),
        ({"hard": {"credit": "rest"}}, "model.hard"),
        ({"attention": "none", "grid": {"gate": False}}, "model.grid"),
        ({"attention": "top_down", "grid": {"gate": False}}, "model.grid"),
        ({"attention": "top_down", "num_layers": 2}, "model.num_layers"),
        ({"grid": {"doubly_stochastic": -1.0}}, "doubly_stochastic"),
        ({"image": {"name": "small_cnn"}}, "model.image: expected none"),
        ({"selection": "bleu"}, "model.selection"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"region_size": 0}, "region_size"),
        ({"self_critical": {"from_epoch": 1, "samples": 1}}, "at least 2"),
        ({"self_critical": {"from_epoch": 1, "baseline": "x"}}, "greedy, others"),
        ({"recurrent": {"learn_initial_state": True}}, "learn_initial_state"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, where):
    with pytest.raises(InputError, match=where):
        make_model(**arguments)


def test_a_learning_rate_of_a_frozen_encoder_is_refused():
    with pytest.raises(InputError, match="frozen"):
        make_model(make_processor(None), image={**ENCODER, "frozen": True, "learning_rate": 0.1})


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention": "none"},
        {"attention": "none", "image_as": "input"},
        {"attention": "hard"},
        {"attention": "top_down"},
        {"grid": {"size": 3}},
        {"grid": {"gate": False}},
        {"grid": {"deep_output": False}},
        {"region_size": 3},
        {"num_layers": 2},
        {"tied": True, "words": {"size": 6}},
        {"cell": "gru"},
    ],
)
def test_every_option_changes_the_model(arguments):
    batch = make_batch(make_processor(), make_samples())
    plain, other = make_model().eval(), make_model(**arguments).eval()
    assert plain.objective(plain(batch), batch).total != other.objective(other(batch), batch).total


# The report


def test_what_was_looked_at_is_drawn(tmp_path):
    samples = [{"image": picture(place)} for place in range(2)]
    model = make_model(make_processor(None), image=ENCODER, search={"min_length": 2, "max_length": 9})
    names = model.eval().draw(samples, tmp_path)
    assert names == ["attention_1.png", "attention_2.png"]
    for name in names:
        with Image.open(tmp_path / name) as drawn:
            assert min(drawn.size) > 100
    blind = make_model(make_processor(None), image=ENCODER, attention="none")
    assert blind.eval().draw(samples, tmp_path) == []


def test_attention_to_regions_is_drawn_as_a_table(tmp_path, monkeypatch):
    tables = []
    monkeypatch.setattr(plots, "attention_matrix", lambda *arguments: tables.append(arguments))
    samples = make_samples()
    model = make_model(search={"min_length": 2, "max_length": 9}).eval()
    assert model.draw(samples, tmp_path) == [f"attention_{number + 1}.png" for number in range(len(samples[:3]))]
    for sample, (weights, rows, columns, _) in zip(samples, tables, strict=False):
        assert rows == model.caption([sample["regions"]])[0].split()
        assert columns == [f"region {number + 1}" for number in range(len(sample["regions"]))]
        assert torch.tensor(weights).shape == (len(rows), len(columns))
        assert torch.allclose(torch.tensor(weights).sum(1), torch.ones(len(rows)))
    monkeypatch.setattr(captioner, "MOST_REGIONS_DRAWN", 0)
    assert model.draw(samples, tmp_path) == []
