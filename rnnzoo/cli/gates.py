"""``rnnzoo gates``: what the gates of a trained model do over one text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.listing import show
from rnnzoo.cli.output import check_file
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.terminal import echo

if TYPE_CHECKING:
    from torch import Tensor

    from rnnzoo.diagnostics.gate_values import GateValues

SUMMARY = "show what the gates of a trained model do over the characters or words of a text"
HELP = """usage: rnnzoo gates RUN_OR_MODEL --text TEXT [--layer NAME] [--output FILE.png]

Read a text with a trained model and draw the activations of each gate, a row for each unit and a column for each
token: i, f, o and g of an LSTM, r, z and n of a GRU, what else the cell names. For models that read text: language
models, classifiers, taggers (words with blanks between), translators (the source).

options, in any order:
  --text TEXT         the text; the first 100 tokens are drawn
  --layer NAME        the recurrent layer (default: the first)
  --output FILE.png   a new file for the picture (default gates.png)
  --help              this text
"""
OWN = ("text", "layer", "output")
DRAWN_TOKENS = 100
DRAWN_UNITS = 32
LOW, HIGH = 0.05, 0.95  # beyond these a gate is shut or open


def run(argv: list[str]) -> int:
    """Read, print and draw; return the exit code."""
    arguments = sort_arguments(argv, own=OWN)
    if {"--help", "-h"} & set(arguments.overrides):
        echo(HELP)
        return 0
    own = arguments.own
    if arguments.positional is None:
        raise InputError("rnnzoo gates", expected="a run folder or a model folder", got="none")
    if "text" not in own:
        raise InputError("--text", expected="a text to read", got="none")
    target = Path(own.get("output", "gates.png"))
    check_file("--output", target)

    from rnnzoo import plots
    from rnnzoo.bundle import load
    from rnnzoo.diagnostics.gate_values import gate_values

    layers = gate_values(load(arguments.positional), own["text"])
    layer = own.get("layer", next(iter(layers)))
    if layer not in layers:
        raise unknown_name("--layer", layer, layers)
    found = layers[layer]
    tokens = found.tokens[:DRAWN_TOKENS]
    units = drawn_units(found)
    values = {name: each[: len(tokens), units].T.numpy() for name, each in found.values.items()}
    count = next(iter(found.values.values())).shape[1]
    title = f"Gates of {layer} ({found.cell}) over a text\n{len(units)} of {count} units: those that vary most"
    show(table(found), as_json=False)
    echo(f"\n{sentence(found)}")
    plots.gate_maps(values, tokens, title, target)
    others = [name for name in layers if name != layer]
    echo(f"\nplot: {target}" + (f"  (other layers: {', '.join(others)})" if others else ""))
    return 0


def drawn_units(found: GateValues) -> list[int]:
    """Return the units that are drawn, the one first whose sigmoids vary most over the text."""
    gates = [values for values in found.values.values() if is_gate(values)]
    spread = sum(values.var(0, unbiased=False) for values in gates or found.values.values())
    return spread.argsort(descending=True)[:DRAWN_UNITS].tolist()  # type: ignore[union-attr]


def is_gate(values: Tensor) -> bool:
    """Return whether values are those of a sigmoid, which shuts and opens, and not of a tanh."""
    return bool((values >= 0).all())


def table(found: GateValues) -> list[dict[str, str]]:
    """Return a row for each gate: its mean, and how often it is shut and open."""
    return [
        {
            "gate": name,
            "mean": f"{float(values.mean()):.2f}",
            "shut (below 0.05)": f"{100 * float((values < LOW).float().mean()):.1f} %" if is_gate(values) else "-",
            "open (above 0.95)": f"{100 * float((values > HIGH).float().mean()):.1f} %" if is_gate(values) else "-",
        }
        for name, values in found.values.items()
    ]


def sentence(found: GateValues) -> str:
    """Say of the unit whose gates vary most, and of its gate that does, at which token it is lowest and highest."""
    from rnnzoo.plots import visible

    unit = drawn_units(found)[0]
    gates = {name: values[:, unit] for name, values in found.values.items() if is_gate(values)}
    name = max(gates, key=lambda each: float(gates[each].max() - gates[each].min()))
    low, high = int(gates[name].argmin()), int(gates[name].argmax())
    return (
        f"Gates open and shut with what is read: {name} of unit {unit} is {float(gates[name][low]):.2f} at token "
        f"{low + 1} ({visible(found.tokens[low])}) and {float(gates[name][high]):.2f} at token {high + 1} "
        f"({visible(found.tokens[high])})."
    )
