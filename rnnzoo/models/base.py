"""What all models share: the Lightning steps, written once.

A model says how a batch becomes outputs, what its loss is, which metrics it has and how outputs read as text; the
training, evaluation and prediction loops, the optimizer, clipping and logging are here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rnnzoo.backends.settings import compile_on_first_use
from rnnzoo.batches import Batch
from rnnzoo.errors import InputError, need_list, unknown_name
from rnnzoo.metrics.base import ZooMetric
from rnnzoo.models.answering import Sample, answer_stream
from rnnzoo.models.evaluating import evaluated
from rnnzoo.models.losses import Objective, RegularisedObjective
from rnnzoo.models.options import as_plain
from rnnzoo.models.schedules import (
    OptimizerFactory,
    SchedulerFactory,
    build_scheduler,
    built,
    changes_within_epochs,
    check_resumed,
    learning_rates,
)
from rnnzoo.processors.base import Processor, load_processor
from rnnzoo.text.vocabulary import Vocabulary

ProcessorT = TypeVar("ProcessorT", bound=Processor)

HOW_TRAINED = (
    "optimizer",
    "lr_scheduler",
    "lr_scheduler_interval",
    "init_from",
    "freeze",
)  # arguments that no stored model has
DEFAULT_GRADIENT_CLIP = 1.0  # the norm to which gradients are clipped if the Trainer says nothing


class ZooModel(LightningModule, ABC):
    """A recurrent model that knows its data only through a processor.

    Gradients are clipped to a norm of 1 unless ``Trainer(gradient_clip_val=...)`` says otherwise; 0 turns it off. The
    norm before clipping (mean and largest of an epoch) and the share of clipped steps are logged as
    ``train/gradient_norm``, ``train/largest_gradient_norm`` and ``train/clipped``.
    The loss is the mean over the valid items of the whole batch: of all processes, and of all accumulated batches.
    ``train/loss`` is defined as ``val/loss`` is, but measured while training, with dropout. Label smoothing, class
    weights and penalties are in what is minimised, ``train/loss`` + ``train/penalty``. Where that has no such loss in
    it, as in self-critical training, it is logged as ``train/objective``.

    Args:
        processor: turns raw samples into batches; saved with the weights.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer. `ReduceLROnPlateau` watches the validation loss in mode
            ``min`` and the selection metric in mode ``max``; `OneCycleLR` without ``total_steps`` spans the training.
        lr_scheduler_interval: the scheduler is stepped after each ``step`` of the optimizer, or after each ``epoch``;
            by default as it is made for: `OneCycleLR` and `CyclicLR` by steps, all others by epochs. The rate is
            logged as ``train/learning_rate``.
        init_from: the folder of a trained model to start from. `rnnzoo fit` starts the model before it trains; from
            Python `rnnzoo.warm_start(model)` does, and `Trainer.fit` refuses a model that was not. A saved model knows
            nothing of it.
        freeze: names of `parts` that are not trained, in a list or separated by commas. They are frozen when
            training begins (`freeze_parts`); this is not saved either.
    """

    selection: tuple[str, str] = ("loss", "min")  # the validation metric that picks the best checkpoint, and its mode

    def __init__(
        self,
        *,
        processor: Processor,
        optimizer: OptimizerFactory,
        lr_scheduler: SchedulerFactory | None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        super().__init__()
        self.processor = processor
        self.optimizer_factory = optimizer
        self.scheduler_factory = lr_scheduler
        self.scheduler_interval = lr_scheduler_interval
        self.init_from = init_from
        self.to_freeze = tuple(split_names(freeze))
        self.frozen: tuple[str, ...] = ()  # the parts that are
        self.origin: dict[str, Any] | None = None  # the model that this one was started from, as JSON values
        self.metrics = nn.ModuleDict()  # split → metric name → ZooMetric
        self.results: dict[str, dict[str, float]] = {}  # split → metric → value, of the latest evaluation
        self._window_first: Tensor | None = None  # item counts of the batches since the last optimizer step
        self._window_total: Tensor | None = None

    # What a model says about itself

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

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the layers of each part that can be frozen by its name.

        Every parameter is in one, or in several where weights are tied. ``embedding`` are the vectors of tokens,
        ``encoder`` what reads, ``decoder`` what writes, ``head`` what makes outputs of what they know.
        """

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return what the axes of parameters stand for: a vocabulary for each axis that has one, None for others.

        A parameter is named by its place, see `rnnzoo.models.transfer.places`.
        """
        return {}

    def show(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what a report says about each of a few raw samples: the answers."""
        return list(self.answer(samples))

    def parameter_groups(self) -> list[Any]:
        """Return what is trained: parameters, or groups of them as optimizers take them, with options of their own."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def draw(self, samples: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
        """Draw what the model does with raw samples, as PNG files in `folder`, and return the names of the files."""
        return []

    # What every model does

    @staticmethod
    def plain_arguments(arguments: Mapping[str, Any], processor: Processor) -> dict[str, Any]:
        """Return constructor arguments as JSON values: what a checkpoint and a model folder store."""
        skipped = ("self", "__class__", *HOW_TRAINED)
        plain = {name: as_plain(value) for name, value in arguments.items() if name not in skipped}
        plain["processor"] = processor.to_json()
        if isinstance(plain.get("words"), dict):
            plain["words"]["vectors"] = None  # they are in the weights now; the file need not be there to load them
        return plain

    @classmethod
    def check_stored(cls, arguments: Mapping[str, Any]) -> None:
        """Refuse stored arguments of the right types that `plain_arguments` never makes.

        Raises:
            InputError: if they name a file: a stored model needs none.
        """
        words = arguments.get("words")
        if isinstance(words, dict) and words.get("vectors") is not None:
            raise InputError(
                "arguments.words.vectors", expected="null in a stored model", got=repr(words["vectors"])[:80]
            )

    def definitions(self, split: str = "test") -> dict[str, str]:
        """Return the exact definition of each metric, by name."""
        found: dict[str, str] = {}
        for metric in self.split_metrics(split).values():
            found.update(metric.definitions)
        return found

    def split_metrics(self, split: str) -> Mapping[str, Any]:
        """Return the metrics of a split, made on first use."""
        if split not in self.metrics:
            self.metrics[split] = nn.ModuleDict(self.build_metrics()).to(self.device)
        return self.metrics[split]  # type: ignore[return-value]

    @evaluated()
    def answer(
        self, samples: Iterable[Sample], *, batch_size: int = 32, skip_bad: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Answer raw samples in their order, one batch at a time; nothing else of a long stream is held.

        Args:
            samples: what the processor takes, such as ``{"text": "..."}``.
            batch_size: samples that are computed together.
            skip_bad: answer what is refused with ``{"error": message}``; else the samples before it are answered, and
                the error is raised.

        Raises:
            InputError: if a sample is not what the processor takes, or an answer holds NaN or an infinity.
        """
        listed = need_list("samples to answer", samples, "a list of samples")
        yield from answer_stream(self, listed, batch_size=batch_size, skip_bad=skip_bad)

    def answer_batch(self, batch: Any) -> list[dict[str, Any]]:
        """Return the answers for a batch of raw samples."""
        return self.answers(self(batch), batch)

    def to_batch(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Return encoded samples as a batch on the device of the model."""
        return self.transfer_batch_to_device(self.processor.collate(list(rows)), self.device, 0)

    def _batch_of(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Return raw samples as a batch on the device of the model."""
        return self.to_batch([{**self.processor.encode(sample), "id": index} for index, sample in enumerate(samples)])

    # Training a part of it

    def freeze_parts(self, names: Sequence[str] | str) -> None:
        """Take parts out of the training, beside those that are out of it already.

        Their parameters get no gradient, and they stay in evaluation mode: no dropout inside, and statistics of
        batch normalisation stay as they are. Gradients pass through them to the parts below.

        Args:
            names: of `parts`, in a list or separated by commas.

        Raises:
            InputError: for a name that no part has, or if nothing would be left to train.
        """
        parts = {name: modules for name, modules in self.parts().items() if modules}
        for name in split_names(names):
            if name not in parts:
                raise unknown_name("model.freeze", name, parts)
            self.frozen = tuple(dict.fromkeys([*self.frozen, name]))
            for parameter in chain(*(module.parameters() for module in parts[name])):
                parameter.requires_grad_(False)
                parameter.grad = None
        if self.frozen and not any(parameter.requires_grad for parameter in self.parameters()):
            raise InputError(
                "model.freeze", expected="a part that is left to train", got=f"all parts frozen: {', '.join(parts)}"
            )
        self.train(self.training)

    def parameter_counts(self) -> tuple[int, int]:
        """Return how many numbers are trained, and how many are frozen."""
        counts = [0, 0]
        for parameter in self.parameters():
            counts[not parameter.requires_grad] += parameter.numel()
        return counts[0], counts[1]

    def train(self, mode: bool = True) -> ZooModel:
        """Set the training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            parts = self.parts()
            for name in self.frozen:
                for module in parts[name]:
                    module.eval()
        return self

    # The Lightning steps

    def setup(self, stage: str) -> None:
        """Freeze what is to be frozen in a training, before the processes share the model.

        Raises:
            InputError: if the model was to be started from another and was not.
        """
        if stage != TrainerFn.FITTING.value:
            return
        if self.init_from is not None and self.origin is None:
            raise InputError(
                "model.init_from",
                expected=f"a model started from {self.init_from} before it is trained",
                got="one that was not",
                fix="call rnnzoo.warm_start(model)",
            )
        self.freeze_parts(self.to_freeze)

    def on_train_start(self) -> None:
        """Check what a checkpoint restored."""
        check_resumed(self.trainer)

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
        by_step = changes_within_epochs(self.trainer)
        self.log_dict(
            learning_rates(self.trainer), on_step=by_step, on_epoch=not by_step, reduce_fx="max", batch_size=1
        )
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


def as_processor(value: Processor | Mapping[str, Any], kind: type[ProcessorT]) -> ProcessorT:
    """Return `value` as a processor of `kind`; a dict is what `Processor.to_json` made.

    Raises:
        InputError: if it is a processor of another kind, that is, if the data does not fit the model.
    """
    processor = load_processor(value) if isinstance(value, Mapping) else value
    if not isinstance(processor, kind):
        raise InputError(
            "model.processor",
            expected=f"a {kind.__name__}",
            got=type(processor).__name__,
            fix="the data module of the recipe does not fit its model",
        )
    return processor


def split_names(names: Sequence[str] | str) -> list[str]:
    """Return the names in a list, or in a text that separates them by commas.

    >>> split_names("embedding, encoder"), split_names(["head"]), split_names("")
    (['embedding', 'encoder'], ['head'], [])
    """
    listed = names.split(",") if isinstance(names, str) else list(names)
    return [name.strip() for name in listed if name.strip()]
