"""Kernels as graphs of torch's operations, for any number of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rnnzoo.kernels import torch_private
from rnnzoo.kernels.compile.cpp_kernel import Kernel

aten = torch.ops.aten


def traced(kernel: Kernel, examples: Sequence[Tensor], decompositions: Mapping[Any, Any]) -> torch.fx.GraphModule:
    """Return the operations of a kernel."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own parts
        return make_fx(kernel, decomposition_table={**decompositions})(*examples)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return how operations are traced as simpler ones."""
    core_aten_decompositions = torch_private.require("torch._decomp.core_aten_decompositions")
    get_decompositions = torch_private.require("torch._decomp.get_decompositions")
    simple = [aten.leaky_relu, aten.elu, aten.gelu, aten.hardtanh]
    return {**core_aten_decompositions(), **get_decompositions(simple), aten.native_layer_norm.default: layer_norm}


def layer_norm(
    value: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``native_layer_norm`` does: normalised numbers, means, and 1 / deviations."""
    axes = list(range(-len(shape), 0))
    mean = value.mean(axes, keepdim=True)
    centred = value - mean
    scale = ((centred * centred).mean(axes, keepdim=True) + least).rsqrt()
    found = centred * scale
    found = found if weight is None else found * weight
    return found if bias is None else found + bias, mean, scale


def of_any_rows(tensors: Sequence[Tensor], rows: Sequence[bool]) -> tuple[AbstractContextManager[Any], list[Tensor]]:
    """Return tensors without numbers that stand for these, with any number of rows where they may have it.

    The context is that in which others are made like them.
    """
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    constant_source = torch_private.require("torch._dynamo.source.ConstantSource")
    fake_mode = torch_private.require("torch._subclasses.fake_tensor.FakeTensorMode")
    mode = fake_mode(shape_env=ShapeEnv(), static_shapes=False, allow_non_fake_inputs=True)

    def stand_in(place: int, tensor: Tensor) -> Tensor:
        kinds = [DimDynamic.STATIC] * tensor.dim()
        if rows[place]:
            kinds[0] = DimDynamic.DUCK  # all that have one size now have the same later
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
        return mode.from_tensor(tensor, symbolic_context=context, source=constant_source(f"tensor_{place}"))

    return mode, [stand_in(place, tensor) for place, tensor in enumerate(tensors)]
