"""Averaging the weights once training stops making progress (NT-ASGD)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from rnnzoo.errors import InputError

MODES = ("min", "max")


class NonMonotonicAverage(Callback):
    """Average the weights over all steps from the time on that a validation metric has stopped improving.

    Averaging starts when the metric is worse than in the best of all earlier evaluations, the latest `patience` of
    them left out. From then on w̄ is the mean of the weights after each optimizer step; training itself goes on with
    its own weights, whatever the optimizer. With `torch.optim.SGD` at a constant learning rate this is NT-ASGD.

    Validation, checkpoints and the model at the end of the training have the averaged weights; a training that is
    resumed from a checkpoint goes on with its own, which the checkpoint holds in the state of this callback, as plain
    tensors. Only parameters are averaged, in float32 at least; buffers are those of the model. Each call of `fit` that
    resumes nothing starts anew.

    How many steps are in the average is logged as ``train/averaged_steps``.

    Args:
        patience: evaluations that may pass without progress (n in the paper).
        metric: the logged validation metric that is watched.
        mode: ``min`` if lower values are better, else ``max``.

    Raises:
        InputError: for a patience below 1, another mode, or a metric that is not logged.

    Source: Merity, Keskar & Socher 2018, "Regularizing and Optimizing LSTM Language Models", algorithm 1.
    """

    def __init__(self, *, patience: int = 5, metric: str = "val/loss", mode: str = "min") -> None:
        if patience < 1:
            raise InputError("NonMonotonicAverage.patience", expected="at least 1", got=str(patience))
        if mode not in MODES:
            raise InputError("NonMonotonicAverage.mode", expected="min or max", got=repr(mode))
        self.patience = patience
        self.metric = metric
        self.mode = mode
        self.values: list[float] = []  # of the metric, negated if higher is better
        self.started = False
        self.steps = 0  # in the average
        self.average: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}  # the model's own weights, as long as it has the averaged ones
        self._seen = 0  # optimizer steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start anew; the state of a checkpoint is loaded after this."""
        if stage == "fit":
            self.values, self.average, self.own = [], {}, {}
            self.started, self.steps = False, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the average to where the weights are, and look from which step on to count."""
        self._seen = trainer.global_step
        for stored in (self.average, self.own):
            stored.update({name: tensor.to(pl_module.device) for name, tensor in stored.items()})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Give the model its own weights back after an evaluation."""
        if self.own:
            copy_into(pl_module, self.own)
            self.own = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the weights into the average if an optimizer has done a step."""
        stepped, self._seen = trainer.global_step > self._seen, trainer.global_step
        if not (self.started and stepped):
            return
        self.steps += 1
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if not parameter.requires_grad:
                    continue
                value = parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))
                if name in self.average:
                    self.average[name].lerp_(value, 1 / self.steps)
                else:
                    self.average[name] = value.clone()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model the averaged weights, until the next training batch."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._show_average(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether the metric still improves."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.metric not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise InputError("NonMonotonicAverage.metric", expected=f"one of {logged}", got=repr(self.metric))
        value = float(trainer.callback_metrics[self.metric])
        value = -value if self.mode == "max" else value
        earlier = self.values[: -self.patience]
        stalled = len(earlier) > 0 and value > min(earlier)
        self.started = trainer.strategy.reduce_boolean_decision(self.started or stalled, all=False)
        self.values.append(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of steps in the average."""
        pl_module.log("train/averaged_steps", float(self.steps))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averaged weights in the model."""
        self._show_average(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the metric and the average; the model's own weights are added on saving."""
        return {"values": list(self.values), "started": self.started, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint, whose ``state_dict`` has just given the model the averaged weights."""
        self.values = list(state_dict["values"])
        self.started, self.steps = state_dict["started"], state_dict["steps"]
        self.average, self.own = dict(state_dict.get("average", {})), dict(state_dict.get("own", {}))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the averaged weights into the checkpoint as those of the model, and its own beside them."""
        if not self.average:
            return
        state = checkpoint["callbacks"][self.state_key]
        state["average"] = self.average
        state["own"] = self.own or own_weights(pl_module, self.average)
        weights = checkpoint["state_dict"] = dict(checkpoint["state_dict"])
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):  # tied weights have several names
            averaged = self.average.get(names[id(parameter)])
            if averaged is not None and name in weights:
                weights[name] = averaged.to(parameter.dtype)

    def _show_average(self, pl_module: LightningModule) -> None:
        if self.average and not self.own:
            self.own = own_weights(pl_module, self.average)
            copy_into(pl_module, self.average)


def own_weights(module: torch.nn.Module, names: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the parameters of `module` that are in `names`."""
    return {name: value.detach().clone() for name, value in module.named_parameters() if name in names}


def copy_into(module: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `weights` into the parameters of `module`, which stay the same objects."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
