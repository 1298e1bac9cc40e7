"""What outputs mean: classes, sets of labels, or numbers. Each has its loss and its metrics; models differ elsewhere.

Axes: B batch, C classes, O outputs; ``...`` stands for nothing (one answer a sample) or T (one a frame).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.metrics import ClassificationCounts, MeanLoss, MultiLabel, RegressionError, SampleMetric
from rnnzoo.models.losses import (
    Objective,
    RegularisedObjective,
    SampleLosses,
    cross_entropy,
    sample_cross_entropy,
    squared_error,
)
from rnnzoo.models.options import LossOptions
from rnnzoo.numerics import widen


class Task(nn.Module, ABC):
    """A meaning of outputs.

    Args:
        output_size: numbers that the model must put out for each answer.
        selection: the metric that picks the best checkpoint, and its mode.
    """

    def __init__(self, *, output_size: int, selection: tuple[str, str]) -> None:
        super().__init__()
        self.output_size = output_size
        self.selection = selection

    @abstractmethod
    def objective(self, outputs: Tensor, targets: Tensor) -> Objective:
        """Return the training loss as a sum and a count."""

    @abstractmethod
    def sample_losses(self, outputs: Tensor, targets: Tensor) -> SampleLosses:
        """Return the loss of each sample, neither smoothed nor weighted."""

    @abstractmethod
    def build_metrics(self) -> dict[str, SampleMetric]:
        """Make the metrics of one split."""

    @abstractmethod
    def update_answers(self, metrics: Mapping[str, Any], ids: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count answers into the metrics other than the loss."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Read outputs [N, output_size] as one plain dict each."""

    def update_metrics(self, metrics: Mapping[str, Any], ids: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch into the metrics that `build_metrics` made."""
        losses = self.sample_losses(outputs, targets)
        metrics["loss"].update(ids, losses.totals, losses.counts)
        self.update_answers(metrics, ids, outputs, targets)


class ClassTask(Task):
    """One of C classes.

    Args:
        labels: names of the classes.
        loss: smoothing and class weights of the training loss.
        item: what is classified, for the definitions of the metrics: ``text``, ``word``, ``frame``.
    """

    weights: Tensor | None

    def __init__(self, *, labels: Sequence[str], loss: LossOptions, item: str) -> None:
        super().__init__(output_size=len(labels), selection=("accuracy", "max"))
        self.labels = list(labels)
        self.label_smoothing = loss.label_smoothing
        self.item = item
        self.register_buffer("weights", class_weight_vector(loss.class_weights, self.labels), persistent=False)

    def objective(self, outputs: Tensor, targets: Tensor) -> Objective:
        """Cross-entropy in nats over the known targets [B, ...], from logits [B, ..., C]."""
        return cross_entropy(outputs, targets, weights=self.weights, label_smoothing=self.label_smoothing)

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> SampleLosses:
        """Negative log-likelihood in nats."""
        return sample_cross_entropy(outputs, targets)

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss; accuracy and macro F1, with the confusion matrix behind them."""
        return {
            "loss": MeanLoss(item=self.item),
            "labels": ClassificationCounts(labels=self.labels, item=self.item),
        }

    def update_answers(self, metrics: Mapping[str, Any], ids: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count the most probable classes."""
        metrics["labels"].update(ids, outputs.argmax(-1), targets)

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Return ``{"label": name, "probability": p}``."""
        probabilities, best = widen(outputs).softmax(-1).max(-1)
        pairs = zip(best.tolist(), probabilities.tolist(), strict=True)
        return [{"label": self.labels[label], "probability": round(probability, 6)} for label, probability in pairs]


class LabelSetTask(Task):
    """Any number of C labels at once, each a yes/no decision at probability ½.

    Args:
        labels: names of the labels.
        loss: smoothing and class weights of the training loss.
    """

    weights: Tensor | None

    def __init__(self, *, labels: Sequence[str], loss: LossOptions) -> None:
        super().__init__(output_size=len(labels), selection=("micro_f1", "max"))
        self.labels = list(labels)
        self.label_smoothing = loss.label_smoothing
        self.register_buffer("weights", class_weight_vector(loss.class_weights, self.labels), persistent=False)

    def objective(self, outputs: Tensor, targets: Tensor) -> Objective:
        """Cross-entropy in nats of all decisions: logits [B, C] and 0/1 targets [B, C + 1], the last of unseen ones."""
        logits = widen(outputs)
        smoothed = targets[:, :-1].to(logits.dtype) * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        losses = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")  # [B, C]
        weights = torch.ones_like(losses) if self.weights is None else self.weights.to(losses.dtype).expand_as(losses)
        total = (losses * weights).sum()
        if self.weights is None and self.label_smoothing == 0:
            return Objective(total, weights.sum())
        reported = self.sample_losses(outputs.detach(), targets)
        return RegularisedObjective(
            total, weights.sum(), Objective(reported.totals.sum(), reported.counts.sum().to(total.dtype))
        )

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> SampleLosses:
        """Negative log-likelihood in nats of the decisions of each sample."""
        logits = widen(outputs)
        losses = F.binary_cross_entropy_with_logits(logits, targets[:, :-1].to(logits.dtype), reduction="none")
        return SampleLosses(losses.sum(1), torch.full_like(losses[:, 0], losses.shape[1]))

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss; micro and macro F1, and the share of exactly right sets."""
        return {"loss": MeanLoss(item="decision"), "labels": MultiLabel(labels=self.labels)}

    def update_answers(self, metrics: Mapping[str, Any], ids: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count the decisions."""
        metrics["labels"].update(ids, outputs > 0, targets)

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Return ``{"labels": [names], "probabilities": {name: p}}``."""
        found = []
        chosen = (outputs > 0).tolist()  # as the metrics decide, not by what is rounded below
        for row, own in zip(widen(outputs).sigmoid().tolist(), chosen, strict=True):
            scored = {name: round(probability, 6) for name, probability in zip(self.labels, row, strict=True)}
            names = [name for name, yes in zip(self.labels, own, strict=True) if yes]
            found.append({"labels": names, "probabilities": scored})
        return found


class NumberTask(Task):
    """O real numbers: least squares in normalised units, reported in the units of the data.

    Args:
        names: names of the numbers.
        restore: turns normalised numbers [..., O] into those of the data.
    """

    def __init__(self, *, names: Sequence[str], restore: Callable[[Tensor], Tensor]) -> None:
        super().__init__(output_size=len(names), selection=("rmse", "min"))
        self.names = list(names)
        self.restore = restore

    def objective(self, outputs: Tensor, targets: Tensor) -> Objective:
        """Squared error over the targets [B, ..., O] that are not NaN."""
        total = squared_error(outputs, targets).sum()
        return Objective(total, (~targets.isnan()).sum().to(total.dtype))

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> SampleLosses:
        """Squared error of each sample in normalised units."""
        given = ~targets.isnan()
        return SampleLosses(squared_error(outputs, targets).flatten(1).sum(1), given.flatten(1).sum(1))

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss; mean absolute error, root mean squared error, share of explained variance."""
        return {"loss": MeanLoss(item="number", unit="squared normalised units"), "errors": RegressionError()}

    def update_answers(self, metrics: Mapping[str, Any], ids: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count the errors in the units of the data."""
        # In float64: a mean that is large beside the deviation would leave float32 no digits of the errors.
        metrics["errors"].update(ids, self.restore(outputs.double()), self.restore(targets.double()))

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Return ``{"numbers": {name: value}}``."""
        rows = self.restore(widen(outputs)).tolist()
        return [{"numbers": dict(zip(self.names, row, strict=True))} for row in rows]


def class_weight_vector(weights: Mapping[str, float] | None, labels: Sequence[str]) -> Tensor | None:
    """Return class weights [C] in the order of `labels`; a label that is not listed has weight 1.

    Raises:
        InputError: for a label that does not exist, or a weight below 0.
    """
    if not weights:
        return None
    vector = torch.ones(len(labels))
    for label, weight in weights.items():
        if label not in labels:
            raise unknown_name("model.loss.class_weights", label, labels)
        if weight < 0:
            raise InputError(f"model.loss.class_weights.{label}", expected="a weight of at least 0", got=str(weight))
        vector[list(labels).index(label)] = weight
    return vector
