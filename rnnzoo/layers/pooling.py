"""From outputs over time to one vector a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.lengths import last_valid, length_mask

POOLINGS = ("last", "mean", "max", "attention")


def pool_mean(outputs: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, O] of the steps of `outputs` [B, T, O] where `mask` [B, T] is true; zeros for none."""
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return (outputs * mask.unsqueeze(-1)).sum(1) / count


def pool_max(outputs: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum [B, O] over the steps of `outputs` [B, T, O] where `mask` [B, T] is true; zeros for none."""
    if outputs.shape[1] == 0:
        return outputs.new_zeros(outputs.shape[0], outputs.shape[2])
    largest = outputs.masked_fill(~mask.unsqueeze(-1), torch.finfo(outputs.dtype).min).amax(1)
    return torch.where(mask.any(1, keepdim=True), largest, 0.0)


class Pooling(nn.Module):
    """One or several poolings of the outputs of a recurrent layer, concatenated.

    ``last`` takes the forward half at the last valid step and the backward half at the first, where each direction
    has seen the whole row. ``attention`` weighs the steps by softmax(v·tanh(W h)) (Yang et al. 2016).

    Args:
        names: any of ``last``, ``mean``, ``max``, ``attention``.
        input_size: O, numbers per step.
        bidirectional: whether the second half of them runs backward.

    Raises:
        InputError: for an unknown name, a repeated one, or none.

    >>> Pooling(["mean", "max"], input_size=4).output_size
    8
    """

    def __init__(self, names: Sequence[str], *, input_size: int, bidirectional: bool = False) -> None:
        super().__init__()
        if not names or len(set(names)) < len(names):
            raise InputError("pooling", expected="one or more different names", got=str(list(names)))
        for name in names:
            if name not in POOLINGS:
                raise unknown_name("pooling", name, POOLINGS)
        self.names = list(names)
        self.bidirectional = bidirectional
        self.output_size = input_size * len(names)
        self.attention: nn.Sequential | None = None
        if "attention" in names:
            self.attention = nn.Sequential(
                nn.Linear(input_size, input_size), nn.Tanh(), nn.Linear(input_size, 1, bias=False)
            )

    def forward(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """Pool `outputs` [B, T, O] of rows of `lengths` [B] → [B, output_size]; zeros for a row of length 0."""
        mask = length_mask(lengths, outputs.shape[1])  # [B, T]
        simple: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": pool_mean, "max": pool_max}
        pooled = []
        for name in self.names:
            if name == "last":
                pooled.append(self._last(outputs, lengths))
            elif name == "attention":
                pooled.append(self._attend(outputs, mask))
            else:
                pooled.append(simple[name](outputs, mask))
        return torch.cat(pooled, dim=-1)

    def _last(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        last = last_valid(outputs, lengths)
        if not self.bidirectional or outputs.shape[1] == 0:
            return last
        half = outputs.shape[-1] // 2
        first = outputs[:, 0, half:] * (lengths > 0).unsqueeze(1)  # [B, O / 2]
        return torch.cat([last[:, :half], first], dim=-1)

    def _attend(self, outputs: Tensor, mask: Tensor) -> Tensor:
        assert self.attention is not None
        scores = self.attention(outputs).squeeze(-1).float()  # [B, T]
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(1)
        weights = torch.where(mask, weights, 0.0).to(outputs.dtype)  # a row without steps has no weights
        return (weights.unsqueeze(1) @ outputs).squeeze(1)
