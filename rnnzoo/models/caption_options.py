"""Groups of arguments of the `Captioner`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.layers.vision import OWN_NETWORKS, SMALL_CNN

BASELINES = ("greedy", "others")


@dataclass(frozen=True)
class ImageEncoderOptions:
    """What turns pixels into a grid of vectors; see `rnnzoo.layers.vision.ImageEncoder`.

    Args:
        name: ``small_cnn`` or ``local_cnn``, trained from scratch, or a vision model of `transformers`: a local folder
            or a Hub id. In the grid of ``local_cnn`` a cell is about what lies in it.
        frozen: keep the weights as they came; the features of all images are then computed once and kept on disk.
            None freezes a pretrained network, and no other.
        learning_rate: of an encoder that is trained; None takes the optimizer's. Other options of the optimizer hold
            for all.
        channels: of the stages of ``small_cnn`` or ``local_cnn``.
        config: the configuration of a pretrained network, which a saved model has, so that nothing is downloaded.
    """

    name: str = SMALL_CNN
    frozen: bool | None = None
    learning_rate: float | None = None
    channels: Sequence[int] = field(default=(32, 64, 128))
    config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a learning rate that would change nothing; JSON has lists only."""
        object.__setattr__(self, "channels", list(self.channels))
        frozen = self.name not in OWN_NETWORKS if self.frozen is None else self.frozen
        if self.learning_rate is not None and (frozen or self.learning_rate <= 0):
            expected = "none for a frozen encoder" if frozen else "a number above 0"
            raise InputError("model.image.learning_rate", expected=expected, got=str(self.learning_rate))


@dataclass(frozen=True)
class GridOptions:
    """How a decoder attends to the places of an image.

    Args:
        size: numbers in which the places are compared with the state; None takes the decoder's `hidden_size`.
        gate: the last hidden vector says how much of what is seen is let through; for ``soft`` and ``hard``.
        deep_output: the word before and what is seen enter the output too; for ``soft`` and ``hard``.
        doubly_stochastic: λ of the penalty λ Σ_l (1 - Σ_t α_tl)² of each caption, by which each place is looked at
            about once; for ``soft`` and ``hard``.
    """

    size: int | None = None
    gate: bool = True
    deep_output: bool = True
    doubly_stochastic: float = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.size is not None and self.size < 1:
            raise InputError("model.grid.size", expected="at least 1", got=str(self.size))
        if self.doubly_stochastic < 0:
            raise InputError("model.grid.doubly_stochastic", expected="at least 0", got=str(self.doubly_stochastic))


@dataclass(frozen=True)
class SelfCriticalOptions:
    """Training on CIDEr-D of the model's own captions; see `rnnzoo.models.self_critical.SelfCritical`.

    Args:
        from_epoch: the first epoch, counted from 0, that is trained so; those before minimise the cross-entropy.
        samples: captions that are sampled of each image.
        baseline: what a sample must be better than: the ``greedy`` caption, or the mean of the ``others``.
    """

    from_epoch: int
    samples: int = 5
    baseline: str = "others"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.from_epoch < 0:
            raise InputError("model.self_critical.from_epoch", expected="at least 0", got=str(self.from_epoch))
        if self.baseline not in BASELINES:
            raise unknown_name("model.self_critical.baseline", self.baseline, BASELINES)
        least = 2 if self.baseline == "others" else 1
        if self.samples < least:
            raise InputError("model.self_critical.samples", expected=f"at least {least}", got=str(self.samples))
