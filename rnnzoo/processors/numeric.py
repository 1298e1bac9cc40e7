"""What the two processors of numbers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from rnnzoo.processors.base import Processor
from rnnzoo.processors.normalisation import Normalisation
from rnnzoo.text.labels import LabelMap

Self = TypeVar("Self", bound="NumericProcessor")


class NumericProcessor(Processor):
    """Normalised inputs, with labels or normalised numbers as the answer.

    Args:
        inputs_scale: names and normalisation of the inputs, measured on the training part.
        labels: the labels; None for regression.
        targets_scale: names and normalisation of the numbers to predict; None for labels.
    """

    def __init__(
        self, *, inputs_scale: Normalisation, labels: LabelMap | None, targets_scale: Normalisation | None = None
    ) -> None:
        self.inputs_scale = inputs_scale
        self.labels = labels
        self.targets_scale = targets_scale

    @property
    def features(self) -> list[str]:
        """Names of the inputs, in their order."""
        return self.inputs_scale.names

    @property
    def input_size(self) -> int:
        """Numbers per step that a model sees."""
        return len(self.inputs_scale.names)

    @property
    def targets(self) -> list[str]:
        """Names of the numbers to predict; none for labels."""
        return [] if self.targets_scale is None else self.targets_scale.names

    def restore_targets(self, numbers: Tensor) -> Tensor:
        """Return predicted or gold numbers [..., O] in the units of the data."""
        assert self.targets_scale is not None
        return self.targets_scale.restore(numbers)

    def to_json(self) -> dict[str, Any]:
        """Return normalisations and labels."""
        return {
            "kind": self.kind,
            "inputs_scale": self.inputs_scale.to_json(),
            "labels": None if self.labels is None else self.labels.labels,
            "targets_scale": None if self.targets_scale is None else self.targets_scale.to_json(),
        }

    @classmethod
    def from_json(cls: type[Self], values: Mapping[str, Any]) -> Self:
        """Make a processor from what `to_json` gave."""
        return cls(
            **cls.extra_arguments(values),
            inputs_scale=Normalisation.from_json(values["inputs_scale"]),
            labels=None if values["labels"] is None else LabelMap(values["labels"]),
            targets_scale=None if values["targets_scale"] is None else Normalisation.from_json(values["targets_scale"]),
        )

    @classmethod
    def extra_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that a kind of processor has beside those of all."""
        return {}
