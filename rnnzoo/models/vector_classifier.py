"""One to one: the plain network without recurrence, as a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnnzoo.batches import VectorBatch
from rnnzoo.errors import check_list
from rnnzoo.layers import FeedForward
from rnnzoo.metrics import SampleMetric
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, ZooModel, as_processor
from rnnzoo.models.losses import Objective
from rnnzoo.models.options import LossOptions, as_options, refuse_loss_options
from rnnzoo.models.tasks import ClassTask, NumberTask, Task
from rnnzoo.processors.vectors import VectorProcessor
from rnnzoo.text.vocabulary import Vocabulary


class VectorClassifier(ZooModel):
    """Classify fixed-size inputs, or predict numbers from them, with a feed-forward network.

    normalised inputs [B, I] → hidden layers → logits or numbers [B, C]

    Args:
        processor: the data's `VectorProcessor`, or what its `to_json` made; it decides between classes and regression.
        hidden_sizes: units of each hidden layer.
        dropout: dropout after each hidden layer.
        activation: name of the function between layers: ``relu``, ``tanh`` or ``gelu``.
        loss: label smoothing and class weights, for classes only.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``encoder`` (the hidden layers) or ``head``.
    """

    def __init__(
        self,
        *,
        processor: VectorProcessor | dict[str, Any],
        hidden_sizes: Sequence[int] = (64, 64),
        dropout: float = 0.0,
        activation: str = "relu",
        loss: LossOptions | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, VectorProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: VectorProcessor = processor
        self.task: Task
        losses = as_options(LossOptions, loss, "model.loss")
        if processor.labels is None:
            refuse_loss_options(losses, "numbers to predict")
            self.task = NumberTask(names=processor.targets, restore=processor.restore_targets)
        else:
            self.task = ClassTask(labels=processor.labels.labels, loss=losses, item="sample")
        self.selection = self.task.selection
        self.network = FeedForward(
            input_size=processor.input_size,
            hidden_sizes=list(hidden_sizes),
            output_size=self.task.output_size,
            dropout=dropout,
            activation=activation,
        )

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the hidden layers and the last linear layer."""
        *hidden, head = self.network.layers
        return {"encoder": hidden, "head": [head]}

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the labels, or the names of the numbers, behind the outputs."""
        names = self.processor.targets if self.processor.labels is None else self.processor.labels
        head = f"network.layers.{len(self.network.layers) - 1}"
        return dict.fromkeys((f"{head}.weight", f"{head}.bias"), (Vocabulary.of_labels(names),))

    def forward(self, batch: VectorBatch) -> Tensor:
        """Return logits [B, C], or numbers [B, O] in normalised units."""
        return self.network(batch.inputs)

    def objective(self, outputs: Tensor, batch: VectorBatch) -> Objective:
        """Return the cross-entropy in nats, or the squared error in normalised units, and the number of items."""
        assert batch.targets is not None
        return self.task.objective(outputs, batch.targets)

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss, and accuracy with macro F1 and the confusion matrix, or the errors of regression."""
        return self.task.build_metrics()

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Tensor, batch: VectorBatch) -> None:
        """Count a batch."""
        assert batch.targets is not None
        self.task.update_metrics(metrics, batch.ids, outputs, batch.targets)

    def answers(self, outputs: Tensor, batch: VectorBatch) -> list[dict[str, Any]]:
        """Return ``{"label": ..., "probability": ...}`` for each vector, or ``{"numbers": {...}}``."""
        return self.task.answers(outputs)

    def classify(self, vectors: Iterable[Sequence[float]], *, batch_size: int = 256) -> list[Any]:
        """Return the label (or the numbers by name) of each raw vector, in the order of `processor.features`."""
        key = "label" if self.processor.labels is not None else "numbers"
        samples = ({"vector": vector} for vector in check_list("classify", vectors, of="numbers"))
        return [answer[key] for answer in self.answer(samples, batch_size=batch_size)]
