"""Finding sequences that a decoder thinks probable, and scoring given ones: what models call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rnnzoo.decoding.beam import BeamLoop
from rnnzoo.decoding.decoder import Decoder
from rnnzoo.decoding.loop import Limits, SearchLoop
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.decoding.sampling import SampleLoop
from rnnzoo.decoding.trace import Hypothesis
from rnnzoo.errors import InputError
from rnnzoo.layers.vocabulary import widen
from rnnzoo.state import State


def search(
    decoder: Decoder,
    context: State,
    options: SearchOptions,
    *,
    suppressed: Sequence[int] = (),
    prefixes: Sequence[Sequence[int]] | None = None,
    max_lengths: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    read: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """Generate sequences for each row of the context.

    What a row gets does not depend on the other rows of the batch. Gradients are not kept. Dropout is the caller's
    affair: put the model in evaluation mode.

    Args:
        decoder: the model, or an `Ensemble`.
        context: what the decoder reads, B rows.
        options: how to choose.
        suppressed: ids that are never chosen. Probabilities are not renormalised: scores stay those of the model.
        prefixes: B lists of ids that the sequences must begin with; what is suppressed or blocked may be in there.
        max_lengths: [B] greatest lengths of the rows, where they are below `options.max_length`.
        seeds: B numbers that, with `options.seed`, decide the noise of each row when it samples, such as the ids of
            the samples, or `content_seeds` of what the context was made of; 0 to B - 1 by default.
        read: B lists of ids that the context was made of, where `options.block_ngrams` is to count their n-grams.

    Returns:
        For each row the best `options.n_best` hypotheses, best first, of which those that ended come before those
        that did not; fewer if there are not as many, but at least one. With method sample, the samples as drawn.

    Raises:
        InputError: for a prefix or ids outside the vocabulary, or a number of rows that does not fit; if the decoder
            puts out NaN or infinity, or gives a prefix no probability at all.
    """
    if row_count(context) == 0:
        return []
    loop = prepare(decoder, context, options, suppressed, prefixes, max_lengths, seeds, read)
    while loop.active:
        loop.advance()
    return loop.hypotheses()


def stream(
    decoder: Decoder,
    context: State,
    options: SearchOptions,
    *,
    suppressed: Sequence[int] = (),
    prefix: Sequence[int] = (),
    seed: int = 0,
    read: Sequence[int] = (),
) -> Iterator[int]:
    """Generate one sequence for a context of one row, and yield each token as soon as it is chosen.

    Arguments and errors are those of `stream_distributions`.
    """
    for token, _ in stream_distributions(
        decoder, context, options, suppressed=suppressed, prefix=prefix, seed=seed, read=read
    ):
        yield token


def stream_distributions(
    decoder: Decoder,
    context: State,
    options: SearchOptions,
    *,
    suppressed: Sequence[int] = (),
    prefix: Sequence[int] = (),
    seed: int = 0,
    read: Sequence[int] = (),
) -> Iterator[tuple[int, SearchLoop]]:
    """Generate one sequence for a context of one row, and yield each token with the loop that has just chosen it.

    `SearchLoop.distribution` is what it was chosen from. These are the tokens that `search` finds with the same
    options, ``seeds=[seed]`` and ``read=[read]``, without the prefix.

    Raises:
        InputError: for a beam, whose first token is known only when it is done; for several samples or rows; and as
            `search` does.
    """
    if options.method == "beam" or options.n_best > 1:
        got = f"method {options.method} with n_best {options.n_best}"
        raise InputError("search.method", expected="greedy or sample, one hypothesis, to stream", got=got)
    if row_count(context) != 1:
        raise InputError("stream", expected="a context of one row", got=f"{row_count(context)} rows")
    loop = prepare(decoder, context, options, suppressed, [prefix], None, [seed], [read])
    while loop.active:
        loop.advance()
        if loop.active and loop.length > len(prefix):
            yield int(loop.tokens), loop


def score(decoder: Decoder, context: State, targets: Tensor) -> Tensor:
    """Return log p(targets) of each row in nats [B], the decoder reading the right tokens step by step.

    Args:
        decoder: the model, or an `Ensemble`.
        context: what the decoder reads, B rows.
        targets: [B, T] ids, the end included if it shall count; a negative number past the end of a row.

    Raises:
        InputError: if the rows do not fit the context, or an id is outside the vocabulary.
    """
    if len(targets) != row_count(context):
        raise InputError("targets", expected=f"{row_count(context)} rows", got=f"{len(targets)} rows")
    if targets.numel() and int(targets.max()) >= decoder.vocabulary_size:
        raise InputError("targets", expected=f"ids below {decoder.vocabulary_size}", got=str(int(targets.max())))
    total = torch.zeros(len(targets), device=targets.device)
    if targets.numel() == 0:
        return total
    state = decoder.initial_state(context)
    tokens = torch.full_like(targets[:, 0], decoder.vocabulary_size - 1)  # [B]
    for wanted in targets.unbind(1):
        logits, state, _ = decoder.step(tokens, state, context)
        logits = widen(logits)
        tokens = wanted.clamp(min=0)
        found = logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
        total = total + torch.where(wanted >= 0, found, 0.0)
    return total


def prepare(
    decoder: Decoder,
    context: State,
    options: SearchOptions,
    suppressed: Sequence[int],
    prefixes: Sequence[Sequence[int]] | None,
    max_lengths: Tensor | None,
    seeds: Sequence[int] | None,
    read: Sequence[Sequence[int]] | None,
) -> SearchLoop:
    """Check the arguments of a search and set it up.

    Raises:
        InputError: as `search` says.
    """
    rows, size, device = row_count(context), decoder.vocabulary_size, first_field(context).device
    prefixes = [[]] * rows if prefixes is None else prefixes
    read = [[]] * rows if read is None else read
    for name, values in (("prefixes", prefixes), ("max_lengths", max_lengths), ("seeds", seeds), ("read", read)):
        if values is not None and len(values) != rows:
            raise InputError(name, expected=f"one for each of {rows} rows", got=str(len(values)))
    check_ids("suppressed", suppressed, size)
    for row, prefix in enumerate(prefixes):
        check_ids(f"prefix of row {row}", prefix, size - 1)
    lengths = torch.tensor([len(prefix) for prefix in prefixes], device=device)  # [B]
    forced = torch.full((rows, int(lengths.max())), -1)
    for row, prefix in enumerate(prefixes):
        forced[row, : len(prefix)] = torch.tensor(list(prefix), dtype=torch.long)
    most = torch.full_like(lengths, options.max_length)
    if max_lengths is not None:
        most = torch.minimum(most, max_lengths.to(most).clamp(min=0))
    least = most.clamp(max=options.min_length)
    before = torch.full((rows, max(map(len, read))), -1)
    for row, ids in enumerate(read):
        before[row, before.shape[1] - len(ids) :] = torch.tensor(list(ids), dtype=torch.long)
    limits = Limits(forced.to(device), lengths + least, lengths + most, before.to(device))
    banned = torch.tensor(list(suppressed), dtype=torch.long, device=device)
    if options.method == "sample":
        names = [int(each) for each in (range(rows) if seeds is None else seeds)]
        return SampleLoop(decoder, context, options, limits=limits, suppressed=banned, seeds=names)
    return BeamLoop(decoder, context, options, limits=limits, suppressed=banned)


def check_ids(where: str, ids: Sequence[int], size: int) -> None:
    """Refuse ids that are not below `size`.

    Raises:
        InputError: naming the first.
    """
    for number in ids:
        if not 0 <= number < size:
            raise InputError(where, expected=f"ids from 0 to {size - 1}", got=str(number))


def first_field(state: State) -> Tensor:
    """Return the first tensor of a state.

    Raises:
        InputError: if there is none.
    """
    while not isinstance(state, Tensor):
        fields = [field for field in state if isinstance(field, Tensor) or len(field)]
        if not fields:
            raise InputError("context", expected="at least one tensor", got="none", fix="give torch.empty(B, 0)")
        state = fields[0]
    return state


def row_count(state: State) -> int:
    """Return how many rows a state has."""
    return len(first_field(state))
