"""The language model: losses whatever the chunks, states carried and kept apart, resume, types, a source learnt."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from rnnzoo.data import LanguageData
from rnnzoo.data.lanes import LaneSampler
from rnnzoo.errors import InputError
from rnnzoo.models import LanguageModel
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.state import flatten
from rnnzoo.text.tokenizer import KINDS, Tokenizer, TokenizerOptions

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
TEXT = "so it goes\nand goes on\n\nas it went before\n" * 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec.*"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def language(text=TEXT, kind="characters", folder=None, **options):
    return LanguageData(
        path=folder({f"{split}.txt": text for split in ("train", "valid", "test")}),
        tokenizer=TokenizerOptions(kind=kind, unicode=None),
        **{"batch_size": 2, "chunk_length": 8, **options},
    )


def model_of(processor, seed=0, **options):
    torch.manual_seed(seed)
    return LanguageModel(processor=processor, **{"hidden_size": 6, "words": {"size": 5}, **options})


def build(text=TEXT, kind="characters", line_end=False, document_end=False, **options):
    tokenizer = Tokenizer.train(text.split("\n") if line_end else [text], TokenizerOptions(kind=kind, unicode=None))
    processor = LanguageProcessor(tokenizer=tokenizer, line_end=line_end, document_end=document_end)
    return model_of(processor, **options).eval()


def measure(model, data, **settings):
    trainer = Trainer(**{**QUIET, **settings})
    trainer.test(model, datamodule=data, verbose=False)
    return model.results["test"]


# The loss


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("documents", ["file", "line"])
def test_the_loss_of_a_stream_does_not_depend_on_the_chunks(folder, cell, documents):
    found = []
    for size in (1, 7, 35, 1000):
        data = language(folder=folder, documents=documents, eval_chunk_length=size)
        model = model_of(data.processor, cell=cell, num_layers=2)
        found.append(measure(model, data))
    assert all(values == pytest.approx(found[0], abs=1e-6, rel=1e-6) for values in found)
    stream = data.encoded("test")
    total = -sum(answer["log_probability"] for answer in model.score(data.raw("test")["text"]))
    assert found[0]["loss"] == pytest.approx(total / len(stream.tokens), abs=1e-5)
    assert found[0]["bits_per_character"] == pytest.approx(total / math.log(2) / len(TEXT.rstrip()), rel=0.1)


def test_the_loss_is_that_of_a_plain_loop_of_torch():
    model = build(line_end=True, num_layers=2, recurrent={"cell_options": {"forget_bias": 0.5}})
    reference = model.recurrent.to_torch().eval()
    tokens = torch.tensor(model.processor.encode({"text": TEXT})["tokens"].astype("int64"))
    inputs = torch.cat([torch.tensor([model.processor.end_id]), tokens[:-1]])
    with torch.no_grad():
        hidden, _ = reference(model.words.table(inputs).unsqueeze(0))
        logs = (hidden[0] @ model.head.weight.T + model.head.bias).log_softmax(-1)
    expected = logs.gather(1, tokens.unsqueeze(1)).sum()
    [answer] = model.score([TEXT])
    assert answer["log_probability"] == pytest.approx(float(expected), abs=1e-3)
    assert answer["tokens"] == len(tokens)
    assert answer["characters"] == len(TEXT)


def test_more_lanes_are_another_number_and_the_definition_says_so(folder):
    data = language(folder=folder)
    model = model_of(data.processor)
    with torch.no_grad():
        model.recurrent.cells[0].bias.add_(1.0)  # a state that matters
    exact = measure(model, data)
    assert "in one lane" in model.definitions("test")["loss"]
    lanes = measure(model, language(folder=folder, eval_lanes=5))
    assert "5 lanes" in model.definitions("test")["loss"]
    assert lanes["loss"] != pytest.approx(exact["loss"], abs=1e-5)
    assert measure(model, language(folder=folder, eval_lanes=2))["loss"] != pytest.approx(lanes["loss"], abs=1e-5)
    assert f"{len(TEXT):,} characters" in model.definitions("test")["bits_per_character"]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 4])
def test_the_loss_is_the_same_on_any_number_of_processes(folder, world, lanes):
    data = language(folder=folder)
    model = model_of(data.processor).eval()
    stream, metrics = data.encoded("test"), model.build_metrics()
    for rank in range(world):
        sampler = LaneSampler(len(stream.tokens), lanes=lanes, chunk_length=7, rank=rank, world_size=world)
        state = None
        for spans in sampler:
            batch = data.processor.collate(stream.__getitems__(spans))
            with torch.no_grad():
                outputs = model(batch, state)
            state = outputs.state
            model.update_metrics(metrics, outputs, batch)
    values = {name: float(value) for name, value in metrics["loss"].compute().items()}
    assert values == pytest.approx(measure(model, language(folder=folder, eval_lanes=lanes)), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"tied": True}, {"one_hot": True}, {"tied": True, "hidden_size": 5}])
def test_any_tokens_any_input_any_output(kind, options):
    model = build(kind=kind, **options)
    batch = model.processor.collate([{**model.processor.encode({"text": TEXT}), "id": 0}])
    total, items = model.objective(model(batch), batch)
    assert items == len(model.processor.encode({"text": TEXT})["tokens"])
    total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert (model.head.projection is not None) == (options == {"tied": True})
    [answer] = model.score([TEXT])
    assert total.item() == pytest.approx(-answer["log_probability"], rel=1e-4)


def test_a_long_text_is_measured_in_parts(monkeypatch):
    model = build()
    whole = model.score([TEXT, "so", ""])
    monkeypatch.setattr("rnnzoo.models.language_model.READ_STEPS", 10)
    assert model.score([TEXT, "so", ""]) == whole
    assert whole[2] == {**whole[2], "loss": None, "tokens": 0, "log_probability": 0.0}


def test_steps_one_at_a_time_equal_the_whole():
    model = build(num_layers=2)
    ids = model.processor.encode({"text": TEXT})["tokens"].tolist()
    state, total = model.start_state(2), torch.zeros(2)
    for before, after in itertools.pairwise([model.processor.end_id, *ids]):
        with torch.no_grad():
            logs, state = model.step(torch.tensor([before, before]), state)
        assert torch.allclose(logs.exp().sum(-1), torch.ones(2))
        total += logs[:, after]
    assert total.tolist() == pytest.approx([model.score([TEXT])[0]["log_probability"]] * 2, abs=1e-3)


# The state from batch to batch


class Watched(LanguageModel):
    """Keeps the hidden vectors that training and evaluation saw."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = {"train": [], "val": []}

    def forward(self, batch, state=None):
        outputs = super().forward(batch, state)
        if self._split in self.seen:
            self.seen[self._split].append(outputs.raw.detach().clone())
        return outputs


def frozen(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


def watched(data, **options):
    torch.manual_seed(0)
    return Watched(processor=data.processor, hidden_size=6, words={"size": 5}, optimizer=frozen, **options)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_training_carries_its_state_over_chunks_and_validations(folder, cell):
    data = language(folder=folder)
    model = watched(data, cell=cell)
    Trainer(**{**QUIET, "max_epochs": 2, "val_check_interval": 3}).fit(model, datamodule=data)
    stream = data.encoded("train")
    lanes = data.processor.collate(
        stream.__getitems__(next(iter(LaneSampler(len(stream.tokens), lanes=2, chunk_length=10**6))))
    )
    whole = model(lanes).raw.detach()
    count = len(data.train_dataloader())
    for epoch in range(2):  # each epoch begins anew
        found = torch.cat(model.seen["train"][epoch * count : (epoch + 1) * count], dim=1)
        assert torch.allclose(found, whole, atol=1e-6)
    assert len(model.seen["val"]) > count


def test_gradients_stop_at_the_edge_of_a_chunk(folder):
    data = language(folder=folder)
    model = watched(data)
    batches = list(data.train_dataloader())
    with model._carrying("train"):
        model(batches[0])
        state = model._states["train"]
        assert not any(field.requires_grad for field in flatten(state))
        assert any(field.abs().sum() > 0 for field in flatten(state))
        outputs = model(batches[1])
    alone = model(batches[1], tuple(state))
    assert torch.allclose(outputs.raw, alone.raw)
    assert not torch.allclose(outputs.raw, model(batches[1]).raw), "without its state it would be another"


def test_a_lane_that_begins_forgets_alone(folder):
    data = language(folder=folder)
    model = watched(data)
    first, second, *_ = data.train_dataloader()
    with model._carrying("train"):
        model(first)
        mixed = model(second._replace(begins=torch.tensor([True, False]))).raw
        model(first)
        carried = model(second).raw
    assert torch.allclose(mixed[0], model(second).raw[0])
    assert torch.allclose(mixed[1], carried[1])
    assert not torch.allclose(mixed[0], carried[0])


def test_the_carried_state_goes_into_the_checkpoint_and_back(folder, tmp_path):
    data = language(folder=folder)
    model = watched(data, recurrent={"recurrent_dropout": 0.3}, num_layers=2)
    trainer = Trainer(**{**QUIET, "limit_train_batches": 3})
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    stored = torch.load(tmp_path / "model.ckpt", weights_only=True)
    (own,) = stored["carried_state"]  # of one process
    assert all(isinstance(field, torch.Tensor) for field in own)
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    before, after = (flatten(each._states["train"]) for each in (model, loaded))
    assert len(before) == 4
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_each_process_takes_up_the_state_that_it_carried(folder):
    model = watched(language(folder=folder))
    states = [
        [torch.full_like(field, rank + 1.0) for field in flatten(model.recurrent.initial_state(2))] for rank in (0, 1)
    ]
    for rank in (0, 1):
        model._trainer = SimpleNamespace(world_size=2, global_rank=rank)
        model.on_load_checkpoint({"carried_state": states})
        assert all(bool((field == rank + 1).all()) for field in flatten(model._states.pop("train")))
    model._trainer = SimpleNamespace(world_size=3, global_rank=0)
    model.on_load_checkpoint({"carried_state": states})
    assert "train" not in model._states, "on other numbers of processes the lanes are others"


def test_learning_rates_follow_the_length_of_varied_chunks(folder):
    rates = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            loss = closure()
            rates.append(self.param_groups[0]["lr"])
            return loss

    data = language(TEXT * 30, folder=folder, vary_chunks=True, chunk_length=20)
    model = model_of(data.processor, optimizer=lambda parameters: Recording(parameters, lr=1.0))
    trainer = Trainer(**QUIET)
    trainer.fit(model, datamodule=data)
    sizes = data.train_dataloader().batch_sampler.sizes()
    assert rates == pytest.approx([size / 20 for size in sizes])
    assert len(set(rates)) > 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_carry_the_state_in_the_type_of_the_weights(folder, precision):
    data = language(folder=folder)
    model = model_of(data.processor, num_layers=2, dropout=0.2, tied=True)
    Trainer(**{**QUIET, "precision": precision}).fit(model, datamodule=data)
    kind = torch.float64 if precision == "64-true" else torch.float32
    assert {field.dtype for field in flatten(model._states["train"])} == {kind}
    assert math.isfinite(model.results["val"]["loss"])


# Options


def test_options_that_make_no_sense_together():
    with pytest.raises(InputError, match=r"model\.one_hot"):
        build(one_hot=True, tied=True)
    with pytest.raises(InputError, match=r"model\.one_hot"):
        build(one_hot=True, words={"size": 5, "word_dropout": 0.1})
    with pytest.raises(InputError, match=r"model\.regularisation\.output_dropout"):
        build(regularisation={"output_dropout": 1.0})


def test_dropout_is_locked_if_so_asked():
    model = build(dropout=0.5, recurrent={"locked_dropout": True}).train()
    batch = model.processor.collate([{**model.processor.encode({"text": TEXT}), "id": 0}])
    outputs = model(batch)
    dropped = outputs.hidden[0] == 0  # [T, H]
    assert dropped.any()
    assert (dropped == dropped[0]).all()
    loose = build(dropout=0.5).train()(batch).hidden[0] == 0
    assert not (loose == loose[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_any_cell_comes_near_the_entropy_of_the_source(cell):
    data = LanguageData(synthetic="markov_text", documents="file", line_end=True, chunk_length=32)
    model = model_of(
        data.processor,
        cell=cell,
        hidden_size=64,
        words={"size": 32},
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.005),
    )
    Trainer(**{**QUIET, "max_epochs": 2}).fit(model, datamodule=data)
    assert data.best_scores["validation"]["loss"] - 0.01 < model.results["val"]["loss"]
    assert model.results["val"]["loss"] < 1.03 * data.best_scores["validation"]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["--data.documents", "row"], ["--model.recurrent.learn_initial_state", "true"]]
)
def test_two_processes_learn_what_one_with_twice_the_lanes_does(tmp_path, options):
    def losses(name, *settings):
        fit = ["fit", "next_step/markov_text", "--data.limit", "150", "--model.hidden_size", "8", *options, *settings]
        fit += ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--run_dir", str(tmp_path / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "rnnzoo", *fit]
        subprocess.run(command, check=True, timeout=300, env=environment, cwd=tmp_path, capture_output=True)
        report = json.loads((tmp_path / name / "report.json").read_text())
        return {split: values["loss"]["value"] for split, values in report["metrics"].items()}

    one = losses("one", "--data.batch_size", "8")
    two = losses("two", "--data.batch_size", "4", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert two == pytest.approx(one, abs=1e-5)
