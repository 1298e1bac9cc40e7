"""One to many: an image becomes a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo import plots
from rnnzoo.batches import CaptionBatch
from rnnzoo.decoders.hard_attention import HardOptions
from rnnzoo.decoders.visual import PlainDecoder, Reading, VisualContext
from rnnzoo.decoders.visual_attention import GazeDecoder
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.decoding.sampling import content_seeds
from rnnzoo.decoding.search import search
from rnnzoo.decoding.trace import Hypothesis
from rnnzoo.errors import InputError, check_list, check_share, unknown_name
from rnnzoo.layers.vision import OWN_NETWORKS, SMALL_CNN, ImageEncoder
from rnnzoo.metrics import CaptionScores, ExactMatch, MeanLoss, Pointing, ZooMetric, caption_tokens
from rnnzoo.models.base import OptimizerFactory, SchedulerFactory, ZooModel, as_processor
from rnnzoo.models.caption_decoders import build_decoder
from rnnzoo.models.caption_options import GridOptions, ImageEncoderOptions, SelfCriticalOptions
from rnnzoo.models.evaluating import evaluated, evaluating
from rnnzoo.models.losses import Objective, RegularisedObjective
from rnnzoo.models.options import RecurrentOptions, WordOptions, as_options
from rnnzoo.models.self_critical import SelfCritical
from rnnzoo.processors.captions import CaptionProcessor
from rnnzoo.state import select_rows
from rnnzoo.text.tokenizer import PAD_ID, UNKNOWN_ID
from rnnzoo.text.vocabulary import Vocabulary

SELECTIONS = {"bleu4": "max", "exact_match": "max", "cider_d": "max", "rouge_l": "max", "loss": "min"}
LONGEST = 60  # tokens of a caption, whatever `search.max_length` allows
IMAGES_DRAWN, MOST_REGIONS_DRAWN = 3, 100


class Captioned(NamedTuple):
    """The outputs of a batch."""

    context: VisualContext  # B rows
    reading: Reading | None  # of the C captions; None where there are none, or where they are not read


class Captioner(ZooModel):
    """Describe images in words.

    image → encoder → grid [B, L, D] → (projection [B, L, M]) → decoder that attends to it → words

    The attention is ``none`` (the image is the decoder's first state or first input), ``soft`` or ``hard``
    (`GazeDecoder`: Show, Attend and Tell), or ``top_down`` (`TopDownDecoder`). Without attention, teacher forcing runs
    whole captions at once on the fast backend, unless scheduled sampling makes it go step by step; with attention it
    always goes step by step.

    The reported loss is teacher-forced, over all captions; BLEU, CIDEr-D and ROUGE-L are of the model's own captions,
    one for each image, against all of its references. While a training runs, validation describes greedily; every
    other evaluation uses `search`.

    Args:
        processor: the data's `CaptionProcessor`, or what its `to_json` made.
        cell: name of the recurrent cell; `rnnzoo cells` lists them.
        hidden_size: H, units of the decoder.
        num_layers: recurrent layers of the decoder; 1 for ``top_down``, which has two by itself.
        dropout: dropout on token vectors, between layers, on projected places, and before the logits.
        attention: ``none``, ``soft``, ``hard`` or ``top_down``.
        image_as: without attention, the image is the first ``state`` or the first ``input``.
        image: what encodes the pixels; must be left out where the data are features of regions.
        region_size: M, to which the D numbers of each place are mapped (linear, layer norm, ReLU); None takes them as
            they are.
        grid: how places are attended to.
        hard: how hard attention learns.
        tied: the vectors of tokens are the weights of the logits too.
        label_smoothing: share of the target's probability that is spread evenly over the vocabulary.
        scheduled_sampling: the share of target tokens that the decoder reads from itself at the end of the training,
            rising linearly from 0 at its start.
        self_critical: training on CIDEr-D after the cross-entropy.
        search: how captions are searched for; see `SearchOptions`.
        selection: the metric that picks the best checkpoint: ``bleu4``, ``cider_d``, ``rouge_l``,
            ``exact_match`` or ``loss``.
        words: how tokens become vectors.
        recurrent: further options of the recurrent layers, which have one direction whatever `bidirectional` says.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the scheduler from the optimizer.
        lr_scheduler_interval: ``step`` or ``epoch``, after which the scheduler is stepped; see `ZooModel`.
        init_from: the folder of a trained model to start from, as far as it fits.
        freeze: parts that are not trained: ``embedding``, ``encoder`` (of images), ``decoder`` or ``head``.

    Raises:
        InputError: for options that make no sense together, or do not fit the data.
    """

    def __init__(
        self,
        *,
        processor: CaptionProcessor | dict[str, Any],
        cell: str = "lstm",
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.3,
        attention: str = "soft",
        image_as: str = "state",
        image: ImageEncoderOptions | dict[str, Any] | None = None,
        region_size: int | None = None,
        grid: GridOptions | dict[str, Any] | None = None,
        hard: HardOptions | dict[str, Any] | None = None,
        tied: bool = False,
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        self_critical: SelfCriticalOptions | dict[str, Any] | None = None,
        search: SearchOptions | dict[str, Any] | None = None,
        selection: str = "bleu4",
        words: WordOptions | dict[str, Any] | None = None,
        recurrent: RecurrentOptions | dict[str, Any] | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_scheduler_interval: str | None = None,
        init_from: str | None = None,
        freeze: Sequence[str] | str = (),
    ) -> None:
        arguments = dict(locals())
        processor = as_processor(processor, CaptionProcessor)
        super().__init__(
            processor=processor,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_scheduler_interval=lr_scheduler_interval,
            init_from=init_from,
            freeze=freeze,
        )
        check_options(arguments, processor)
        self.image_options = as_options(ImageEncoderOptions, image, "model.image")
        self.encoder = build_encoder(processor, self.image_options)
        if self.encoder is not None:  # a saved model is built again without the files of the network
            config = self.encoder.settings()["config"]
            arguments["image"] = dataclasses.replace(self.image_options, config=config)
        self.save_hyperparameters(self.plain_arguments(arguments, processor), logger=False)
        self.processor: CaptionProcessor = processor
        self.selection = (selection, SELECTIONS[selection])
        self.search_options = as_options(SearchOptions, search, "model.search")
        self.grid_options = as_options(GridOptions, grid, "model.grid")
        self.label_smoothing = label_smoothing
        self.scheduled_sampling = scheduled_sampling
        self.self_critical_options = (
            None if self_critical is None else as_options(SelfCriticalOptions, self_critical, "model.self_critical")
        )
        self.self_critical: SelfCritical | None = None  # made when a training begins: it needs the training references

        size = processor.region_size if self.encoder is None else self.encoder.output_size
        assert size is not None
        self.projection: nn.Module | None = None
        if region_size is not None:
            # Features of a trained network are large: unless they are normalised, the first state saturates and the
            # words no longer depend on the image.
            self.projection = nn.Sequential(
                nn.Linear(size, region_size), nn.LayerNorm(region_size), nn.ReLU(), nn.Dropout(dropout)
            )
        self.decoder = build_decoder(
            attention,
            tokenizer=processor.tokenizer,
            words=as_options(WordOptions, words, "model.words"),
            cell=cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            memory_size=region_size or size,
            dropout=dropout,
            image_as=image_as,
            grid=self.grid_options,
            hard=as_options(HardOptions, hard, "model.hard"),
            tied=tied,
            recurrent=as_options(RecurrentOptions, recurrent, "model.recurrent"),
        )

    @classmethod
    def check_stored(cls, arguments: Mapping[str, Any]) -> None:
        """Refuse a pretrained image encoder without its configuration, which would be looked for in files.

        Raises:
            InputError: for such an encoder.
        """
        super().check_stored(arguments)
        image = arguments.get("image") or {}
        if image.get("name", SMALL_CNN) not in OWN_NETWORKS and not image.get("config"):
            raise InputError(
                "arguments.image.config",
                expected="the configuration of the image encoder, which a stored model has",
                got="none",
                fix="save the model again with this version of rnnzoo",
            )

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return token vectors, the image encoder with the projection, the decoder between, and the logits."""
        apart = (self.decoder.embedding, self.decoder.head)
        return {
            "embedding": [self.decoder.embedding],
            "encoder": [module for module in (self.encoder, self.projection) if module is not None],
            "decoder": [module for module in self.decoder.children() if module not in apart],
            "head": [self.decoder.head],
        }

    def vocabularies(self) -> dict[str, tuple[Vocabulary | None, ...]]:
        """Return the tokens behind the vectors and behind the logits."""
        tokens = Vocabulary.of_tokens(self.processor.tokenizer, end=True)
        names = ("decoder.embedding.table.weight", "decoder.head.weight", "decoder.head.bias")
        return dict.fromkeys(names, (tokens,))

    def setup(self, stage: str) -> None:
        """Give the data a frozen encoder, and take from them what self-critical training needs."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.encoder is not None and self.encoder.frozen and hasattr(data, "use_features"):
            data.use_features(self.encode, self.encoder.checksum())
        if stage == "fit" and self.self_critical_options is not None:
            self.self_critical = SelfCritical(
                options=self.self_critical_options,
                tokenizer=self.processor.tokenizer,
                corpus=data.raw("train")["captions"],
            )

    def parameter_groups(self) -> list[Any]:
        """Return the parameters, those of the image encoder apart if it has a learning rate of its own."""
        rate = self.image_options.learning_rate
        if rate is None or self.encoder is None:
            return super().parameter_groups()
        own = {id(parameter) for parameter in self.encoder.parameters()}
        trained = super().parameter_groups()
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in trained if id(parameter) not in own]},
            {"params": [parameter for parameter in trained if id(parameter) in own], "lr": rate, "name": "encoder"},
        ]
        return [group for group in groups if group["params"]]

    def encode(self, images: Tensor) -> Tensor:
        """Return the grid [B, L, D] of normalised images [B, 3, Y, X]."""
        assert self.encoder is not None
        return self.encoder(images.to(self.device))

    def describe(self, batch: CaptionBatch) -> VisualContext:
        """Encode the images of a batch: what the decoder reads of them."""
        regions = batch.regions  # [B, L, D]
        if regions is None:
            assert batch.images is not None
            regions = self.encode(batch.images)
        if self.projection is not None:
            regions = self.projection(regions)  # [B, L, M]
        return self.decoder.context(regions, batch.region_counts)

    def forward(self, batch: CaptionBatch) -> Captioned:
        """Encode a batch and, if it has captions, read them by teacher forcing; not in self-critical training."""
        if self._is_self_critical():
            with evaluating(*(part for part in (self.encoder, self.projection, self.decoder) if part is not None)):
                return Captioned(self.describe(batch), None)
        context = self.describe(batch)
        if batch.captions is None:
            return Captioned(context, None)
        assert batch.caption_rows is not None
        rows = select_rows(context, batch.caption_rows)  # C rows
        return Captioned(context, self.decoder(batch.captions, rows, sampling=self._sampling()))

    def objective(self, outputs: Captioned, batch: CaptionBatch) -> Objective:
        """Return the cross-entropy in nats of all captions with what regularises it, and the number of tokens.

        In self-critical epochs: the loss of `SelfCritical`, and the number of sampled tokens.
        """
        if outputs.reading is None:
            return self._self_critical_objective(outputs.context, batch)
        assert batch.captions is not None
        assert batch.caption_rows is not None
        reading, valid = outputs.reading, batch.captions >= 0  # [C, T]
        total, plain = self.decoder.head.losses(reading.hidden, batch.captions, label_smoothing=self.label_smoothing)
        if isinstance(self.decoder, GazeDecoder) and reading.weights is not None:
            mask = outputs.context.memory.mask[batch.caption_rows]  # [C, L]
            missing = torch.where(mask, 1 - reading.weights.sum(1), 0.0)  # padded steps have no weights
            total = total + self.grid_options.doubly_stochastic * missing.square().sum()
            if self.decoder.choice is not None and reading.places is not None:
                with torch.no_grad():
                    logs = self.decoder.head.log_likelihoods(reading.hidden, batch.captions)  # [C, T]
                total = total + self.decoder.choice.regulariser(reading.weights, reading.places, logs, valid)
        items = valid.sum().to(total.dtype)
        if self.label_smoothing == 0 and not isinstance(self.decoder, GazeDecoder):
            return Objective(total, items)
        return RegularisedObjective(total, items, Objective(plain, items))

    def build_metrics(self) -> dict[str, ZooMetric]:
        """Teacher-forced loss; BLEU, CIDEr-D, ROUGE-L and exact matches of the model's own captions.

        Where the data say what words name, and the model attends, also whether the attention is on that.
        """
        metrics: dict[str, ZooMetric] = {
            "loss": MeanLoss(item="caption token"),
            "captions": CaptionScores(),
            "exact": ExactMatch(),
        }
        grid = None if self.encoder is None else self.encoder.grid
        attends = not isinstance(self.decoder, PlainDecoder) and (self.encoder is None or grid is not None)
        if self.processor.grounded and attends:
            metrics["pointing"] = Pointing(grid=grid)
        return metrics

    def definitions(self, split: str = "test") -> dict[str, str]:
        """Return the exact definition of each metric; exact matches compare words, as all scores do."""
        found = super().definitions(split)
        return {**found, "exact_match": "percent of captions that are a reference; lower case, no punctuation"}

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Captioned, batch: CaptionBatch) -> None:
        """Count a batch of described images."""
        assert batch.captions is not None
        assert batch.caption_rows is not None
        assert batch.references is not None
        reading = outputs.reading
        if reading is None:
            reading = self.decoder(batch.captions, select_rows(outputs.context, batch.caption_rows))
        logs = self.decoder.head.log_likelihoods(reading.hidden, batch.captions).sum(1)  # [C]
        counts = (batch.captions >= 0).sum(1)  # [C]
        none = logs.new_zeros(len(batch.ids))
        totals, tokens = (none.index_add(0, batch.caption_rows, each.to(none)) for each in (-logs, counts))  # [B]
        metrics["loss"].update(batch.ids, totals, tokens)
        best = [hypotheses[0] for hypotheses in self.hypotheses(outputs.context, batch)]
        captions = [self.processor.tokenizer.decode(each.tokens) for each in best]
        metrics["captions"].update(batch.ids, captions, batch.references)
        plain = [[" ".join(caption_tokens(text)) for text in texts] for texts in batch.references]
        metrics["exact"].update(batch.ids, [" ".join(caption_tokens(text)) for text in captions], plain)
        if "pointing" in metrics and batch.grounding is not None:
            first = torch.searchsorted(batch.caption_rows, torch.arange(len(batch.ids), device=batch.ids.device))  # [B]
            metrics["pointing"].update(
                batch.ids,
                [each.tokens for each in best],
                [each.weights for each in best],
                batch.captions[first].tolist(),
                batch.grounding,
            )

    def answers(self, outputs: Captioned, batch: CaptionBatch) -> list[dict[str, Any]]:
        """Return ``{"caption", "log_probability", "finished"}`` for each image, and ``n_best`` if asked for."""
        answers: list[dict[str, Any]] = []
        for hypotheses in self.hypotheses(outputs.context, batch):
            listed = [
                {
                    "caption": self.processor.tokenizer.decode(each.tokens),
                    "log_probability": round(each.log_probability, 4),
                    "finished": each.finished,
                }
                for each in hypotheses
            ]
            answers.append({**listed[0], "n_best": listed} if len(listed) > 1 else listed[0])
        return answers

    def hypotheses(self, context: VisualContext, batch: CaptionBatch) -> list[list[Hypothesis]]:
        """Search the captions of images: the n best of each. Unknown words are never generated.

        What is sampled follows from `search.seed` and the pixels, or the features, of the image alone.
        """
        options = self.search_options.as_greedy() if self._fitting() else self.search_options
        longest = torch.full((len(context.mean),), min(LONGEST, options.max_length), device=self.device)
        seeds = content_seeds(inputs_of(batch)) if options.method == "sample" else None
        never = (PAD_ID, UNKNOWN_ID)
        return search(self.decoder, context, options, suppressed=never, max_lengths=longest, seeds=seeds)

    def caption(self, images: Iterable[Any], *, batch_size: int = 32) -> list[str]:
        """Return a caption of each image: a path, bytes, an array [Y, X, 3] or a Pillow image; or of each [L, D]."""
        (name,) = self.processor.inputs
        answers = self.answer(({name: image} for image in check_list("caption", images)), batch_size=batch_size)
        return [answer["caption"] for answer in answers]

    @evaluated()
    def draw(self, samples: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
        """Draw the attention for each word of some captions: over the image, or as a table of words and regions."""
        drawn: list[str] = []
        grid = None if self.encoder is None else self.encoder.grid
        if self.encoder is not None and grid is None:
            return drawn
        (key,) = self.processor.inputs
        for index, sample in enumerate(samples[:IMAGES_DRAWN]):
            batch = self._batch_of([{key: sample[key]}])
            best = self.hypotheses(self.describe(batch), batch)[0][0]
            if best.weights is None or not best.tokens or (grid is None and best.weights.shape[1] > MOST_REGIONS_DRAWN):
                continue
            name = f"attention_{index + 1}.png"
            words = [self.processor.tokenizer.vocabulary[token] for token in best.tokens]
            weights = best.weights.tolist()
            if grid is None:
                regions = [f"region {number + 1}" for number in range(best.weights.shape[1])]
                plots.attention_matrix(weights, words, regions, folder / name)
            else:
                plots.attention_over_image(self.processor.picture(sample), words, weights, grid, folder / name)
            drawn.append(name)
        return drawn

    def _is_self_critical(self) -> bool:
        options = self.self_critical_options
        return self.training and options is not None and self.current_epoch >= options.from_epoch

    def _self_critical_objective(self, context: VisualContext, batch: CaptionBatch) -> Objective:
        assert self.self_critical is not None
        assert batch.references is not None
        with evaluating(self.decoder):
            return self.self_critical.objective(
                self.decoder,
                context,
                batch.references,
                ids=batch.ids.tolist(),
                seed=self.global_step,
                longest=min(LONGEST, self.search_options.max_length),
            )

    def _sampling(self) -> float:
        return self.scheduled_sampling * self.progress() if self.training else 0.0


def inputs_of(batch: CaptionBatch) -> Iterator[Tensor]:
    """Yield what a batch holds of each image: pixels [3, Y, X], or the features [L, D] of its regions."""
    if batch.regions is None:
        assert batch.images is not None
        yield from batch.images
        return
    counts = [batch.regions.shape[1]] * len(batch.regions) if batch.region_counts is None else batch.region_counts
    for regions, count in zip(batch.regions, counts, strict=True):
        yield regions[: int(count)]


def build_encoder(processor: CaptionProcessor, options: ImageEncoderOptions) -> ImageEncoder | None:
    """Return the encoder of images; None where the data are features of regions."""
    if processor.region_size is not None:
        return None
    settings = dataclasses.asdict(options)
    del settings["learning_rate"]  # which is the optimizer's
    return ImageEncoder(image_size=processor.images.size, **settings)


def check_options(arguments: Mapping[str, Any], processor: CaptionProcessor) -> None:
    """Refuse arguments of a `Captioner` that are out of range, or would change nothing.

    Raises:
        InputError: for the first of them.
    """
    if arguments["selection"] not in SELECTIONS:
        raise unknown_name("model.selection", arguments["selection"], SELECTIONS)
    for name in ("dropout", "label_smoothing", "scheduled_sampling"):
        check_share(f"model.{name}", arguments[name])
    if arguments["region_size"] is not None and arguments["region_size"] < 1:
        raise InputError("model.region_size", expected="at least 1", got=str(arguments["region_size"]))
    if arguments["image"] is not None and processor.region_size is not None:
        raise InputError(
            "model.image",
            expected="none, since the data are features of regions",
            got=str(arguments["image"]),
            fix="leave it out",
        )
