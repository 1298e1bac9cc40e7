"""``rnnzoo generate``: text that goes on from a prompt, shown as it is chosen."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.output import check_file, print_note
from rnnzoo.cli.predict import positive
from rnnzoo.errors import InputError
from rnnzoo.terminal import echo, escape

if TYPE_CHECKING:
    from rnnzoo.models.language_model import LanguageModel

SUMMARY = "go on from a prompt with a trained language model"
HELP = """usage: rnnzoo generate RUN_OR_MODEL [--prompt TEXT] [options]

Write the prompt and what a language model goes on with, as it is chosen. An empty prompt begins a text.

options, in any order:
  --prompt TEXT            the text to go on from
  --prompt_file FILE       the same, from a file as it is; - is standard input
  --max_tokens N           the most tokens: characters, bytes, words or byte pairs (default 200)
  --method METHOD          sample, greedy or beam (default sample)
  --temperature X          below 1 takes fewer risks, above 1 more (default 1)
  --top_k N                sample from the N most probable tokens only
  --top_p X                sample from the fewest most probable tokens that together have the probability X
  --beam_size N            hypotheses that a beam follows (default 5)
  --block_ngrams N         no N tokens occur twice in this order
  --seed N                 another seed, another text (default 0)
  --count N                so many texts (default 1), with a line "--- 2 ---" before the second and so on
  --unknown RULE           what becomes of characters or words that training never saw: refuse, skip or keep
                           (default refuse)
  --probabilities FILE.png a new file for a picture of the distribution of the next token at each step, with the
                           token that was chosen; of the first 60 steps
  --help                   this text
"""
NUMBERS: dict[str, type] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "beam_size": int,
    "block_ngrams": int,
    "seed": int,
}
METHOD_OF = {  # options that only one method knows
    "temperature": "sample",
    "top_k": "sample",
    "top_p": "sample",
    "seed": "sample",
    "count": "sample",
    "beam_size": "beam",
}
DRAWN_STEPS, DRAWN_TOKENS = 60, 40
OWN = ("prompt", "prompt_file", "max_tokens", "method", "count", "unknown", "probabilities", *NUMBERS)


def run(argv: list[str]) -> int:
    """Generate and print; return the exit code."""
    arguments = sort_arguments(argv, own=OWN)
    if {"--help", "-h"} & set(arguments.overrides):
        echo(HELP)
        return 0
    own = arguments.own
    if arguments.positional is None:
        raise InputError("rnnzoo generate", expected="a run folder or a model folder", got="none")
    if "prompt" in own and "prompt_file" in own:
        raise InputError("rnnzoo generate", expected="--prompt or --prompt_file", got="both")
    prompt = read_prompt(own["prompt_file"]) if "prompt_file" in own else own.get("prompt", "")
    most, count = (
        positive(own.get(name, usual), f"--{name}") for name, usual in (("max_tokens", "200"), ("count", "1"))
    )
    options: dict[str, Any] = {name: number(own[name], f"--{name}", NUMBERS[name]) for name in NUMBERS if name in own}
    options["method"] = own.get("method", "sample")
    for name, method in METHOD_OF.items():
        if name in own and options["method"] != method:
            raise InputError(
                f"--{name}",
                expected=f"the method {method}",
                got=options["method"],
                fix=f"give --method {method}, or leave it out",
            )

    picture = None if "probabilities" not in own else Path(own["probabilities"])
    if picture is not None:
        if options["method"] == "beam" or count > 1:
            got = "the method beam" if options["method"] == "beam" else f"--count {count}"
            raise InputError("--probabilities", expected="one text, by the method sample or greedy", got=got)
        check_file("--probabilities", picture)

    from rnnzoo.bundle import load
    from rnnzoo.models.generation import generation_options
    from rnnzoo.models.language_model import LanguageModel

    chosen = generation_options(options, most)
    model = load(arguments.positional, note=print_note)
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"rnnzoo generate {arguments.positional}",
            expected="a LanguageModel",
            got=f"a {type(model).__name__}",
            fix="rnnzoo predict answers with it",
        )
    for place in range(count):
        if place:
            echo(f"--- {place + 1} ---")
        seeded = dataclasses.replace(chosen, seed=chosen.seed + place)
        write(model, prompt, options=seeded, unknown=own.get("unknown", "refuse"))
    if picture is not None:
        draw_probabilities(model, prompt, chosen, own.get("unknown", "refuse"), picture)
    return 0


def draw_probabilities(model: LanguageModel, prompt: str, options: Any, unknown: str, target: Path) -> None:
    """Draw the distributions that the tokens of a continuation were chosen from, and say what they show."""
    from rnnzoo import plots
    from rnnzoo.models.generation import token_distributions

    limited = dataclasses.replace(options, max_length=min(DRAWN_STEPS, options.max_length))
    tokens, distributions = token_distributions(model, prompt, options=limited, unknown=unknown)
    if not tokens:
        raise InputError("--probabilities", expected="at least one token to draw", got="a text that ended at once")
    vocabulary = [*model.processor.tokenizer.vocabulary, "\n"][: model.processor.vocabulary_size]
    highest = distributions.max(0).values
    order = [row for row in highest.argsort(descending=True).tolist() if highest[row] > 0][:DRAWN_TOKENS]
    rows = sorted({*order, *tokens}, key=vocabulary.__getitem__)
    how = f"temperature {options.temperature:g}" if options.method == "sample" else "greedy"
    title = f"p(next token), {how}, after {plots.visible(prompt[-30:])!r}; circle: what was chosen"
    plots.token_probabilities(
        distributions[:, rows].numpy(),
        [vocabulary[row] for row in rows],
        [rows.index(token) for token in tokens],
        title,
        target,
    )
    likely = int((distributions.argmax(1) == distributions.new_tensor(tokens)).sum())
    chosen = distributions.gather(1, distributions.new_tensor(tokens).long().unsqueeze(1))
    entropy = -(distributions * distributions.clamp(min=1e-12).log2()).sum(1).mean()
    echo(
        f"\nIn {len(tokens)} steps the token that was chosen had a probability of {float(chosen.mean()):.2f} on "
        f"average and was the most probable one {likely} times; the distributions have {float(entropy):.2f} bits of "
        f"entropy on average.\nplot: {target}"
    )


def write(model: LanguageModel, prompt: str, *, options: Any, unknown: str) -> None:
    """Print a prompt and its continuation, each piece at once."""
    pieces = model.stream(prompt, options=options, unknown=unknown)
    first = next(pieces, "")  # the prompt may be refused: nothing is printed before
    last = prompt + first
    show_piece(last)
    for piece in pieces:
        show_piece(piece)
        last = piece
    show_piece("" if last.endswith("\n") else "\n")


def show_piece(piece: str) -> None:
    """Write a piece of text to standard output, as it is unless that is a terminal."""
    sys.stdout.write(escape(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


def read_prompt(name: str) -> str:
    """Return the text of a file as it is, but for a line end after the last line.

    Raises:
        InputError: if it is no UTF-8 text that can be read.
    """
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--prompt_file {name}", expected="UTF-8 text that can be read", got=reason) from error
    return text.replace("\r\n", "\n").removesuffix("\n")


def number(text: str, where: str, kind: type) -> float | int:
    """Return the number that a text spells.

    Raises:
        InputError: if it spells none.
    """
    try:
        return kind(text)
    except ValueError as error:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(where, expected=expected, got=repr(text)) from error
