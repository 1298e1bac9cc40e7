"""How a cell is run over time; `BACKENDS` lists the ways without importing torch.

A backend is a function ``run(cell, inputs [B, T, I], lengths [B] | None, state | None) → (outputs [B, T, O], state)``.
Whatever it does inside, its outputs, states and gradients are those of ``reference``.
"""

from __future__ import annotations

from rnnzoo.registry import Registry

__all__ = ["BACKENDS"]

BACKENDS = Registry("backend")
BACKENDS.add(
    "reference",
    "rnnzoo.backends.reference:run",
    "the plain loop over time, differentiated by autograd: the law that all others must equal",
    runs="every cell",
)
BACKENDS.add(
    "native",
    "rnnzoo.backends.native:run",
    "torch's own kernels (oneDNN, cuDNN) on dense batches, never packed",
    runs="rnn, rnn_relu, irnn, lstm, gru",
)
BACKENDS.add(
    "fused",
    "rnnzoo.backends.fused.run:run",
    "one product and one compiled row-wise kernel a step, gradients taken from the cell's own code",
    runs="every gated or staged cell",
)
BACKENDS.add(
    "scan",
    "rnnzoo.backends.scan.run:run",
    "all steps' coefficients at once, then one pass over memory",
    runs="every linear cell",
)
