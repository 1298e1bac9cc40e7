"""Views of a cell, in which some of its parts are replaced, and what tells two cells apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

ModuleT = TypeVar("ModuleT", bound=nn.Module)

MODULE_OWN = frozenset(vars(nn.Module())) - {"training"}  # parameters, buffers, hooks: looked at apart, or never
SOURCES = ("mask", "u", "v")  # the buffers NAME_mask, ... from which `torch.nn.utils` computes the weight NAME


def view_of(module: ModuleT) -> ModuleT:
    """Return another object with all that a module has, of which one attribute or the other may then be changed.

    `copy.copy` would do, but modules with parametrized weights refuse it.
    """
    view = module.__class__.__new__(module.__class__)
    view.__dict__.update(module.__dict__)
    return view


def with_computed_weights(module: ModuleT) -> ModuleT:
    """Return a module among whose parameters are all of its weights, those too that are computed from others.

    These are the tensors that forward pre-hooks set (`torch.nn.utils.prune`, `weight_norm`, `spectral_norm`) and the
    weights of `torch.nn.utils.parametrize`, each computed once. Gradients go on to what they are computed from.

    Returns:
        The module itself where no weight is computed, else a view, for one forward pass: it holds tensors of the graph.
    """
    if not module._forward_pre_hooks and not module._modules:
        return module
    parametrized = module._modules.get("parametrizations")
    children = {
        name: None if child is None else with_computed_weights(child)
        for name, child in module._modules.items()
        if child is not parametrized
    }
    computed = {}
    if isinstance(parametrized, nn.ModuleDict):
        computed = {name: getattr(module, name) for name in parametrized if name not in vars(module)}
    if module._forward_pre_hooks:
        held = ((name, value) for name, value in vars(module).items() if isinstance(value, Tensor))
        computed |= {name: value for name, value in held if value.is_floating_point()}
    if not computed and all(child is module._modules[name] for name, child in children.items()):
        return module
    view = view_of(module)
    if parametrized is not None:
        view.__class__ = type_before_parametrizations(module)
    sources = {f"{name}_{source}" for name in computed for source in SOURCES}
    for name in computed:
        view.__dict__.pop(name, None)
    view._parameters = {**module._parameters, **computed}
    view._buffers = {name: value for name, value in module._buffers.items() if name not in sources}
    view._modules = children
    return view


def with_parameters(cell: Any, values: dict[str, Tensor]) -> Any:
    """Return a view of `cell` in which the parameters of the given (dotted) names are other tensors."""
    if not values:
        return cell
    view = view_of(cell)
    own = {name: value for name, value in values.items() if "." not in name}
    view._parameters = {name: value for name, value in cell._parameters.items() if name not in own}
    view._modules = dict(cell._modules)
    for name, value in own.items():
        object.__setattr__(view, name, value)
    for child in {name.partition(".")[0] for name in values if name not in own}:
        start = f"{child}."
        inner = {name[len(start) :]: value for name, value in values.items() if name.startswith(start)}
        view._modules[child] = with_parameters(cell._modules[child], inner)
    return view


def with_cloned_parameters(cell: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a view of a cell with copies of its parameters, and these by name: frozen ones want gradients too.

    What was made in inference mode cannot be differentiated; its copies can.
    """
    leaves = {name: value.detach().clone().requires_grad_() for name, value in cell.named_parameters()}
    buffers = {name: value.clone() for name, value in cell.named_buffers() if value.is_inference()}
    return with_parameters(cell, {**leaves, **buffers}), leaves


@contextmanager
def without_saved_tensor_hooks() -> Iterator[None]:
    """Differentiate by the way: whoever counts the tensors that are saved around here does not see it.

    Checkpointing does, and finds other ones when it runs the same again, for a cell is examined once.
    """
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda value: value, lambda value: value)
    with torch.inference_mode(False), torch.enable_grad(), hooks:  # inference mode would find no gradient, for good
        yield


def signature(cell: nn.Module) -> tuple[Any, ...]:
    """Return what tells two cells apart whose steps are different programs; equal ones may share compiled code.

    Parameters count by name and shape, buffers and other tensors by what they are, for compiled code holds them, and
    all other attributes by value.
    """
    plain = tuple((name, frozen(value)) for name, value in vars(cell).items() if name not in MODULE_OWN)
    shapes = tuple((name, tuple(value.shape)) for name, value in cell._parameters.items() if value is not None)
    buffers = tuple((name, frozen(value)) for name, value in cell._buffers.items())
    inner = tuple((name, signature(child)) for name, child in cell._modules.items() if child is not None)
    return (type(cell), plain, shapes, buffers, inner)


class Same:
    """Something that equals itself alone, for keys; it lives as long as the key does.

    Args:
        value: anything.
    """

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def frozen(value: Any) -> Any:
    """Return an attribute as a part of a key: containers by what is in them, what cannot be hashed by what it is."""
    if isinstance(value, list | tuple):
        return (type(value), tuple(map(frozen, value)))
    if isinstance(value, dict):
        return (type(value), tuple((frozen(key), frozen(inner)) for key, inner in value.items()))
    if isinstance(value, Tensor):  # compiled code reads it where it is, as it lay there
        return (Same(value), value.shape, value.stride(), value.dtype)
    if isinstance(value, float):  # as a key 0.0 is -0.0
        return (float, value.hex())
    try:
        hash(value)
    except TypeError:
        return frozenset(map(frozen, value)) if isinstance(value, set) else Same(value)
    return (type(value), value)
