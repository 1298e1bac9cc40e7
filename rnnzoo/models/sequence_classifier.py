"""Many to one: one label, or a set of labels, for a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnnzoo.batches import TextBatch
from rnnzoo.errors import check_list, check_share
from rnnzoo.layers import Pooling
from rnnzoo.metrics import SampleMetric
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, ZooModel, as_processor
from rnnzoo.models.encoder import build_recurrent, build_words
from rnnzoo.models.losses import Objective
from rnnzoo.models.options import LossOptions, RecurrentOptions, WordOptions, as_options
from rnnzoo.models.tasks import ClassTask, LabelSetTask, Task
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.vocabulary import Vocabulary


class SequenceClassifier(ZooModel):
    """Classify texts of any length: sentiment, question type, language of a name.

    token vectors [B, T, E] → recurrent layers [B, T, H or 2H] → pooling [B, P] → logits [B, C]

    A text is read to its end, however long, unless the data sets a maximum length.

    Args:
        processor: the data's `TextClassificationProcessor`, or what its `to_json` made. If it allows several labels
            at once, each label is a yes/no decision of its own.
        cell: name of the recurrent cell; `rnnzoo cells` lists them.
        hidden_size: units per direction.
        num_layers: recurrent layers.
        dropout: dropout before the first recurrent layer, between them, and before the last linear layer.
        pooling: how the outputs over time become one vector: any of ``last``, ``mean``, ``max`` and ``attention``,
            concatenated.
        words: how tokens become vectors.
        recurrent: further options of the recurrent layers.
        loss: label smoothing and class weights.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``embedding``, ``encoder`` or ``head``.
    """

    def __init__(
        self,
        *,
        processor: TextClassificationProcessor | dict[str, Any],
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.3,
        pooling: Sequence[str] = ("last",),
        words: WordOptions | dict[str, Any] | None = None,
        recurrent: RecurrentOptions | dict[str, Any] | None = None,
        loss: LossOptions | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, TextClassificationProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: TextClassificationProcessor = processor
        losses = as_options(LossOptions, loss, "model.loss")
        labels = processor.labels.labels
        self.task: Task = (
            LabelSetTask(labels=labels, loss=losses)
            if processor.multi_label
            else ClassTask(labels=labels, loss=losses, item="text")
        )
        self.selection = self.task.selection
        self.words = build_words(processor.tokenizer, as_options(WordOptions, words, "model.words"))
        options = as_options(RecurrentOptions, recurrent, "model.recurrent")
        self.recurrent = build_recurrent(
            cell=cell,
            input_size=self.words.size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            options=options,
        )
        self.pooling = Pooling(
            list(pooling), input_size=self.recurrent.output_size, bidirectional=options.bidirectional
        )
        self.dropout = nn.Dropout(check_share("model.dropout", dropout))
        self.head = nn.Linear(self.pooling.output_size, self.task.output_size)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return token vectors, recurrent layers, and pooling with the last linear layer."""
        return {"embedding": [self.words], "encoder": [self.recurrent], "head": [self.pooling, self.head]}

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the tokens behind the vectors and the labels behind the logits."""
        labels = Vocabulary.of_labels(self.processor.labels)
        return {
            "words.table.weight": (Vocabulary.of_tokens(self.processor.tokenizer),),
            "head.weight": (labels,),
            "head.bias": (labels,),
        }

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the logits [B, C] of a batch."""
        hidden, _ = self.recurrent(self.dropout(self.words(batch.tokens)), batch.lengths)  # [B, T, H]
        return self.head(self.dropout(self.pooling(hidden, batch.lengths)))  # [B, C]

    def objective(self, outputs: Tensor, batch: TextBatch) -> Objective:
        """Return the cross-entropy in nats, and the number of texts (times labels, if there may be several)."""
        assert batch.targets is not None
        return self.task.objective(outputs, batch.targets)

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss; accuracy and macro F1 with the confusion matrix, or micro and macro F1 of several labels."""
        return self.task.build_metrics()

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Tensor, batch: TextBatch) -> None:
        """Count a batch of classified texts."""
        assert batch.targets is not None
        self.task.update_metrics(metrics, batch.ids, outputs, batch.targets)

    def answers(self, outputs: Tensor, batch: TextBatch) -> list[dict[str, Any]]:
        """Return ``{"label": ..., "probability": ...}`` for each text, or ``{"labels": [...]}`` with those above ½."""
        return self.task.answers(outputs)

    def classify(self, texts: Iterable[str], *, batch_size: int = 32) -> list[str] | list[list[str]]:
        """Return the label of each text, or its list of labels where there may be several."""
        key = "labels" if self.processor.multi_label else "label"
        samples = ({"text": text} for text in check_list("classify", texts))
        return [answer[key] for answer in self.answer(samples, batch_size=batch_size)]
