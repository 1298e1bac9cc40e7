"""The one loop over steps of all searches.

Axes: B rows (sentences, images), b rows that are not done, K slots of a row (hypotheses or samples), V vocabulary,
S places of the memory, n hypotheses to return.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from rnnzoo.decoding.decoder import Decoder
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.decoding.trace import Hypothesis, Trace
from rnnzoo.errors import InputError
from rnnzoo.layers.vocabulary import widen
from rnnzoo.state import State, select_rows

IMPOSSIBLE = float("-inf")


class Limits(NamedTuple):
    """What each row must keep to."""

    prefixes: Tensor  # [B, P] int64, -1 past the end of each row's prefix
    least: Tensor  # [B] int64, the tokens before which the end cannot come
    most: Tensor  # [B] int64, the tokens after which only the end can come
    read: Tensor  # [B, R] int64, the tokens that the context was made of, as far as their n-grams count; -1 before


class Finished(NamedTuple):
    """Hypotheses that left the search; a score of -inf stands for none."""

    scores: Tensor  # [b, n]
    log_probabilities: Tensor  # [b, n]
    lengths: Tensor  # [b, n] int64, tokens without the end
    slots: Tensor  # [b, n] int64, the slot in which it stood after so many tokens
    finished: Tensor  # [b, n] bool


class BatchRows(NamedTuple):
    """What there is once for each row, whatever its slots."""

    ids: Tensor  # [b] int64, the rows of the batch that are not done, ascending
    context: State
    limits: Limits
    found: Finished
    ended: Tensor  # [b] int64, hypotheses that ended so far


class Choice(NamedTuple):
    """What is chosen in one step."""

    parents: Tensor  # [b, K] int64, the slot that each new one continues
    tokens: Tensor  # [b, K] int64
    log_probabilities: Tensor  # [b, K] of all tokens so far; -inf for a slot that is empty
    ends: Tensor  # [b, K before] log-probabilities of the slots that end here; -inf for those that do not


class SearchLoop(ABC):
    """A search over a batch, one step at a time. A subclass says what is chosen in a step.

    A hypothesis that ends leaves its slot at once; a row that is done leaves the batch, with its rows of the state
    and of the context. The context is never copied for each slot.

    Args:
        decoder: the model.
        context: what it reads, B rows.
        options: see `SearchOptions`.
        limits: of each row.
        suppressed: ids that are never chosen, except in a prefix. Probabilities are not renormalised, so that the
            score of what is found stays the one that the model gives.
    """

    def __init__(
        self, decoder: Decoder, context: State, options: SearchOptions, *, limits: Limits, suppressed: Tensor
    ) -> None:
        self.decoder = decoder
        self.options = options
        self.suppressed = suppressed
        self.end_id = decoder.vocabulary_size - 1
        self.length = 0  # tokens so far, the same for all rows
        self.trace = Trace()
        self.results: list[tuple[Tensor, Finished]] = []
        batch, device = len(limits.most), limits.most.device
        none = torch.full((batch, options.n_best), IMPOSSIBLE, device=device)
        nowhere = torch.zeros_like(none, dtype=torch.long)
        self.rows = BatchRows(
            ids=torch.arange(batch, device=device),
            context=context,
            limits=limits,
            found=Finished(none, none, nowhere, nowhere, nowhere.bool()),
            ended=torch.zeros_like(limits.most),
        )
        self.all_forced = int((limits.prefixes >= 0).sum(1).min())  # steps in which all rows are told what to take
        self.all_free = int(limits.least.max())  # the step from which all may end
        self.state = decoder.initial_state(context)
        self.tokens = torch.full((batch, 1), self.end_id, device=device)  # [b, K]
        self.log_probabilities = torch.zeros(batch, 1, device=device)  # [b, K]
        self.history = limits.read.unsqueeze(1) if options.block_ngrams else None  # [b, K, R + T]
        self.coverage: Tensor | None = None  # [b, K, S]
        self.permitted: Tensor | None = None  # [b, K, V] logits of the latest step, -inf for what could not come

    @property
    def active(self) -> bool:
        """Whether any row is not done."""
        return len(self.rows.ids) > 0

    @abstractmethod
    def choose(self, logits: Tensor, normalisers: Tensor) -> Choice:
        """Choose among the tokens whose logits [b, K, V] are not -inf; logits - normalisers [b, K] are log p."""

    @abstractmethod
    def merge(self, found: Finished, new: Finished) -> Finished:
        """Put new hypotheses [b, K], of which those with a score of -inf are none, to those found [b, n]."""

    @abstractmethod
    def enough(self, log_probabilities: Tensor) -> Tensor:
        """Say which rows [b] need not go on, given what could still grow [b, K]."""

    @abstractmethod
    def lost(self, choice: Choice, done: Tensor) -> Tensor:
        """Say which slots [b, K before] that did not end are given up now; a row with none else may be `done` [b]."""

    @torch.no_grad()
    def advance(self) -> None:
        """Do one step of all rows that are not done.

        Raises:
            InputError: if the decoder puts out NaN or infinity, or a prefix has no probability at all.
        """
        rows, width = self.tokens.shape
        step = self.decoder.step(self.tokens.flatten(), self.state, self.rows.context)
        logits = widen(step.logits).unflatten(0, (rows, width))  # [b, K, V]
        weights = None if step.weights is None else step.weights.unflatten(0, (rows, width))  # [b, K, S]
        self.permitted = self._permitted(logits)
        choice = self.choose(self.permitted, self._normalisers(logits))
        self._check_prefix(choice)
        self.trace.add(self.rows.ids, choice.parents, choice.tokens, weights)
        coverage = self._covered(weights)
        choice, done = self._leave(choice, coverage)
        self._go_on(choice, done, step.state, coverage)

    def distribution(self) -> Tensor:
        """Return the probabilities [b, K, V] among which the latest step chose."""
        assert self.permitted is not None
        return self.permitted.softmax(-1)

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Return what was found for each row of the batch, when no row is left."""
        ids = torch.cat([ids for ids, _ in self.results])
        found = Finished(*(torch.cat(field) for field in zip(*(found for _, found in self.results), strict=True)))
        found = select_rows(found, ids.argsort())
        count = found.scores.shape[1]
        rows = ids.sort().values.repeat_interleave(count)
        tokens, weights = self.trace.read(rows, found.slots.flatten(), found.lengths.flatten())
        scores, log_probabilities, lengths, _, finished = (field.flatten().tolist() for field in found)
        texts, maps = tokens.tolist(), None if weights is None else weights.cpu()
        results: list[list[Hypothesis]] = [[] for _ in range(len(ids))]
        for place, (score, length) in enumerate(zip(scores, lengths, strict=True)):
            if score > IMPOSSIBLE:
                hypothesis = Hypothesis(
                    tokens=texts[place][:length],
                    score=score,
                    log_probability=log_probabilities[place],
                    finished=finished[place],
                    weights=None if maps is None else maps[place, :length].clone(),
                )
                results[place // count].append(hypothesis)
        return results

    def _normalisers(self, logits: Tensor) -> Tensor:
        """Return log Σ exp of the logits [b, K, V] as [b, K]; 0 where all are -inf."""
        normalisers = logits.logsumexp(-1)
        broken = (normalisers.isnan() | (normalisers == float("inf"))) & (self.log_probabilities > IMPOSSIBLE)
        if bool(broken.any()):
            raise InputError(
                f"decoding, step {self.length + 1}",
                expected="finite logits",
                got=f"NaN or infinity in rows {self.rows.ids[broken.any(1)].tolist()}",
                fix="the weights of the model may be broken: look at its training loss",
            )
        return normalisers.masked_fill(normalisers == IMPOSSIBLE, 0.0)

    def _permitted(self, logits: Tensor) -> Tensor:
        """Return the logits [b, K, V] with -inf for what may not come next."""
        limits = self.rows.limits
        permitted = logits.index_fill(2, self.suppressed, IMPOSSIBLE)
        if self.length < self.all_free:
            permitted[..., self.end_id].masked_fill_((limits.least > self.length).unsqueeze(1), IMPOSSIBLE)
        size = self.options.block_ngrams
        if self.history is not None and self.history.shape[2] >= size:
            grams = self.history.unfold(2, size, 1)  # [b, K, R + T - size + 1, size]
            recent = self.history[..., self.history.shape[2] - size + 1 :].unsqueeze(2)  # [b, K, 1, size - 1]
            again = (grams[..., :-1] == recent).all(-1) & (grams >= 0).all(-1)
            row, slot, place = again.nonzero(as_tuple=True)
            permitted[row, slot, grams[row, slot, place, -1]] = IMPOSSIBLE
        if self.length < limits.prefixes.shape[1]:
            forced = limits.prefixes[:, self.length]  # [b]
            index = forced.clamp(min=0).reshape(-1, 1, 1).expand(-1, logits.shape[1], 1)
            only = torch.full_like(logits, IMPOSSIBLE).scatter_(2, index, logits.gather(2, index))
            permitted = torch.where((forced >= 0).reshape(-1, 1, 1), only, permitted)
        return permitted

    def _check_prefix(self, choice: Choice) -> None:
        if self.length < self.rows.limits.prefixes.shape[1]:
            forced = self.rows.limits.prefixes[:, self.length] >= 0
            lost = forced & ~(choice.log_probabilities > IMPOSSIBLE).any(1)
            if bool(lost.any()):
                raise InputError(
                    f"prefix of row {int(self.rows.ids[lost][0])}",
                    expected="tokens that the model can put out",
                    got=f"a probability of 0 for token {self.length + 1}",
                )

    def _covered(self, weights: Tensor | None) -> Tensor | None:
        """Return the sum of the attention weights [b, K, S] of all steps; None if nobody asks for it."""
        if self.options.coverage_penalty == 0:
            return None
        if weights is None:
            raise InputError(
                "search.coverage_penalty",
                expected="0 for a decoder without attention",
                got=str(self.options.coverage_penalty),
            )
        return weights if self.coverage is None else self.coverage + weights

    def _leave(self, choice: Choice, coverage: Tensor | None) -> tuple[Choice, Tensor]:
        """Take out the hypotheses that end, and the rows that are done; return what goes on and which are done [b]."""
        ending = choice.ends > IMPOSSIBLE  # [b, K before]
        found = self.merge(self.rows.found, self._find(choice.ends, coverage, finished=True))
        self.rows = self.rows._replace(found=found, ended=self.rows.ended + ending.sum(1))
        cut = (self.rows.limits.most <= self.length).unsqueeze(1)
        choice = choice._replace(log_probabilities=choice.log_probabilities.masked_fill(cut, IMPOSSIBLE))
        done = ~(choice.log_probabilities > IMPOSSIBLE).any(1) | self.enough(choice.log_probabilities)
        lost = self.lost(choice, done) & ~ending
        if bool(lost.any()):
            unfinished = self.log_probabilities.masked_fill(~lost, IMPOSSIBLE)
            found = self.merge(found, self._find(unfinished, self.coverage, finished=False))
            self.rows = self.rows._replace(found=found)
        if bool(done.any()):
            self.results.append(select_rows((self.rows.ids, found), done.nonzero().squeeze(1)))
        return choice, done

    def _find(self, log_probabilities: Tensor, coverage: Tensor | None, *, finished: bool) -> Finished:
        """Describe the slots [b, K] as hypotheses of the present length."""
        lengths = torch.full_like(log_probabilities, self.length, dtype=torch.long)
        return Finished(
            scores=self.options.scores(log_probabilities, lengths + int(finished), coverage),
            log_probabilities=log_probabilities,
            lengths=lengths,
            slots=torch.arange(lengths.shape[1], device=lengths.device).expand_as(lengths),
            finished=torch.full_like(lengths, finished, dtype=torch.bool),
        )

    def _go_on(self, choice: Choice, done: Tensor, state: State, coverage: Tensor | None) -> None:
        """Bring all that is kept into the order of the choice, without the rows that are done."""
        width = self.tokens.shape[1]
        places = torch.arange(len(done), device=done.device)
        if bool(done.any()):
            places = (~done).nonzero().squeeze(1)
            self.rows = select_rows(self.rows, places)
            choice = select_rows(choice, places)
        moved = (places.unsqueeze(1) * width + choice.parents).flatten()  # [b · K]
        still = len(moved) == done.numel() * width and bool(
            (moved == torch.arange(len(moved), device=moved.device)).all()
        )
        self.state = state if still else select_rows(state, moved)
        shape = choice.tokens.shape
        if coverage is not None:
            self.coverage = coverage.flatten(0, 1)[moved].unflatten(0, shape)
        if self.history is not None:
            past = self.history.flatten(0, 1)[moved].unflatten(0, shape)
            self.history = torch.cat([past, choice.tokens.unsqueeze(2)], dim=2)
        self.tokens, self.log_probabilities = choice.tokens, choice.log_probabilities
        self.length += 1
