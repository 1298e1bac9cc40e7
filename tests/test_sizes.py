"""Files that ask for far more memory than they are large: refused in one line, before it is taken."""

from __future__ import annotations

import ast
import functools
import gzip
import io
import lzma
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import watched
from PIL import Image
from small_models import SAMPLES, build

import rnnzoo
from rnnzoo.data.caption_files import read_captions
from rnnzoo.data.readers import open_bytes, read_rows
from rnnzoo.documents import parse_json
from rnnzoo.errors import InputError
from rnnzoo.processors.images import IMAGE_FORMATS, IMAGE_SUFFIXES, read_image, read_regions, reference

MIB = 2**20
SOURCES = sorted(Path(rnnzoo.__file__).parent.rglob("*.py"))


def refused(call, *parts):
    """Run what has to fail in one line, without memory or time beyond the limits; return the line."""
    with watched(), pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text
    return text


def zeros(path, size, opener):
    """Write a file of so many zero bytes, which are one line."""
    with opener(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(b"0" * MIB)
    return path


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "text", "conll", "conllu"])
@pytest.mark.parametrize("ending", [".gz", ".xz", ""])
def test_a_line_without_end_is_refused(ending, format, tmp_path, monkeypatch):
    monkeypatch.setenv("RNNZOO_MAX_LINE_BYTES", str(4 * MIB))
    opener = {".gz": gzip.open, ".xz": lzma.open, "": open}[ending]
    path = zeros(tmp_path / f"train.txt{ending}", 8 * MIB, opener)
    refused(lambda: list(read_rows(path, format)), f"{path}, line 1: expected at most 4,194,304 bytes", "LINE_BYTES")
    monkeypatch.setenv("RNNZOO_MAX_LINE_BYTES", str(9 * MIB))
    assert sum(map(len, open_bytes(path))) == 8 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_three_gigabytes_in_a_line(ending, tmp_path):
    path = zeros(tmp_path / f"train.txt{ending}", 3 * 2**30, {".gz": gzip.open, ".xz": lzma.open}[ending])
    refused(lambda: list(open_bytes(path)), f"{path}, line 1: expected at most 67,108,864 bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("read", [read_image, read_regions])
def test_a_member_of_an_archive_is_not_unpacked_beyond_the_limit(read, method, tmp_path, monkeypatch):
    monkeypatch.setenv("RNNZOO_MAX_FILE_BYTES", str(MIB))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", b"0" * (2 * MIB))
    target = reference(tmp_path / "a.zip", "a.png")
    refused(lambda: read(target, "here"), "a.zip, a.png: expected at most 1,048,576 bytes, got 2,097,152", "FILE_BYTES")
    large = tmp_path / "a.png"
    large.touch()
    os.truncate(large, 10**11)
    refused(lambda: read(str(large), "here"), "a.png: expected at most 1,048,576 bytes")


def test_an_array_that_unpacks_to_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(300):
            file.write(b"0" * MIB)
    refused(lambda: read_regions(str(tmp_path / "a.npz"), "here"), "a.npz, a.npy: expected at most")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    refused(lambda: read_regions(buffer.getvalue(), "here"), "here: expected an array as NumPy saves it")


def png_of(side, mode="RGBA"):
    """Return a PNG whose header says that it is so large, and that has no pixels."""
    buffer = io.BytesIO()
    Image.new(mode, (1, 1)).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[16:24] = side.to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(bytes(raw[12:29])).to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "P", "I;16"])
@pytest.mark.parametrize("side", [7_100, 13_300, 100_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_not_decoded(side, mode):
    refused(lambda: read_image(png_of(side, mode), "here"), "here: expected at most 50,000,000 pixels", "_MAX_PIXELS")


def test_a_limit_on_pixels_is_raised_beyond_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(png_of(1), "here").size == (1, 1)
    buffer = io.BytesIO()
    Image.new("L", (100, 100)).save(buffer, "PNG")
    assert read_image(buffer.getvalue(), "here").size == (100, 100)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_huge_photo_is_decoded_at_a_lower_scale(progressive, monkeypatch):
    monkeypatch.setenv("RNNZOO_MAX_PIXELS", "100000")
    photo = Image.linear_gradient("L").resize((800, 600)).convert("RGB")
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", progressive=progressive)
    if progressive:  # its decoder needs memory for all pixels
        refused(lambda: read_image(buffer.getvalue(), "here"), "expected at most 100,000 pixels, got 480,000")
        return
    found = read_image(buffer.getvalue(), "here")
    assert found.size in ((200, 150), (400, 300))
    expected = np.asarray(photo.resize(found.size, Image.Resampling.BOX), dtype=int)
    assert np.abs(np.asarray(found, dtype=int) - expected).max() < 8


DOCUMENTS = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) (w) file\n%%EOF\n",
    "PDF": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n",
    "an icon": b"\0\0\1\0" + b"\0" * 60,
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "a film": b"\0\0\1\xb3" + b"\0" * 60,
    "Photoshop": b"8BPS\0\1" + b"\0" * 60,
    "XPM": b'/* XPM */ "1 1 1 1", "a c #000000", "a"',
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_named_like_an_image_and_is_none_starts_no_program(kind, suffix, tmp_path):
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(DOCUMENTS[kind])
    refused(lambda: read_image(str(path), "here"), f"{path}: expected an image, got", "no known image format")


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_each_format_is_read(format):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 0)).save(buffer, format)
    assert read_image(buffer.getvalue(), "here").size == (3, 2)


def test_each_suffix_is_that_of_a_format_that_is_read():
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in IMAGE_SUFFIXES} == set(IMAGE_FORMATS)


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 10**6])
def test_json_nested_deeply_is_refused(text, tmp_path):
    refused(lambda: parse_json(text, "here"), "here: expected JSON, got one that is nested too deeply")
    (tmp_path / "a.jsonl").write_text(text + "\n")
    refused(lambda: list(read_rows(tmp_path / "a.jsonl", "jsonl")), "a.jsonl, line 1")
    (tmp_path / "a.json").write_text(text)
    refused(lambda: read_captions(tmp_path / "a.json", "karpathy", None, None, {}), "a.json")


def test_json_of_many_values_is_refused():
    refused(lambda: parse_json("[" + "[]," * 12_000_000 + "1]", "here"), "here: expected at most 20,000,000 values")


# Calls in the code


@functools.cache
def all_calls():
    """Return the calls in the package: file, dotted name of the function, call."""
    trees = [(path.name, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]
    nodes = [(file, node) for file, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(file, ast.unparse(node.func), node) for file, node in nodes]


def calls(name):
    """Yield the calls of functions whose dotted names end so, with their files."""
    return ((file, node) for file, function, node in all_calls() if f".{function}".endswith(f".{name}"))


def keyword(node, name):
    """Return a keyword argument of a call as it is written."""
    return next((ast.unparse(each.value) for each in node.keywords if each.arg == name), None)


@pytest.mark.parametrize(
    "name", ["AutoConfig.from_pretrained", "AutoModel.from_pretrained", "AutoModel.from_config", "load_dataset"]
)
def test_no_code_of_a_repository_is_trusted(name):
    found = [node for _, node in calls(name)]
    assert found
    for node in found:
        assert keyword(node, "trust_remote_code") == "False", ast.unparse(node)


def test_networks_are_loaded_by_nothing_else():
    loaders = {ast.unparse(node.func) for _, node in calls("from_pretrained")}
    assert loaders == {"AutoConfig.from_pretrained", "AutoModel.from_pretrained", "nn.Embedding.from_pretrained"}
    assert not list(calls("pipeline"))
    assert not list(calls("hub.load"))


def test_images_are_opened_in_one_function_with_a_list_of_formats():
    ((file, node),) = calls("Image.open")
    assert (file, keyword(node, "formats")) == ("images.py", "IMAGE_FORMATS")


def test_no_pickle_is_read():
    for _, node in [*calls("torch.load"), *calls("trainer.fit")]:
        resumes = ast.unparse(node.func) == "torch.load" or keyword(node, "ckpt_path") is not None
        assert not resumes or keyword(node, "weights_only") == "True", ast.unparse(node)
    for _, node in calls("np.load"):
        assert keyword(node, "allow_pickle") in ("False", None), ast.unparse(node)
    for name in ("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "torch.package.PackageImporter"):
        assert not list(calls(name)), name


@pytest.mark.parametrize("name", ["SequenceClassifier", "VectorClassifier", "FrameLabeller", "LanguageModel"])
def test_an_answer_of_finite_weights_that_is_not_finite_is_refused(name):
    model = build(name)
    for parameter in model.parameters():
        parameter.data.fill_(3e38)
    with pytest.raises(InputError, match="expected an answer of finite numbers"):
        list(model.answer(SAMPLES[name]))
