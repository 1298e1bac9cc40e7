"""What this processor and the programs on this machine can do."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import torch

from rnnzoo.kernels import torch_private

PROCESSORS = ("AVX2", "AVX512")  # that have small products, as torch names them
COMPILERS = ("c++", "g++", "clang++", "cl")


@cache
def has_compiler() -> bool:
    """Return whether there is a C++ compiler, looked for once."""
    return "CXX" in os.environ or any(map(shutil.which, COMPILERS))


@cache
def mkl_is_slow() -> bool:
    """Return whether the processor is one of AMD's with AVX-512, which MKL does not use there.

    With AVX2 alone MKL is as fast on AMD's (Zen 3, 4,096 rows of 512 by 2,048: 138 GFLOP/s, oneDNN 104).
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return False


def has_amx() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 as a whole."""
    return torch_private.supports("torch.cpu._is_amx_tile_supported")


def has_fast_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 by instructions of its own."""
    return has_amx() or torch_private.supports("torch.cpu._is_avx512_bf16_supported")
