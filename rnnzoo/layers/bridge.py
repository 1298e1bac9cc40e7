"""From the final state of an encoder to the first state of a decoder."""

from __future__ import annotations

import torch
from torch import nn

from rnnzoo.cells.wrappers import RecurrentDropout, base_cell
from rnnzoo.layers.recurrent import Recurrent, States, inner_state, learnable_fields
from rnnzoo.state import State


class Bridge(nn.Module):
    """A linear map for each layer and each field of its state: h becomes h, c becomes c.

    The field of an encoder layer, both directions joined, is mapped to the field of the decoder layer of the same
    place (the last one's, where the decoder is deeper); a hidden field passes through tanh. A field that is no vector
    (a matrix memory), that the cell keeps for itself (`Cell.fixed_fields`) or never reads starts as the decoder's cell
    starts it.

    Args:
        encoder: the layers whose final state is given.
        decoder: the layers whose initial state is made; one direction.
    """

    def __init__(self, *, encoder: Recurrent, decoder: Recurrent) -> None:
        super().__init__()
        self.directions = 1 + encoder.bidirectional
        self.source_layers = [min(layer, encoder.num_layers - 1) for layer in range(decoder.num_layers)]
        self.maps = nn.ModuleList()
        self._decoder = [decoder]  # in a list: its parameters are not ours
        for layer, cell in zip(self.source_layers, decoder.cells, strict=True):
            given = encoder.cells[layer * self.directions]
            maps = nn.ModuleDict()
            theirs, own = (base_cell(each).initial_state(1) for each in (given, cell))  # type: ignore[arg-type]
            for name in learnable_fields(base_cell(cell)):  # type: ignore[arg-type]
                before, after = getattr(theirs, name), getattr(own, name)
                if after.dim() == 2:
                    maps[name] = nn.Linear(self.directions * before.shape[1], after.shape[1])
            self.maps.append(maps)

    @property
    def carries(self) -> bool:
        """Whether the decoder begins with anything of the encoder."""
        return any(len(maps) > 0 for maps in self.maps)  # type: ignore[arg-type]

    def forward(self, states: States) -> States:
        """Map the final states of the encoder, as `Recurrent` returns them, to initial states of the decoder."""
        decoder = self._decoder[0]
        made: list[State] = []
        for cell, layer, each in zip(decoder.cells, self.source_layers, self.maps, strict=True):
            maps: nn.ModuleDict = each  # type: ignore[assignment]
            given = [inner_state(state) for state in states[layer * self.directions : (layer + 1) * self.directions]]
            first = base_cell(cell).initial_state(len(given[0][0]))  # type: ignore[arg-type]
            fields = {}
            for name, linear in maps.items():
                mapped = linear(torch.cat([getattr(state, name) for state in given], dim=-1))  # [B, H]
                fields[name] = mapped.tanh() if name == "hidden" else mapped
            state = first._replace(**fields)
            made.append(cell.wrap(state) if isinstance(cell, RecurrentDropout) else state)
        return tuple(made)
