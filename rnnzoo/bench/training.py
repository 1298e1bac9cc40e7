"""Whole training steps: our models against the same ones written plainly, with packed `nn.LSTM` and the usual idioms.

The plain models take their weights from ours, so that both compute the same loss.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from rnnzoo.batches import IGNORED
from rnnzoo.bench.layers import packed
from rnnzoo.bench.measure import Comparison, Contest, Row, Setting, Task, has_fast_bf16, matrix_flops, run_contest
from rnnzoo.lengths import length_mask
from rnnzoo.models import LanguageModel, SequenceTagger, Translator
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.processors.tagging import TaggingProcessor
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

BATCHES = 4  # of different lengths, taken in turns


def train(setting: Setting) -> list[Task]:
    """Translator, tagger and language model, forward, backward and optimizer; also in bf16 where it is fast."""
    jobs = [
        ("translator: bi-LSTM 256, decoder 512, additive attention, B 64, 5-30 words", translator, 0.6, False),
        ("tagger: bi-LSTM 256, CRF, B 32, 5-40 words", tagger, 0.6, False),
        ("word LM: 2 × 512, vocabulary 8,800, 32 × 70", language_model, 1.0, False),
    ]
    if has_fast_bf16(setting.device):
        jobs.append(("word LM as above, ours in bf16 (autocast)", language_model, 0.55, True))
    return [Task(work, partial(one_job, work, make, bar, bf16, setting)) for work, make, bar, bf16 in jobs]


def one_job(
    work: str, make: Callable[[Setting], tuple[Any, nn.Module, list[Any]]], bar: float, bf16: bool, setting: Setting
) -> list[Row]:
    """Measure one model, ours under autocast to bfloat16 if `bf16`; the plain one is always in float32."""
    ours, plain, batches = make(setting)
    ours, plain = ours.to(setting.device), plain.to(setting.device)
    batches = [move_data_to_device(batch, torch.device(setting.device)) for batch in batches]
    autocast = partial(torch.autocast, setting.device, torch.bfloat16, enabled=bf16)
    calls = {"rnnzoo": Trainer(ours, batches, loss_of, autocast), "plain torch": Trainer(plain, batches, plain_loss)}
    useful = dict.fromkeys(calls, matrix_flops(calls["plain torch"]))  # whose packed layers compute no padding
    contest = Contest(work, calls, (Comparison("rnnzoo", "plain torch", bar),), useful)
    return run_contest("train", contest, setting)


class Trainer:
    """A call that trains on all batches once: clipping and Adam as everybody does it.

    Args:
        model: the model.
        batches: what it trains on.
        loss: (model, batch) → mean loss.
        context: what the forward pass runs in.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        loss: Callable[[Any, Any], Tensor],
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model = model.train()
        self.batches = batches
        self.loss = loss
        self.context = context
        self.optimizer = torch.optim.Adam(model.parameters())

    def __call__(self) -> None:
        """Do a step on each batch."""
        for batch in self.batches:
            self.optimizer.zero_grad(set_to_none=True)
            with self.context():
                loss = self.loss(self.model, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()


def loss_of(model: Any, batch: Any) -> Tensor:
    """Return the mean loss of one of our models."""
    objective = model.objective(model(batch), batch)
    mean: Tensor = objective.total / objective.items
    return mean


def plain_loss(model: Any, batch: Any) -> Tensor:
    """Return the mean loss of a plain model."""
    mean: Tensor = model(batch)
    return mean


def sentences(count: int, words: int, shortest: int, longest: int, *, seed: int) -> list[list[str]]:
    """Return sentences of drawn words, sorted by length as a bucketed sampler does: neighbours are alike."""
    rng = random.Random(seed)
    drawn = [[f"w{rng.randrange(words)}" for _ in range(rng.randint(shortest, longest))] for _ in range(count)]
    return sorted(drawn, key=len)


def word_tokenizer(words: int) -> Tokenizer:
    """Return a tokenizer that knows the words w0, w1, ..."""
    return Tokenizer.train([" ".join(f"w{place}" for place in range(words))], TokenizerOptions(kind="words"))


def translator(setting: Setting) -> tuple[Translator, nn.Module, list[Any]]:
    """Return our translator, the plain one, and batches."""
    size, words, rows = (8, 20, 3) if setting.quick else (512, 4000, 64)
    known = word_tokenizer(words)
    processor = TranslationProcessor(source=known, target=known)
    model = Translator(processor=processor, hidden_size=size, dropout=0.0, tied=False, words={"size": size // 2})
    sources = sentences(BATCHES * rows, words, 5, 30, seed=1)
    rng = random.Random(2)
    samples = []
    for place, source in enumerate(sources):
        target = [f"w{rng.randrange(words)}" for _ in range(max(4, len(source) + rng.randint(-2, 2)))]
        samples.append({**processor.encode({"source": " ".join(source), "target": " ".join(target)}), "id": place})
    return model, PlainTranslator(model), collate(processor, samples, rows)


def tagger(setting: Setting) -> tuple[SequenceTagger, nn.Module, list[Any]]:
    """Return our tagger, the plain one, and batches."""
    size, words, rows = (8, 20, 3) if setting.quick else (256, 4000, 32)
    names = [f"t{place}" for place in range(9)]
    bare = Tokenizer.train_words([f"w{place}" for place in range(words)], TokenizerOptions())
    processor = TaggingProcessor(words=bare, characters=None, tags=LabelMap(names))
    model = SequenceTagger(processor=processor, hidden_size=size, dropout=0.0, crf=True, words={"size": 100})
    rng = random.Random(2)
    samples = [
        {**processor.encode({"tokens": sentence, "tags": [rng.choice(names) for _ in sentence]}), "id": place}
        for place, sentence in enumerate(sentences(BATCHES * rows, words, 5, 40, seed=1))
    ]
    return model, PlainTagger(model), collate(processor, samples, rows)


def language_model(setting: Setting) -> tuple[LanguageModel, nn.Module, list[Any]]:
    """Return our language model, the plain one, and one batch."""
    size, words, rows, steps = (8, 20, 3, 5) if setting.quick else (512, 8800, 32, 70)
    processor = LanguageProcessor(tokenizer=word_tokenizer(words))
    model = LanguageModel(processor=processor, hidden_size=size, num_layers=2, words={"size": size})
    rng = random.Random(1)
    samples = [
        {**processor.encode({"text": " ".join(f"w{rng.randrange(words)}" for _ in range(steps))}), "id": place}
        for place in range(rows)
    ]
    return model, PlainLanguageModel(model), collate(processor, samples, rows)


def collate(processor: Any, samples: Sequence[dict[str, Any]], rows: int) -> list[Any]:
    """Return the samples in batches of `rows`."""
    return [processor.collate(samples[start : start + rows]) for start in range(0, len(samples), rows)]


def copy_linear(layer: nn.Linear) -> nn.Linear:
    """Return a linear layer with the same weights."""
    copied = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    copied.load_state_dict(layer.state_dict())
    return copied


def linear_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer with a copy of these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    return layer


class PlainTranslator(nn.Module):
    """Bidirectional LSTM, LSTM, additive attention: the whole target at once, logits of all words at once."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.source = nn.Embedding.from_pretrained(model.source.table.weight.detach().clone(), freeze=False)
        self.target = nn.Embedding.from_pretrained(model.decoder.embedding.table.weight.detach().clone(), freeze=False)
        self.encoder = model.encoder.to_torch()
        self.decoder = model.decoder.recurrent.to_torch()
        self.hidden = copy_linear(model.bridge.maps[0]["hidden"])
        self.cell = copy_linear(model.bridge.maps[0]["cell"])
        self.query = copy_linear(model.decoder.attention.query)
        self.keys = copy_linear(model.decoder.attention.memory)
        self.score = copy_linear(model.decoder.attention.vector)
        self.combine = copy_linear(model.decoder.combine)
        self.logits = linear_of(model.decoder.head.weight, model.decoder.head.bias)
        self.end_id = model.decoder.end_id

    def forward(self, batch: Any) -> Tensor:
        """Return the mean loss of a `PairBatch`."""
        rows = pack_padded_sequence(
            self.source(batch.source), batch.source_lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, (hidden, cell) = self.encoder(rows)
        memory, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)  # [B, S, 2H]
        state = (
            torch.tanh(self.hidden(torch.cat([hidden[0], hidden[1]], dim=1))).unsqueeze(0),
            self.cell(torch.cat([cell[0], cell[1]], dim=1)).unsqueeze(0),
        )
        targets = batch.targets
        inputs = torch.cat([torch.full_like(targets[:, :1], self.end_id), targets[:, :-1].clamp(min=0)], dim=1)
        outputs, _ = self.decoder(self.target(inputs), state)  # [B, T, H]
        scores = self.score(torch.tanh(self.query(outputs).unsqueeze(2) + self.keys(memory).unsqueeze(1))).squeeze(-1)
        mask = length_mask(batch.source_lengths, memory.shape[1])  # [B, S]
        weights = scores.masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(-1)  # [B, T, S]
        found = torch.tanh(self.combine(torch.cat([weights @ memory, outputs], dim=-1)))
        return F.cross_entropy(self.logits(found).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


class PlainTagger(nn.Module):
    """Bidirectional LSTM and a linear-chain CRF, whose forward algorithm is a loop over masked steps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(model.words.table.weight.detach().clone(), freeze=False)
        self.recurrent = model.recurrent.to_torch()
        self.emissions = copy_linear(model.head)
        self.start = nn.Parameter(model.crf.start.detach().clone())
        self.transitions = nn.Parameter(model.crf.transitions.detach().clone())
        self.end = nn.Parameter(model.crf.end.detach().clone())

    def forward(self, batch: Any) -> Tensor:
        """Return the mean loss per sentence or word, as ours counts it, of a `TaggingBatch`."""
        emissions = self.emissions(packed(self.recurrent, self.words(batch.words), batch.lengths.cpu()))  # [B, T, C]
        tags, lengths = batch.targets.clamp(min=0), batch.lengths
        mask = length_mask(lengths, tags.shape[1])  # [B, T]
        score = self.start[tags[:, 0]] + emissions[:, 0].gather(1, tags[:, :1]).squeeze(1)
        total = self.start + emissions[:, 0]  # [B, C]
        for step in range(1, tags.shape[1]):
            valid = mask[:, step]
            gain = self.transitions[tags[:, step - 1], tags[:, step]]
            gain = gain + emissions[:, step].gather(1, tags[:, step : step + 1]).squeeze(1)
            score = score + gain * valid
            after = torch.logsumexp(total.unsqueeze(2) + self.transitions, dim=1) + emissions[:, step]
            total = torch.where(valid.unsqueeze(1), after, total)
        last = tags.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)
        score = score + self.end[last]
        return (torch.logsumexp(total + self.end, dim=1) - score).sum() / lengths.sum()


class PlainLanguageModel(nn.Module):
    """Two LSTM layers and logits of all words at once."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(model.words.table.weight.detach().clone(), freeze=False)
        self.recurrent = model.recurrent.to_torch()
        self.logits = linear_of(model.head.weight, model.head.bias)

    def forward(self, batch: Any) -> Tensor:
        """Return the mean loss of a `StreamBatch`."""
        outputs, _ = self.recurrent(self.words(batch.tokens))
        return F.cross_entropy(self.logits(outputs).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
