"""Encoder to decoder: a sequence becomes another one of any length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo import plots
from rnnzoo.batches import PairBatch
from rnnzoo.decoders.attention import AttentionDecoder, DecoderContext
from rnnzoo.decoding.sampling import content_seeds
from rnnzoo.decoding.search import Hypothesis, SearchOptions, search
from rnnzoo.errors import InputError, check_list, check_share, unknown_name
from rnnzoo.layers import Recurrent, VocabularyHead, WordEmbedding
from rnnzoo.layers.attention import ATTENTIONS, Attention
from rnnzoo.layers.bridge import Bridge
from rnnzoo.layers.embedding import PADDING, UNKNOWN
from rnnzoo.metrics import ExactMatch, MeanLoss, SacreBleu
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, ZooModel, as_processor
from rnnzoo.models.encoder import build_recurrent, output_size
from rnnzoo.models.evaluating import evaluated
from rnnzoo.models.losses import Objective, RegularisedObjective
from rnnzoo.models.options import RecurrentOptions, WordOptions, as_options
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.vocabulary import Vocabulary

SELECTIONS = {"bleu": "max", "chrf": "max", "exact_match": "max", "loss": "min"}
NO_ATTENTION = "none"
LONGEST_PER_SOURCE = (3, 20)  # a translation has at most 3 S + 20 tokens, whatever `search.max_length` allows
SENTENCES_DRAWN = 3


class Translated(NamedTuple):
    """The outputs of a batch."""

    context: DecoderContext
    hidden: Tensor | None  # [B, T, H], what the head is given for each target; None where there are no targets
    weights: Tensor | None  # [B, T, S]


class Translator(ZooModel):
    """Turn a sequence into another: translation, normalisation of dates, transliteration.

    source vectors [B, S, E] → bidirectional layers [B, S, H] → bridge and attention → decoder [B, T, H] → logits

    The encoder has H/2 units a direction, so that its outputs are as wide as the decoder. Teacher forcing runs the
    whole target at once, unless input feeding, coverage or scheduled sampling make it go step by step.

    Reported losses are teacher-forced and never called BLEU; BLEU and chrF are of the model's own translations,
    detokenised, against the raw references. While a training runs, validation translates greedily; every other
    evaluation uses `search`.

    Args:
        processor: the data's `TranslationProcessor`, or what its `to_json` made.
        cell: name of the recurrent cell of encoder and decoder; `rnnzoo cells` lists them.
        hidden_size: H, units of the decoder; even.
        num_layers: recurrent layers of the encoder, and of the decoder.
        dropout: dropout on token vectors, between layers, and before the logits.
        attention: ``additive``, ``dot``, ``general`` or ``none``.
        input_feeding: the decoder reads its last attentional output beside the last token.
        coverage: the attention knows what it attended to before, and attending twice costs: for additive attention.
        coverage_weight: the price of attending twice (See et al. 2017), with `coverage`.
        shared_embeddings: one table of vectors for source and target tokens, for data with a joint vocabulary.
        tied: the vectors of target tokens are the weights of the logits too.
        label_smoothing: share of the target's probability that is spread evenly over the vocabulary.
        scheduled_sampling: the share of target tokens that the decoder reads from itself at the end of the training,
            rising linearly from 0 at its start.
        copy_unknown: an unknown word in a translation becomes the source token that it attended to most.
        search: how translations are searched for; see `SearchOptions`.
        selection: the metric that picks the best checkpoint: ``bleu``, ``chrf``, ``exact_match`` or ``loss``.
        words: how tokens become vectors, on both sides.
        recurrent: further options of the recurrent layers; `bidirectional` is the encoder's.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``embedding``, ``encoder``, ``decoder`` or ``head``.

    Raises:
        InputError: for options that make no sense together, or do not fit the data.
    """

    def __init__(
        self,
        *,
        processor: TranslationProcessor | dict[str, Any],
        cell: str = "lstm",
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.3,
        attention: str = "additive",
        input_feeding: bool = False,
        coverage: bool = False,
        coverage_weight: float = 1.0,
        shared_embeddings: bool = False,
        tied: bool = True,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        copy_unknown: bool = False,
        search: SearchOptions | dict[str, Any] | None = None,
        selection: str = "bleu",
        words: WordOptions | dict[str, Any] | None = None,
        recurrent: RecurrentOptions | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, TranslationProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: TranslationProcessor = processor
        check_options(arguments, processor)
        self.selection = (selection, SELECTIONS[selection])
        self.search_options = as_options(SearchOptions, search, "model.search")
        self.label_smoothing = label_smoothing
        self.scheduled_sampling = scheduled_sampling
        self.coverage_weight = coverage_weight
        self.copy_unknown = copy_unknown

        vectors = as_options(WordOptions, words, "model.words")
        options = as_options(RecurrentOptions, recurrent, "model.recurrent")
        directions = 1 + options.bidirectional
        self.source = token_embedding(processor.source_vocabulary_size, vectors)
        target = self.source if shared_embeddings else token_embedding(processor.target_vocabulary_size, vectors)
        self.encoder = build_recurrent(
            cell=cell,
            input_size=vectors.size,
            hidden_size=hidden_size // directions,
            num_layers=num_layers,
            dropout=dropout,
            options=options,
        )
        decoder = build_recurrent(
            cell=cell,
            input_size=vectors.size + (output_size(cell, hidden_size, options) if input_feeding else 0),
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            options=dataclasses.replace(options, bidirectional=False, learn_initial_state=False),  # the bridge makes it
        )
        self.bridge = Bridge(encoder=self.encoder, decoder=decoder)
        if attention == NO_ATTENTION and not self.bridge.carries:
            raise InputError(
                "model.attention",
                expected="an attention, or a cell whose first state others may set",
                got=f"{NO_ATTENTION} with cell {cell}",
            )
        self.decoder = AttentionDecoder(
            embedding=target,
            recurrent=decoder,
            attention=build_attention(attention, decoder, self.encoder, coverage=coverage),
            head=VocabularyHead(
                input_size=decoder.output_size,
                vocabulary_size=processor.target_vocabulary_size,
                tied=target.table if tied else None,
            ),
            input_feeding=input_feeding,
            coverage=coverage,
            dropout=dropout,
        )
        self.dropout = nn.Dropout(dropout)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return token vectors of both sides, the encoder, all that makes ĥ of its outputs, and the logits."""
        decoder = (self.bridge, self.decoder.recurrent, self.decoder.attention, self.decoder.combine)
        return {
            "embedding": list(dict.fromkeys((self.source, self.decoder.embedding))),
            "encoder": [self.encoder],
            "decoder": [module for module in decoder if module is not None],
            "head": [self.decoder.head],
        }

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the tokens behind the vectors of both sides and behind the logits."""
        source = Vocabulary.of_tokens(self.processor.source, end=True)
        target = Vocabulary.of_tokens(self.processor.target, end=True)
        names = ("decoder.embedding.table.weight", "decoder.head.weight", "decoder.head.bias")
        return {"source.table.weight": (source,), **dict.fromkeys(names, (target,))}

    def encode(self, batch: PairBatch) -> DecoderContext:
        """Read the sources: what the decoder attends to, and its initial state."""
        vectors = self.dropout(self.source(batch.source))  # [B, S, E]
        outputs, states = self.encoder(vectors, batch.source_lengths)  # [B, S, H]
        return self.decoder.context(self.dropout(outputs), batch.source_lengths, self.bridge(states))

    def forward(self, batch: PairBatch) -> Translated:
        """Encode a batch and, if it has targets, read them by teacher forcing."""
        context = self.encode(batch)
        if batch.targets is None:
            return Translated(context, None, None)
        return Translated(context, *self.decoder(batch.targets, context, sampling=self._sampling()))

    def objective(self, outputs: Translated, batch: PairBatch) -> Objective:
        """Return the cross-entropy in nats of the targets, smoothed if so asked, and the number of target tokens."""
        assert batch.targets is not None
        assert outputs.hidden is not None
        total, plain = self.decoder.head.losses(outputs.hidden, batch.targets, label_smoothing=self.label_smoothing)
        valid = batch.targets >= 0  # [B, T]
        if self.decoder.coverage and outputs.weights is not None:
            before = outputs.weights.cumsum(1) - outputs.weights  # [B, T, S]
            again = torch.minimum(outputs.weights, before).sum(-1)  # [B, T]
            total = total + self.coverage_weight * torch.where(valid, again, 0.0).sum()
        items = valid.sum().to(total.dtype)
        if self.label_smoothing == 0 and not self.decoder.coverage:
            return Objective(total, items)
        return RegularisedObjective(total, items, Objective(plain, items))

    def build_metrics(self) -> dict[str, Any]:
        """Teacher-forced loss; BLEU, chrF and exact matches of the model's own translations."""
        return {"loss": MeanLoss(item="target token"), "quality": SacreBleu(), "exact": ExactMatch()}

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Translated, batch: PairBatch) -> None:
        """Count a batch of translated sentences."""
        assert batch.targets is not None
        assert batch.references is not None
        assert outputs.hidden is not None
        logs = self.decoder.head.log_likelihoods(outputs.hidden, batch.targets)  # [B, T]
        metrics["loss"].update(batch.ids, -logs.sum(1), (batch.targets >= 0).sum(1))
        texts = [answer["translation"] for answer in self.answers(outputs, batch)]
        metrics["quality"].update(batch.ids, texts, batch.references)
        metrics["exact"].update(batch.ids, texts, batch.references)

    def answers(self, outputs: Translated, batch: PairBatch) -> list[dict[str, Any]]:
        """Return ``{"translation", "log_probability", "finished"}`` for each source, and ``n_best`` if asked for."""
        found = self.hypotheses(outputs.context, batch)
        answers: list[dict[str, Any]] = []
        for hypotheses, pieces in zip(found, batch.pieces, strict=True):
            listed = [
                {
                    "translation": self.text(each, pieces),
                    "log_probability": round(each.log_probability, 4),
                    "finished": each.finished,
                }
                for each in hypotheses
            ]
            answers.append({**listed[0], "n_best": listed} if len(listed) > 1 else listed[0])
        return answers

    def hypotheses(self, context: DecoderContext, batch: PairBatch) -> list[list[Hypothesis]]:
        """Search the translations of a batch: the n best of each source.

        What is sampled follows from `search.seed` and the tokens of the source alone.
        """
        options = self.search_options
        if self._fitting():
            options = SearchOptions(method="greedy", max_length=options.max_length)
        factor, offset = LONGEST_PER_SOURCE
        longest = (batch.source_lengths * factor + offset).clamp(max=options.max_length)
        seeds = None
        if options.method == "sample":
            lengths = batch.source_lengths.tolist()
            seeds = content_seeds(row[:length] for row, length in zip(batch.source, lengths, strict=True))
        return search(self.decoder, context, options, suppressed=(PADDING,), max_lengths=longest, seeds=seeds)

    def text(self, hypothesis: Hypothesis, pieces: Sequence[str]) -> str:
        """Return the text of a hypothesis; an unknown word is copied from the source if the model does so."""
        copied: dict[int, str] = {}
        if self.copy_unknown and hypothesis.weights is not None:
            for place, token in enumerate(hypothesis.tokens):
                if token == UNKNOWN and pieces:
                    copied[place] = pieces[int(hypothesis.weights[place, : len(pieces)].argmax())]
        return self.processor.detokenize(hypothesis.tokens, copied)

    def translate(self, texts: Iterable[str], *, batch_size: int = 32) -> list[str]:
        """Return the translation of each text."""
        answers = self.answer(({"source": text} for text in check_list("translate", texts)), batch_size=batch_size)
        return [answer["translation"] for answer in answers]

    @evaluated()
    def draw(self, samples: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
        """Draw the attention of some translations: a row for each target token, a column for each source token."""
        if self.decoder.attention is None:
            return []
        drawn = []
        for place, sample in enumerate(samples[:SENTENCES_DRAWN]):
            batch = self._batch_of([{"source": sample["source"]}])
            best = self.hypotheses(self.encode(batch), batch)[0][0]
            if best.weights is None or not best.tokens:
                continue
            name = f"attention_{place + 1}.png"
            columns = [*batch.pieces[0], "<end>"][: int(batch.source_lengths[0])]
            rows = self.processor.target_pieces(best.tokens)
            plots.attention_matrix(best.weights[: len(rows)].tolist(), rows, columns, folder / name)
            drawn.append(name)
        return drawn

    def _sampling(self) -> float:
        return self.scheduled_sampling * self.progress() if self.training else 0.0


def token_embedding(vocabulary_size: int, options: WordOptions) -> WordEmbedding:
    """Return the vectors of one side's tokens."""
    return WordEmbedding(
        vocabulary_size=vocabulary_size,
        size=options.size,
        dropout=options.dropout,
        word_dropout=options.word_dropout,
        embedding_dropout=options.embedding_dropout,
    )


def build_attention(name: str, decoder: Recurrent, encoder: Recurrent, *, coverage: bool) -> Attention | None:
    """Return the attention of a decoder over the outputs of an encoder, None for ``none``."""
    if name == NO_ATTENTION:
        return None
    extra = {"coverage": True} if coverage else {}
    return ATTENTIONS[name](query_size=decoder.output_size, memory_size=encoder.output_size, **extra)


def check_options(arguments: Mapping[str, Any], processor: TranslationProcessor) -> None:
    """Refuse arguments of a `Translator` that are out of range, or make no sense together.

    Raises:
        InputError: for the first of them.
    """
    if arguments["attention"] not in (NO_ATTENTION, *ATTENTIONS):
        raise unknown_name("model.attention", arguments["attention"], (NO_ATTENTION, *ATTENTIONS))
    if arguments["selection"] not in SELECTIONS:
        raise unknown_name("model.selection", arguments["selection"], SELECTIONS)
    for name in ("dropout", "label_smoothing", "scheduled_sampling"):
        check_share(f"model.{name}", arguments[name])
    if arguments["hidden_size"] < 2 or arguments["hidden_size"] % 2:
        raise InputError(
            "model.hidden_size",
            expected="an even number, half of it for each direction of the encoder",
            got=str(arguments["hidden_size"]),
        )
    if arguments["coverage"] and arguments["attention"] != "additive":
        raise InputError("model.coverage", expected="additive attention", got=repr(arguments["attention"]))
    if arguments["shared_embeddings"] and not processor.shared:
        raise InputError(
            "model.shared_embeddings",
            expected="data with a joint vocabulary",
            got="a vocabulary for each side",
            fix="set --data.joint true",
        )
    if arguments["copy_unknown"] and arguments["attention"] == NO_ATTENTION:
        raise InputError("model.copy_unknown", expected="an attention to copy by", got="attention none")
