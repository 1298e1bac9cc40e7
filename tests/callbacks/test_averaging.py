"""Averaged weights: when averaging starts, what is averaged, and who sees which weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

import rnnzoo
from rnnzoo.callbacks.averaging import NonMonotonicAverage
from rnnzoo.cli.main import main
from rnnzoo.errors import InputError

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data

BATCHES = 4
STALLED = [2.0, 3.0, 2.5, 1.0, 2.0, 1.5]  # with a patience of 1 the third evaluation starts the averaging
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 2,
    "gradient_clip_val": 0,
}


class Walk(LightningModule):
    """Weights that each batch pulls to another place; the metric is told beforehand."""

    def __init__(self, values=STALLED, optimizer=torch.optim.SGD, **options):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2, bias=False)
        self.twin = nn.Linear(3, 2, bias=False)
        self.twin.weight = self.layer.weight  # tied
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("count", torch.zeros(()))
        self.values, self.optimizer, self.options = list(values), optimizer, options
        self.iterates = []  # after each optimizer step
        self.validated = []  # in each validation

    def training_step(self, batch, batch_index):
        self.count += 1
        return (self.layer(batch.to(self.layer.weight.dtype)) - batch.mean()).square().sum()

    def optimizer_step(self, *arguments, **options):
        super().optimizer_step(*arguments, **options)
        self.iterates.append(self.layer.weight.detach().clone())

    def validation_step(self, batch, batch_index):
        if not self.trainer.sanity_checking:
            self.validated.append(self.layer.weight.detach().clone())
            self.log("val/loss", self.values[len(self.validated) - 1], on_epoch=True)

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), **{"lr": 0.05, **self.options})

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        return DataLoader(torch.randn(BATCHES, 3, generator=generator), batch_size=1)

    def val_dataloader(self):
        return DataLoader(torch.zeros(1, 3), batch_size=1)


def fit(model, *callbacks, epochs=6, patience=1, ckpt_path=None, **settings):
    """Train, and return the averaging callback."""
    average = NonMonotonicAverage(patience=patience)
    settings = {**QUIET, "enable_checkpointing": False, "max_epochs": epochs, **settings}
    Trainer(callbacks=[average, *callbacks], **settings).fit(model, ckpt_path=ckpt_path)
    return average


def mean(weights):
    return torch.stack(list(weights)).double().mean(0).float()


@pytest.mark.parametrize(
    ("values", "patience", "started_after"),
    [
        ([3, 2, 1, 0.5], 1, None),
        ([2, 3, 2.5, 1], 1, 3),
        ([2, 3, 2, 1], 1, None),  # as good as the best is no stall
        ([3, 2, 2.5, 2.6, 2.1, 1], 2, 5),  # the best of all but the latest two
        ([3, 2, 2.5, 2.6, 2.1, 1], 3, None),
        ([2, 3, 3, 3, 3], 3, 5),
        ([1, 2, 2], 1, 3),
        ([1, 2], 1, None),
    ],
)
def test_averaging_starts_when_the_paper_says(values, patience, started_after):
    logs, expected = [], None  # algorithm 1 of the paper, as written there
    for t, v in enumerate(values):
        if t > patience and expected is None and v > min(logs[place] for place in range(t - patience)):
            expected = t + 1
        logs.append(v)
    assert expected == started_after
    model = Walk(values)
    average = fit(model, patience=patience, epochs=len(values))
    assert average.steps == (0 if started_after is None else BATCHES * (len(values) - started_after))
    assert average.started == (started_after is not None)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_the_mean_of_the_weights_after_each_step(optimizer, accumulate):
    model = Walk(optimizer=optimizer)
    average = fit(model, accumulate_grad_batches=accumulate)
    steps = BATCHES // accumulate
    assert len(model.iterates) == 6 * steps
    assert average.steps == 3 * steps
    torch.testing.assert_close(model.layer.weight.detach(), mean(model.iterates[3 * steps :]))
    assert not torch.allclose(model.layer.weight, model.iterates[-1])
    assert torch.equal(model.frozen, torch.ones(2))
    assert model.count == 6 * BATCHES


def test_training_goes_on_as_if_there_were_no_average():
    model, plain = Walk(momentum=0.9), Walk(momentum=0.9)
    fit(model)
    Trainer(**QUIET, enable_checkpointing=False, max_epochs=6).fit(plain)
    assert all(map(torch.equal, model.iterates, plain.iterates))


@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_validation_sees_the_average_from_the_first_one_that_has_it(interval):
    values = STALLED * 2
    model = Walk(values)
    fit(model, val_check_interval=interval)
    every = int(BATCHES * interval)
    seen = model.validated
    for place, weight in enumerate(seen, start=1):
        steps = model.iterates[: place * every]
        expected = steps[-1] if place <= 3 else mean(steps[3 * every :])
        torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize("at_epoch_end", [True, False])
@pytest.mark.parametrize("weights_only", [True, False])
def test_checkpoints_have_the_weights_that_were_validated(tmp_path, at_epoch_end, weights_only):
    model = Walk()
    best = ModelCheckpoint(
        tmp_path, filename="{epoch}", monitor="val/loss", save_top_k=-1, save_weights_only=weights_only,
        save_on_train_epoch_end=at_epoch_end,
    )  # fmt: skip
    fit(model, best, enable_checkpointing=True)
    assert best.best_model_path.endswith("epoch=3.ckpt")
    for place in (4, 6):
        name = f"epoch={place - 1}"
        stored = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        expected = mean(model.iterates[3 * BATCHES : place * BATCHES])
        for key in ("layer.weight", "twin.weight"):
            torch.testing.assert_close(stored["state_dict"][key], expected)
        if not weights_only:
            state = stored["callbacks"]["NonMonotonicAverage"]
            assert torch.equal(state["own"]["layer.weight"], model.iterates[place * BATCHES - 1])
            assert state["average"].keys() == {"layer.weight"}
    other = Walk()
    other.load_state_dict(torch.load(tmp_path / "epoch=3.ckpt", weights_only=True)["state_dict"])
    torch.testing.assert_close(other.layer.weight.detach(), model.validated[3])


def test_a_checkpoint_before_the_start_has_the_models_own_weights(tmp_path):
    model = Walk([3.0, 2.0])
    fit(model, ModelCheckpoint(tmp_path, filename="one"), enable_checkpointing=True, epochs=2)
    stored = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert torch.equal(stored["state_dict"]["layer.weight"], model.iterates[-1])
    assert "own" not in stored["callbacks"]["NonMonotonicAverage"]
    assert torch.equal(model.layer.weight, model.iterates[-1])


def test_a_checkpoint_in_the_middle_of_an_epoch(tmp_path):
    model = Walk()
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(model, save, enable_checkpointing=True)
    stored = torch.load(tmp_path / f"step={4 * BATCHES + 2}.ckpt", weights_only=True)
    for key in ("layer.weight", "twin.weight"):
        torch.testing.assert_close(stored["state_dict"][key], mean(model.iterates[12:18]))
    own = stored["callbacks"]["NonMonotonicAverage"]["own"]["layer.weight"]
    assert torch.equal(own, model.iterates[17])


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5])
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, epochs):
    whole = Walk(momentum=0.9)
    expected = fit(whole)
    first = Walk(momentum=0.9)
    fit(first, ModelCheckpoint(tmp_path, filename="half"), enable_checkpointing=True, epochs=epochs)
    second = Walk(STALLED[epochs:], momentum=0.9)
    found = fit(second, ckpt_path=tmp_path / "half.ckpt")
    assert all(map(torch.equal, second.iterates, whole.iterates[epochs * BATCHES :]))
    assert torch.equal(second.layer.weight, whole.layer.weight)
    assert (found.values, found.steps, found.started) == (expected.values, expected.steps, expected.started)


def test_one_callback_in_two_trainings_keeps_nothing_of_the_first():
    average = NonMonotonicAverage(patience=1)
    settings = {**QUIET, "enable_checkpointing": False, "max_epochs": 6, "callbacks": [average]}
    Trainer(**settings).fit(Walk())
    again = Walk()
    Trainer(**settings).fit(again)
    assert average.steps == 3 * BATCHES
    torch.testing.assert_close(again.layer.weight.detach(), mean(again.iterates[12:]))


def test_an_evaluation_after_the_training_takes_the_model_as_it_is():
    model = Walk(STALLED + [9.0] * 3)
    average = NonMonotonicAverage(patience=1)
    trainer = Trainer(**QUIET, enable_checkpointing=False, max_epochs=6, callbacks=[average])
    trainer.fit(model)
    with torch.no_grad():
        model.layer.weight.fill_(7.0)  # as if the best checkpoint were loaded
    trainer.validate(model, verbose=False)
    assert model.validated[-1].eq(7.0).all()
    assert model.layer.weight.eq(7.0).all()


def test_an_evaluation_after_a_training_that_broke_off_takes_the_model_as_it_is():
    class Breaking(Walk):
        def training_step(self, batch, batch_index):
            if len(self.iterates) == 5 * BATCHES + 2:
                raise RuntimeError("broken off")
            return super().training_step(batch, batch_index)

    model = Breaking(STALLED)
    trainer = Trainer(**QUIET, enable_checkpointing=False, max_epochs=6, callbacks=[NonMonotonicAverage(patience=1)])
    with pytest.raises(RuntimeError, match="broken off"):
        trainer.fit(model)
    trainer.validate(model, verbose=False)
    assert torch.equal(model.validated[-1], model.iterates[-1])


def test_half_precision_weights_are_averaged_in_full_precision():
    model = Walk().bfloat16()
    average = fit(model, precision="bf16-true")
    assert average.average["layer.weight"].dtype == torch.float32
    torch.testing.assert_close(average.average["layer.weight"], mean(each.float() for each in model.iterates[12:]))
    assert model.layer.weight.dtype == torch.bfloat16


def test_higher_may_be_better():
    average = NonMonotonicAverage(patience=1, metric="val/loss", mode="max")
    model = Walk([2.0, 1.0, 3.0, 1.5, 1.0])
    Trainer(**QUIET, enable_checkpointing=False, max_epochs=5, callbacks=[average]).fit(model)
    assert average.steps == BATCHES


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patience": 0}, "patience: expected at least 1, got 0"), ({"mode": "least"}, "mode: expected min or max")],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        NonMonotonicAverage(**options)


def test_a_metric_that_is_not_logged_is_named_with_those_that_are():
    average = NonMonotonicAverage(metric="val/bleu")
    trainer = Trainer(**QUIET, enable_checkpointing=False, max_epochs=1, callbacks=[average])
    with pytest.raises(InputError, match=r"metric: expected one of .*val/loss.*, got 'val/bleu'"):
        trainer.fit(Walk())


FIT = ["--data.limit", "200", "--model.hidden_size", "8", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "6"]


def test_a_recipe_with_averaging_reports_and_saves_the_averaged_model(tmp_path):
    callback = {"class_path": "rnnzoo.callbacks.averaging.NonMonotonicAverage", "init_args": {"patience": 1}}
    callback["init_args"]["mode"] = "max"  # so that a falling loss is no progress
    (tmp_path / "extra.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    folder = tmp_path / "run"
    extra = ["--config", str(tmp_path / "extra.yaml"), "--run_dir", str(folder)]
    assert main(["fit", "many_to_many/hidden_markov", *FIT, *extra]) == 0
    stored = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    state = stored["callbacks"]["NonMonotonicAverage"]
    assert state["steps"] > 1
    model = rnnzoo.load(folder)
    for name, averaged in state["average"].items():
        torch.testing.assert_close(model.state_dict()[name], averaged)
        assert not torch.equal(state["own"][name], averaged), name
    assert "train/averaged_steps" in (folder / "metrics.csv").read_text().splitlines()[0]


PROGRAM = """
import sys, torch, warnings
warnings.filterwarnings("ignore")
sys.path[:0] = {paths!r}
import test_averaging as t
model = t.Walk()
average = t.fit(model, devices=2, strategy="ddp")
own = model.iterates[-1]
torch.save([average.steps, model.layer.weight.detach(), own], f"rank{{model.global_rank}}.pt")
"""


@pytest.mark.slow
def test_two_processes_have_the_same_average(tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM.format(paths=[str(Path(__file__).parent)]))
    subprocess.run([sys.executable, "train.py"], check=True, capture_output=True, cwd=tmp_path, timeout=300)
    (steps, average, own), other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert steps == other[0] == 3 * BATCHES // 2
    assert torch.equal(average, other[1])
    assert torch.equal(own, other[2])
    assert not torch.allclose(average, own)
