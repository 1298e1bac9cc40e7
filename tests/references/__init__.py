"""Independent references of every cell, one module a family; `base` has what they share."""

from references.base import Array, Reference, State, Step, Weights, sequence, stack

__all__ = ["Array", "Reference", "State", "Step", "Weights", "sequence", "stack"]
