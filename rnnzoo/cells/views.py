"""Views: another object with the same parts, of which some are replaced."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

ModuleT = TypeVar("ModuleT", bound=nn.Module)

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
