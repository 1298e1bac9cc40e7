"""What the gates of recurrent layers do over one text.

Axes: T steps, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnzoo.batches import PairBatch, StreamBatch, TaggingBatch, TextBatch
from rnnzoo.diagnostics.gradient_flow import own_names
from rnnzoo.diagnostics.gradient_tape import Call, cells_by_place, recording
from rnnzoo.errors import InputError
from rnnzoo.models.base import ZooModel
from rnnzoo.models.transfer import recurrent_layers

ORDER = "ifogrzn"  # gates are shown in this order, as the papers write them; others follow


@dataclass(frozen=True)
class GateValues:
    """The gates of one layer over one text.

    Args:
        layer: its name.
        cell: the name of the cell.
        tokens: T tokens as they are read.
        values: gate → its activations [T, H]: between 0 and 1 for sigmoids, between -1 and 1 for what is written.
    """

    layer: str
    cell: str
    tokens: list[str]
    values: dict[str, Tensor]


def gate_values(model: ZooModel, text: str) -> dict[str, GateValues]:
    """Read a text and return what the gates of each layer that reads it did, without dropout.

    Args:
        model: one that reads text: of a tagger, words with blanks between; of a translator, the source.
        text: the text.

    Returns:
        Layer → gates, for the layers whose steps are the tokens of the text.

    Raises:
        InputError: if the model reads no text or has no recurrent layers, the text is empty, or the gates of the
            cell have no names.
    """
    processor: Any = model.processor
    name = processor.inputs[0]
    if name not in ("text", "tokens", "source") or not recurrent_layers(model):
        raise InputError("model", expected="recurrent layers that read text", got=f"a {type(model).__name__}")
    sample = {name: text.split() if name == "tokens" else text}
    batch = processor.collate([{**processor.encode(sample), "id": 0}])
    tokens = tokens_read(processor, batch, sample)
    if not tokens:
        raise InputError("text", expected="at least one token", got=repr(text))
    with recording(model) as tapes:
        list(model.answer([sample]))
    found, cell = {}, str(dict(model.hparams).get("cell"))
    cells = cells_by_place(model)
    for layer, tape in tapes.items():
        calls = next((calls for calls in tape.sequences if len(calls) == len(tokens)), [])
        values = named_values(cells[layer], calls) if calls and len(calls[0].output) == 1 else {}
        if values:
            backward = layer.endswith("backward")
            found[layer] = GateValues(
                layer, cell, tokens, {gate: each.flip(0) if backward else each for gate, each in values.items()}
            )
    if not found:
        raise InputError("model", expected="a cell whose gates have names, such as lstm or gru", got=cell)
    return found


def tokens_read(processor: Any, batch: Any, sample: dict[str, Any]) -> list[str]:
    """Return the tokens of the one text of a batch, as they are read."""
    if isinstance(batch, TaggingBatch):
        return list(sample["tokens"])
    ids, tokenizer = {
        StreamBatch: lambda: (batch.tokens, processor.tokenizer),
        TextBatch: lambda: (batch.tokens, processor.tokenizer),
        PairBatch: lambda: (batch.source, processor.source),
    }[type(batch)]()
    vocabulary = tokenizer.vocabulary
    return [vocabulary[number] if number < len(vocabulary) else "\n" for number in ids[0].tolist()]


def named_values(cell: Any, calls: list[Call]) -> dict[str, Tensor]:
    """Return gate → activations [T, H] for the gates that a cell names, in the order of the papers."""
    found: dict[str, Tensor] = {}
    for attribute, field in (("gate_names", "sigmoids"), ("tanh_names", "tangents")):
        names = own_names(cell, attribute)
        if all(len(getattr(call, field)) == len(names) for call in calls):
            for index, name in enumerate(names):
                found.setdefault(name, torch.cat([getattr(call, field)[index] for call in calls]).float().cpu())
    if not found.keys() & set(own_names(cell, "gate_names")):
        return {}
    return {name: found[name] for name in sorted(found, key=lambda name: (ORDER + name).index(name))}
