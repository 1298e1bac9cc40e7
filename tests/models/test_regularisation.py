"""Activation regularisation, and what AWD-LSTM's other means do inside whole models."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from catalogue import CELLS
from lightning.pytorch import Trainer

from rnnzoo.cells.wrappers import drop_weights
from rnnzoo.data import LanguageData, TranslationData
from rnnzoo.errors import InputError
from rnnzoo.models import LanguageModel, Translator
from rnnzoo.models.losses import activation_penalty
from rnnzoo.models.options import Regularisation

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data

B, T, H = 3, 5, 4

RECURRENT = [  # cells with weights that can be dropped; a few stand for all
    name for name in ("rnn", "lstm", "gru", "gru_reset_before", "mut2", "fgr", "slstm") if name in CELLS
]


def activations(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(B, T, H, generator=generator, dtype=torch.float64).to(dtype)
    dropped = torch.nn.functional.dropout(raw, 0.5)
    return raw.requires_grad_(), dropped.requires_grad_()


def test_penalties_are_those_of_the_paper_where_nothing_is_padded():
    raw, dropped = activations()
    valid = torch.ones(B, T, dtype=torch.bool)
    items = valid.sum()
    first = activation_penalty(raw, dropped, valid, alpha=2.0, beta=0.0) / items
    torch.testing.assert_close(first, 2.0 * dropped.pow(2).mean())
    second = activation_penalty(raw, dropped, valid, alpha=0.0, beta=3.0) / items
    torch.testing.assert_close(second, 3.0 * (raw[:, 1:] - raw[:, :-1]).pow(2).mean() * (T - 1) / T)
    both = activation_penalty(raw, dropped, valid, alpha=2.0, beta=3.0) / items
    torch.testing.assert_close(both, first + second)


def test_padding_counts_nothing_and_gets_no_gradient():
    raw, dropped = activations()
    lengths = torch.tensor([T, 2, 0])
    valid = torch.arange(T) < lengths.unsqueeze(1)
    total = activation_penalty(raw, dropped, valid, alpha=2.0, beta=3.0)
    alone = sum(
        activation_penalty(raw[row, :length][None], dropped[row, :length][None], valid[row, :length][None],
                           alpha=2.0, beta=3.0)
        for row, length in enumerate(lengths.tolist())
    )  # fmt: skip
    torch.testing.assert_close(total, alone)
    total.backward()
    for each in (raw, dropped):
        assert each.grad[~valid].eq(0).all()
        assert each.grad[valid].abs().max() > 0


def test_no_difference_is_taken_over_the_edge_of_a_document():
    raw, dropped = activations()
    valid = torch.ones(B, T, dtype=torch.bool)
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 0] = resets[1, 2] = True
    found = activation_penalty(raw, dropped, valid, alpha=0.0, beta=1.0, resets=resets)
    edge = (raw[1, 2] - raw[1, 1]).square().mean()
    torch.testing.assert_close(found, activation_penalty(raw, dropped, valid, alpha=0.0, beta=1.0) - edge)


@pytest.mark.parametrize("steps", [0, 1])
def test_short_chunks(steps):
    raw, dropped = (each[:, :steps] for each in activations())
    valid = torch.ones(B, steps, dtype=torch.bool)
    assert activation_penalty(raw, dropped, valid, alpha=0.0, beta=1.0) == 0
    assert (activation_penalty(raw, dropped, valid, alpha=1.0, beta=1.0) > 0) == (steps > 0)


def test_narrow_outputs_are_summed_in_float32():
    raw, dropped = activations(torch.bfloat16)
    found = activation_penalty(raw, dropped, torch.ones(B, T, dtype=torch.bool), alpha=1.0, beta=1.0)
    assert found.dtype == torch.float32
    found.backward()
    assert raw.grad.dtype == torch.bfloat16


ALL = {
    "recurrent": {"weight_drop": 0.5, "locked_dropout": True},
    "words": {"size": 6, "embedding_dropout": 0.5},
    "regularisation": {
        "input_dropout": 0.3, "hidden_dropout": 0.3, "output_dropout": 0.3, "alpha": 2.0, "beta": 1.0,
    },
}  # fmt: skip
QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "use_distributed_sampler": False, "limit_train_batches": 3,
    "limit_val_batches": 2, "max_epochs": 1,
}  # fmt: skip
DROPPED: dict[str, Any] = {"regularisation": {"input_dropout": 0.5}}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # option → with it, and what it is compared with
    "weight_drop": ({"recurrent": {"weight_drop": 0.5}}, {}),
    "embedding_dropout": ({"words": {"size": 6, "embedding_dropout": 0.5}}, {}),
    "locked_dropout": ({**DROPPED, "recurrent": {"locked_dropout": True}}, DROPPED),
    **{
        name: ({"regularisation": {name: 0.5}}, {})
        for name in ("input_dropout", "hidden_dropout", "output_dropout", "alpha", "beta")
    },
}


@cache
def language_data():
    return LanguageData(synthetic="markov_text", limit=2000, batch_size=4, chunk_length=10)


@cache
def chunk():
    """Return a chunk of text in which a document begins."""
    data = language_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    resets = batch.resets.clone()
    resets[1, 4] = True
    return batch._replace(resets=resets)


def language_model(cell="lstm", **options):
    torch.manual_seed(0)
    options = {"words": {"size": 6}, **options}
    model = LanguageModel(processor=language_data().processor, cell=cell, hidden_size=8, num_layers=2, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that every option shows
    return model


def training_loss(model):
    batch = chunk()
    torch.manual_seed(1)
    return model.objective(model(batch), batch).total


def reported_loss(model):
    metrics = model.build_metrics()
    with torch.no_grad():
        model.update_metrics(metrics, model(chunk()), chunk())
    return float(metrics["loss"].compute()["loss"])


def test_every_means_is_tested():
    assert {field.name for field in dataclasses.fields(Regularisation)} < CHANGES.keys()


@pytest.mark.parametrize("cell", RECURRENT)
@pytest.mark.parametrize("name", CHANGES)
def test_each_means_changes_training_and_nothing_else(cell, name):
    options, before = CHANGES[name]
    model, plain = language_model(cell, **options), language_model(cell, **before)
    assert model.state_dict().keys() == plain.state_dict().keys()
    loss = training_loss(model)
    assert torch.equal(loss, training_loss(model))  # from the same random numbers
    assert not torch.allclose(loss, training_loss(plain), rtol=1e-5)
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    model.eval(), plain.eval()
    assert reported_loss(model) == reported_loss(plain) == reported_loss(model)


@pytest.mark.parametrize("cell", RECURRENT)
def test_a_chunk_with_a_new_document_inside_has_one_mask(cell, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "rnnzoo.layers.recurrent.drop_weights", lambda *given: drawn.append(given) or drop_weights(*given)
    )
    training_loss(language_model(cell, recurrent={"weight_drop": 0.5}))
    assert len(drawn) == 2  # one for each layer


def test_penalties_take_what_the_head_is_given_and_the_raw_outputs():
    model = language_model(regularisation={"output_dropout": 0.5, "alpha": 2.0, "beta": 3.0})
    outputs = model(chunk())
    valid = chunk().targets >= 0
    plain = model.head.loss(outputs.hidden, chunk().targets)
    penalty = activation_penalty(outputs.raw, outputs.hidden, valid, alpha=2.0, beta=3.0, resets=chunk().resets)
    total, items = model.objective(outputs, chunk())
    torch.testing.assert_close(total, plain + penalty)
    assert items == valid.sum()
    assert outputs.hidden.eq(0).any()
    assert not outputs.raw.eq(0).any()


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_weights_below_zero_are_refused(name):
    with pytest.raises(InputError, match=rf"model\.regularisation\.{name}: expected a weight of at least 0"):
        language_model(regularisation={name: -1.0})


@pytest.mark.parametrize("cell", RECURRENT)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_all_means_at_once_in_a_training_and_a_copy_of_the_model(cell, precision):
    model = language_model(cell, **ALL)
    trainer = Trainer(**QUIET, precision=precision)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.fit(model, datamodule=language_data())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    twin = copy.deepcopy(model)
    assert reported_loss(twin.eval()) == reported_loss(model.eval())


@pytest.mark.parametrize("cell", RECURRENT)
def test_decoding_step_by_step_in_training_draws_once_a_batch(cell, monkeypatch):
    data = TranslationData(synthetic="dates", limit=40)
    data.setup("fit")
    model = Translator(
        processor=data.processor, cell=cell, hidden_size=8, input_feeding=True,
        words={"size": 6, "embedding_dropout": 0.5}, recurrent={"weight_drop": 0.5},
    )  # fmt: skip
    drawn = []
    monkeypatch.setattr(
        "rnnzoo.layers.recurrent.drop_weights", lambda *given: drawn.append(given) or drop_weights(*given)
    )
    batch = next(iter(data.train_dataloader()))
    model.objective(model(batch), batch).total.backward()
    assert len(drawn) == 3  # both directions of the encoder, and the decoder
    assert all(parameter.grad is not None for parameter in model.parameters())
