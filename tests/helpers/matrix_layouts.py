"""Ways in which a matrix may lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(matrix: Tensor, layout: str) -> Tensor:
    """Return the same numbers in another place in memory."""
    rows, columns = matrix.shape
    if layout == "transposed":
        return matrix.t().contiguous().t()
    if layout == "part":  # of a larger matrix
        return torch.nn.functional.pad(matrix, (2, 3, 1, 1))[1:-1, 2:-3]
    if layout == "every other":
        return torch.stack([matrix, -matrix], 2).reshape(rows, 2 * columns)[:, ::2]
    return matrix


LAYOUTS = ("contiguous", "transposed", "part", "every other")
