"""Many to many, aligned: one tag for each word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from rnnzoo.batches import IGNORED, TaggingBatch
from rnnzoo.errors import InputError, check_list, check_share
from rnnzoo.layers import CRF, CharacterEmbedding
from rnnzoo.lengths import length_mask
from rnnzoo.metrics import ClassificationCounts, SampleMetric, SpanF1
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, ZooModel, as_processor
from rnnzoo.models.encoder import build_recurrent, build_words
from rnnzoo.models.losses import Objective, SampleLosses
from rnnzoo.models.options import (
    CharacterOptions,
    LossOptions,
    RecurrentOptions,
    WordOptions,
    as_options,
    refuse_loss_options,
)
from rnnzoo.models.tasks import ClassTask
from rnnzoo.processors.base import pad
from rnnzoo.processors.tagging import TaggingProcessor
from rnnzoo.text.tags import allowed_transitions
from rnnzoo.text.vocabulary import Vocabulary


class SequenceTagger(ZooModel):
    """Tag every word of a sentence: parts of speech, named entities, slots.

    word and character vectors [B, T, E] → recurrent layers [B, T, H or 2H] → emissions [B, T, C] → softmax or CRF

    Args:
        processor: the data's `TaggingProcessor`, or what its `to_json` made.
        cell: name of the recurrent cell; `rnnzoo cells` lists them.
        hidden_size: units per direction.
        num_layers: recurrent layers.
        dropout: dropout before the first and after the last recurrent layer, and between them.
        words: how words become vectors.
        characters: how characters become vectors, for data with characters; None leaves them out.
        recurrent: further options of the recurrent layers.
        crf: score whole sequences of tags with a linear-chain CRF instead of each tag alone. If the tags have a
            scheme (BIO, BIOES), sequences that break it are excluded.
        loss: label smoothing and class weights, for the softmax only.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``embedding``, ``encoder`` or ``head``.
    """

    def __init__(
        self,
        *,
        processor: TaggingProcessor | dict[str, Any],
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.3,
        words: WordOptions | dict[str, Any] | None = None,
        characters: CharacterOptions | dict[str, Any] | None = None,
        recurrent: RecurrentOptions | dict[str, Any] | None = None,
        crf: bool = False,
        loss: LossOptions | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, TaggingProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: TaggingProcessor = processor
        losses = as_options(LossOptions, loss, "model.loss")
        if crf:
            refuse_loss_options(losses, "model.crf, which scores whole sequences")
        self.task = ClassTask(labels=processor.tags.labels, loss=losses, item="word")

        self.words = build_words(processor.words, as_options(WordOptions, words, "model.words"))
        features = self.words.size
        self.characters: CharacterEmbedding | None = None
        if characters is not None and processor.characters is None:
            raise InputError(
                "model.characters",
                expected="data with characters",
                got="data.characters: null",
                fix="leave out one of the two",
            )
        if processor.characters is not None and characters is not None:
            options = as_options(CharacterOptions, characters, "model.characters")
            self.characters = CharacterEmbedding(
                vocabulary_size=processor.characters.vocabulary_size,
                size=options.size,
                output_size=options.output_size,
                kind=options.kind,
                cell=options.cell or cell,
            )
            features += options.output_size
        self.recurrent = build_recurrent(
            cell=cell,
            input_size=features,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            options=as_options(RecurrentOptions, recurrent, "model.recurrent"),
        )
        self.dropout = nn.Dropout(check_share("model.dropout", dropout))
        self.head = nn.Linear(self.recurrent.output_size, len(processor.tags))
        allowed = None if processor.scheme is None else allowed_transitions(processor.tags.labels, processor.scheme)
        self.crf = CRF(num_tags=len(processor.tags), allowed=allowed) if crf else None
        self.selection = ("accuracy", "max") if processor.scheme is None else ("f1", "max")

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return vectors of words and characters, recurrent layers, and emissions with the CRF."""
        return {
            "embedding": [self.words, *([] if self.characters is None else [self.characters])],
            "encoder": [self.recurrent],
            "head": [self.head, *([] if self.crf is None else [self.crf])],
        }

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the words and characters behind the vectors, and the tags behind emissions and transitions."""
        tags = Vocabulary.of_labels(self.processor.tags)
        found: dict[str, tuple[Vocabulary | None, ...]] = {
            "words.table.weight": (Vocabulary.of_tokens(self.processor.words),),
            "crf.transitions": (tags, tags),
        }
        found |= dict.fromkeys(("head.weight", "head.bias", "crf.start", "crf.end"), (tags,))
        if self.processor.characters is not None:
            found["characters.table.weight"] = (Vocabulary.of_tokens(self.processor.characters),)
        return found

    def forward(self, batch: TaggingBatch) -> Tensor:
        """Return the emissions [B, T, C] of a batch."""
        features = self.words(batch.words)  # [B, T, E]
        if self.characters is not None:
            assert batch.characters is not None
            features = torch.cat([features, self.characters(batch.characters)], dim=-1)
        hidden, _ = self.recurrent(self.dropout(features), batch.lengths)  # [B, T, H]
        return self.head(self.dropout(hidden))  # [B, T, C]

    def objective(self, outputs: Tensor, batch: TaggingBatch) -> Objective:
        """Return the negative log-likelihood of the tags in nats, and the number of tags."""
        assert batch.targets is not None
        if self.crf is None:
            return self.task.objective(outputs, batch.targets)
        losses = self.sample_losses(outputs, batch)
        return Objective(losses.totals.sum(), losses.counts.sum())

    def sample_losses(self, outputs: Tensor, batch: TaggingBatch) -> SampleLosses:
        """Return the negative log-likelihood of each sentence in nats, and its number of tags."""
        assert batch.targets is not None
        if self.crf is None:
            return self.task.sample_losses(outputs, batch.targets)
        return SampleLosses(
            self.crf.negative_log_likelihood(outputs, batch.targets, batch.lengths), (batch.targets >= 0).sum(1)
        )

    def best_tags(self, outputs: Tensor, batch: TaggingBatch) -> Tensor:
        """Return the most probable tags [B, T], IGNORED on the padding."""
        if self.crf is not None:
            return self.crf.decode(outputs, batch.lengths)
        valid = length_mask(batch.lengths, outputs.shape[1])  # [B, T]
        return torch.where(valid, outputs.argmax(-1), IGNORED)

    def build_metrics(self) -> dict[str, SampleMetric]:
        """Loss and accuracy per word; for a scheme of spans their precision, recall and F1."""
        metrics = self.task.build_metrics()
        metrics["labels"] = ClassificationCounts(labels=self.processor.data_tags.labels, item="word")
        if self.processor.scheme is not None:
            metrics["spans"] = SpanF1()
        return metrics

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Tensor, batch: TaggingBatch) -> None:
        """Count a batch of tagged sentences."""
        assert batch.targets is not None
        predicted = self.best_tags(outputs, batch)
        losses = self.sample_losses(outputs, batch)
        metrics["loss"].update(batch.ids, losses.totals, losses.counts)
        if self.processor.scheme is None:
            metrics["labels"].update(batch.ids, predicted, batch.targets)
            return
        assert batch.tags is not None
        texts = self.tag_texts(predicted, batch.lengths)
        number = self.processor.data_tags.id
        numbers = [pad([[number(tag) for tag in row] for row in rows], IGNORED) for rows in (texts, batch.tags)]
        metrics["labels"].update(batch.ids, *(tags.to(predicted.device) for tags in numbers))
        # As Hugging Face and seqeval do, words without a label are left out before spans are read.
        labelled = [[bool(tag) for tag in row] for row in batch.tags]
        kept = [[list(compress(*pair)) for pair in zip(rows, labelled, strict=True)] for rows in (texts, batch.tags)]
        metrics["spans"].update(batch.ids, *kept)

    def tag_texts(self, tags: Tensor, lengths: Tensor) -> list[list[str]]:
        """Return tag ids [B, T] as the names of the valid ones, in the scheme of the data."""
        rows = zip(tags.tolist(), lengths.tolist(), strict=True)
        return [
            self.processor.as_data([self.processor.tags.labels[tag] for tag in row[:length]]) for row, length in rows
        ]

    def answers(self, outputs: Tensor, batch: TaggingBatch) -> list[dict[str, Any]]:
        """Return ``{"tags": [...]}`` for each sentence."""
        return [{"tags": tags} for tags in self.tag_texts(self.best_tags(outputs, batch), batch.lengths)]

    def tag(self, sentences: Iterable[Sequence[str]], *, batch_size: int = 32) -> list[list[str]]:
        """Return the tags of sentences that are lists of words."""
        samples = ({"tokens": words} for words in check_list("tag", sentences, of="words"))
        return [answer["tags"] for answer in self.answer(samples, batch_size=batch_size)]
