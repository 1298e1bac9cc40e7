"""Evaluation mode for what people ask of a model, and the mode that was there before afterwards."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import nn

Method = TypeVar("Method", bound=Callable[..., Any])


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Hold modules in evaluation mode; afterwards each of their parts is in the mode that it was in."""
    before = [part for module in modules for part in module.modules() if part.training]
    for part in before:
        part.training = False
    try:
        yield
    finally:
        for part in before:
            part.training = True


def evaluated(*, without_gradient: Callable[[], AbstractContextManager] = torch.inference_mode) -> Callable:
    """Return a decorator for methods of a model that compute for people, not for a training.

    They run in evaluation mode and without gradients. Whenever the caller has control, be it after an error or between
    the items of a generator, the modes are those that it set.

    Args:
        without_gradient: `torch.no_grad` for methods that return tensors, which the caller may then change and train
            with as usual.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with evaluating(self), without_gradient():
                return method(self, *args, **kwargs)

        @functools.wraps(method)
        def generate(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
            items = method(self, *args, **kwargs)
            while True:
                with evaluating(self), without_gradient():
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item

        return cast(Method, generate if inspect.isgeneratorfunction(method) else call)

    return decorate
