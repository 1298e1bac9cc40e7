"""Groups of model arguments that are used by more than one model.

They are plain values, so that a model's hyper-parameters stay JSON; every model takes the dataclass or a dict of its
fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rnnzoo.errors import InputError, check_share, did_you_mean

Options = TypeVar("Options")


@dataclass(frozen=True)
class RecurrentOptions:
    """What a stack of recurrent layers can do beyond its cell, size and depth; see `rnnzoo.layers.Recurrent`.

    Args:
        bidirectional: run a second stack from the end to the start and concatenate both outputs.
        recurrent_dropout: dropout on the hidden state that enters the recurrence, one mask a sequence.
        zoneout: probability that a unit keeps its value of the step before; or ``{"hidden": 0.05, "cell": 0.5}``.
        weight_drop: dropout on the recurrent weights, one mask a batch.
        locked_dropout: dropout between layers keeps one mask for all steps of a sequence.
        residual: add a layer's input to its output where the sizes agree.
        layer_norm: normalise the output of each layer.
        learn_initial_state: the initial state is a parameter instead of zeros.
        recompute: keep only what enters each layer and run it again for the gradient: less memory, more time.
        backend: how the cells are run: ``auto``, or one of ``rnnzoo.backends.BACKENDS`` that can run the cell.
        cell_options: further arguments of the cell, such as ``{"forget_bias": 0.0}``.
    """

    bidirectional: bool = True
    recurrent_dropout: float = 0.0
    zoneout: float | dict[str, float] = 0.0
    weight_drop: float = 0.0
    locked_dropout: bool = False
    residual: bool = False
    layer_norm: bool = False
    learn_initial_state: bool = False
    recompute: bool = False
    backend: str = "auto"
    cell_options: dict[str, Any] | None = None


@dataclass(frozen=True)
class WordOptions:
    """How tokens become vectors.

    Args:
        size: numbers per token.
        dropout: dropout on the vectors.
        word_dropout: share of tokens that are read as unknown in training, which teaches the unknown vector.
        embedding_dropout: share of the vocabulary whose vectors are dropped in training, for a whole batch.
        vectors: a text file of pretrained vectors (GloVe, word2vec or fastText format, may be .gz or .xz).
    """

    size: int = 100
    dropout: float = 0.0
    word_dropout: float = 0.0
    embedding_dropout: float = 0.0
    vectors: str | None = None


@dataclass(frozen=True)
class CharacterOptions:
    """How the characters of a word become a vector beside the word's own.

    Args:
        kind: ``cnn`` (convolutions and a maximum over the word) or ``rnn`` (a bidirectional recurrent layer).
        size: numbers per character.
        output_size: numbers per word.
        cell: the cell of the ``rnn`` kind; None takes the model's cell.
    """

    kind: str = "cnn"
    size: int = 32
    output_size: int = 64
    cell: str | None = None


@dataclass(frozen=True)
class LossOptions:
    """How the training loss differs from the plain negative log-likelihood; reported losses never differ.

    Args:
        label_smoothing: share of the target's probability that is spread evenly over all labels.
        class_weights: label → weight in the training loss; a label that is not listed has weight 1.
    """

    label_smoothing: float = 0.0
    class_weights: dict[str, float] | None = None


@dataclass(frozen=True)
class Regularisation:
    """Means against overfitting of a language model: those of AWD-LSTM (Merity, Keskar & Socher 2018), for any cell.

    The others are where they act: `RecurrentOptions.weight_drop` on recurrent weights and
    `RecurrentOptions.locked_dropout`, which gives all three dropouts here one mask a chunk;
    `WordOptions.embedding_dropout` on rows of the token table; `rnnzoo.callbacks.averaging.NonMonotonicAverage`
    among the Trainer's callbacks for NT-ASGD.

    Args:
        input_dropout: dropout on token vectors; None takes the model's `dropout`.
        hidden_dropout: dropout between recurrent layers; likewise.
        output_dropout: dropout before the logits; likewise.
        alpha: weight of activation regularisation, the mean square of what the head is given.
        beta: weight of temporal activation regularisation, the mean square of the difference of the outputs of the
            last layer at two steps that follow each other.
    """

    input_dropout: float | None = None
    hidden_dropout: float | None = None
    output_dropout: float | None = None
    alpha: float = 0.0
    beta: float = 0.0

    def filled(self, dropout: float) -> Regularisation:
        """Return these options with `dropout` where a dropout is left out.

        Raises:
            InputError: for a share outside [0, 1), or a weight below 0.
        """
        for name in ("alpha", "beta"):
            weight = getattr(self, name)
            if weight < 0:
                raise InputError(f"model.regularisation.{name}", expected="a weight of at least 0", got=str(weight))
        names = ("input_dropout", "hidden_dropout", "output_dropout")
        shares = {name: dropout if getattr(self, name) is None else getattr(self, name) for name in names}
        for name, share in shares.items():
            check_share(f"model.regularisation.{name}", share)
        return dataclasses.replace(self, **shares)


def as_options(kind: type[Options], value: Options | Mapping[str, Any] | None, where: str) -> Options:
    """Return `value` as an instance of the dataclass `kind`; None gives the defaults.

    Raises:
        InputError: if a key is not a field of `kind`.

    >>> as_options(LossOptions, {"label_smoothing": 0.1}, "model.loss")
    LossOptions(label_smoothing=0.1, class_weights=None)
    """
    if isinstance(value, kind):
        return value
    given: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {}
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in names:
            raise InputError(
                f"{where}.{name}", expected=f"one of {', '.join(names)}", got=repr(name), fix=did_you_mean(name, names)
            )
    return kind(**given)


def refuse_loss_options(loss: LossOptions, reason: str) -> None:
    """Refuse label smoothing and class weights where they would change nothing.

    Raises:
        InputError: if any is set.
    """
    if loss != LossOptions():
        raise InputError("model.loss", expected=f"no option with {reason}", got=str(loss), fix="leave out model.loss")


def as_plain(value: Any) -> Any:
    """Turn dataclasses into dicts, all the way down, so that the result is JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
