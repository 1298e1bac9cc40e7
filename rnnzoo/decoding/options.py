"""How a sequence is searched for: the options, and the score that they give to a hypothesis."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.limits import check_limit

METHODS = ("beam", "greedy", "sample")
LENGTH_PENALTIES = ("gnmt", "mean", "none", "power")
LEAST = {"beam_size": 1, "n_best": 1, "min_length": 0, "max_length": 1, "block_ngrams": 0, "top_k": 0, "seed": 0}


@dataclass(frozen=True)
class SearchOptions:
    """How the next tokens are chosen.

    The score of a hypothesis is log p(y) / lp(L) + cp. L counts all its tokens, a forced prefix and the end included
    (the end of one that did not end is not counted). The penalty lp is 1 (``none``), ((5 + L) / 6)^alpha (``gnmt``),
    L^alpha (``power``) or L (``mean``). The coverage penalty cp is coverage_penalty · Σ_s log min(Σ_t a_ts, 1) over
    the places s of the memory and all steps t, the one of the end included; a place that never got anything is taken
    for padding. Both decide between hypotheses that ended, not which ones are followed.

    Args:
        method: ``greedy`` (the most probable token at each step), ``sample`` or ``beam``.
        beam_size: hypotheses that are followed at a time. A sentence is done when as many have ended.
        n_best: hypotheses to return: the best of a beam, or so many independent samples.
        length_penalty: ``none``, ``gnmt``, ``power`` or ``mean``.
        alpha: strength of the penalty of ``gnmt`` and ``power``; 0 is no penalty.
        coverage_penalty: strength of the coverage penalty (β in the paper); 0 is none.
        min_length: tokens after the prefix before which the end cannot come.
        max_length: tokens after the prefix after which only the end can come.
        block_ngrams: no n-gram of this size occurs twice; 0 allows all. Those of the prefix, or of a prompt, count.
        temperature: of sampling: logits are divided by it, before `top_k`.
        top_k: sample from so many most probable tokens only; 0 takes all.
        top_p: then sample from the fewest most probable tokens that together have this probability; at least one.
        seed: of sampling; with the content of the source, it decides what is sampled, in any batch and order.

    Raises:
        InputError: for a value out of range, or an unknown name.

    Source: Wu et al. 2016, "Google's Neural Machine Translation System"; Holtzman et al. 2020, "The Curious Case of
    Neural Text Degeneration" (top-p).
    """

    method: str = "beam"
    beam_size: int = 5
    n_best: int = 1
    length_penalty: str = "gnmt"
    alpha: float = 1.0
    coverage_penalty: float = 0.0
    min_length: int = 0
    max_length: int = 200
    block_ngrams: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.method not in METHODS:
            raise unknown_name("search.method", self.method, METHODS)
        if self.length_penalty not in LENGTH_PENALTIES:
            raise unknown_name("search.length_penalty", self.length_penalty, LENGTH_PENALTIES)
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"search.{name}", expected=f"an integer of at least {least}", got=repr(value))
        for name in ("beam_size", "n_best"):
            check_limit("BEAM_SIZE", f"search.{name}", getattr(self, name))
        for name in ("alpha", "coverage_penalty"):
            check_number(name, getattr(self, name), "a number of at least 0", lambda value: 0 <= value < math.inf)
        check_number(
            "temperature", self.temperature, "a number above 0", lambda value: 0 < value < math.inf, "or method greedy"
        )
        check_number("top_p", self.top_p, "a number above 0, at most 1", lambda value: 0 < value <= 1)
        if self.min_length > self.max_length:
            raise InputError(
                "search.min_length", expected=f"at most max_length, {self.max_length}", got=str(self.min_length)
            )
        most = {"beam": self.beam_size, "greedy": 1}.get(self.method, self.n_best)
        if self.n_best > most:
            raise InputError(
                "search.n_best",
                expected=f"at most {most} with method {self.method}",
                got=str(self.n_best),
                fix="give a larger beam_size" if self.method == "beam" else "use method beam or sample",
            )

    def as_greedy(self) -> SearchOptions:
        """Return the options with the fastest method, and all else that holds for it."""
        return dataclasses.replace(self, method="greedy", n_best=1)

    def length_penalties(self, lengths: Tensor) -> Tensor:
        """Return lp of `lengths`, of any shape.

        >>> SearchOptions(alpha=2.0).length_penalties(torch.tensor([1, 7]))
        tensor([1., 4.])
        """
        lengths = lengths.clamp(min=1)
        if self.length_penalty == "none":
            return torch.ones_like(lengths)
        if self.length_penalty == "mean":
            return lengths
        return ((5 + lengths) / 6 if self.length_penalty == "gnmt" else lengths) ** self.alpha

    def scores(self, log_probabilities: Tensor, lengths: Tensor, coverage: Tensor | None) -> Tensor:
        """Return the scores of hypotheses with `lengths` [...] and summed attention weights `coverage` [..., S]."""
        scores = log_probabilities / self.length_penalties(lengths.to(log_probabilities.dtype))
        if coverage is not None and self.coverage_penalty > 0:
            covered = torch.where(coverage > 0, coverage, 1.0).clamp(max=1.0)
            scores = scores + self.coverage_penalty * covered.log().sum(-1)
        return scores


def check_number(name: str, value: object, expected: str, test: object, fix: str = "") -> None:
    """Refuse a value that is no number or fails the test.

    Raises:
        InputError: naming the option.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not test(value):  # type: ignore[operator]
        raise InputError(f"search.{name}", expected=expected, got=repr(value), fix=fix)
