"""A training that was killed and goes on is the one that never stopped, bit by bit; and a folder may move meanwhile."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule

from rnnzoo.callbacks import exact_resume
from rnnzoo.callbacks.exact_resume import BestCheckpoint, LastCheckpoint, random_state, set_random_state
from rnnzoo.cli.engine import ZooCLI
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data
EPOCHS = 3
PLATEAU = ["--model.lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau", "--model.lr_scheduler.patience=0"]
STEPS = ["--model.lr_scheduler=torch.optim.lr_scheduler.StepLR", "--model.lr_scheduler.step_size=1"]
CYCLE = ["--model.lr_scheduler=torch.optim.lr_scheduler.OneCycleLR", "--model.lr_scheduler.max_lr=0.3"]
QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=3"]
SMALL = [*QUICK, "--data.limit=60", "--model.dropout=0.4"]
AVERAGE = ["--trainer.callbacks=rnnzoo.callbacks.averaging.NonMonotonicAverage", "--trainer.callbacks.patience=1"]
STOP = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=1"]
CASES = {
    "tagger": ["many_to_many/hidden_markov", "--model.hidden_size=6"],
    "plateau": ["many_to_many/hidden_markov", "--model.hidden_size=6", *PLATEAU, "--model.optimizer.lr=0.3"],
    "steps": ["many_to_one/topic_chains", "--model.hidden_size=6", *STEPS, "--trainer.accumulate_grad_batches=2"],
    "one cycle": ["many_to_many/hidden_markov", "--model.hidden_size=6", *CYCLE, "--trainer.accumulate_grad_batches=2"],
    "stream": ["next_step/markov_text", "--model.hidden_size=6", "--data.vary_chunks=true", "--data.begin_anew=0.3"],
    "translator": ["encoder_decoder/dates", "--model.hidden_size=6", "--data.batch_size=16"],
    "average": ["many_to_many/hidden_markov", "--model.hidden_size=6", *AVERAGE, "--model.optimizer.lr=0.3"],
    "early stop": ["many_to_many/hidden_markov", "--model.hidden_size=6", *STOP, "--model.optimizer.lr=0.3"],
}

QUICK_ONES, SLOW = ("tagger", "stream", "average"), pytest.mark.slow


class KilledError(Exception):
    """The process is gone."""


class KillIn(Callback):
    """Break off within an epoch, after so many batches."""

    def __init__(self, epoch, batches):
        self.epoch = epoch
        self.batches = batches

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx + 1 == self.batches:
            raise KilledError


def train(folder, options, *, kill=None, checkpoint=None):
    recipe, *more = options
    args = [f"--config={find_recipe(recipe).path}", f"--trainer.max_epochs={EPOCHS}", *SMALL, *more]
    cli = ZooCLI(args, run_folder=folder)
    if kill is not None:
        cli.trainer.callbacks.insert(0, KillIn(*kill))
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    return cli


def best_of(cli):
    (best,) = (each for each in cli.trainer.callbacks if isinstance(each, BestCheckpoint))
    return best


BETWEEN = [
    pytest.param(name, False, id=f"{name} between epochs", marks=() if name in (*QUICK_ONES, "plateau") else SLOW)
    for name in CASES
]
WITHIN = [pytest.param(name, True, id=f"{name} within one", marks=() if name in QUICK_ONES else SLOW) for name in CASES]


@pytest.mark.parametrize(("name", "within"), BETWEEN + WITHIN)
def test_a_killed_training_that_goes_on_is_the_whole_one(tmp_path, monkeypatch, name, within):
    whole = train(tmp_path / "whole", CASES[name])
    if within:  # as if every batch took minutes
        monkeypatch.setattr(exact_resume, "BATCHES_BETWEEN_LOOKS", 1)
        monkeypatch.setattr(exact_resume.time, "monotonic", itertools.count(step=1000).__next__)
    with pytest.raises(KilledError):
        train(tmp_path / "part", CASES[name], kill=(2, 2 if within else 1))
    monkeypatch.undo()
    shutil.move(tmp_path / "part", tmp_path / "moved")
    random.seed(5)
    np.random.seed(5)
    checkpoint = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    accumulated = 2 if "--trainer.accumulate_grad_batches=2" in CASES[name] else 1
    assert stored["callbacks"]["LastCheckpoint"]["place"][:2] == [2, 1 if within and accumulated == 1 else 0]
    resumed = train(tmp_path / "moved", CASES[name], checkpoint=checkpoint)
    assert resumed.trainer.global_step == whole.trainer.global_step
    assert resumed.trainer.current_epoch == whole.trainer.current_epoch
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    assert torch.equal(best_of(whole).best_model_score, best_of(resumed).best_model_score)
    assert best_of(resumed).best_model_path == str(tmp_path / "moved" / "checkpoints" / "best.ckpt")
    best = [
        torch.load(tmp_path / each / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
        for each in ("whole", "moved")
    ]
    assert best[0] == best[1]
    assert len(resumed.throughput.batch_rates) == len(whole.throughput.batch_rates)
    assert (resumed.throughput.epochs_before, whole.throughput.epochs_before) == ([2], [])
    assert resumed.throughput.seconds < 100


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("limited", False),
        ("plateau", True),
        ("validated", True),
        pytest.param("limited", True, marks=SLOW),
        pytest.param("plateau", False, marks=SLOW),
        pytest.param("validated", False, marks=SLOW),
    ],
)
def test_the_epochs_after_the_one_that_is_gone_on_with_are_the_same_too(tmp_path, monkeypatch, name, within):
    more = {
        "plateau": PLATEAU,
        "limited": ["--trainer.max_steps=21"],
        "validated": ["--trainer.val_check_interval=0.5", *AVERAGE],
    }
    small = ["--model.hidden_size=6", "--data.batch_size=8", "--model.optimizer.lr=0.3"]  # 8 batches an epoch
    options = ["many_to_many/hidden_markov", *small, *more[name]]
    whole = train(tmp_path / "whole", options)
    if within:
        monkeypatch.setattr(exact_resume, "BATCHES_BETWEEN_LOOKS", 1)
        monkeypatch.setattr(exact_resume.time, "monotonic", itertools.count(step=1000).__next__)
    with pytest.raises(KilledError):
        train(tmp_path / "part", options, kill=(1, 5 if within else 1))
    monkeypatch.undo()
    resumed = train(tmp_path / "part", options, checkpoint=tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert resumed.trainer.global_step == whole.trainer.global_step
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.parametrize("name", ["tagger", "stream", pytest.param("average", marks=SLOW), "validated"])
def test_the_best_checkpoint_stands_in_for_a_damaged_last_one(tmp_path, name):
    """Only a scheduler that watches a metric has yet to take its step there."""
    validated = ["--data.batch_size=8", "--trainer.val_check_interval=0.5", "--model.optimizer.lr=0.3"]
    options = CASES.get(name) or ["many_to_many/hidden_markov", "--model.hidden_size=6", *validated]
    whole = train(tmp_path / "whole", options)
    with pytest.raises(KilledError):
        train(tmp_path / "part", options, kill=(2, 2))
    checkpoint = tmp_path / "part" / "checkpoints" / "best.ckpt"
    resumed = train(tmp_path / "part", options, checkpoint=checkpoint)
    assert resumed.trainer.global_step == whole.trainer.global_step
    assert resumed.trainer.current_epoch == whole.trainer.current_epoch
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


class Logged(Callback):
    """Replace what is logged after each validation, before checkpoints look at it."""

    def __init__(self, losses, metric):
        self.losses = losses
        self.metric = metric

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            values = {"val/accuracy": self.metric, "val/loss": self.losses[trainer.current_epoch]}
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})

    def on_train_epoch_end(self, trainer, pl_module):
        values = {"val/accuracy": self.metric, "val/loss": self.losses[trainer.current_epoch]}
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("losses", "metric", "best"),
    [
        ([3.0, 2.0, 2.5], 0.0, 2),
        ([3.0, 2.0, 1.0], 0.0, 3),
        ([1.0, 2.0, 1.0], 0.0, 1),
    ],
)
def test_of_equal_metrics_the_lower_loss_wins(tmp_path, losses, metric, best, resumed):
    args = [f"--config={find_recipe('hidden_markov').path}", *SMALL, "--model.hidden_size=4"]

    def fit(epochs, checkpoint=None):
        cli = ZooCLI([*args, f"--trainer.max_epochs={epochs}"], run_folder=tmp_path)
        cli.trainer.callbacks.insert(0, Logged(losses, metric))
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)

    if resumed:
        fit(2)
    fit(3, tmp_path / "checkpoints" / "last.ckpt" if resumed else None)
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == best


def test_other_batches_within_an_epoch_are_refused_and_a_later_training_begins_at_its_beginning(tmp_path):
    options = [*CASES["tagger"], "--data.batch_size=16"]
    train(tmp_path / "part", [*options, "--trainer.max_steps=6"])
    checkpoint = tmp_path / "part" / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match="expected 4 batches an epoch, as there were, got 8"):
        train(tmp_path / "part", [*options, "--data.batch_size=8"], checkpoint=checkpoint)
    data = train(tmp_path / "part", options, checkpoint=checkpoint).datamodule
    assert len(list(data.train_dataloader())) == 4


@pytest.mark.parametrize("steps", [5, 6])
def test_a_training_that_ended_within_an_epoch_goes_on_there(tmp_path, steps):
    options = [*CASES["tagger"], "--data.batch_size=16"]  # 4 batches an epoch
    whole = train(tmp_path / "whole", options)
    part = train(tmp_path / "part", [*options, f"--trainer.max_steps={steps}"])
    assert (whole.trainer.global_step, part.trainer.global_step) == (12, steps)
    checkpoint = tmp_path / "part" / "checkpoints" / "last.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    assert (stored["epoch"], stored["callbacks"]["LastCheckpoint"]["place"]) == (1, [1, steps - 4, 4])
    resumed = train(tmp_path / "part", options, checkpoint=checkpoint)
    assert resumed.trainer.global_step == 12
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.slow
def test_workers_fetch_the_batches_of_the_epoch_that_is_resumed(tmp_path):
    options = [*CASES["tagger"], "--data.num_workers=2"]
    whole = train(tmp_path / "whole", options)
    with pytest.raises(KilledError):
        train(tmp_path / "part", options, kill=(2, 1))
    resumed = train(tmp_path / "part", options, checkpoint=tmp_path / "part" / "checkpoints" / "last.ckpt")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def test_a_finished_training_may_go_on_for_longer(tmp_path):
    whole = train(tmp_path / "whole", CASES["plateau"])
    train(tmp_path / "part", [*CASES["plateau"], "--trainer.max_epochs=1"])
    checkpoint = tmp_path / "part" / "checkpoints" / "last.ckpt"
    resumed = train(tmp_path / "part", CASES["plateau"], checkpoint=checkpoint)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def test_the_generators_are_set_as_they_were():
    def draw():
        return [random.random(), random.gauss(0, 1), np.random.randn(), *np.random.rand(2), *torch.rand(2).tolist()]

    np.random.randn()  # there is a spare normal number now
    random.gauss(0, 1)
    state = random_state()
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


def test_another_number_of_processes_takes_no_state_of_the_generators(tmp_path):
    last = LastCheckpoint(tmp_path)
    last.load_state_dict({"random": [random_state(), random_state()]})

    class Trainer:
        world_size, global_rank, current_epoch = 1, 0, 0

    before = torch.get_rng_state()
    last.on_train_start(Trainer(), LightningModule())
    last.on_train_epoch_start(Trainer(), LightningModule())
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "limit", "part", "whole"),
    [
        ("hidden_markov", ["--data.limit", "80", "--model.dropout", "0.4"], ["max_epochs", "1"], ["max_epochs", "3"]),
        ("markov_text", ["--model.hidden_size", "6"], ["max_steps", "7"], ["max_steps", "10"]),  # within an epoch
    ],
)
def test_two_processes_that_are_killed_go_on_as_two_that_were_not(tmp_path, recipe, limit, part, whole):
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    small = [*limit, "--trainer.enable_progress_bar", "false"]
    until = [[f"--trainer.{name}", count] for name, count in (part, whole)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(*argv):
        command = [sys.executable, "-m", "rnnzoo", *argv]
        subprocess.run(command, check=True, timeout=300, env=environment, cwd=tmp_path, capture_output=True)

    call("fit", recipe, *two, *small, *until[1], "--run_dir", "whole")
    call("fit", recipe, *two, *small, *until[0], "--run_dir", "part")
    call("fit", "--resume", "part", *until[1])
    expected, found = (
        torch.load(tmp_path / each / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for each in ("whole", "part")
    )
    assert all(torch.equal(expected[key], found[key]) for key in expected)
