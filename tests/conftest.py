"""Settings for all tests: a Hugging Face cache of their own, no network, one thread; and helpers for files."""

from __future__ import annotations

import atexit
import gzip
import lzma
import os
import shutil
import tempfile

import pytest
import torch

HOME = tempfile.mkdtemp(prefix="rnnzoo-tests-")  # before anything imports `datasets`, which reads these on import
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["HF_HOME"] = HOME
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
    os.environ.pop(_name, None)
torch.set_num_threads(1)
os.environ["RNNZOO_COMPILE"] = "0"  # compiling takes seconds; what is compiled has its own tests

COMPRESS = {".gz": gzip.compress, ".xz": lzma.compress}


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes files, name → text or bytes, and returns their folder as a string.

    Text is compressed where the name ends in .gz or .xz; bytes are written as they are.
    """

    def write(files, inside="."):
        place = tmp_path / inside
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = place / name
            raw = content if isinstance(content, bytes) else content.encode()
            compress = COMPRESS.get(path.suffix)
            path.write_bytes(compress(raw) if compress and isinstance(content, str) else raw)
        return str(place)

    return write
