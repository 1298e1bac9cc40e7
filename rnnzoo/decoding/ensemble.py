"""Several decoders of one vocabulary that speak with one voice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnzoo.decoding.decoder import Decoder, Step
from rnnzoo.errors import InputError
from rnnzoo.layers.vocabulary import widen
from rnnzoo.state import State


class Ensemble:
    """A decoder whose probabilities are the mean of those of other decoders: p(y) = 1/M Σ_m p_m(y).

    Its context and its state are tuples of theirs, in their order. Its attention is the mean of theirs, if all have
    one over the same places.

    Raises:
        InputError: without any decoder, or if the vocabularies differ in size.
    """

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        sizes = [decoder.vocabulary_size for decoder in decoders]
        if len(set(sizes)) != 1:
            raise InputError("ensemble", expected="models of one vocabulary", got=f"vocabularies of {sizes} tokens")
        self.decoders = tuple(decoders)
        self.vocabulary_size = sizes[0]

    def initial_state(self, context: State) -> State:
        """Return the states of all before the first token."""
        return tuple(each.initial_state(own) for each, own in zip(self.decoders, context, strict=True))

    def step(self, tokens: Tensor, state: State, context: State) -> Step:
        """Do a step of each; the logits are log Σ_m p_m."""
        steps = [each.step(tokens, *own) for each, *own in zip(self.decoders, state, context, strict=True)]
        total = torch.stack([widen(each.logits).log_softmax(-1) for each in steps]).logsumexp(0)
        weights = [each.weights for each in steps if each.weights is not None]
        shared = len(weights) == len(steps) and len({each.shape for each in weights}) == 1
        return Step(total, tuple(each.state for each in steps), torch.stack(weights).mean(0) if shared else None)
