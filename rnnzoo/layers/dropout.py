"""Dropout whose mask holds for a whole sequence, or for a whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.cells.views import ModuleT, view_of


def locked_dropout(inputs: Tensor, dropout: float, *, training: bool) -> Tensor:
    """Drop units of `inputs` [B, T, H]: one mask a row, the same at all its steps ("variational" dropout).

    What is kept is scaled by 1/(1-p); out of training nothing is done.

    Source: Gal & Ghahramani 2016; Merity, Keskar & Socher 2018 call it locked.

    >>> locked_dropout(torch.ones(1, 3, 5), 0.5, training=True).unique(dim=1).shape
    torch.Size([1, 1, 5])
    """
    if not training or dropout == 0:
        return inputs
    return inputs * F.dropout(torch.ones_like(inputs[:, :1]), dropout)  # mask [B, 1, H]


def hold_masks(module: ModuleT) -> ModuleT:
    """Return a view of a module in which the masks that hold for a whole batch are drawn once.

    For what goes over a batch in several calls in training, such as step by step: weight drop and embedding dropout
    would draw anew in each. Parts that have a method of this name are asked for their views (`Recurrent`,
    `WordEmbedding`); all weights are shared. A module without such masks is returned itself.
    """
    own = getattr(module, "hold_masks", None)
    if own is not None:
        return own()
    parts = {name: part if part is None else hold_masks(part) for name, part in module._modules.items()}
    if all(parts[name] is part for name, part in module._modules.items()):
        return module
    view = view_of(module)
    view._modules = parts
    return view
