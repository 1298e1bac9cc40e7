"""Many to many, aligned: one label or number for each real-valued frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnnzoo.batches import FrameBatch
from rnnzoo.errors import check_list, check_share
from rnnzoo.metrics import SampleMetric
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, ZooModel, as_processor
from rnnzoo.models.encoder import build_recurrent
from rnnzoo.models.losses import Objective
from rnnzoo.models.options import LossOptions, RecurrentOptions, as_options, refuse_loss_options
from rnnzoo.models.tasks import ClassTask, NumberTask, Task
from rnnzoo.processors.frames import FrameProcessor
from rnnzoo.text.vocabulary import Vocabulary


class FrameLabeller(ZooModel):
    """Label every frame of a video or of a sensor's record, or predict numbers for it.

    normalised frames [B, T, I] → recurrent layers [B, T, H or 2H] → logits or numbers [B, T, C]

    Args:
        processor: the data's `FrameProcessor`, or what its `to_json` made; it decides between classes and regression.
        cell: name of the recurrent cell; `rnnzoo cells` lists them.
        hidden_size: units per direction.
        num_layers: recurrent layers.
        dropout: dropout between the recurrent layers and before the last linear layer.
        recurrent: further options of the recurrent layers; ``bidirectional: false`` makes a label depend on the past
            alone.
        loss: label smoothing and class weights, for classes only.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``encoder`` or ``head``.
    """

    def __init__(
        self,
        *,
        processor: FrameProcessor | dict[str, Any],
        cell: str = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.1,
        recurrent: RecurrentOptions | dict[str, Any] | None = None,
        loss: LossOptions | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, FrameProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: FrameProcessor = processor
        self.task: Task
        losses = as_options(LossOptions, loss, "model.loss")
        if processor.labels is None:
            refuse_loss_options(losses, "numbers to predict")
            self.task = NumberTask(names=processor.targets, restore=processor.restore_targets)
        else:
            self.task = ClassTask(labels=processor.labels.labels, loss=losses, item="frame")
        self.selection = self.task.selection
        self.recurrent = build_recurrent(
            cell=cell,
            input_size=processor.input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            options=as_options(RecurrentOptions, recurrent, "model.recurrent"),
        )
        self.dropout = nn.Dropout(check_share("model.dropout", dropout))
        self.head = nn.Linear(self.recurrent.output_size, self.task.output_size)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return recurrent layers and the last linear layer."""
        return {"encoder": [self.recurrent], "head": [self.head]}

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the labels, or the names of the numbers, behind the outputs."""
        names = self.processor.targets if self.processor.labels is None else self.processor.labels
        return dict.fromkeys(("head.weight", "head.bias"), (Vocabulary.of_labels(names),))

    def forward(self, batch: FrameBatch) -> Tensor:
        """Return logits [B, T, C], or numbers [B, T, O] in normalised units."""
        hidden, _ = self.recurrent(batch.frames, batch.lengths)  # [B, T, H]
        return self.head(self.dropout(hidden))

    def objective(self, outputs: Tensor, batch: FrameBatch) -> Objective:
        """Return the cross-entropy in nats, or the squared error in normalised units, and the number of items."""
        assert batch.targets is not None
        return self.task.objective(outputs, batch.targets)

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss, and accuracy with macro F1 and the confusion matrix, or the errors of regression."""
        return self.task.build_metrics()

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Tensor, batch: FrameBatch) -> None:
        """Count a batch."""
        assert batch.targets is not None
        self.task.update_metrics(metrics, batch.ids, outputs, batch.targets)

    def answers(self, outputs: Tensor, batch: FrameBatch) -> list[dict[str, Any]]:
        """Return ``{"frames": [...]}`` for each sequence: a dict a frame, with its label or its numbers."""
        lengths = batch.lengths.tolist()
        return [{"frames": self.task.answers(row[:length])} for row, length in zip(outputs, lengths, strict=True)]

    def label(self, sequences: Iterable[Sequence[Sequence[float]]], *, batch_size: int = 8) -> list[list[Any]]:
        """Return the labels (or numbers by name) of sequences of raw frames, in the order of `processor.features`."""
        key = "label" if self.processor.labels is not None else "numbers"
        samples = (
            {"frames": list(check_list("label", frames, of="numbers"))}
            for frames in check_list("label", sequences, of="frames")
        )
        return [[frame[key] for frame in answer["frames"]] for answer in self.answer(samples, batch_size=batch_size)]
