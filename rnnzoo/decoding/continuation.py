"""A decoder that goes on from where a text has been read to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.decoding.decoder import Step
from rnnzoo.state import State


class ReadText(NamedTuple):
    """The context of a `Continuation`: B texts that were read but for their last token."""

    state: State  # B rows
    last: Tensor  # [B] the last token of each text; the end token of an empty one


class Continued(NamedTuple):
    """The state of a `Continuation`, of N rows."""

    state: State
    pending: Tensor  # [N] the token to be read whatever was put out before; negative after the first step


class Continuation:
    """A `Decoder` whose context is text that has been read.

    Args:
        read: reads tokens [N] in a state and returns the logits [N, V] of the next, and the state.
        vocabulary_size: V; the last id is the end token.
        endless: the end token is a token like others, a line end for one, and nothing ends before its greatest
            length. The decoder then has one id more, which is never put out.
    """

    def __init__(
        self, read: Callable[[Tensor, State], tuple[Tensor, State]], *, vocabulary_size: int, endless: bool
    ) -> None:
        self.read = read
        self.endless = endless
        self.vocabulary_size = vocabulary_size + endless

    def initial_state(self, context: ReadText) -> Continued:
        """Return the state in which the last token of each text is yet to be read."""
        return Continued(context.state, context.last)

    def step(self, tokens: Tensor, state: Continued, context: ReadText) -> Step:
        """Read the tokens [N] that were put out last; at first, the last token of the text."""
        tokens = torch.where(state.pending >= 0, state.pending, tokens)
        logits, after = self.read(tokens, state.state)  # [N, V]
        if self.endless:
            logits = F.pad(logits, (0, 1), value=float("-inf"))
        return Step(logits, Continued(after, torch.full_like(state.pending, -1)))
