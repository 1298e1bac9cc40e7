"""Every image becomes upright RGB of the right size, whatever it came as; what is no image is named."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rnnzoo.errors import InputError
from rnnzoo.processors.images import (
    ImageOptions,
    fit_image,
    open_archive,
    read_image,
    read_preprocessor,
    read_regions,
    reference,
)

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 0, 0], [255, 255, 255]]], np.uint8)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(value, where="photo"):
    image = read_image(value, where)
    assert image.mode == "RGB"
    return np.asarray(image)


# What an image may be given as


def test_path_bytes_dict_array_list_and_pillow_are_the_same(tmp_path):
    image = Image.fromarray(COLOURS)
    raw = saved(image)
    (tmp_path / "a.png").write_bytes(raw)
    path = str(tmp_path / "a.png")
    for value in (path, tmp_path / "a.png", raw, image, COLOURS, COLOURS.tolist(), {"bytes": raw, "path": None}):
        assert (pixels(value) == COLOURS).all()
    assert (pixels({"bytes": None, "path": path}) == COLOURS).all()


def test_a_member_of_a_zip_is_the_file(tmp_path):
    raw = saved(Image.fromarray(COLOURS))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/a.png", raw)
    assert (pixels(reference(tmp_path / "photos.zip", "in/a.png")) == COLOURS).all()


def test_a_zip_that_is_written_anew_is_read_anew(tmp_path):
    for colour in (10, 200):
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("a.png", saved(Image.new("RGB", (colour, 2), (colour,) * 3)))
        assert pixels(reference(tmp_path / "photos.zip", "a.png")).max() == colour


def write_many(path, count):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
            archive.writestr(f"{number}.png", saved(Image.fromarray(noise)))
    return [reference(path, f"{number}.png") for number in range(count)]


def total(value):
    return int(pixels(value).astype(np.int64).sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_and_forked_processes_read_the_same_zip(tmp_path):
    members = write_many(tmp_path / "many.zip", 40)
    expected = [total(member) for member in members]  # the archive is open in this process from here on
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(total, members * 5)) == expected * 5
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(total, members * 5, chunksize=1) == expected * 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_the_zip_itself(tmp_path):
    path = tmp_path / "many.zip"
    (member,) = write_many(path, 1)
    expected = total(member)
    open_archive(str(path), path.stat().st_mtime_ns, os.getpid()).close()  # what a fork would take over
    with multiprocessing.get_context("fork").Pool(1) as processes:
        assert processes.map(total, [member]) == [expected]


# What becomes of the pixels


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    expected = np.array([[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]])
    assert abs(pixels(grey.convert("RGB").convert(mode)).astype(int) - expected).max() <= 2


def test_greyscale_jpeg_has_three_equal_channels():
    found = pixels(saved(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4), "JPEG"))
    assert found.shape == (8, 8, 3)
    assert (found[..., 0] == found[..., 1]).all()
    assert found.max() > 200


def test_sixteen_bits_are_scaled_and_not_cut_off():
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    assert pixels(saved(image))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    assert pixels(saved(image))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    assert pixels(saved(palette, transparency=1))[0].tolist() == [[0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (4, lambda image: image[::-1]),
        (5, lambda image: image.transpose(1, 0, 2)),
        (6, lambda image: np.rot90(image, 3)),
        (7, lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
        (8, lambda image: np.rot90(image, 1)),
    ],
)
def test_photos_stand_upright(orientation, turned):
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[0x0112] = orientation
    assert (pixels(saved(image, exif=exif.tobytes())) == turned(COLOURS)).all()


def test_broken_exif_leaves_the_pixels():
    raw = saved(Image.new("RGB", (8, 8), (200, 10, 10)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert abs(pixels(raw).astype(int) - [200, 10, 10]).max() <= 3


def test_crop_keeps_the_middle_and_squash_keeps_all():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    image = Image.fromarray(wide)
    assert fit_image(image, ImageOptions(10)).min() == 255
    squashed = fit_image(image, ImageOptions(12, resize="squash"))
    assert squashed.shape == (12, 12, 3)
    assert squashed[:, 0].max() == 0
    assert squashed[:, 6].min() == 255


def test_an_image_of_the_right_size_is_left_as_it_is():
    assert (fit_image(Image.fromarray(COLOURS[:, :2]), ImageOptions(2)) == COLOURS[:, :2]).all()


# What is no image


@pytest.mark.parametrize("cut", [0, 10, 200, 700])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_files_are_named(tmp_path, kind, cut):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8))
    (tmp_path / "half.img").write_bytes(saved(noise, kind)[:cut])
    with pytest.raises(InputError, match=r"half.img: expected a") as error:
        read_image(tmp_path / "half.img", "sample 3")
    assert "\n" not in str(error.value)
    assert "BytesIO" not in str(error.value)


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a photo")
    with pytest.raises(InputError, match=r"notes.jpg: expected an image, got 11 bytes of no known image format"):
        read_image(str(tmp_path / "notes.jpg"), "x")


def test_a_png_of_absurd_size_is_refused():
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    small = saved(Image.new("RGB", (1, 1)))
    raw = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises(InputError, match="photo: expected at most 50,000,000 pixels"):
        read_image(raw, "photo")


@pytest.mark.parametrize("value", ["nowhere.jpg", "zip://a.png::nowhere.zip", "https://example.org/a.jpg"])
def test_what_is_not_there(value):
    with pytest.raises(InputError, match="expected an image, got nothing"):
        read_image(value, "x")


def test_a_member_that_is_not_there_and_a_zip_that_is_none(tmp_path):
    write_many(tmp_path / "a.zip", 1)
    with pytest.raises(InputError, match=r"a.zip, 7.png: expected a file of the archive"):
        read_image(reference(tmp_path / "a.zip", "7.png"), "x")
    (tmp_path / "b.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"b.zip, 7.png: expected a file that can be read"):
        read_image(reference(tmp_path / "b.zip", "7.png"), "x")


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 2, 3)),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        [[300, 0]],
        [[1], [2, 3]],
        np.zeros(3, np.uint8),
    ],
)
def test_arrays_that_are_no_images(value):
    with pytest.raises(InputError, match=r"^row 4: expected an"):
        read_image(value, "row 4")


@pytest.mark.parametrize("value", [None, 3, "", {"bytes": None, "path": None}])
def test_values_that_are_no_images(value):
    with pytest.raises(InputError, match="row 4: expected an image"):
        read_image(value, "row 4")


# Options


def test_options_are_checked():
    with pytest.raises(InputError, match="image_size"):
        ImageOptions(0)
    with pytest.raises(InputError, match="did you mean 'squash'"):
        ImageOptions(8, resize="squish")
    with pytest.raises(InputError, match="deviation"):
        ImageOptions(8, deviation=(0.0, 1.0, 1.0))


def test_a_preprocessor_is_read(tmp_path):
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "rescale_factor": 1 / 256, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**values, "size": {"shortest_edge": 256}}))
    found = ImageOptions(**read_preprocessor(str(tmp_path)))
    assert found == ImageOptions(256, "crop", 3, 1 / 256, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**values, "do_normalize": False, "do_rescale": False, "size": 99, "crop_size": {"height": 64}})
    )
    assert ImageOptions(**read_preprocessor(str(tmp_path))) == ImageOptions(64, "crop", 3, 1.0, (0, 0, 0), (1, 1, 1))


def test_a_preprocessor_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"preprocessor_config.json: expected JSON of a vision model"):
        read_preprocessor(str(tmp_path))
    with pytest.raises(InputError, match=r"data.preprocessor no/such-model: expected a folder"):
        read_preprocessor("no/such-model")


# Arrays of regions


def test_regions_from_npy_npz_and_lists(tmp_path):
    table = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.save(tmp_path / "a.npy", table)
    np.savez(tmp_path / "b.npz", feat=table)
    np.savez(tmp_path / "many.npz", one=table, two=table + 1)
    for value in (str(tmp_path / "a.npy"), str(tmp_path / "b.npz"), table, table.tolist()):
        found = read_regions(value, "x")
        assert found.dtype == np.float32
        assert (found == table).all()
    assert (read_regions(reference(tmp_path / "many.npz", "two.npy"), "x") == table + 1).all()
    assert (read_regions(table.reshape(1, 2, 3), "x") == table).all()  # a grid


def test_regions_that_are_none(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("pickled.npy", "text.npy", "nowhere.npy"):
        with pytest.raises(InputError, match=f"{name}: expected"):
            read_regions(str(tmp_path / name), "x")
    for value in ([], [[]], [1.0], [[float("nan")]], [[1.0], [1.0, 2.0]]):
        with pytest.raises(InputError, match="row 4: expected"):
            read_regions(value, "row 4")
