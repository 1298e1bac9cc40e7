"""What a frozen image encoder makes of all images of a split, computed once and kept in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from rnnzoo.files import atomic_file
from rnnzoo.terminal import echo


class TooLargeError(ValueError):
    """A feature does not fit into float16."""


Encode = Callable[[Tensor], Tensor]  # images [B, 3, Y, X] → features [B, L, D]


class Features:
    """The features [N, L, D] of N images in an ``.npy`` file, mapped into memory by each process that reads them.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: np.ndarray | None = None

    def __getitem__(self, place: int) -> np.ndarray:
        """Return the features [L, D] of an image, as they are stored."""
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r")
        return self._array[place]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_array": None}  # a process that is started anew opens the file itself


def feature_file(key: str) -> Path:
    """Return where features are kept: under the cache of `datasets`."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "rnnzoo_features" / f"{key}.npy"


def compute_features(
    path: Path, batches: Iterable[Tensor], encode: Encode, *, count: int, what: str, dtype: Any = np.float16
) -> None:
    """Write the features of all images to `path`, whole or not at all.

    They are stored as float16, or as float32 if one is too large for that.

    Args:
        path: the file.
        batches: of images [B, 3, Y, X], each image once, in order.
        encode: images → features [B, L, D].
        count: N, the number of images.
        what: what the progress line calls the images.
        dtype: what to try.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done, shape = 0, None
    echo(f"encoding {count:,} {what} once; the features are kept in {path.parent}", file=sys.stderr)
    try:
        with atomic_file(path) as file:
            for images in batches:
                with torch.inference_mode():
                    features = encode(images).float().cpu().numpy()  # [B, L, D]
                if dtype is np.float16 and np.abs(features).max(initial=0) > np.finfo(np.float16).max:
                    raise TooLargeError
                if shape is None:
                    shape = (count, *features.shape[1:])
                    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(features, dtype=dtype).data)
                done += len(features)
                show_progress(done, count)
            assert done == count
    except TooLargeError:
        compute_features(path, batches, encode, count=count, what=what, dtype=np.float32)


def show_progress(done: int, count: int) -> None:
    """Show how far the encoding is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {count:,} images", end="\n" if done == count else "", file=sys.stderr, flush=True)
