"""Weights in a safetensors file: what it holds is known from its header, before any of it is read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from rnnzoo.errors import InputError
from rnnzoo.limits import check_limit

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}
COPY = "copy the folder again"
LENGTH_BYTES = 8  # of the number that a file begins with: the length of its header
SPARE_TENSORS, SPARE_NUMBERS = 100, 10**6  # that a model may make while it is built, beyond twice those of the file


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file without their numbers: name → tensor on the device ``meta``.

    Raises:
        InputError: if it is no such file, is cut short, or is larger than the limits.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > size - LENGTH_BYTES:
            raise InputError(
                str(path), expected="safetensors weights", got="a file cut short", fix="copy the folder again"
            )
        check_limit("HEADER_BYTES", str(path), length)
        raw = file.read(length)
    try:
        entries = json.loads(raw)
        entries.pop("__metadata__", None)
        tensors = {name: as_meta(entry) for name, entry in entries.items()}
        end = sum(SIZES[entry["dtype"]] * prod(entry["shape"]) for entry in entries.values())
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError, OverflowError) as error:
        got = f"a header that is none ({type(error).__name__})"
        raise InputError(str(path), expected="safetensors weights", got=got, fix=COPY) from error
    check_limit("PARAMETERS", str(path), sum(tensor.numel() for tensor in tensors.values()))
    if end != size - LENGTH_BYTES - length:
        expected = f"{end:,} bytes of weights, as its header says"
        raise InputError(str(path), expected=expected, got=f"{size - LENGTH_BYTES - length:,}", fix=COPY)
    return tensors


def as_meta(entry: Mapping[str, Any]) -> Tensor:
    """Return a tensor without numbers for an entry of a header."""
    shape = entry["shape"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape of whole numbers is expected")
    return torch.empty(shape, dtype=TYPES[entry["dtype"]], device="meta")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises:
        InputError: if it is damaged, or a tensor holds NaN or an infinity: no answer comes from such weights.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(str(path), expected="safetensors weights", got=str(error).splitlines()[-1]) from error
    check_finite(path, tensors)
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights from which no answer comes.

    Raises:
        InputError: naming the file and the first tensor that holds NaN or an infinity.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "an infinity"
            raise InputError(
                f"{path}, {name}", expected="finite numbers", got=kind, fix="train again from a checkpoint"
            )


def check_tensors(path: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], of: str) -> None:
    """Refuse weights whose names, shapes or kinds of numbers are not those of a model.

    Args:
        path: the file, for messages.
        wanted: the tensors of the model.
        given: those of the file.
        of: the class of the model, for messages.

    Raises:
        InputError: for the first tensor that differs.
    """
    for name in sorted({*wanted, *given}):
        sides = [f"{kind(side[name])} {list(side[name].shape)}" if name in side else "none" for side in (wanted, given)]
        if sides[0] != sides[1]:
            raise InputError(
                f"{path}, {name}",
                expected=f"the weights of this {of}: {sides[0]}",
                got=sides[1],
                fix="put the files together that were saved together",
            )


def kind(tensor: Tensor) -> str:
    """Return what sort of numbers a tensor holds: those of another precision are taken, those of another sort not."""
    return "real numbers" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


@contextmanager
def no_larger_than(given: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Stop the building of a model, in this thread, as soon as it is far larger than the weights that are there for it.

    Args:
        given: the weights.
        where: for messages.

    Raises:
        InputError: if it is.
    """
    numbers = sum(tensor.numel() for tensor in given.values())
    most_tensors, most_numbers = 2 * len(given) + SPARE_TENSORS, 2 * numbers + SPARE_NUMBERS
    counted, thread = [0, 0], threading.get_ident()

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        if parameter is None or threading.get_ident() != thread or nn.parameter.is_lazy(parameter):
            return
        counted[0] += 1
        counted[1] += parameter.numel()
        if counted[0] > most_tensors or counted[1] > most_numbers:
            raise InputError(
                where,
                expected=f"a model of the size of its weights: {len(given)} tensors, {numbers:,} numbers",
                got=f"one of more than {counted[0] - 1:,} tensors, {counted[1] - parameter.numel():,} numbers",
                fix="put the files together that were saved together",
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
