"""The linear recurrence and its adjoint on GPUs: tiles of steps by an associative scan, one tile after the other.

One program takes `W` units of one row through all steps, `C` of them at a time, and reads and writes each number once.
Only where Triton is installed can this file be imported; `rnnzoo.backends.scan.recurrence` says what is computed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 64  # steps, C
WIDTH = 16  # units, W


@triton.jit
def join(decay, addition, next_decay, next_addition):  # type: ignore[no-untyped-def]
    """Return the two steps (a, b) and (a', b') as one: (a' a, a' b + b')."""
    return decay * next_decay, next_decay * addition + next_addition


@triton.jit
def forward_kernel(a, b, first, h, steps, size, C: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Write h; steps past the end have a = 1 and b = 0, so that the last row of a tile is the state after it."""
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * W + tl.arange(0, W)
    place = tl.arange(0, C)
    carried = tl.load(first + row * size + unit, mask=unit < size, other=0.0)
    for start in range(0, steps, C):
        step = start + place
        at = (row * steps + step)[:, None] * size + unit[None, :]
        there = (step < steps)[:, None] & (unit < size)[None, :]
        decay = tl.load(a + at, mask=there, other=1.0)
        addition = tl.load(b + at, mask=there, other=0.0)
        product, total = tl.associative_scan((decay, addition), 0, join)
        hidden = product * carried[None, :] + total
        tl.store(h + at, hidden, mask=there)
        carried = tl.sum(tl.where((place == C - 1)[:, None], hidden, 0.0), 0)


@triton.jit
def backward_kernel(a, h, first, g_h, g_a, g_b, g_first, steps, size, C: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Write g_a, g_b and, in the place of the last state's gradient, that of the first.

    g_b[t] = g_h[t] + a[t+1] g_b[t+1] is the same recurrence from the last step to the first, whose decay comes from
    the step that follows: 1 for the last one, where what is carried is the gradient itself.
    """
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * W + tl.arange(0, W)
    place = tl.arange(0, C)
    carried = tl.load(g_first + row * size + unit, mask=unit < size, other=0.0)
    begin = tl.load(first + row * size + unit, mask=unit < size, other=0.0)
    tiles = tl.cdiv(steps, C)
    for tile in range(0, tiles):
        step = (tiles - 1 - tile) * C + place
        at = (row * steps + step)[:, None] * size + unit[None, :]
        inside = (unit < size)[None, :]
        there = (step < steps)[:, None] & inside
        decay = tl.load(a + at + size, mask=(step + 1 < steps)[:, None] & inside, other=1.0)
        sent = tl.load(g_h + at, mask=there, other=0.0)
        product, total = tl.associative_scan((decay, sent), 0, join, reverse=True)
        grad = product * carried[None, :] + total
        before = tl.load(h + at - size, mask=there & (step > 0)[:, None], other=0.0)
        before = tl.where((step > 0)[:, None], before, begin[None, :])
        tl.store(g_b + at, grad, mask=there)
        tl.store(g_a + at, grad * before, mask=there)
        carried = tl.sum(tl.where((place == 0)[:, None], grad, 0.0), 0)
    last = tl.load(a + row * steps * size + unit, mask=unit < size, other=0.0)
    tl.store(g_first + row * size + unit, carried * last, mask=unit < size)


def forward(decay: Tensor, addition: Tensor, initial: Tensor) -> None:
    """Do as `rnnzoo.backends.scan.recurrence.recur`."""
    rows, steps, size = decay.shape
    grid = (rows, triton.cdiv(size, WIDTH))
    with torch.cuda.device(decay.device):
        forward_kernel[grid](decay, addition, initial, addition, steps, size, C=TILE, W=WIDTH)


def backward(
    decay: Tensor, hidden: Tensor, initial: Tensor, hidden_grad: Tensor, carried: Tensor, decay_grad: Tensor,
    addition_grad: Tensor,
) -> None:  # fmt: skip
    """Do as `rnnzoo.backends.scan.recurrence.recur_back`."""
    rows, steps, size = decay.shape
    grid = (rows, triton.cdiv(size, WIDTH))
    tensors = (decay, hidden, initial, hidden_grad, decay_grad, addition_grad, carried)
    with torch.cuda.device(decay.device):
        backward_kernel[grid](*tensors, steps, size, C=TILE, W=WIDTH)
