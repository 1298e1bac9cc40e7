"""Dropout whose mask holds for a whole sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
