"""Methods of a module besides `forward` that compute with its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def as_call(
    method: Callable[Concatenate[ModuleT, Arguments], Result],
) -> Callable[Concatenate[ModuleT, Arguments], Result]:
    """Make a method a call of its module, so that hooks act: weights that pre-hooks compute (pruned ones) are there.

    The module's `forward` takes the method as ``method``, and calls it with the module and all other arguments.
    """

    @wraps(method)
    def call(module: ModuleT, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        result: Result = module(*arguments, method=method, **options)
        return result

    return call


class CalledByMethods(nn.Module):
    """A module that has methods, each `as_call`, and nothing to compute without one."""

    def forward(self, *arguments: Any, method: Callable[..., Any], **options: Any) -> Any:
        """Call one of the methods."""
        return method(self, *arguments, **options)
