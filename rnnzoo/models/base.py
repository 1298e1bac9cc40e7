"""What all models share beside their training: a processor, answers, parts that can be frozen.

A model says how a batch becomes outputs, what its loss is, which metrics it has and how outputs read as text.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from rnnzoo.errors import InputError, need_list, unknown_name
from rnnzoo.models.answering import Sample, answer_stream
from rnnzoo.models.evaluating import evaluated
from rnnzoo.models.options import as_plain
from rnnzoo.models.schedules import OptimizerFactory, SchedulerFactory
from rnnzoo.models.training import TrainedModel
from rnnzoo.processors.base import Processor, load_processor
from rnnzoo.text.vocabulary import Vocabulary

ProcessorT = TypeVar("ProcessorT", bound=Processor)

# Arguments that no stored model has.
HOW_TRAINED = ("optimizer", "lr_scheduler", "lr_scheduler_interval", "init_from", "freeze")


class ZooModel(TrainedModel):
    """A recurrent model that knows its data only through a processor.

    How it is trained and what is logged is told by `TrainedModel`.

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
        super().__init__(optimizer=optimizer, lr_scheduler=lr_scheduler, lr_scheduler_interval=lr_scheduler_interval)
        self.processor = processor
        self.init_from = init_from
        self.to_freeze = tuple(split_names(freeze))
        self.frozen: tuple[str, ...] = ()  # the parts that are
        self.origin: dict[str, Any] | None = None  # the model that this one was started from, as JSON values

    # What a model says about itself

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
