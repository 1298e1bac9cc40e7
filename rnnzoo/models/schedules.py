"""Learning rates over a training: schedulers of torch, each stepped as often as it expects."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from rnnzoo.errors import InputError, unknown_name

OptimizerFactory = Callable[[Iterable], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]
Built = TypeVar("Built")

INTERVALS = ("step", "epoch")
BY_STEP = (OneCycleLR, CyclicLR)  # torch documents these to be stepped after every batch, all others after an epoch
PERIODS: dict[type, tuple[str, Callable[[Any], int]]] = {  # class → the argument that counts its steps, and its value
    OneCycleLR: ("total_steps", lambda scheduler: scheduler.total_steps),
    CyclicLR: ("step_size_up + step_size_down", lambda scheduler: int(scheduler.total_size)),
    CosineAnnealingLR: ("T_max", lambda scheduler: scheduler.T_max),
    CosineAnnealingWarmRestarts: ("T_0", lambda scheduler: scheduler.T_0),
    StepLR: ("step_size", lambda scheduler: scheduler.step_size),
    MultiStepLR: ("milestones", lambda scheduler: max(scheduler.milestones, default=0)),
}
MANY = 100  # a number this large that is the number of steps of the training does not count epochs
UNKNOWN_STEPS = 1000  # in place of the number of steps where no Trainer is there to tell it


def built(where: str, factory: Callable[..., Built], given: Any, **more: Any) -> Built:
    """Return what a factory makes of something; what it refuses becomes an `InputError`."""
    try:
        return factory(given, **more)
    except (TypeError, ValueError) as error:
        raise InputError(where, expected="arguments that it takes", got=str(error)) from error


def build_scheduler(
    factory: SchedulerFactory, optimizer: Optimizer, *, interval: str | None, trainer: Trainer | None
) -> dict[str, Any]:
    """Build a scheduler, and say how often it is stepped: what Lightning takes as ``lr_scheduler``.

    `OneCycleLR` that is given neither ``total_steps`` nor ``epochs`` spans the steps of the training.

    Args:
        factory: makes the scheduler.
        optimizer: whose learning rate it changes.
        interval: ``step`` (of the optimizer), ``epoch``, or None for what the scheduler is made for.
        trainer: knows how long the training is; None where there is none yet.

    Raises:
        InputError: for arguments that the scheduler refuses, or that count epochs where it is stepped by steps or the
            other way round.
    """
    if interval not in (None, *INTERVALS):
        raise unknown_name("model.lr_scheduler_interval", str(interval), INTERVALS)
    more = {}
    if lacks_total_steps(factory):
        planned = planned_steps(trainer)
        if interval == "epoch" and trainer is not None:
            planned = planned_epochs(trainer)
        more["total_steps"] = UNKNOWN_STEPS if trainer is None else finite_steps(planned)
    scheduler = built("model.lr_scheduler", factory, optimizer, **more)
    chosen = interval or ("step" if any(isinstance(part, BY_STEP) for part in parts_of(scheduler)) else "epoch")
    if chosen == "step" and isinstance(scheduler, ReduceLROnPlateau):
        raise InputError(
            "model.lr_scheduler_interval",
            expected="'epoch' for ReduceLROnPlateau, which watches a metric of the validation",
            got="'step'",
        )
    if trainer is not None and type(scheduler) in PERIODS:
        check_period(scheduler, chosen, trainer)
    return {"scheduler": scheduler, "interval": chosen}


def lacks_total_steps(factory: SchedulerFactory) -> bool:
    """Return whether a factory makes a `OneCycleLR` without saying how long it is."""
    if not isinstance(factory, functools.partial):  # as jsonargparse makes them, and people do
        return False
    classes = [part for part in (factory.func, *factory.args) if isinstance(part, type)]
    given = factory.keywords
    known = given.get("total_steps") is not None or given.get("epochs") is not None
    return any(issubclass(each, OneCycleLR) for each in classes) and not known


def parts_of(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and those that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from parts_of(part)


def planned_steps(trainer: Trainer | None) -> float:
    """Return how many steps the optimizer will take in a training; infinity if nothing says so."""
    return math.inf if trainer is None else float(trainer.estimated_stepping_batches)


def planned_epochs(trainer: Trainer) -> float:
    """Return how many epochs a training has; infinity if nothing says so."""
    return math.inf if trainer.max_epochs is None or trainer.max_epochs < 0 else float(trainer.max_epochs)


def finite_steps(planned: float) -> int:
    """Return a number of steps as an integer.

    Raises:
        InputError: if it is infinite.
    """
    if math.isinf(planned):
        raise InputError(
            "model.lr_scheduler.total_steps",
            expected="a number, since nothing says how long the training is",
            got="none",
            fix="set it, or --trainer.max_epochs or --trainer.max_steps",
        )
    return int(planned)


def check_period(scheduler: Any, interval: str, trainer: Trainer) -> None:
    """Refuse a scheduler whose numbers count epochs while it is stepped by steps, or the other way round.

    Raises:
        InputError: with what the number would have to be, or how to step the scheduler.
    """
    name, period_of = PERIODS[type(scheduler)]
    period, epochs = period_of(scheduler), planned_epochs(trainer)
    by_step = isinstance(scheduler, BY_STEP)
    if interval == "epoch" and period > epochs and (by_step or period >= MANY):
        steps = planned_steps(trainer)
        if by_step or (period > 2 * epochs and abs(period - steps) <= 0.1 * steps):
            refuse_period(scheduler, name, period, f"at most {epochs:.0f}, in epochs", "step")
    if interval == "step":
        steps = planned_steps(trainer)
        if isinstance(scheduler, OneCycleLR) and period < steps < math.inf:
            refuse_period(scheduler, name, period, f"{steps:.0f}, the steps of the training, or none", "epoch")
        if not by_step and period <= epochs < math.inf and period * epochs < steps:
            refuse_period(scheduler, name, period, f"a number of steps; the training has {steps:.0f}", "epoch")


def refuse_period(scheduler: Any, name: str, period: int, expected: str, interval: str) -> None:
    """Refuse the argument that counts the steps of a scheduler.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"model.lr_scheduler {type(scheduler).__name__}, {name}",
        expected=expected,
        got=str(period),
        fix=f"change it, or set --model.lr_scheduler_interval {interval}",
    )


def check_resumed(trainer: Trainer) -> None:
    """Refuse to go on with a `OneCycleLR` past its end, where torch would stop the training.

    Raises:
        InputError: if the training is longer than the schedule that its checkpoint holds.
    """
    for config in trainer.lr_scheduler_configs:
        planned = planned_steps(trainer) if config.interval == "step" else planned_epochs(trainer)
        if isinstance(config.scheduler, OneCycleLR) and config.scheduler.total_steps < planned:
            raise InputError(
                "model.lr_scheduler OneCycleLR",
                expected=f"a training of at most {config.scheduler.total_steps} {config.interval}s, as it was planned",
                got=f"{planned:.0f}",
                fix="keep --trainer.max_epochs, or start a new run with --model.init_from",
            )


def learning_rates(trainer: Trainer) -> dict[str, float]:
    """Return the learning rate of each group of parameters, under the name that it is logged by.

    The first group is ``train/learning_rate``; a further one has its name, or its number from 2, added.
    """
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    named = ((group.get("name", number), group["lr"]) for number, group in enumerate(groups, start=1))
    return {f"train/learning_rate{'' if name == 1 else f'_{name}'}": float(rate) for name, rate in named}


def changes_within_epochs(trainer: Trainer) -> bool:
    """Return whether a scheduler is stepped by steps."""
    return any(config.interval == "step" for config in trainer.lr_scheduler_configs)
