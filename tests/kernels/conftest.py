"""What the tests of kernels in C++ need."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.kernels.compile import cache
from rnnzoo.kernels.processor import PROCESSORS
from rnnzoo.kernels.products import panels


@pytest.fixture
def library_in_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the library in C++. Only a machine that cannot run it at all skips; where it should load, it must."""
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    if not cache.has_compiler():
        pytest.skip("needs a C++ compiler")
    if not torch.backends.cpu.get_cpu_capability().startswith(PROCESSORS):
        pytest.skip("needs a processor with AVX2 or AVX-512")
    panels.load()
    assert panels.library() is not None, "there are a compiler and a capable processor, but no library"
