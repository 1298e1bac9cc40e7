"""The linear recurrence h[t] = a[t] ⊙ h[t-1] + b[t] over all steps, and its adjoint.

    g_b[t] = g_h[t] + ā[t+1] ⊙ g_b[t+1]    g_a[t] = g_b[t] ⊙ h̄[t-1]

(the bar is the complex conjugate), which is a linear recurrence too, run backwards. On CPU it is a loop over the
steps, in C++ once it has been asked for often enough; on GPUs `triton_kernels`; where neither is at hand,
and for complex numbers, `in_blocks`, which does many steps at a time.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.kernels.compile.cpp_math import VECTORS
from rnnzoo.kernels.settings import COMPILE_AFTER, may_compile, on_first_use
from rnnzoo.kernels.torch_private import compile_code

SMALLEST = 2**16  # numbers, B · T · N, below which the plain loop is good enough
TYPES = {torch.float32: "float", torch.float64: "double"}
# One thread takes a row of units, or a part of it, through all steps; its state stays in registers and cache.
FORWARD = """
#include <algorithm>
#include <cstdint>
extern "C" void kernel(const NUMBER* a, const NUMBER* b, const NUMBER* first, NUMBER* h,
                       int64_t rows, int64_t steps, int64_t size, int64_t width, int64_t threads) {
    const int64_t parts = (size + width - 1) / width;
    #pragma omp parallel for num_threads(threads)
    for (int64_t place = 0; place < rows * parts; place++) {
        const int64_t row = place / parts, start = place % parts * width, count = std::min(width, size - start);
        const NUMBER* before = first + row * size + start;
        for (int64_t t = 0; t < steps; t++) {
            const int64_t at = (row * steps + t) * size + start;
            #pragma omp simd
            for (int64_t i = 0; i < count; i++) h[at + i] = a[at + i] * before[i] + b[at + i];
            before = h + at;
        }
    }
}
"""
BACKWARD = """
#include <algorithm>
#include <cstdint>
extern "C" void kernel(const NUMBER* a, const NUMBER* h, const NUMBER* first, const NUMBER* g_h,
                       NUMBER* g_a, NUMBER* g_b, NUMBER* g_first, int64_t rows, int64_t steps, int64_t size,
                       int64_t width, int64_t threads) {
    const int64_t parts = (size + width - 1) / width;
    #pragma omp parallel for num_threads(threads)
    for (int64_t place = 0; place < rows * parts; place++) {
        const int64_t row = place / parts, start = place % parts * width, count = std::min(width, size - start);
        NUMBER* carried = g_first + row * size + start;
        for (int64_t t = steps - 1; t >= 0; t--) {
            const int64_t at = (row * steps + t) * size + start;
            const NUMBER* before = t ? h + at - size : first + row * size + start;
            #pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                const NUMBER now = g_h[at + i] + carried[i];
                carried[i] = a[at + i] * now;
                g_a[at + i] = now * before[i];
                g_b[at + i] = now;
            }
        }
    }
}
"""

_runs = 0
_kernels: dict[tuple[str, torch.dtype], Any] = {}


def recur(decay: Tensor, addition: Tensor, initial: Tensor) -> None:
    """Write h after each step [B, T, N] in the place of b, for a and b [B, T, N] and the h before them [B, N]."""
    if decay.device.type != "cpu":
        kernels = on_gpu(decay)
        if kernels is not None:
            kernels.forward(decay, addition, initial.contiguous())
        else:
            addition.copy_(in_blocks(decay, addition, initial))
        return
    kernel = compiled("forward", FORWARD, decay)
    if kernel is not None:
        kernel(decay, addition, initial.contiguous(), addition, *sizes(decay))
        return
    for a, h in zip(decay.unbind(1), addition.unbind(1), strict=True):
        initial = torch.addcmul(h, a, initial, out=h)


def recur_back(
    decay: Tensor,
    hidden: Tensor,
    initial: Tensor,
    hidden_grad: Tensor,
    carried: Tensor,
    decay_grad: Tensor,
    addition_grad: Tensor,
) -> None:
    """Write the gradients of a, b [B, T, N] and the first h [B, N].

    Args:
        decay: a [B, T, N].
        hidden: h after each step, [B, T, N].
        initial: h before the first step, [B, N].
        hidden_grad: gradient of h after each step, from all but the step that follows.
        carried: further gradient of the last h, [B, N]; becomes that of the first.
        decay_grad: room for that of a, [B, T, N].
        addition_grad: room for that of b.
    """
    hidden_grad = hidden_grad.to(decay.dtype)
    if decay.device.type != "cpu":
        kernels = on_gpu(decay)
        if kernels is not None:
            initial, hidden_grad = initial.contiguous(), hidden_grad.contiguous()
            kernels.backward(decay, hidden, initial, hidden_grad, carried, decay_grad, addition_grad)
            return
        found = back_in_blocks(decay, hidden, initial, hidden_grad, carried)
        for buffer, value in zip((decay_grad, addition_grad, carried), found, strict=True):
            buffer.copy_(value)
        return
    kernel = compiled("backward", BACKWARD, decay)
    if kernel is not None:
        initial, hidden_grad = initial.contiguous(), hidden_grad.contiguous()
        kernel(decay, hidden, initial, hidden_grad, decay_grad, addition_grad, carried, *sizes(decay))
        return
    decay, hidden, initial = (each.conj().resolve_conj() for each in (decay, hidden, initial))
    befores = [initial, *hidden.unbind(1)[:-1]]
    lists = (decay.unbind(1), befores, hidden_grad.unbind(1), addition_grad.unbind(1), decay_grad.unbind(1))
    left = carried
    for a, before, g_h, g_b, g_a in reversed(list(zip(*lists, strict=True))):
        torch.add(g_h, left, out=g_b)
        torch.mul(g_b, before, out=g_a)
        left = a * g_b
    carried.copy_(left)


def in_blocks(decay: Tensor, addition: Tensor, initial: Tensor) -> Tensor:
    """Return h after each step as `recur` does, in some 2 √T operations on large tensors.

    All blocks of √T steps are run side by side from a state of zero; then the state runs from block to block.
    """
    batch_size, steps, size = addition.shape
    length = math.isqrt(max(0, steps - 1)) + 1
    blocks = -(-steps // length)
    padding = (0, 0, 0, blocks * length - steps)
    shape = (batch_size, blocks, length, size)
    decays, additions = (F.pad(each, padding).reshape(shape) for each in (decay, addition))
    sums, products = [additions[:, :, 0]], [decays[:, :, 0]]  # [B, K, N]: h from zero, and what is left of the first h
    for t in range(1, length):
        sums.append(torch.addcmul(additions[:, :, t], decays[:, :, t], sums[-1]))
        products.append(decays[:, :, t] * products[-1])
    firsts = [initial.to(addition.dtype)]  # [B, N], before each block
    for block in range(blocks - 1):
        firsts.append(torch.addcmul(sums[-1][:, block], products[-1][:, block], firsts[-1]))
    first = torch.stack(firsts, 1).unsqueeze(2)  # [B, K, 1, N]
    hidden = torch.addcmul(torch.stack(sums, 2), torch.stack(products, 2), first)  # [B, K, C, N]
    return hidden.flatten(1, 2)[:, :steps].contiguous()


def back_in_blocks(
    decay: Tensor, hidden: Tensor, initial: Tensor, hidden_grad: Tensor, carried: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients as `recur_back` does, by `in_blocks` from the last step to the first."""
    mirrored = decay.conj().resolve_conj().flip(1)  # a[T-1] ... a[0]
    shifted = torch.cat([torch.ones_like(mirrored[:, :1]), mirrored[:, :-1]], 1)
    grad = in_blocks(shifted, hidden_grad.flip(1), carried).flip(1)  # g_b
    before = torch.cat([initial.to(hidden.dtype).unsqueeze(1), hidden[:, :-1]], 1)
    return grad * before.conj(), grad, mirrored[:, -1] * grad[:, 0]


def sizes(values: Tensor) -> tuple[int, ...]:
    """Return the last arguments of the kernels for tensors [B, T, N]: sizes, units of a part, threads."""
    batch_size, steps, size = values.shape
    threads = torch.get_num_threads()
    parts = -(-threads // batch_size)  # so many that every thread has one
    width = max(16, -(-size // parts))
    return batch_size, steps, size, min(width, 256), threads


def on_gpu(like: Tensor) -> Any:
    """Return `rnnzoo.backends.scan.triton_kernels`, or None where it cannot run tensors like this one."""
    usable = like.is_cuda and like.dtype in TYPES and may_compile()
    return triton_scan(like.device, like.dtype) if usable else None


@cache
def triton_scan(device: torch.device, dtype: torch.dtype) -> Any:
    """Import the kernels in Triton; return None where there is no Triton, or it does not give the right numbers."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        kernels = importlib.import_module("rnnzoo.backends.scan.triton_kernels")
        decay, addition, grad = (torch.linspace(-1, 1, 160, device=device, dtype=dtype) + place for place in range(3))
        decay, addition, grad = (each.reshape(1, 10, 16).sin() for each in (decay, addition, grad))
        initial, carried, buffers = decay[:, 0].exp(), decay[:, 1].clone(), [torch.empty_like(decay) for _ in range(2)]
        hidden = in_blocks(decay, addition, initial)
        expected = (hidden, *back_in_blocks(decay, hidden, initial, grad, carried))
        kernels.forward(decay, addition, initial)
        kernels.backward(decay, hidden, initial, grad, carried, *buffers)
        for ours, theirs in zip((addition, *buffers, carried), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    except Exception as error:  # a compiler may fail in any way, and none is needed
        lines = str(error).strip().splitlines()
        warnings.warn(
            f"rnnzoo: no scan in Triton ({type(error).__name__}: {lines[0] if lines else ''}); "
            "plain torch runs instead, with the same numbers but slower",
            stacklevel=2,
        )
        return None
    return kernels


def has_kernel(like: Tensor) -> bool:
    """Return whether tensors like this one already go through the kernels in C++, for which short runs are as good."""
    if like.device.type != "cpu":
        return False
    if on_first_use(like.device):  # asked for now, for parts of another size would add up in another order
        return all([compiled("forward", FORWARD, like), compiled("backward", BACKWARD, like)])
    return all(_kernels.get((name, like.dtype)) for name in ("forward", "backward"))


def compiled(name: str, source: str, like: Tensor) -> Any:
    """Return the kernel in C++ for tensors like this one, or None if there is none, or it is not worth it yet."""
    global _runs
    if not may_compile() or like.dtype not in TYPES:
        return None
    key = (name, like.dtype)
    if key not in _kernels:
        now = on_first_use(like.device)
        if not now and like.numel() < SMALLEST:
            return None
        _runs += 1
        if not now and _runs < COMPILE_AFTER:
            return None
        _kernels[key] = load(VECTORS + source.replace("NUMBER", TYPES[like.dtype]))
    return _kernels[key]


def load(source: str) -> Any:
    """Compile a kernel, of tensors and numbers; return None if that cannot be done."""
    try:
        kernel = compile_code(source).kernel
    except Exception:  # a compiler may fail in any way, and none is needed: the plain loop has the same numbers
        return None

    def call(*arguments: Tensor | int) -> None:
        pointers = [ctypes.c_void_p(each.data_ptr()) for each in arguments if isinstance(each, Tensor)]
        kernel(*pointers, *(ctypes.c_int64(each) for each in arguments if isinstance(each, int)))

    return call
