"""What a row-wise kernel is made of: numbers of a row, what they are computed from, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class RefusedError(Exception):
    """A kernel that is none of those that this module knows."""


class Node(NamedTuple):
    """Some numbers that are the same sum, read, or computed in the same way.

    Args:
        kind: "read", "constant", "sum", or a key of `CODE`.
        of: the index of the tensor that is read; a constant; of a sum, how many numbers each of its parts has.
        parts: what it is computed from.
    """

    kind: str
    of: Any
    parts: tuple[Piece, ...] = ()


class Piece(NamedTuple):
    """Numbers of a node, one after another: from `first` on, or all the same one if `step` is 0."""

    node: int
    first: int
    step: int


@dataclass
class Value:
    """A tensor in the graph: the names of its numbers, of one row; a name is a node and a place in it.

    Args:
        names: in the shape of the tensor, its rows taken for one.
        summed: whether it is the sum of all rows.
    """

    names: Tensor
    summed: bool = False


class Store(NamedTuple):
    """What is written: `width` numbers of a row of a tensor, from `first` on."""

    target: int
    first: int
    piece: Piece
    width: int
    summed: bool


@dataclass
class SymbolicSize:
    """A size that the number of rows decides."""

    size: torch.SymInt
