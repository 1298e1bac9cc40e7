"""The Lightning steps of all models, written once: training, evaluation and prediction loops, optimizer, logging."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rnnzoo.batches import Batch
from rnnzoo.errors import InputError
from rnnzoo.kernels.settings import compile_on_first_use
from rnnzoo.metrics.base import ZooMetric
from rnnzoo.models.losses import Objective, RegularisedObjective
from rnnzoo.models.schedules import (
    OptimizerFactory,
    SchedulerFactory,
    build_scheduler,
    built,
    changes_within_epochs,
    check_resumed,
    learning_rates,
)

DEFAULT_GRADIENT_CLIP = 1.0  # the norm to which gradients are clipped if the Trainer says nothing


class TrainedModel(LightningModule, ABC):
    """A model as Lightning trains and measures it.

    Gradients are clipped to a norm of 1 unless ``Trainer(gradient_clip_val=...)`` says otherwise; 0 turns it off. The
    norm before clipping (mean and largest of an epoch) and the share of clipped steps are logged as
    ``train/gradient_norm``, ``train/largest_gradient_norm`` and ``train/clipped``.
    The loss is the mean over the valid items of the whole batch: of all processes, and of all accumulated batches.
    ``train/loss`` is defined as ``val/loss`` is, but measured while training, with dropout. Label smoothing, class
    weights and penalties are in what is minimised, ``train/loss`` + ``train/penalty``. Where that has no such loss in
    it, as in self-critical training, it is logged as ``train/objective``.

    Args:
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `build_scheduler`.
    """

    selection: tuple[str, str] = ("loss", "min")  # the validation metric that picks the best checkpoint, and its mode

    def __init__(
        self,
        *,
        optimizer: OptimizerFactory,
        lr_scheduler: SchedulerFactory | None,
        lr_scheduler_interval: str | None,
    ) -> None:
        super().__init__()
        self.optimizer_factory = optimizer
        self.scheduler_factory = lr_scheduler
        self.scheduler_interval = lr_scheduler_interval
        self.metrics = nn.ModuleDict()  # split → metric name → ZooMetric
        self.results: dict[str, dict[str, float]] = {}  # split → metric → value, of the latest evaluation
        self._window_first: Tensor | None = None  # item counts of the batches since the last optimizer step
        self._window_total: Tensor | None = None
        self._rates_of: int | None = None  # the epoch whose learning rates are logged

    # What a model defines

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Turn a batch into outputs: logits, emissions, numbers."""

    @abstractmethod
    def objective(self, outputs: Any, batch: Any) -> Objective:
        """Return the training loss of a batch as a sum and a count."""

    @abstractmethod
    def build_metrics(self) -> Mapping[str, ZooMetric]:
        """Make the metrics of one split, by name."""

    @abstractmethod
    def update_metrics(self, metrics: Mapping[str, Any], outputs: Any, batch: Any) -> None:
        """Count a batch into the metrics that `build_metrics` made."""

    @abstractmethod
    def answers(self, outputs: Any, batch: Any) -> list[dict[str, Any]]:
        """Read the outputs as plain Python: one dict for each sample of the batch."""

    def parameter_groups(self) -> list[Any]:
        """Return what is trained: parameters, or groups of them as optimizers take them, with options of their own."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    # The steps

    def split_metrics(self, split: str) -> Mapping[str, Any]:
        """Return the metrics of a split, made on first use."""
        if split not in self.metrics:
            self.metrics[split] = nn.ModuleDict(self.build_metrics()).to(self.device)
        return self.metrics[split]  # type: ignore[return-value]

    def on_train_start(self) -> None:
        """Check what a checkpoint restored."""
        check_resumed(self.trainer)
        self._rates_of = None

    def on_fit_start(self) -> None:
        """Compile kernels for CPUs at their first use: a training that is resumed computes the same numbers then."""
        compile_on_first_use(True)

    def on_fit_end(self) -> None:
        """Compile only what comes often again."""
        compile_on_first_use(False)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the mean loss of a batch, scaled so that the gradient is the mean over the global batch."""
        objective = self.objective(self(batch), batch)
        total = objective.total
        numbers = [*objective, *(objective.reported or ())]  # sums and counts
        sums = torch.stack([number.detach().to(total.dtype) for number in numbers])
        processes = self.trainer.world_size
        if processes > 1:
            torch.distributed.all_reduce(sums)
        mean = sums[0] / sums[1].clamp(min=1e-12)
        if not torch.isfinite(mean):
            raise self._non_finite(mean, total, batch)
        self._log_rates()
        self._log_losses(mean, sums, regularised=isinstance(objective, RegularisedObjective))
        first = sums[1] if self._window_first is None else self._window_first
        first = torch.where(first > 0, first, sums[1])  # a batch without items has no gradient to be scaled
        self._window_total = sums[1] if self._window_total is None else self._window_total + sums[1]
        self._window_first = first
        # DDP averages over processes and Lightning divides by the accumulation: undo both.
        return total * (processes * self.trainer.accumulate_grad_batches / first.clamp(min=1e-12))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the sum of gradients over accumulated batches into their mean over all items."""
        if (
            self._window_first is not None
            and self._window_total is not None
            and self.trainer.accumulate_grad_batches > 1
        ):
            scale = torch.where(self._window_total > 0, self._window_first / self._window_total, 1.0)
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        self._window_first = self._window_total = None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, and log their norm and whether they were clipped."""
        limit = DEFAULT_GRADIENT_CLIP if gradient_clip_val is None else float(gradient_clip_val)
        by_value = str(gradient_clip_algorithm or "norm").lower().endswith("value")
        parameters = [parameter for parameter in self.parameters() if parameter.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, float("inf") if by_value or limit <= 0 else limit)
        clipped = norm > limit if limit > 0 else torch.zeros_like(norm)
        if by_value and limit > 0:
            largest = torch.stack([parameter.grad.abs().max() for parameter in parameters])  # type: ignore[union-attr]
            clipped = largest.max() > limit
            nn.utils.clip_grad_value_(parameters, limit)
        self.log_dict(
            {"train/gradient_norm": norm, "train/clipped": clipped.float()}, on_step=False, on_epoch=True, batch_size=1
        )
        self.log("train/largest_gradient_norm", norm, on_step=False, on_epoch=True, batch_size=1, reduce_fx="max")

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count a validation batch."""
        self.update_metrics(self.split_metrics("val"), self(batch), batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Count a test batch."""
        self.update_metrics(self.split_metrics("test"), self(batch), batch)

    def predict_step(self, batch: Batch, batch_index: int) -> list[dict[str, Any]]:
        """Return the answers for a batch, each with its sample's id."""
        ids = batch.ids.tolist()
        found = self.answers(self(batch), batch)
        return [{"id": number, **answer} for number, answer in zip(ids, found, strict=True)]

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._start("val")

    def on_test_epoch_start(self) -> None:
        """Start counting anew."""
        self._start("test")

    def on_validation_epoch_end(self) -> None:
        """Compute and log the validation metrics."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Compute and log the test metrics."""
        self._finish("test")

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the scheduler if there is one.

        Raises:
            InputError: with what they say of their arguments; see `build_scheduler`.
        """
        optimizer = built("model.optimizer", self.optimizer_factory, self.parameter_groups())
        if self.scheduler_factory is None:
            return optimizer
        settings = build_scheduler(
            self.scheduler_factory, optimizer, interval=self.scheduler_interval, trainer=self._trainer
        )
        scheduler = settings["scheduler"]
        if isinstance(scheduler, ReduceLROnPlateau):
            metric, mode = self.selection
            settings["monitor"] = "val/loss" if scheduler.mode == "min" else f"val/{metric}"
            settings["frequency"] = getattr(self._trainer, "check_val_every_n_epoch", None) or 1
            if scheduler.mode == "max" and mode == "min":
                raise InputError(
                    "model.lr_scheduler.mode", expected="'min', since this model is selected by its loss", got="'max'"
                )
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def progress(self) -> float:
        """Return how much of the training is over, from 0 in its beginning to 1 in its last epoch or step.

        A training whose end is not known is over from its second epoch on.
        """
        if self._trainer is None:
            return 0.0
        epochs, steps = self.trainer.max_epochs or -1, self.trainer.max_steps
        parts = [self.global_step / steps] if steps > 0 else []
        if epochs > 0 or not parts:
            parts.append(self.current_epoch / (max(2, epochs) - 1))
        return min(1.0, max(parts))

    def _fitting(self) -> bool:
        """Return whether `trainer.fit` runs: its validation generates text greedily, since it comes every epoch."""
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    def _start(self, split: str) -> None:
        for metric in self.split_metrics(split).values():
            metric.reset()

    def _finish(self, split: str) -> None:
        values: dict[str, float] = {}
        for metric in self.split_metrics(split).values():
            values.update({name: float(value) for name, value in metric.compute().items()})
        if self.trainer.sanity_checking:
            return
        self.results[split] = values
        shown = self.selection[0]
        for name, value in values.items():
            # The metrics are already the same on all processes: nothing is left to reduce.
            self.log(f"{split}/{name}", value, prog_bar=split == "val" and name == shown, sync_dist=False)

    def _log_rates(self) -> None:
        """Log the learning rates: of every step if they change with it, else once an epoch, for a call takes 0.4 ms."""
        by_step = changes_within_epochs(self.trainer)
        if by_step or self._rates_of != self.current_epoch:
            rates = learning_rates(self.trainer)
            self.log_dict(rates, on_step=by_step, on_epoch=not by_step, reduce_fx="max", batch_size=1)
            self._rates_of = self.current_epoch

    def _log_losses(self, mean: Tensor, sums: Tensor, *, regularised: bool) -> None:
        """Log the loss of a training batch as evaluations define it, and what is minimised beside it.

        Args:
            mean: what is minimised.
            sums: its sum and count, and those of the reported loss if that is known.
            regularised: whether the two differ.
        """
        how: dict[str, Any] = {"on_step": False, "on_epoch": True}
        weights: list[Any] = [max(count, 1e-12) for count in sums[1::2].tolist()]  # no integers with class weights
        if len(sums) == 2:
            self.log("train/objective", mean, prog_bar=True, batch_size=weights[0], **how)
            return
        loss = sums[2] / sums[3].clamp(min=1e-12) if regularised else mean
        self.log("train/loss", loss, prog_bar=True, batch_size=weights[1], **how)
        if regularised:
            self.log("train/penalty", mean - loss, batch_size=weights[0], **how)

    def _non_finite(self, loss: Tensor, own: Tensor, batch: Batch) -> InputError:
        ids: list[int] = [] if torch.isfinite(own) else batch.ids.tolist()
        ids = [number for part in gathered(ids) for number in part]  # all see the same sum, so all come here together
        return InputError(
            f"training step {self.global_step}",
            expected="a finite loss",
            got=f"{loss.item()} on the training samples with ids {ids}",
            fix="look at these samples, lower the learning rate (--model.optimizer.lr) or clip gradients harder "
            "(--trainer.gradient_clip_val 0.25)",
        )


def gathered(value: Any) -> list[Any]:
    """Return the values of all processes, which come here together, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
