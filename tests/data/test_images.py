"""Where images lie, and features of them on disk."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from rnnzoo.data.features import Features, compute_features, feature_file
from rnnzoo.data.images import ImageStore, image_samples, is_image, list_images
from rnnzoo.data.streams import read_samples
from rnnzoo.errors import InputError
from rnnzoo.processors.images import read_image, read_regions


def png(seed=0, size=4):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


FILES = {"a.png": png(0), "in/b.PNG": png(1), "in/notes.txt": b"no image"}


@pytest.fixture
def places(tmp_path):
    """The same images in a folder and in a zip."""
    for name, content in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    hidden = {"__MACOSX/._a.png": b"", ".thumbnails/c.png": b"", "empty/": b""}
    return tmp_path / "folder", zipped(tmp_path / "photos.zip", {**FILES, **hidden})


# Places


def test_a_zip_is_the_folder_that_was_zipped(places):
    folder, archive = (list_images(place) for place in places)
    assert sorted(folder.references) == sorted(archive.references) == ["a.png", "in/b.PNG"]
    assert folder.kind == archive.kind == "image"
    for name, seed in (("a.png", 0), ("in/b.PNG", 1), ("b.PNG", 1)):
        expected = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
        for store in (folder, archive):
            assert (np.asarray(read_image(store.find(name, "x"), "x")) == expected).all()


def test_the_checksum_knows_contents_and_names(tmp_path):
    files = [{"a.png": png(0)}, {"a.png": png(0)}, {"a.png": png(1)}, {"b.png": png(0)}]
    sums = [list_images(zipped(tmp_path / f"{number}.zip", each)).checksum for number, each in enumerate(files)]
    assert sums[0] == sums[1]
    assert len(set(sums)) == 3


def test_an_image_that_is_not_there_is_named_with_where_it_is_spoken_of(places):
    for place in places:
        with pytest.raises(InputError) as error:
            list_images(place).find("a.pgn", "captions.csv, line 7")
        assert str(error.value) == (
            f"captions.csv, line 7: expected one of the 2 images of {place}, got 'a.pgn'; did you mean 'a.png'?"
        )


def test_two_images_of_one_file_name_are_told_by_their_paths():
    store = ImageStore("x", "image", {"one/a.png": "1", "two/a.png": "2"}, "")
    assert store.find("two/a.png", "line 1") == "2"
    with pytest.raises(InputError, match=r"line 1: expected an image of one name, got 'a.png', which is one/a.png and"):
        store.find("a.png", "line 1")


def test_arrays_are_found_by_the_names_of_their_images(tmp_path):
    np.savez(tmp_path / "all.npz", **{"1.jpg": np.full((2, 3), 1.0), "2": np.full((2, 3), 2.0)})
    store = list_images(tmp_path / "all.npz")
    assert store.kind == "regions"
    for name, value in (("1.jpg", 1), ("2", 2), ("2.jpg", 2)):
        assert read_regions(store.find(name, "x"), "x")[0, 0] == value
    with pytest.raises(InputError, match="expected one of the 2 arrays"):
        store.find("3.jpg", "x")


def test_places_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="expected images, or arrays of features, got 1 files, none of which ends in"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="expected a folder or a zip, got nothing"):
        list_images(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match=r"notes.txt: expected a folder, a zip or an .npz, got File is not a zip"):
        list_images(tmp_path / "notes.txt")


# Prediction


def test_samples_of_folders_zips_and_files(places, tmp_path):
    for place in places:
        found = list(image_samples(str(place)))
        assert [sample["name"] for sample in found] == ["a.png", "in/b.PNG"]
        assert [read_image(sample["image"], "x").size for sample in found] == [(4, 4), (4, 4)]
    (one,) = image_samples(str(places[0] / "a.png"))
    assert one == {"image": str(places[0] / "a.png"), "name": "a.png"}
    np.save(tmp_path / "a.npy", np.ones((1, 2)))
    assert next(image_samples(str(tmp_path / "a.npy"))) == {"regions": str(tmp_path / "a.npy"), "name": "a.npy"}
    names = ("a.JPG", "a.zip", "a.npy", "a.jsonl", "a.txt")
    assert [is_image(tmp_path / name) for name in names] == [True, True, True, False, False]


def test_streams_of_paths():
    def read(lines, format, **options):
        return list(read_samples(lines, kind="captions", format=format, where="x", **options))

    assert read([b"a.png\n", b"in a/b.png \n"], "text") == [
        {"image": "a.png", "name": "a.png"},
        {"image": "in a/b.png", "name": "in a/b.png"},
    ]
    assert read([b"\n"], "text") == [{"image": "", "name": "x, line 1"}]
    assert read([b'{"image": "a.png"}'], "jsonl") == [{"image": "a.png", "name": "a.png"}]
    assert read([b'{"photo": "a.png"}'], "jsonl", column="photo") == [{"image": "a.png", "name": "a.png"}]
    assert read([b'{"regions": [[1, 2]]}'], "jsonl") == [{"regions": [[1, 2]], "name": "x, line 1"}]
    assert read([b"image\n", b"a.npy\n"], "csv") == [{"regions": "a.npy", "name": "a.npy"}]
    with pytest.raises(InputError, match="x, line 1: expected 'image' among picture, got none"):
        read([b'{"picture": "a.png"}'], "jsonl")


# Features


def encode(images):
    return images.flatten(2).transpose(1, 2)  # [B, 3, Y, X] → [B, Y·X, 3]


def batches(count=5, factor=1.0):
    images = factor * torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return images, list(images.split(2))


def test_features_are_what_the_encoder_gives(tmp_path, capsys):
    images, parts = batches()
    path = tmp_path / "new" / "f.npy"
    compute_features(path, parts, encode, count=5, what="images of a test")
    features = Features(path)
    for place in (4, 0, 2):
        assert features[place].dtype == np.float16
        assert torch.from_numpy(features[place].astype(np.float32)) == pytest.approx(encode(images)[place], rel=1e-3)
    assert "encoding 5 images of a test once" in capsys.readouterr().err
    assert [each.name for each in path.parent.iterdir()] == ["f.npy"]


def test_features_too_large_for_half_precision_are_stored_in_single(tmp_path):
    images, parts = batches(factor=1e6)
    compute_features(tmp_path / "f.npy", parts, encode, count=5, what="images")
    features = Features(tmp_path / "f.npy")
    assert features[0].dtype == np.float32
    assert all((features[place] == encode(images)[place].numpy()).all() for place in range(5))


def test_features_travel_to_other_processes_as_a_path(tmp_path):
    compute_features(tmp_path / "f.npy", batches()[1], encode, count=5, what="images")
    features = Features(tmp_path / "f.npy")
    features[0]
    sent = pickle.dumps(features)
    assert len(sent) < 500
    assert (pickle.loads(sent)[1] == features[1]).all()


def test_an_encoding_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield batches()[1][0]
        raise InputError("a.png", expected="a whole image", got="half of one")

    with pytest.raises(InputError, match=r"a\.png"):
        compute_features(tmp_path / "f.npy", broken(), encode, count=5, what="images")
    assert list(tmp_path.iterdir()) == []


def test_the_place_of_features_is_in_the_cache_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    assert feature_file("abc") == tmp_path / "rnnzoo_features" / "abc.npy"
