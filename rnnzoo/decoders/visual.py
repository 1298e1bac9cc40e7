"""What all caption decoders share, and the one that sees its image once.

Axes: B images, C captions, T tokens, L places of the grid (or regions), M numbers of a place, A attention, N rows,
E embedding, H hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.decoders.attention import shifted
from rnnzoo.decoding.decoder import Step
from rnnzoo.errors import InputError
from rnnzoo.layers.attention import Memory
from rnnzoo.layers.dropout import hold_masks
from rnnzoo.layers.embedding import WordEmbedding
from rnnzoo.layers.initial_state import InitialState
from rnnzoo.layers.recurrent import Recurrent, States, inner_state
from rnnzoo.layers.vocabulary import VocabularyHead
from rnnzoo.lengths import length_mask
from rnnzoo.state import State, map_state, select_rows


class VisualContext(NamedTuple):
    """What a caption decoder reads of its images. B rows."""

    memory: Memory  # L = 0 without attention
    mean: Tensor  # [B, M], the mean over the valid places; zeros if there is none


class Glance(NamedTuple):
    """One step of a decoder up to what the head is given. N rows."""

    hidden: Tensor  # [N, H]
    found: Tensor  # [N, M], what was attended to; [N, 0] without attention
    state: State
    weights: Tensor | None = None  # [N, L]
    places: Tensor | None = None  # [N] int64, the place that was drawn; -1 where the weighted mean was taken


class Reading(NamedTuple):
    """Captions read by teacher forcing; zeros (places: -1) on padding."""

    hidden: Tensor  # [C, T, ·], what the head is given for each target, with dropout
    weights: Tensor | None = None  # [C, T, L]
    places: Tensor | None = None  # [C, T] int64, of hard attention


class VisualDecoder(nn.Module, ABC):
    """A `Decoder` of captions, whose step is looking at the image and reading a word.

    Teacher forcing goes step by step, with the rows sorted by length so that finished captions leave the loop;
    everything that does not depend on the state (vectors of tokens, keys of the memory, logits) is computed for all
    steps at once before and after it.

    Args:
        embedding: vectors of tokens, the end included.
        head: logits from what `finish` returns.
        dropout: on token vectors, and before the logits.
    """

    def __init__(self, *, embedding: WordEmbedding, head: VocabularyHead, dropout: float) -> None:
        super().__init__()
        self.embedding = embedding
        self.head = head
        self.vocabulary_size = head.vocabulary_size
        self.end_id = head.vocabulary_size - 1
        self.dropout = nn.Dropout(dropout)

    @abstractmethod
    def context(self, regions: Tensor, counts: Tensor | None) -> VisualContext:
        """Make the context of regions [B, L, M], the first `counts` [B] of which are valid (None: all)."""

    @abstractmethod
    def initial_state(self, context: VisualContext) -> State:
        """Return the state before the first token."""

    @abstractmethod
    def advance(self, vectors: Tensor, state: State, context: VisualContext, places: Tensor | None = None) -> Glance:
        """Read the vectors of tokens [N, E]; `places` [N] are where to look instead of a place that is drawn."""

    def finish(self, vectors: Tensor, hidden: Tensor, found: Tensor) -> Tensor:
        """Return what the head is given: the hidden vectors, unless the decoder adds more."""
        return self.dropout(hidden)

    def step(self, tokens: Tensor, state: State, context: VisualContext) -> Step:
        """Do one step; see `Decoder.step`."""
        vectors = self.dropout(self.embedding(tokens))  # [N, E]
        glance = self.advance(vectors, state, context)
        return Step(self.head(self.finish(vectors, glance.hidden, glance.found)), glance.state, glance.weights)

    def forward(
        self, targets: Tensor, context: VisualContext, *, sampling: float = 0.0, places: Tensor | None = None
    ) -> Reading:
        """Read the right captions.

        Args:
            targets: [C, T] with the end, a negative number on padding.
            context: C rows, one for each caption.
            sampling: the share of tokens read that are the decoder's own best guess instead of the target
                (scheduled sampling; Bengio et al. 2015).
            places: [C, T], where hard attention looks, instead of places that are drawn.
        """
        lengths = (targets >= 0).sum(1)  # [C]
        order = lengths.argsort(descending=True, stable=True)
        valid = length_mask(lengths[order], targets.shape[1]).t()  # [T, C], each step's rows first
        counts = [count for count in valid.sum(1).tolist() if count > 0]
        tokens = shifted(targets, self.end_id)[order].t()[valid]  # [ΣN], all first tokens, all second ones, ...
        told = None if places is None else places[order].t()[valid].split(counts)
        context = select_rows(context, order)
        held = hold_masks(self)
        state = held.initial_state(context)
        vectors = list(self.dropout(held.embedding(tokens)).split(counts))  # T of [N, E]
        glances: list[Glance] = []
        rows = len(targets)
        for step, count in enumerate(counts):
            if count < rows:
                rows, state, context = count, first_rows(state, count), first_rows(context, count)
            if sampling > 0 and step > 0:
                vectors[step] = held._mixed(vectors[step - 1], glances[-1], vectors[step], sampling)
            glance = held.advance(vectors[step], state, context, None if told is None else told[step])
            state = glance.state
            glances.append(glance)
        hidden, found = (torch.cat([getattr(each, name) for each in glances]) for name in ("hidden", "found"))
        step_of, row_of = valid.nonzero(as_tuple=True)  # [ΣN] each
        spread = Spread(order[row_of], step_of, targets.shape)
        finished = self.finish(torch.cat(vectors), hidden, found)
        if glances[0].weights is None:
            return Reading(spread(finished))
        drawn = None
        if glances[0].places is not None:
            drawn = spread(torch.cat([each.places + 1 for each in glances if each.places is not None])) - 1
        weights = torch.cat([each.weights for each in glances if each.weights is not None])
        return Reading(spread(finished), spread(weights), drawn)

    def _mixed(self, before: Tensor, glance: Glance, right: Tensor, sampling: float) -> Tensor:
        """Put the decoder's own guesses in the place of some of the right tokens' vectors [N, E]."""
        with torch.no_grad():
            guesses = self.head(self.finish(before, glance.hidden, glance.found)[: len(right)]).argmax(-1)  # [N]
            own = torch.rand(guesses.shape, device=guesses.device) < sampling
        return torch.where(own.unsqueeze(1), self.dropout(self.embedding(guesses)), right)


class Spread:
    """Puts packed rows back to their captions and steps, with zeros elsewhere.

    Args:
        rows: [ΣN] caption of each packed row.
        steps: [ΣN] step of each packed row.
        shape: (C, T).
    """

    def __init__(self, rows: Tensor, steps: Tensor, shape: torch.Size) -> None:
        self.shape = shape
        self.places = rows * shape[1] + steps

    def __call__(self, packed: Tensor) -> Tensor:
        """Spread packed values [ΣN, ...] → [C, T, ...]."""
        size = self.shape[0] * self.shape[1]
        full = packed.new_zeros(size, *packed.shape[1:]).index_copy(0, self.places, packed)
        return full.reshape(*self.shape, *packed.shape[1:])


class PlainDecoder(VisualDecoder):
    """Recurrent layers that see the image once: as their first input, or as their first state.

    Teacher forcing runs whole captions at once on the fast backend, and step by step with scheduled sampling only.

    Args:
        embedding: vectors of tokens.
        recurrent: layers of one direction, with inputs of E numbers.
        head: logits from H numbers.
        memory_size: M.
        image_as: ``input`` (Vinyals et al. 2015, "Show and Tell") or ``state``.
        dropout: on token vectors, and before the logits.
    """

    def __init__(
        self,
        *,
        embedding: WordEmbedding,
        recurrent: Recurrent,
        head: VocabularyHead,
        memory_size: int,
        image_as: str = "state",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding=embedding, head=head, dropout=dropout)
        self.recurrent = recurrent
        self.start: InitialState | None = None
        self.image: nn.Linear | None = None
        if image_as == "state":
            self.start = InitialState(input_size=memory_size, recurrent=recurrent)
            if not self.start.carries:
                raise InputError(
                    "model.image_as",
                    expected="input, or a cell whose first state others may set",
                    got=f"state with cell {recurrent.cell_name}",
                )
        else:
            self.image = nn.Linear(memory_size, recurrent.input_size)

    def context(self, regions: Tensor, counts: Tensor | None) -> VisualContext:
        """Keep the mean of the regions alone."""
        empty = regions[:, :0]
        mean = masked_mean(regions, region_mask(regions, counts))
        return VisualContext(Memory(empty, empty, empty.new_zeros(empty.shape[:2], dtype=torch.bool)), mean)

    def initial_state(self, context: VisualContext) -> States:
        """Return the state that the image makes, or the state after reading it."""
        if self.start is not None:
            return self.start(context.mean)
        assert self.image is not None
        vectors = self.image(context.mean)  # [B, E]
        if self.training:  # dropout between layers may be of a kind that holds for a whole sequence
            return self.recurrent(vectors.unsqueeze(1))[1]
        return self.recurrent.step(vectors, self.recurrent.initial_state(len(vectors)))[1]

    def advance(self, vectors: Tensor, state: States, context: VisualContext, places: Tensor | None = None) -> Glance:
        """Do one step of the layers."""
        hidden, state = self.recurrent.step(vectors, state)
        return Glance(hidden, hidden[:, :0], state)

    def forward(
        self, targets: Tensor, context: VisualContext, *, sampling: float = 0.0, places: Tensor | None = None
    ) -> Reading:
        """Read the right captions; see `VisualDecoder.forward`."""
        refused = targets.is_cuda and torch.is_grad_enabled() and not self.training  # cuDNN: no gradient in evaluation
        if sampling > 0 or refused:
            return super().forward(targets, context, sampling=sampling)
        held = hold_masks(self)
        vectors = self.dropout(held.embedding(shifted(targets, self.end_id)))  # [C, T, E]
        hidden, _ = held.recurrent(vectors, (targets >= 0).sum(1), held.initial_state(context))  # [C, T, H]
        return Reading(self.dropout(hidden))


def first_rows(state: State, count: int) -> State:
    """Return the first `count` rows of a state."""
    return map_state(lambda field: field[:count], state)


def top_hidden(state: States) -> Tensor:
    """Return the hidden vector [N, H] of the last layer."""
    return inner_state(state[-1]).hidden


def region_mask(regions: Tensor, counts: Tensor | None) -> Tensor:
    """Return a mask [B, L] of the valid regions of [B, L, M]."""
    if counts is None:
        return torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
    return length_mask(counts, regions.shape[1])


def masked_mean(regions: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, M] of the regions [B, L, M] where `mask` [B, L] is true; zeros where it never is."""
    kept = torch.where(mask.unsqueeze(-1), regions, 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
