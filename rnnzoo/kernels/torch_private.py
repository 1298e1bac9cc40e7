"""What is taken from the private parts of torch, which may change in any release."""

from __future__ import annotations

import warnings
from typing import Any


def compile_code(code: str) -> Any:
    """Compile code in C++, or find it on the disk; return the library."""
    from torch._inductor.codecache import CppCodeCache

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return CppCodeCache.load(code, needs_vec_isa=False)  # torch's own vectors are not tried out: it takes 8 s
        except TypeError:  # an older torch
            return CppCodeCache.load(code)
