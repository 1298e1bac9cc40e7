"""Captions and images that cannot be used: one line that names the file, the line and the image."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
from caption_layouts import ALL, IMAGES, LAYOUTS, TOKENS, jsonl, write, zipped

from rnnzoo.data import CaptionData
from rnnzoo.errors import InputError, find_input_error


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def complaint(tmp_path, files, **options):
    data = CaptionData(path=write(tmp_path / "data", files), **options)
    with pytest.raises(InputError) as error:
        list(data.train_dataloader())
    return str(error.value).replace(str(tmp_path / "data") + "/", "")


def test_a_missing_image_is_named_with_its_line(tmp_path):
    files = {name: content for name, content in LAYOUTS["flickr8k"].items() if name != "images/b.png"}
    assert complaint(tmp_path, files).startswith("Flickr8k.token.txt, line 3: expected one of the 5 images of")
    assert "got 'b.png'" in complaint(tmp_path, files)


def test_a_missing_image_of_no_split_is_no_matter(tmp_path):
    files = {**LAYOUTS["flickr8k"], "Flickr8k.token.txt": TOKENS + "gone.jpg#0\tIt is gone .\ngone.jpg.1#0\tToo .\n"}
    assert CaptionData(path=write(tmp_path / "data", files)).describe().split_sizes["train"] == 3


def test_a_listed_image_without_captions(tmp_path):
    files = {**LAYOUTS["flickr8k"], "Flickr_8k.testImages.txt": "e.png\nz.png\n"}
    found = "Flickr_8k.testImages.txt, line 2: expected an image with captions, got 'z.png'"
    assert complaint(tmp_path, files) == found


def test_an_image_in_two_splits(tmp_path):
    files = {**LAYOUTS["flickr8k"], "Flickr_8k.testImages.txt": "e.png\na.png\n"}
    found = "Flickr_8k.trainImages.txt, line 1: expected an image of one split, got 'a.png', which is in Flickr_8k.test"
    assert complaint(tmp_path, files).startswith(found)
    rows = [{"image": "a.png", "caption": "x", "split": split} for split in ("train", "test")]
    files = {"all.jsonl": "".join(json.dumps(row) + "\n" for row in rows), **IMAGES}
    assert "all.jsonl, line 2: expected 'a.png' in one split, got train and test" in complaint(tmp_path / "b", files)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.token.txt": "a.png#0 no tab\n"}, "x.token.txt, line 1: expected "),
        ({"x.token.txt": "a.png#0\tfine\nb.png#1\t \n"}, "x.token.txt, line 2: expected IMAGE#NUMBER, a tab and a"),
        ({"x.json": '{"pictures": []}'}, "x.json: expected JSON with the key 'images'"),
        ({"x.json": '{"images": [{"filename": "a.png"}]}'}, "x.json, image 0: expected filename, split and sentences"),
        ({"x.csv": "image,caption\na.png,\n"}, "x.csv, line 2: expected a caption, got none"),
        ({"x.csv": "image,caption\n,hello\n"}, "x.csv, line 2: expected an image, got ''"),
        ({"x.csv": "image,text\na.png,hello\n"}, "x.csv, line 2: data.columns.captions: expected one of image, text"),
        ({"x.jsonl": '{"image": "a.png", "caption": "x", "split": "all"}'}, "x.jsonl, line 1: expected a split"),
        ({"x.csv": "image,caption\n", "y.jsonl": ""}, "data.path"),
        ({}, "data.path"),
        ({"x.csv": "image,caption\na.png,x\n", "a.zip": zipped(IMAGES), "b.zip": zipped(IMAGES)}, "data.path"),
    ],
)
def test_complaints_name_file_and_line(tmp_path, files, message):
    found = complaint(tmp_path, {**files, **IMAGES})
    assert found.startswith(message), found
    assert "\n" not in found


def test_a_path_that_is_nowhere():
    with pytest.raises(InputError, match=r"data.path nowhere: expected a folder, or a file of captions, got nothing"):
        CaptionData(path="nowhere").describe()


def test_a_corrupt_image_stops_the_training_and_is_named(tmp_path):
    files = {**LAYOUTS["flickr8k"], "images/b.png": IMAGES["images/b.png"][:150]}
    assert complaint(tmp_path, files, image_size=8).startswith("images/b.png: expected a whole image, got a broken one")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_corrupt_image_is_named_by_a_worker_process_too(tmp_path):
    files = {**LAYOUTS["flickr8k"], "images/b.png": IMAGES["images/b.png"][:150]}
    data = CaptionData(path=write(tmp_path / "data", files), image_size=8, num_workers=1)
    with pytest.raises(RuntimeError) as error:
        list(data.train_dataloader())
    found = find_input_error(error.value)
    assert str(found).startswith(f"{tmp_path}/data/images/b.png: expected a whole image, got a broken one")
    assert "\n" not in str(found)


def test_corrupt_images_are_left_out_and_counted_if_that_is_asked_for(tmp_path):
    broken = {"images/b.png": IMAGES["images/b.png"][:150], "images/e.png": b"no image"}
    path = write(tmp_path / "data", {**LAYOUTS["flickr8k"], **broken})
    for _ in range(2):  # the second time from the cache
        data = CaptionData(path=path, skip_corrupt=True)
        assert data.describe().split_sizes == {"train": 2, "validation": 1, "test": 1}
        assert data.describe().notes == [
            "train: 1 of 3 images could not be read and are left out",
            "test: 1 of 2 images could not be read and are left out",
        ]
        assert sum(len(batch.ids) for batch in data.train_dataloader()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "data.image_size: expected at least 1"),
        ({"resize": "stretch"}, "data.resize: expected one of crop, squash"),
        ({"max_length": 0}, "data.max_length: expected at least 1"),
        ({"columns": {"picture": "x"}}, "data.columns"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        CaptionData(path="x", **options)


def test_a_processor_of_images_does_not_take_regions(tmp_path):
    data = CaptionData(path=write(tmp_path / "data", LAYOUTS["flickr8k"]))
    write(tmp_path / "other", {"captions.jsonl": jsonl()})
    np.savez(tmp_path / "other" / "regions.npz", **{name: np.ones((2, 3)) for name in ALL})
    other = CaptionData(path=str(tmp_path / "other"))
    other.processor = data.processor
    with pytest.raises(InputError, match="split test: expected samples with image, got regions"):
        other.encoded("test")
