"""CUDA graphs: what is launched again and again with the same shapes is recorded once and launched as a whole.

A step of a cell is two kernels of a few microseconds; to launch them one by one takes the processor longer than the
GPU needs to run them. A recorded function reads from tensors of its own, into which the arguments are copied, and its
results are copied out, so that nobody holds memory that the next call writes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from rnnzoo.kernels import torch_private
from rnnzoo.kernels.settings import always_on_first_use, compiling_now, may_compile

Function = Callable[..., Sequence[Tensor]]

SHARE = 1 / 16  # of a GPU's memory that recorded calls may hold
RECORD_AFTER = 10  # calls with the same shapes
UNUSED_CALLS_BEFORE_EVICTION = 1000  # calls after which one that was not used meanwhile makes room for another

_seen: Counter[Any] = Counter()
_graphs: dict[Any, Recorded] = {}
_failures: list[str] = []
_calls = 0
_lock = RLock()


@dataclass
class Recorded:
    """A recorded call, with the tensors that it reads and writes, and when it was used last."""

    graph: Any
    given: list[Tensor]
    results: list[Tensor]
    used: int = 0

    def size(self) -> int:
        """Return the bytes of its tensors."""
        return sum(each.nbytes for each in (*self.given, *self.results))


def replay(function: Function, cache_key: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what `function` returns for `tensors`, from its graph if it has come often enough on a GPU.

    Args:
        function: reads its arguments alone, or what `cache_key` tells apart; does nothing that waits for the GPU;
            returns new tensors.
        cache_key: what tells functions apart besides the shapes and types of the arguments.
        tensors: the arguments, in memory of any layout.
    """
    if not tensors or not can_record(tensors[0]):
        return list(function(*tensors))
    with _lock:
        return replay_alone(function, cache_key, tensors)


def replay_alone(function: Function, cache_key: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Do as `replay`, while no other thread writes to the tensors of a recorded call."""
    global _calls
    _calls += 1
    where = stream_of(tensors[0])
    key = (where, cache_key, tuple((each.shape, each.dtype) for each in tensors))
    found = _graphs.get(key)
    if found is None:
        _seen[key] += 1
        if _seen[key] < (2 if always_on_first_use() else RECORD_AFTER):
            return list(function(*tensors))
        if not make_room(tensors[0].device):
            _seen[key] = 0  # it may come again when others are stale
            return list(function(*tensors))
        found = record(function, tensors, where)
        if found is None:
            _seen[key] = 0
            return list(function(*tensors))
        _graphs[key] = found
    found.used = _calls
    copy_all(found.given, tensors)
    found.graph.replay()
    results = [torch.empty_like(each) for each in found.results]
    copy_all(results, found.results)
    return results


def make_room(device: torch.device) -> bool:
    """Drop what is stale if too much memory is held; return whether another call may be recorded.

    What is in use stays: to record the same calls over and over would cost more than to launch them one by one.
    """
    while sum(each.size() for each in _graphs.values()) > SHARE * memory_of(device):
        oldest = min(_graphs, key=lambda key: _graphs[key].used)
        if _calls - _graphs[oldest].used < UNUSED_CALLS_BEFORE_EVICTION:
            return False
        del _graphs[oldest]
    return True


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory of a GPU."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def stream_of(like: Tensor) -> Any:
    """Return what tells apart the places that calls run in: graphs on one stream may share memory."""
    return like.device, torch.cuda.current_stream(like.device)


def can_record(like: Tensor) -> bool:
    """Return whether calls on tensors like this one may be recorded: on GPUs, and not while someone else records."""
    if not like.is_cuda or _failures or not may_compile():
        return False
    return torch.version.hip is None and not torch.cuda.is_current_stream_capturing()


def record(function: Function, tensors: Sequence[Tensor], where: Any) -> Recorded | None:
    """Record one call; return None if that cannot be done, after one warning."""
    # One pool for all: results are copied out before the next graph runs, on the same stream.
    pool = next((each.graph.pool() for key, each in _graphs.items() if key[0] == where), None)
    try:
        with torch.inference_mode(False):  # tensors of inference could not be written to outside of it
            given = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in tensors]
        copy_all(given, tensors)
        with compiling_now(), uncached_autocast():
            function(*given)  # what is set up at the first call is set up now
            with torch.cuda.device(tensors[0].device):
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    results = list(function(*given))
    except torch.OutOfMemoryError:  # the call itself may fit
        return None
    except RuntimeError as error:
        _failures.append(str(error))
        warnings.warn(
            f"rnnzoo: no CUDA graphs ({(str(error).splitlines() or [''])[0]}); "
            "kernels are launched one by one instead, with the same numbers but slower",
            stacklevel=2,
        )
        return None
    return Recorded(graph, given, results)


def uncached_autocast() -> torch.autocast:
    """Return autocast as it is, but casting weights anew: a cast that is kept goes when autocast ends."""
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors of the same shapes, all of one type at once."""
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        ours, theirs = by_type.setdefault(target.dtype, ([], []))
        ours.append(target)
        theirs.append(source)
    with torch.no_grad():
        for ours, theirs in by_type.values():
            copy_many = torch_private.lookup("torch._foreach_copy_")
            if copy_many is None:
                for target, source in zip(ours, theirs, strict=True):
                    target.copy_(source)
            else:
                copy_many(ours, theirs)
