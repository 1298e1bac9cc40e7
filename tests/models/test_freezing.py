"""Frozen parts of every model: they stay as they are in a real training step, all others do not."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import batch_of, build, tokenizer
from torch import nn
from torch.utils.data import DataLoader

from rnnzoo.errors import InputError
from rnnzoo.models import MODELS, LanguageModel
from rnnzoo.processors.language import LanguageProcessor

PARTS = {
    "VectorClassifier": ("encoder", "head"),
    "SequenceClassifier": ("embedding", "encoder", "head"),
    "SequenceTagger": ("embedding", "encoder", "head"),
    "FrameLabeller": ("encoder", "head"),
    "LanguageModel": ("embedding", "encoder", "head"),
    "Translator": ("embedding", "encoder", "decoder", "head"),
    "Captioner": ("embedding", "encoder", "decoder", "head"),
}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "max_epochs": 1,
}
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data and of layers in evaluation mode


def trainable(name, **options):
    return build(name, optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01), **options)


def take_step(model):
    trainer = Trainer(**QUIET)
    trainer.fit(model, DataLoader([batch_of(model)], batch_size=None))
    return trainer


def values(modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def changed(before, after):
    return [not torch.equal(*pair) for pair in zip(before, after, strict=True)]


def test_all_models_are_here():
    assert sorted(PARTS) == sorted(MODELS)


@pytest.mark.parametrize("name", PARTS)
def test_every_parameter_is_in_a_part(name):
    model = build(name)
    parts = model.parts()
    assert tuple(parts) == PARTS[name]
    inside = {id(parameter) for modules in parts.values() for module in modules for parameter in module.parameters()}
    assert [key for key, parameter in model.named_parameters() if id(parameter) not in inside] == []


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts])
def test_a_frozen_part_stays_and_the_others_learn(name, part):
    options = {"tied": False} if name in ("Translator", "Captioner", "LanguageModel") else {}
    model = trainable(name, freeze=part, **options)
    before = {key: values(modules) for key, modules in model.parts().items()}
    trainer = take_step(model)
    assert model.frozen == (part,)
    for key, modules in model.parts().items():
        moved = changed(before[key], values(modules))
        assert not any(moved) if key == part else all(moved), key
    frozen = [parameter for module in model.parts()[part] for parameter in module.parameters()]
    assert all(parameter.grad is None for parameter in frozen)
    trained = {id(each) for group in trainer.optimizers[0].param_groups for each in group["params"]}
    assert trained.isdisjoint(map(id, frozen))
    total = sum(parameter.numel() for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in frozen)
    assert model.parameter_counts() == (total - count, count)


def test_frozen_parts_are_in_evaluation_mode_and_come_back_to_it():
    model = trainable("SequenceTagger", freeze="embedding, encoder", words={"size": 6, "word_dropout": 0.9})
    take_step(model)
    for _ in range(2):
        assert not model.words.training
        assert not model.characters.convolution.training
        assert not model.recurrent.cells[0].training
        assert model.dropout.training
        assert model.head.training
        list(model.answer([{"tokens": ["cat"]}]))  # puts all of it in evaluation mode, and back
    tokens = torch.randint(2, 7, (3, 4))
    assert torch.equal(model.words(tokens), model.words(tokens))


def test_batch_norm_statistics_of_a_frozen_part_stay():
    model = trainable("VectorClassifier", freeze=["encoder"])
    norm = model.network.layers[2] = nn.BatchNorm1d(8)  # in place of a dropout layer
    take_step(model)
    assert int(norm.num_batches_tracked) == 0
    assert norm.running_mean.abs().sum() == 0


@pytest.mark.parametrize("frozen", ["embedding", "head"])
def test_tied_weights_are_frozen_with_either_of_their_parts(frozen):
    model = trainable("LanguageModel", tied=True, freeze=frozen)
    before = model.words.table.weight.detach().clone()
    bias = model.head.bias.detach().clone()
    take_step(model)
    assert torch.equal(model.words.table.weight, before)
    assert torch.equal(model.head.bias, bias) == (frozen == "head")


def test_only_what_is_trained_counts_in_the_norm_of_gradients():
    model = trainable("SequenceClassifier", dropout=0.0, freeze="embedding,head")
    logged = take_step(model).callback_metrics
    again = trainable("SequenceClassifier", dropout=0.0)
    again.train()
    total, items = again.objective(again(batch_of(again)), batch_of(again))
    (total / items).backward()
    own = torch.cat([each.grad.flatten() for each in again.recurrent.parameters()])
    assert float(logged["train/gradient_norm"]) == pytest.approx(float(own.norm()), rel=1e-4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("embeding", "expected one of embedding, encoder, head, got 'embeding'; did you mean 'embedding'?"),
        (["encoder", "Head"], "got 'Head'"),
        ("embedding,encoder,head", "expected a part that is left to train, got all parts frozen: embedding, enc"),
    ],
)
def test_names_that_cannot_be_frozen(names, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        take_step(trainable("SequenceClassifier", freeze=names))


def test_a_part_without_layers_cannot_be_frozen():
    processor = LanguageProcessor(tokenizer=tokenizer())
    model = LanguageModel(processor=processor, one_hot=True, hidden_size=4)
    with pytest.raises(InputError, match="expected one of encoder, head, got 'embedding'"):
        model.freeze_parts("embedding")


def test_a_model_that_was_not_started_is_not_trained():
    model = trainable("SequenceClassifier", init_from="runs/lm")
    with pytest.raises(InputError, match=r"expected a model started from runs/lm .* call rnnzoo.warm_start\(model\)"):
        take_step(model)
