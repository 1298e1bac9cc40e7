"""A decoder made of random tables, and searches written out plainly, one hypothesis at a time."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from rnnzoo.decoding import Step
from rnnzoo.lengths import length_mask
from rnnzoo.state import select_rows

SIZE, PLACES = 5, 4  # V with the end, S
END = SIZE - 1


class Context(NamedTuple):
    bias: torch.Tensor  # [B, V, V], what may follow what in this row
    memory: tuple  # ([B, S, V], [B] lengths)


class ToyState(NamedTuple):
    steps: torch.Tensor  # [N]
    inner: tuple  # ([N, V], [N, 2, V]), one-hot tokens: the sum of all that were read, and the last two


class ToyDecoder:
    """Logits depend on the row, the last token, all tokens before, the step and the attention; nothing is symmetric.

    `calls` keeps how many rows the tokens and the context of each step had.
    """

    def __init__(self, *, seed=0, size=SIZE, attention=True, end_bonus=0.0, scale=1.5):
        generator = torch.Generator().manual_seed(seed)

        def table(*sizes):
            return torch.randn(*sizes, generator=generator, dtype=torch.float64) * scale

        self.vocabulary_size = size
        self.attention = attention
        self.first, self.second, self.by_step = table(size, size), table(size, size), table(64, size)
        self.query = table(size, PLACES)
        self.end_bonus = end_bonus
        self.calls = []

    def initial_state(self, context):
        zeros = torch.zeros(len(context.bias), self.vocabulary_size, dtype=torch.float64)
        return ToyState(torch.zeros(len(zeros), dtype=torch.long), (zeros, torch.stack([zeros, zeros], 1)))

    def step(self, tokens, state, context):
        bias, (memory, lengths) = context
        rows = len(tokens)
        self.calls.append((rows, len(bias)))
        new = F.one_hot(tokens, self.vocabulary_size).double()
        said = state.inner[0] + new
        recent = torch.stack([state.inner[1][:, 1], new], 1)  # [N, 2, V]
        owners = torch.arange(rows) // (rows // len(bias))  # [N], the row of the context
        logits = said @ self.first / 3 + recent[:, 0] @ self.second + self.by_step[state.steps % 64]
        logits = logits + bias[owners, tokens]
        weights = None
        if self.attention:
            mask = length_mask(lengths, PLACES)[owners]
            scores = (said + recent[:, 0]) @ self.query
            weights = scores.masked_fill(~mask, -1e9).softmax(-1).masked_fill(~mask, 0.0)
            logits = logits + (weights.unsqueeze(1) @ memory[owners]).squeeze(1)
        logits[:, -1] += self.end_bonus
        return Step(logits, ToyState(state.steps + 1, (said, recent)), weights)


def make_context(rows=4, *, seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(rows, size, size, generator=generator, dtype=torch.float64) * 2
    memory = torch.randn(rows, PLACES, size, generator=generator, dtype=torch.float64) * 2
    return Context(bias, (memory, torch.arange(rows) % PLACES + 1))


def pick(context, *rows):
    return select_rows(context, torch.tensor(rows))


class Oracle:
    """What a decoder says in one row after any tokens, asked one sequence at a time."""

    def __init__(self, decoder, context, row):
        self.decoder, self.context = decoder, pick(context, row)
        self.end = decoder.vocabulary_size - 1
        self.known = {}

    def after(self, tokens):
        """Log-probabilities [V] of what follows `tokens`, weights [S] of that step, and the state."""
        key = tuple(tokens)
        if key not in self.known:
            state = self.after(key[:-1])[2] if key else self.decoder.initial_state(self.context)
            last = torch.tensor([key[-1] if key else self.end])
            logits, state, weights = self.decoder.step(last, state, self.context)
            self.known[key] = (
                logits[0].log_softmax(-1).tolist(),
                None if weights is None else weights[0].tolist(),
                state,
            )
        return self.known[key]

    def log_probability(self, tokens, *, finished=True):
        ids = (*tokens, self.end) if finished else tokens
        return sum(self.after(tokens[:place])[0][token] for place, token in enumerate(ids))

    def weights(self, tokens, *, finished=True):
        """The attention of all steps, a list of T lists."""
        return [self.after(tokens[:place])[1] for place in range(len(tokens) + int(finished))]

    def score(self, options, tokens, *, finished=True):
        """The score in the letters of the papers."""
        length = max(1, len(tokens) + int(finished))
        penalty = {
            "none": 1.0,
            "mean": length,
            "power": length**options.alpha,
            "gnmt": ((5 + length) / 6) ** options.alpha,
        }[options.length_penalty]
        total = self.log_probability(tokens, finished=finished) / penalty
        if options.coverage_penalty:
            sums = [sum(column) for column in zip(*self.weights(tokens, finished=finished), strict=True)]
            total += options.coverage_penalty * sum(math.log(min(each, 1.0)) for each in sums if each > 0)
        return total

    def everything(self, options, *, prefix=(), allowed=lambda tokens: True):
        """All sequences that end, as (score, tokens), best first."""
        found = []
        for length in range(options.min_length, options.max_length + 1):
            for rest in itertools.product(range(self.end), repeat=length):
                tokens = (*prefix, *rest)
                if allowed(tokens):
                    found.append((self.score(options, tokens), list(tokens)))
        return sorted(found, reverse=True)

    def greedy(self, options):
        """The most probable token, again and again: tokens, and whether they ended."""
        tokens = []
        while True:
            log = self.after(tokens)[0]
            best = log.index(max(log))
            if best == self.end or len(tokens) == options.max_length:
                return tokens, best == self.end
            tokens = [*tokens, best]

    def beam(self, options):
        """Beam search in lists, as the docstrings describe it: (score, tokens, finished), best first."""
        size, live, ended = options.beam_size, [(0.0, [])], []
        for length in range(options.max_length + 1):
            candidates = [
                (total + log, [*tokens, token])
                for total, tokens in live
                for token, log in enumerate(self.after(tokens)[0])
            ]
            candidates.sort(reverse=True)
            now = [tokens[:-1] for _, tokens in candidates[:size] if tokens[-1] == self.end]
            ended += [(self.score(options, tokens), tokens, True) for tokens in now]
            ended.sort(reverse=True)
            going = [each for each in candidates if each[1][-1] != self.end][:size]
            longest = torch.tensor(options.max_length + 1.0, dtype=torch.float64)
            bound = going[0][0] / float(options.length_penalties(longest))
            enough = len(ended) >= options.n_best and ended[options.n_best - 1][0] >= bound
            if length == options.max_length or len(ended) >= size or enough:
                break
            live = going
        rest = [(self.score(options, tokens, finished=False), tokens, False) for _, tokens in live if tokens not in now]
        return (ended + sorted(rest, reverse=True))[: options.n_best]
