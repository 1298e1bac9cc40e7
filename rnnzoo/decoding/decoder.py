"""What a decoder is: a step function with a state.

Axes: B contexts (sentences, images), N rows of the decoder, S places of the memory, V vocabulary. A context has
N / B rows (the hypotheses of a beam, or several samples) that stand together: row n belongs to context n // (N / B).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from rnnzoo.state import State


class Step(NamedTuple):
    """What one step of a decoder puts out."""

    logits: Tensor  # [N, V], unnormalised log-probabilities of the next token
    state: State  # N rows
    weights: Tensor | None = None  # [N, S], how much each place of the memory was attended to


class Decoder(Protocol):
    """Anything that puts out one token after another.

    What is only read, such as the encoder's memory and its lengths, is the `context`: a state of B rows that is
    never copied for each hypothesis. What changes is the state, of N rows, which a search reorders, repeats and drops
    by `rnnzoo.state.select_rows`, as it does with rows of the context when a sentence is done.

    The id V - 1 both starts and ends a sequence (`Tokenizer.end_id`).
    """

    vocabulary_size: int

    def initial_state(self, context: State) -> State:
        """Return the state before the first token, one row for each row of the context."""
        ...

    def step(self, tokens: Tensor, state: State, context: State) -> Step:
        """Read the tokens [N] that were put out last (at first the start id), and say what may come next."""
        ...
