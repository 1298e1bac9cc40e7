"""What is logged as ``train/loss`` is what is logged as ``val/loss``: the two curves of a plot can be compared."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import ARGUMENTS, SAMPLES, build
from torch.utils.data import DataLoader

from rnnzoo.models import MODELS, SequenceClassifier
from rnnzoo.models.caption_options import SelfCriticalOptions
from rnnzoo.models.self_critical import SelfCritical
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.labels import LabelMap

SMOOTH = {"label_smoothing": 0.2}
WEIGHTED = {"loss": {"class_weights": {"x": 0.25}, **SMOOTH}}
SOFT = {"grid": {"doubly_stochastic": 3.0}}
CASES = [  # the model, its options, and whether they add to what is minimised
    ("VectorClassifier", {}, False),
    ("VectorClassifier", WEIGHTED, True),
    ("SequenceClassifier", {}, False),
    ("SequenceClassifier", WEIGHTED, True),
    ("SequenceTagger", {}, False),
    ("SequenceTagger", {"crf": False}, False),
    ("SequenceTagger", {"crf": False, "loss": {"class_weights": {"N": 3.0}, **SMOOTH}}, True),
    ("FrameLabeller", {}, False),
    ("FrameLabeller", WEIGHTED, True),
    ("LanguageModel", {}, False),
    ("LanguageModel", {"regularisation": {"alpha": 2.0}}, True),
    ("LanguageModel", {"regularisation": {"beta": 1.0}}, True),
    ("Translator", {}, False),
    ("Translator", SMOOTH, True),
    ("Translator", {"coverage": True, "coverage_weight": 2.0}, True),
    ("Captioner", {"attention": "none"}, False),
    ("Captioner", {"attention": "none", **SMOOTH}, True),
    ("Captioner", SOFT, True),
    ("Captioner", {**SOFT, **SMOOTH}, True),
    ("Captioner", {"attention": "top_down", **SMOOTH}, True),
    ("Captioner", {"attention": "hard", "hard": {"expected_share": 0.9999999, "evaluation": "expected"}}, True),
]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data


def without_dropout(name, options):
    arguments = {"dropout": 0.0} if name != "LanguageModel" else {}
    rate_of_zero = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    return build(name, **{**arguments, **options, **rate_of_zero})


def logged(model, samples, tmp_path, **settings):
    rows = [{**model.processor.encode(sample), "id": place} for place, sample in enumerate(samples)]
    train, val = (DataLoader(rows, 2, collate_fn=model.processor.collate) for _ in range(2))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1,
        enable_checkpointing=False, default_root_dir=tmp_path, num_sanity_val_steps=0, **settings,
    )  # fmt: skip
    trainer.fit(model, train, val)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(("name", "options", "regularised"), CASES, ids=str)
def test_training_and_validation_losses_are_the_same_quantity(name, options, regularised, tmp_path):
    """The weights stay as they are, and both read the same samples."""
    found = logged(without_dropout(name, options), SAMPLES[name] + SAMPLES[name][:1], tmp_path)
    assert found["train/loss"] == pytest.approx(found["val/loss"], rel=1e-4)
    assert ("train/penalty" in found) == regularised
    assert abs(found.get("train/penalty", 1.0)) > 1e-6


def test_every_model_is_held_to_it():
    assert {name for name, *_ in CASES} == set(MODELS)


def test_sets_of_labels_too(tmp_path):
    labels = LabelMap(["x", "y"])
    tokenizer = build("SequenceClassifier").processor.tokenizer
    processor = TextClassificationProcessor(tokenizer=tokenizer, labels=labels, multi_label=True)
    samples = [{"text": "the cat", "label": ["x", "y"]}, {"text": "sat", "label": []}, {"text": "mat", "label": ["y"]}]
    for options, regularised in (({}, False), (WEIGHTED, True)):
        torch.manual_seed(0)
        model = SequenceClassifier(
            processor=processor, **{**ARGUMENTS["SequenceClassifier"], "dropout": 0.0, **options},
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        )  # fmt: skip
        found = logged(model, samples, tmp_path)
        assert found["train/loss"] == pytest.approx(found["val/loss"], rel=1e-4)
        assert ("train/penalty" in found) == regularised


@pytest.mark.parametrize("accumulated", [1, 2])
def test_loss_and_penalty_add_up_to_what_is_minimised(accumulated, tmp_path):
    model = without_dropout("Translator", SMOOTH)
    minimised = []
    objective = model.objective
    model.objective = lambda *given: minimised.append(objective(*given)) or minimised[-1]
    found = logged(model, SAMPLES["Translator"] * 2, tmp_path, accumulate_grad_batches=accumulated)
    mean = sum(float(each.total) for each in minimised) / sum(float(each.items) for each in minimised)
    assert found["train/loss"] + found["train/penalty"] == pytest.approx(mean, rel=1e-5)


def test_what_cannot_be_compared_is_not_called_the_loss(tmp_path):
    """In self-critical training no given caption is read."""
    model = without_dropout("Captioner", {"self_critical": SelfCriticalOptions(from_epoch=0, samples=2)})
    model.setup = lambda stage: setattr(model, "self_critical", critic(model))
    found = logged(model, SAMPLES["Captioner"], tmp_path)
    assert "train/objective" in found
    assert not {"train/loss", "train/penalty"} & set(found)


def critic(model):
    texts = [sample["captions"] for sample in SAMPLES["Captioner"]]
    return SelfCritical(options=model.self_critical_options, tokenizer=model.processor.tokenizer, corpus=texts)
