"""Losses that know about padding, unseen labels, class weights and smoothing, as pure functions.

Each returns a sum and a count, so that the mean can be taken over the valid items of a whole batch, however the batch
is cut over processes and accumulation steps. Axes: B batch, T time, C classes, O outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.numerics import widen


class Objective(NamedTuple):
    """A loss as it is summed: `total` / `items` is the mean that is minimised."""

    total: Tensor  # scalar, with gradient
    items: Tensor  # scalar: the items in the sum (or the sum of their weights)

    @property
    def reported(self) -> Objective | None:
        """What evaluations report as the loss, on this batch, without gradient; None if it was not computed."""
        return Objective(self.total.detach(), self.items)


class RegularisedObjective(Objective):
    """An objective that is not the reported loss alone: it is smoothed, weighted, or has penalties added.

    Args:
        total: scalar, with gradient.
        items: scalar.
        reported: the loss as evaluations report it, of the same outputs; None if it is not known.
    """

    def __new__(cls, total: Tensor, items: Tensor, reported: Objective | None) -> RegularisedObjective:
        """Make the pair."""
        made = super().__new__(cls, total, items)
        made._reported = None if reported is None else Objective(reported.total.detach(), reported.items)
        return made

    _reported: Objective | None

    @property
    def reported(self) -> Objective | None:
        """What evaluations report as the loss."""
        return self._reported


class SampleLosses(NamedTuple):
    """Losses of single samples, for reporting: neither smoothed nor weighted."""

    totals: Tensor  # [B]
    counts: Tensor  # [B]


def cross_entropy(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Objective:
    """Cross-entropy in nats over the items whose target is a known class.

    Args:
        logits: [..., C].
        targets: [...] class ids; a negative id (padding, or a label that training never saw) has no loss.
        weights: [C] class weights; the count is then the sum of the weights.
        label_smoothing: share of the target's probability that is spread evenly over the classes.
    """
    known = targets >= 0
    logits, targets = widen(logits[known]), targets[known]  # [N, C], [N]
    weights = None if weights is None else weights.to(logits.dtype)  # which may be narrow, as the model is
    total = F.cross_entropy(logits, targets, weight=weights, label_smoothing=label_smoothing, reduction="sum")
    count = known.sum().to(total.dtype)
    if weights is None and label_smoothing == 0:
        return Objective(total, count)
    with torch.no_grad():
        reported = Objective(F.cross_entropy(logits, targets, reduction="sum"), count)
    return RegularisedObjective(total, count if weights is None else weights[targets].sum().to(total.dtype), reported)


def sample_cross_entropy(logits: Tensor, targets: Tensor) -> SampleLosses:
    """Negative log-likelihood in nats of each sample of `targets` [B, ...] under `logits` [B, ..., C]."""
    known = targets >= 0
    logs = widen(logits).log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)  # [B, ...]
    rows = (len(targets), -1)
    return SampleLosses(-torch.where(known, logs, 0.0).reshape(rows).sum(1), known.reshape(rows).sum(1))


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared differences of `outputs` and `targets` [..., O]; zero where the target is NaN (no target given)."""
    return torch.where(targets.isnan(), 0.0, (widen(outputs) - targets.nan_to_num()).square())


def activation_penalty(
    raw: Tensor, dropped: Tensor, valid: Tensor, *, alpha: float, beta: float, resets: Tensor | None = None
) -> Tensor:
    """Activation regularisation and its temporal form (AR and TAR), as a sum over the valid items.

    α Σ mean(m ⊙ h_t)² + β Σ mean(h_t - h_{t-1})², the means over the H units

    Divided by the number of valid items, as an `Objective` is, the first is the paper's mean over all numbers; the
    second is (T-1)/T of it, since T items have T-1 differences: so a sum over parts of a batch is that of the whole.
    Computed in float32 if the outputs are narrower.

    Args:
        raw: [B, T, H] outputs of the last recurrent layer.
        dropped: [B, T, H] the same with dropout, as the head is given them.
        valid: [B, T] bool.
        alpha: α.
        beta: β.
        resets: [B, T] bool, true where a new document begins: no difference is taken to the step before.

    Source: Merity, McCann & Socher 2017, "Revisiting Activation Regularization for Language RNNs".
    """
    raw, dropped = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (raw, dropped))
    total = raw.new_zeros(())
    if alpha != 0:
        total = total + alpha * torch.where(valid, dropped.square().mean(-1), 0.0).sum()
    if beta != 0:
        pairs = valid[:, 1:] & valid[:, :-1]  # [B, T-1]
        if resets is not None:
            pairs = pairs & ~resets[:, 1:]
        total = total + beta * torch.where(pairs, (raw[:, 1:] - raw[:, :-1]).square().mean(-1), 0.0).sum()
    return total
