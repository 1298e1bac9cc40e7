"""From whatever an image is given as to pixels: files, members of an archive, bytes, arrays.

A reference is a path, or ``zip://MEMBER::ARCHIVE`` for a file in a zip or an array in an ``.npz``; nothing is ever
unpacked. Greyscale, palette, alpha (over white), CMYK and 16-bit images become RGB; photos are turned upright by
their EXIF orientation; of an animation the first frame is read.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rnnzoo.documents import read_json
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.limits import check_limit, limit, over_limit

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # what Pillow may decode
ARRAY_SUFFIXES = (".npy", ".npz")
RESIZES = ("crop", "squash")
PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class ImageOptions:
    """What becomes of the pixels p of an image: x = (p · scale - mean) / deviation, on a square.

    Args:
        size: pixels on a side.
        resize: ``crop`` scales the shorter side to `size` and cuts off what is over on both ends of the other;
            ``squash`` scales both sides to `size`.
        resample: number of Pillow's filter: 2 bilinear, 3 bicubic.
        scale: what the values 0 … 255 are multiplied with.
        mean: of each channel.
        deviation: of each channel.

    Raises:
        InputError: for values that cannot be used.
    """

    size: int
    resize: str = "crop"
    resample: int = 2
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError("data.image_size", expected="at least 1", got=str(self.size))
        check_limit("IMAGE_SIZE", "data.image_size", self.size)
        if self.resize not in RESIZES:
            raise unknown_name("data.resize", self.resize, RESIZES)
        for name in ("mean", "deviation"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or (name == "deviation" and min(values) <= 0):
                raise InputError(f"{name} of images", expected="3 numbers, deviations above 0", got=str(values))
            object.__setattr__(self, name, values)


def read_preprocessor(name: str) -> dict[str, Any]:
    """Return the image options, ``size`` included if it is told, that a pretrained vision model was trained with.

    Args:
        name: a folder with a ``preprocessor_config.json``, or the id of a model of the Hugging Face Hub.

    Raises:
        InputError: if there is none.
    """
    path = Path(name) / PREPROCESSOR
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(name, PREPROCESSOR))
        except Exception as error:  # the Hub client raises many kinds, all with the reason in the first line
            raise InputError(
                f"data.preprocessor {name}",
                expected=f"a folder, or a model of the Hugging Face Hub, with {PREPROCESSOR}",
                got=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
            ) from error
    if not path.is_file():
        raise InputError(str(path), expected="JSON of a vision model", got="nothing")
    values = read_json(path, size="CONFIG_BYTES", values="CONFIG_VALUES")
    if not isinstance(values, dict):
        raise InputError(str(path), expected="JSON of a vision model", got=type(values).__name__)
    found: dict[str, Any] = {}
    for key, ours in (("image_mean", "mean"), ("image_std", "deviation"), ("rescale_factor", "scale")):
        if values.get(key) is not None:
            found[ours] = values[key]
    if values.get("do_rescale") is False:
        found["scale"] = 1.0
    if values.get("do_normalize") is False:
        found["mean"], found["deviation"] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values.get("resample") in (2, 3):
        found["resample"] = values["resample"]
    for size in (values.get("crop_size"), values.get("size")):
        side = size if isinstance(size, int) else (size or {}).get("height") or (size or {}).get("shortest_edge")
        if side:
            found["size"] = int(side)
            break
    return found


def read_image(value: Any, where: str) -> Image.Image:
    """Return an image as RGB, upright.

    Args:
        value: a reference, bytes of a file, ``{"bytes": ..., "path": ...}``, an array [Y, X], [Y, X, 1], [Y, X, 3] or
            [Y, X, 4] of 0 … 255, or a Pillow image.
        where: what messages call it if it has no name of its own.

    Raises:
        InputError: if it cannot be read as an image, naming the file.
    """
    if isinstance(value, Image.Image):
        return as_rgb(value, where)
    if isinstance(value, np.ndarray | list | tuple):
        return as_rgb(image_of_array(value, where), where)
    raw, where = read_bytes(value, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata: what counts is whether the pixels can be had
            opened = open_image(raw, where)
            opened.load()
    except InputError:
        raise
    except UnidentifiedImageError as error:
        got = "an empty file" if not raw else f"{len(raw):,} bytes of no known image format"
        raise InputError(where, expected="an image", got=got) from error
    except Exception as error:  # decoders raise many kinds
        raise InputError(
            where, expected="a whole image", got=f"a broken one ({error})", fix="repair or remove the file"
        ) from error
    return as_rgb(opened, where)


def open_image(raw: bytes, where: str) -> Image.Image:
    """Open an image of one of `IMAGE_FORMATS`, without its pixels; a huge JPEG is set to be decoded at a lower scale.

    Pillow knows more formats, some of which start other programs.

    Raises:
        InputError: if it has more pixels than the limit.
        UnidentifiedImageError: if it is of no such format.
    """
    most = limit("PIXELS")
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most  # Pillow's own limit
    try:
        opened = Image.open(io.BytesIO(raw), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise over_limit("PIXELS", where, "more") from error
    share = most / max(1, opened.width * opened.height)
    if share < 1 and opened.format in ("JPEG", "MPO") and not opened.info.get("progressive"):
        opened.draft("RGB", (int(opened.width * share**0.5 / 2), int(opened.height * share**0.5 / 2)))
    check_limit("PIXELS", where, opened.width * opened.height)
    return opened


def as_rgb(image: Image.Image, where: str) -> Image.Image:
    """Return an image of any mode as RGB, turned upright."""
    with (
        contextlib.suppress(Exception),
        warnings.catch_warnings(),
    ):  # broken EXIF data say nothing; the pixels are still good
        warnings.simplefilter("ignore")
        image = ImageOps.exif_transpose(image) or image
    if image.mode == "F":
        raise InputError(where, expected="an image of 8 or 16 bits a channel", got="one of real numbers")
    if image.mode.startswith("I"):  # 16 bits a channel; Pillow would cut off all above 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def image_of_array(value: Any, where: str) -> Image.Image:
    """Return an array of 0 … 255 as a Pillow image."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(where, expected="an image as an array", got=str(error)) from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not fits or array.size == 0 or array.dtype.kind not in "ui" or array.min() < 0 or array.max() > 255:
        raise InputError(
            where,
            expected="an array [Y, X] or [Y, X, 3] of whole numbers from 0 to 255",
            got=f"shape {list(array.shape)} of {array.dtype}",
        )
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))


def fit_image(image: Image.Image, options: ImageOptions) -> np.ndarray:
    """Return an RGB image on the square of a model, as [size, size, 3] of 0 … 255."""
    square, method = (options.size, options.size), Image.Resampling(options.resample)
    if image.size != square:
        image = ImageOps.fit(image, square, method) if options.resize == "crop" else image.resize(square, method)
    return np.asarray(image)


def read_regions(value: Any, where: str) -> np.ndarray:
    """Return the features [L, D] of the regions of one image as float32.

    Args:
        value: a reference to an ``.npy`` file, or to an ``.npz`` file with one array; or the numbers themselves.
        where: what messages call it if it has no name of its own.

    Raises:
        InputError: if it is no table of at least one row of finite numbers, naming the file.
    """
    if isinstance(value, str | Path | bytes):
        raw, where = read_bytes(value, where)
        try:
            check_members(raw, where)
            loaded = np.load(io.BytesIO(raw), allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                loaded = loaded[loaded.files[0]]
        except InputError:
            raise
        except Exception as error:  # broken files raise many kinds
            raise InputError(where, expected="an array as NumPy saves it", got=str(error)) from error
    else:
        loaded = value
    try:
        regions = np.asarray(loaded, dtype=np.float32)
    except ValueError as error:
        raise InputError(where, expected="a table of numbers", got=str(error)) from error
    if regions.ndim == 3:  # a grid [Y, X, D]
        regions = regions.reshape(-1, regions.shape[2])
    if regions.ndim != 2 or not regions.size or not np.isfinite(regions).all():
        raise InputError(
            where, expected="an array [L, D] of finite numbers, one row a region", got=f"shape {list(regions.shape)}"
        )
    return regions


def check_members(raw: bytes, where: str) -> None:
    """Refuse an ``.npz`` whose arrays are larger than the limit."""
    if raw.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for member in archive.infolist():
                check_limit("FILE_BYTES", f"{where}, {member.filename}", member.file_size)


def read_bytes(value: Any, where: str) -> tuple[bytes, str]:
    """Return the bytes behind a reference, and what messages call it."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return value["bytes"], f"{where} ({value['path']})" if value.get("path") else where
    if isinstance(value, Mapping):
        value = value.get("path")
    if isinstance(value, bytes):
        return value, where
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(where, expected="an image: a path, bytes or an array", got=repr(value)[:80])
    member, found, archive = str(value).partition("::")
    try:
        if not (found and member.startswith("zip://")):
            check_limit("FILE_BYTES", str(value), os.stat(value).st_size)
            return Path(value).read_bytes(), str(value)
        name = member[len("zip://") :]
        where = f"{archive}, {name}"
        opened = open_archive(archive, os.stat(archive).st_mtime_ns, os.getpid())
        check_limit("FILE_BYTES", where, opened.getinfo(name).file_size)
        return opened.read(name), where
    except InputError:
        raise
    except KeyError as error:
        raise InputError(where, expected="a file of the archive", got="nothing") from error
    except FileNotFoundError as error:
        raise InputError(str(value), expected="an image", got="nothing", fix="check the path") from error
    except OSError as error:
        raise InputError(str(value), expected="a file that can be read", got=error.strerror or str(error)) from error
    except ValueError as error:  # a null character, or half of one
        raise InputError(where, expected="the path of an image", got=ascii(value)[:80]) from error
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(where, expected="a file that can be read", got=str(error)) from error


@lru_cache(maxsize=8)
def open_archive(path: str, changed: int, process: int) -> zipfile.ZipFile:
    """Open a zip once for each process: forked processes would share, and move, one place of reading."""
    return zipfile.ZipFile(path)


def reference(archive: str | Path, member: str) -> str:
    """Return the reference to a file in an archive.

    >>> reference("photos.zip", "a/1.jpg")
    'zip://a/1.jpg::photos.zip'
    """
    return f"zip://{member}::{archive}"


def as_json(options: ImageOptions) -> dict[str, Any]:
    """Return options as JSON values."""
    plain: dict[str, Any] = {name: getattr(options, name) for name in ImageOptions.__dataclass_fields__}
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in plain.items()
    }
