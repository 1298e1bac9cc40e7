"""Schedulers of torch are stepped as they expect, numbers that count something else are refused, rates are logged."""

from __future__ import annotations

import csv
import functools
import inspect

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from small_models import SAMPLES, build
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader

from rnnzoo.cli.engine import ZooCLI
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe

EPOCHS, BATCHES = 3, 4
partial = functools.partial
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data; some schedulers of their end
ARGUMENTS = {  # of every scheduler of torch, and whether it is stepped by steps
    "LambdaLR": ({"lr_lambda": lambda step: 0.5**step}, False),
    "MultiplicativeLR": ({"lr_lambda": lambda step: 0.9}, False),
    "StepLR": ({"step_size": 1}, False),
    "MultiStepLR": ({"milestones": [1, 2]}, False),
    "ConstantLR": ({"total_iters": 2}, False),
    "LinearLR": ({"total_iters": 2}, False),
    "ExponentialLR": ({"gamma": 0.5}, False),
    "PolynomialLR": ({"total_iters": 3}, False),
    "CosineAnnealingLR": ({"T_max": 3}, False),
    "CosineAnnealingWarmRestarts": ({"T_0": 2}, False),
    "CyclicLR": ({"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "cycle_momentum": False}, True),
    "OneCycleLR": ({"max_lr": 0.1, "total_steps": EPOCHS * BATCHES}, True),
}
COMPOSED = {
    "ChainedScheduler": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)], optimizer=optimizer
    ),
    "SequentialLR": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)], milestones=[1]
    ),
}


class Rates(Callback):
    """The rates that steps were taken with."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, *_):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(scheduler, *, rate=0.1, batches=BATCHES, **settings):
    model = build("VectorClassifier", optimizer=partial(SGD, lr=rate), **scheduler)
    rows = [{**model.processor.encode(SAMPLES["VectorClassifier"][0]), "id": place} for place in range(batches)]
    rates = Rates()
    chosen = {"max_epochs": EPOCHS, **settings}
    trainer = Trainer(**{**QUIET, "callbacks": [rates], **chosen})
    trainer.fit(model, DataLoader(rows, 1, collate_fn=model.processor.collate))
    return rates.seen, trainer


def expected_rates(make, *, by_step, steps=BATCHES):
    """Return the rates of the steps of a scheduler that is stepped by hand."""
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = make(optimizer)
    found = []
    for _ in range(EPOCHS):
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if by_step:
                scheduler.step()
        if not by_step:
            scheduler.step()
    return found


def test_every_scheduler_of_torch_is_known():
    found = {name for name in lr_scheduler.__all__ if inspect.isclass(getattr(lr_scheduler, name))}
    found -= {"LRScheduler", "SWALR"}  # the base; and one for averaged weights, which have a callback here
    assert found == {*ARGUMENTS, *COMPOSED, "ReduceLROnPlateau"}


@pytest.mark.parametrize("interval", [None, "step", "epoch"])
@pytest.mark.parametrize("name", [*ARGUMENTS, *COMPOSED])
def test_a_scheduler_is_stepped_as_it_is_made_for_or_as_one_says(name, interval):
    arguments, by_step = ARGUMENTS.get(name, ({}, False))
    if name == "OneCycleLR" and interval == "epoch":
        arguments = {**arguments, "total_steps": EPOCHS}
    if interval == "step" and name in ("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "StepLR", "MultiStepLR"):
        ((key, _),) = arguments.items()  # numbers that count epochs are refused there
        arguments = {key: [5] if key == "milestones" else 5}
    if name == "CyclicLR" and interval == "epoch":
        arguments = {**arguments, "step_size_up": 1}
    make = COMPOSED.get(name) or partial(getattr(lr_scheduler, name), **arguments)
    found, _ = train({"lr_scheduler": make, "lr_scheduler_interval": interval})
    assert found == pytest.approx(expected_rates(make, by_step=by_step if interval is None else interval == "step"))
    assert len(set(found)) > 1


def test_a_composed_scheduler_with_a_cycle_inside_is_stepped_by_steps():
    def make(optimizer):
        parts = [lr_scheduler.OneCycleLR(optimizer, 0.1, 12), lr_scheduler.ConstantLR(optimizer)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[6])

    found, _ = train({"lr_scheduler": make})
    assert found == pytest.approx(expected_rates(make, by_step=True))


@pytest.mark.parametrize(
    ("interval", "settings", "steps"),
    [
        (None, {}, 12),
        (None, {"accumulate_grad_batches": 2}, 6),
        (None, {"max_epochs": -1, "max_steps": 9}, 9),
        ("epoch", {}, 3),
    ],
    ids=str,
)
def test_one_cycle_spans_the_training_if_nothing_else_is_said(interval, settings, steps):
    make = partial(lr_scheduler.OneCycleLR, max_lr=0.1, final_div_factor=100)
    found, trainer = train({"lr_scheduler": make, "lr_scheduler_interval": interval}, **settings)
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    assert scheduler.total_steps == steps
    if interval is None and not settings:
        assert found[0] == pytest.approx(0.1 / 25)
        assert max(found) == pytest.approx(0.1, rel=0.05)
        assert found[-1] == pytest.approx(0.1 / 25 / 100)
        assert len({round(rate, 8) for rate in found}) == 12


def test_without_a_trainer_its_arguments_are_checked_all_the_same():
    make = partial(lr_scheduler.OneCycleLR, max_lr=0.1)
    found = build("VectorClassifier", optimizer=partial(SGD, lr=0.1), lr_scheduler=make).configure_optimizers()
    assert found["lr_scheduler"]["interval"] == "step"
    wrong = build("VectorClassifier", optimizer=partial(SGD, lr=0.1), lr_scheduler=partial(make, pct_start=7))
    with pytest.raises(InputError, match="pct_start"):
        wrong.configure_optimizers()


@pytest.mark.parametrize(
    ("make", "interval", "settings", "message"),
    [
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=12), "epoch", {}, "at most 3, .*interval step"),
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3), None, {}, "12, the steps.*interval epoch"),
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1), None, {"max_epochs": -1, "max_time": "00:00:01:00"}, "how long"),
        (partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, cycle_momentum=False), "epoch", {}, "interval step"),
        (partial(lr_scheduler.CosineAnnealingLR, T_max=3), "step", {}, "T_max.*training has 12.*interval epoch"),
        (partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=1), "step", {}, "interval epoch"),
        (partial(lr_scheduler.StepLR, step_size=1), "step", {}, "step_size.*interval epoch"),
        (partial(lr_scheduler.MultiStepLR, milestones=[1, 2]), "step", {}, "milestones.*interval epoch"),
        (partial(lr_scheduler.CosineAnnealingLR, T_max=160), None, {"batches": 40, "max_epochs": 4}, "interval step"),
        (lr_scheduler.ReduceLROnPlateau, "step", {}, "watches a metric"),
        (partial(lr_scheduler.StepLR, step_size=1), "steps", {}, "did you mean 'step'"),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_count_something_else_are_refused(make, interval, settings, message):
    with pytest.raises(InputError, match=f"(?s)model.lr_scheduler.*{message}") as raised:
        train({"lr_scheduler": make, "lr_scheduler_interval": interval}, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "interval", "epochs"),
    [
        (partial(lr_scheduler.CosineAnnealingLR, T_max=12), None, 1),  # of a recipe that is trained for less
        (partial(lr_scheduler.CosineAnnealingLR, T_max=12), "step", 3),
        (partial(lr_scheduler.MultiStepLR, milestones=[10, 1000]), None, 2),
        (partial(lr_scheduler.LinearLR, total_iters=2), "step", 3),  # a warm-up of two steps
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=100), None, 3),  # to be stopped early
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_sense_is_let_through(make, interval, epochs):
    found, _ = train({"lr_scheduler": make, "lr_scheduler_interval": interval}, max_epochs=epochs)
    assert len(found) == epochs * BATCHES


def logged(folder, name):
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]


@pytest.mark.parametrize("scheduler", [None, "StepLR", "OneCycleLR"])
def test_the_learning_rate_is_in_the_metrics_of_every_logger(scheduler, tmp_path):
    arguments = {"StepLR": {"step_size": 1}, "OneCycleLR": {"max_lr": 0.1}}.get(scheduler)
    make = None if scheduler is None else partial(getattr(lr_scheduler, scheduler), **arguments)
    logger = CSVLogger(tmp_path, name="", version="")
    seen, _ = train({"lr_scheduler": make}, logger=logger, log_every_n_steps=2)
    found = logged(tmp_path, "train/learning_rate")
    last = BATCHES - 1
    if scheduler == "OneCycleLR":
        expected = [(step, seen[step]) for step in range(1, EPOCHS * BATCHES, 2)]
    else:
        expected = [(epoch * BATCHES + last, seen[epoch * BATCHES + last]) for epoch in range(EPOCHS)]
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [rate for _, rate in found] == pytest.approx([rate for _, rate in expected])


def test_every_group_of_parameters_has_its_own_rate(tmp_path):
    model = build("Captioner", image={"channels": [8, 8], "learning_rate": 0.001}, optimizer=partial(SGD, lr=0.1))
    rows = [{**model.processor.encode(sample), "id": place} for place, sample in enumerate(SAMPLES["Captioner"])]
    trainer = Trainer(**{**QUIET, "max_epochs": 1, "logger": CSVLogger(tmp_path, name="", version="")})
    trainer.fit(model, DataLoader(rows, 2, collate_fn=model.processor.collate))
    assert [rate for _, rate in logged(tmp_path, "train/learning_rate")] == pytest.approx([0.1])
    assert [rate for _, rate in logged(tmp_path, "train/learning_rate_encoder")] == pytest.approx([0.001])


def test_a_longer_training_does_not_go_past_the_end_of_a_cycle(tmp_path):
    """torch would stop it with an error in the middle."""
    model = build(
        "VectorClassifier", optimizer=partial(SGD, lr=0.1), lr_scheduler=partial(lr_scheduler.OneCycleLR, max_lr=1)
    )
    rows = [{**model.processor.encode(SAMPLES["VectorClassifier"][0]), "id": place} for place in range(BATCHES)]
    batches = DataLoader(rows, 1, collate_fn=model.processor.collate)
    trainer = Trainer(**{**QUIET, "max_epochs": 2})
    trainer.fit(model, batches)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"at most 8 steps.*got 16.*init_from"):
        Trainer(**{**QUIET, "max_epochs": 4}).fit(model, batches, ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def recipe(*overrides):
    """Return the model of a recipe with options of the command line."""
    configuration = str(find_recipe("many_to_many/hidden_markov").path)
    return ZooCLI([f"--config={configuration}", "--data.limit=20", *overrides], run_folder=None).model


def test_from_the_command_line_too():
    cycle = "--model.lr_scheduler=torch.optim.lr_scheduler.OneCycleLR"
    model = recipe(cycle, "--model.lr_scheduler.max_lr=0.1", "--model.lr_scheduler_interval=step")
    assert model.configure_optimizers()["lr_scheduler"]["interval"] == "step"
    assert "lr_scheduler_interval" not in model.hparams, "a stored model does not know how it was trained"
    with pytest.raises(InputError, match=r"its arguments T_max.*set --model.lr_scheduler.T_max$"):
        recipe("--model.lr_scheduler=CosineAnnealingLR")
