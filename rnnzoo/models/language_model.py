"""Next step: text predicted token by token, and text that goes on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnzoo.batches import StreamBatch
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.errors import InputError, check_list
from rnnzoo.layers import VocabularyHead, WordEmbedding
from rnnzoo.layers.dropout import locked_dropout
from rnnzoo.layers.lanes import run_lanes
from rnnzoo.metrics.language import LanguageModelLoss
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, as_processor
from rnnzoo.models.encoder import build_recurrent, build_words
from rnnzoo.models.evaluating import evaluated
from rnnzoo.models.generation import READ_STEPS, stream_text
from rnnzoo.models.losses import Objective, RegularisedObjective, activation_penalty
from rnnzoo.models.options import RecurrentOptions, Regularisation, WordOptions, as_options
from rnnzoo.models.stream_model import StreamModel
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.state import State
from rnnzoo.text.vocabulary import Vocabulary

BEGINNING = 300  # characters of a text that a report measures
CONTINUED = 150  # tokens of its continuation


class Read(NamedTuple):
    """The outputs for a chunk of each lane."""

    hidden: Tensor  # [B, T, H], what the head is given, after dropout
    raw: Tensor  # [B, T, H], the outputs of the last layer
    state: State  # after the last step of each lane


class LanguageModel(StreamModel):
    """Predict each token of a text from all before it.

    tokens → vectors [B, T, E] (or one-hot [B, T, V]) → recurrent layers [B, T, H] → logits [B, T, V]

    The text is read in lanes side by side, a chunk of each a batch (truncated backpropagation through time): the
    state is carried from batch to batch but gradients stop at its edge. Documents begin from the initial state. The
    states of training, validation and testing are kept apart, and that of the training goes into the checkpoint. The
    logits of a whole batch are never held at once.

    Args:
        processor: the data's `LanguageProcessor`, or what its `to_json` made.
        cell: name of the recurrent cell; `rnnzoo cells` lists them.
        hidden_size: units.
        num_layers: recurrent layers.
        dropout: dropout on token vectors, between layers and before the logits; with `recurrent.locked_dropout` one
            mask for all steps of a chunk.
        tied: the token vectors are the weights of the logits too; where H differs from their size a linear layer
            stands between.
        one_hot: read tokens as one-hot vectors instead of learnt ones.
        words: how tokens become vectors.
        recurrent: further options of the recurrent layers, which run forward only whatever `bidirectional` says.
        regularisation: dropouts that differ from `dropout`, penalties on activations; see `Regularisation` for where
            the other means of AWD-LSTM are (weight drop, embedding dropout, averaged weights).
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``embedding``, ``encoder`` (the recurrent layers) or ``head``.

    Raises:
        InputError: for options that make no sense together.
    """

    def __init__(
        self,
        *,
        processor: LanguageProcessor | dict[str, Any],
        cell: str = "lstm",
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
        one_hot: bool = False,
        words: WordOptions | dict[str, Any] | None = None,
        recurrent: RecurrentOptions | dict[str, Any] | None = None,
        regularisation: Regularisation | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, LanguageProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: LanguageProcessor = processor
        vectors = as_options(WordOptions, words, "model.words")
        options = as_options(RecurrentOptions, recurrent, "model.recurrent")
        self.regularisation = as_options(Regularisation, regularisation, "model.regularisation").filled(dropout)
        self.locked = options.locked_dropout
        if one_hot and (tied or vectors != WordOptions(size=vectors.size)):
            raise InputError(
                "model.one_hot",
                expected="no tied weights and no options of token vectors with one-hot input",
                got="tied: true" if tied else f"words: {vectors}",
            )
        self.vocabulary_size = processor.vocabulary_size
        self.words: WordEmbedding | None = None
        if not one_hot:
            self.words = build_words(processor.tokenizer, vectors, vocabulary_size=self.vocabulary_size)
        between = self.regularisation.hidden_dropout if num_layers > 1 else 0.0
        self.recurrent = build_recurrent(
            cell=cell,
            input_size=self.vocabulary_size if self.words is None else self.words.size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=between or 0.0,
            options=dataclasses.replace(options, bidirectional=False, locked_dropout=self.locked and bool(between)),
        )
        self.head = VocabularyHead(
            input_size=self.recurrent.output_size,
            vocabulary_size=self.vocabulary_size,
            tied=self.words.table if tied and self.words is not None else None,
        )

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return token vectors, if there are any, recurrent layers and logits."""
        embedding: list[nn.Module] = [] if self.words is None else [self.words]
        return {"embedding": embedding, "encoder": [self.recurrent], "head": [self.head]}

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the tokens behind vectors and logits; with one-hot input the first layer has a column for each."""
        tokens = Vocabulary.of_tokens(self.processor.tokenizer, end=True)
        found: dict[str, tuple[Vocabulary | None, ...]] = {"recurrent.layer 0 forward.input_weight": (None, tokens)}
        if self.words is not None:
            found = {"words.table.weight": (tokens,)}
        return found | dict.fromkeys(("head.weight", "head.bias"), (tokens,))

    def forward(self, batch: StreamBatch, state: State | None = None) -> Read:
        """Read a chunk of each lane.

        Args:
            batch: the chunks.
            state: what `Read.state` was for the chunks before; None begins anew, but within the steps of training and
                evaluation takes the state that the model carries.
        """
        state = self.carried(batch) if state is None else state
        resets = batch.resets.clone()
        resets[:, :1] |= batch.begins.unsqueeze(1)
        vectors = self._drop(self.vectors(batch.tokens), self.regularisation.input_dropout)  # [B, T, E]
        raw, state = run_lanes(self.recurrent, vectors, batch.lengths, resets, state)  # [B, T, H]
        self.carry_on(state)
        return Read(self._drop(raw, self.regularisation.output_dropout), raw, state)

    def objective(self, outputs: Read, batch: StreamBatch) -> Objective:
        """Return the cross-entropy in nats of the next tokens with the activation penalties, and the tokens' number."""
        options, valid = self.regularisation, batch.targets >= 0  # [B, T]
        loss = self.head.loss(outputs.hidden, batch.targets)
        penalty = activation_penalty(
            outputs.raw, outputs.hidden, valid, alpha=options.alpha, beta=options.beta, resets=batch.resets
        )
        items = valid.sum().to(loss.dtype)
        if options.alpha == 0 and options.beta == 0:
            return Objective(loss, items)
        return RegularisedObjective(loss + penalty, items, Objective(loss, items))

    def build_metrics(self) -> dict[str, Any]:
        """Nats and perplexity per token, bits per character, perplexity per word."""
        return {"loss": LanguageModelLoss()}

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Read, batch: StreamBatch) -> None:
        """Count a chunk of each lane."""
        logs = self.head.log_likelihoods(outputs.hidden, batch.targets)  # [B, T]
        metrics["loss"].update(
            batch.ids, -logs.double().sum(1), batch.lengths, batch.characters, batch.words, batch.begins
        )

    # Raw texts

    def answers(self, outputs: Read, batch: StreamBatch) -> list[dict[str, Any]]:
        """Return for each text its loss in nats per token, bits per character, log-probability and counts."""
        logs = self.head.log_likelihoods(outputs.hidden, batch.targets)  # [B, T]
        return describe(logs.double().sum(1), batch)

    def answer_batch(self, batch: StreamBatch) -> list[dict[str, Any]]:
        """Measure a batch of raw texts, however long; see `answers`."""
        return describe(self._log_probabilities(batch), batch)

    def score(self, texts: Iterable[str], *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Return for each text ``{"loss", "bits_per_character", "log_probability", "tokens", "characters"}``."""
        return list(self.answer(({"text": text} for text in check_list("score", texts)), batch_size=batch_size))

    def show(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return for each of a few texts the measures of its beginning, and how the model goes on from it."""
        shown = []
        for place, sample in enumerate(samples):
            beginning = sample["text"][:BEGINNING]
            prompt = beginning.lstrip("\n").split("\n")[0]
            text = self.generate(prompt, max_tokens=CONTINUED, unknown="keep", seed=place)
            shown.append({**self.score([beginning])[0], "prompt": prompt, "continuation": text})
        return shown

    @evaluated(without_gradient=torch.no_grad)
    def start_state(self, batch_size: int) -> State:
        """Return the state before the first token; `step` is first given the end token (`processor.end_id`)."""
        return self.recurrent.initial_state(batch_size)

    @evaluated(without_gradient=torch.no_grad)
    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token [B] of each row: return the log-probabilities [B, V] of the next, and the state."""
        logits, state = self.read_step(tokens, state)
        return logits.float().log_softmax(-1), state

    @evaluated(without_gradient=torch.no_grad)
    def read_step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token [B] of each row: return the logits [B, V] of the next, and the state."""
        hidden, state = self.recurrent.step(self.vectors(tokens), state)  # [B, H]
        return self.head(hidden), state

    @evaluated()
    def stream(
        self,
        prompt: str = "",
        *,
        max_tokens: int | None = None,
        options: SearchOptions | Mapping[str, Any] | None = None,
        unknown: str = "refuse",
        seed: int = 0,
    ) -> Iterator[str]:
        """Go on from a prompt, and yield the text piece by piece as it is chosen.

        A piece is a character or a word with the blank before it; a character of several bytes comes when it is
        whole. The unknown token is never chosen.

        Args:
            prompt: the text to go on from; it is not repeated. An empty one begins a document.
            max_tokens: the most tokens; `options.max_length` if left out. A document may end before.
            options: how tokens are chosen; see `SearchOptions`. By default they are sampled.
            unknown: what becomes of a character or word of the prompt that training never saw: ``refuse``, ``skip``,
                or ``keep`` as the unknown token.
            seed: of this text among others with the same `options.seed`.

        Raises:
            InputError: naming what is unknown in the prompt; for options that make no sense.
        """
        yield from stream_text(self, prompt, max_tokens=max_tokens, options=options, unknown=unknown, seed=seed)

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int | None = None,
        options: SearchOptions | Mapping[str, Any] | None = None,
        unknown: str = "refuse",
        seed: int = 0,
    ) -> str:
        """Return what `stream` yields as one text."""
        return "".join(self.stream(prompt, max_tokens=max_tokens, options=options, unknown=unknown, seed=seed))

    def _log_probabilities(self, batch: StreamBatch) -> Tensor:
        """Return the log-probability in nats [B] of each text of a batch, a part of the text at a time."""
        total = torch.zeros(len(batch.ids), dtype=torch.float64, device=self.device)
        state = None
        for start in range(0, batch.tokens.shape[1], READ_STEPS):
            part = steps_of(batch, start, start + READ_STEPS)
            outputs = self(part, state)
            state = outputs.state
            total += self.head.log_likelihoods(outputs.hidden, part.targets).double().sum(1)
        return total

    def vectors(self, tokens: Tensor) -> Tensor:
        """Return what the recurrent layers read for tokens [...]: [..., E], or one-hot [..., V]."""
        if self.words is not None:
            return self.words(tokens)
        return F.one_hot(tokens, self.vocabulary_size).to(self.head.bias.dtype)

    def _drop(self, values: Tensor, share: float | None) -> Tensor:
        if self.locked:
            return locked_dropout(values, share or 0.0, training=self.training)
        return F.dropout(values, share or 0.0, self.training)


def steps_of(batch: StreamBatch, start: int, stop: int) -> StreamBatch:
    """Return the steps from `start` to `stop` of every lane of a batch."""
    return batch._replace(
        tokens=batch.tokens[:, start:stop],
        targets=batch.targets[:, start:stop],
        lengths=(batch.lengths - start).clamp(0, stop - start),
        resets=batch.resets[:, start:stop],
        begins=batch.begins & (start == 0),
    )


def describe(logs: Tensor, batch: StreamBatch) -> list[dict[str, Any]]:
    """Return what the log-probabilities in nats [B] of texts say of each; None where there is nothing to divide by."""
    found = []
    for total, tokens, characters in zip(logs.tolist(), batch.lengths.tolist(), batch.characters.tolist(), strict=True):
        bits = -total / math.log(2)
        found.append(
            {
                "loss": round(-total / tokens, 6) if tokens else None,
                "bits_per_character": round(bits / characters, 6) if characters else None,
                "log_probability": round(total, 4),
                "tokens": tokens,
                "characters": characters,
            }
        )
    return found
