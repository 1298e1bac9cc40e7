"""Images with captions: every layout gives the same splits, each image once, and complaints name file and line."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from caption_layouts import ALL, IMAGES, LAYOUTS, NAMES, TOKENS, captions, jsonl, png, write, zipped
from PIL import Image

from rnnzoo.data import CaptionData
from rnnzoo.data.captions import CAPTION_WORDS
from rnnzoo.errors import InputError
from rnnzoo.processors.images import read_image
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

FLICKR8K = Path(__file__).parents[2].parent / "shared" / "data" / "flickr8k"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def batches(data, split="train"):
    loaders = {"train": data.train_dataloader, "validation": data.val_dataloader, "test": data.test_dataloader}
    return list(loaders[split]())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_splits(tmp_path, layout):
    data = CaptionData(path=write(tmp_path / "data", LAYOUTS[layout]))
    for split, names in NAMES.items():
        raw = data.raw(split)
        assert raw["captions"][:] == [captions(name) for name in names]
        for sample, name in zip(raw, names, strict=True):
            expected = np.asarray(Image.open(io.BytesIO(png(name))))
            assert (np.asarray(read_image(sample["image"], "x")) == expected).all()
    assert data.describe().split_sizes == {"train": 3, "validation": 1, "test": 2}
    assert data.describe().notes == []


def test_batches_hold_every_image_once_with_all_captions(tmp_path):
    data = CaptionData(path=write(tmp_path / "data", LAYOUTS["flickr8k zip"]), batch_size=2)
    assert data.processor.images.size == 8  # that of the images
    ids = [number for batch in batches(data) for number in batch.ids.tolist()]
    assert sorted(ids) == [0, 1, 2]
    (batch,) = batches(data, "test")
    order = batch.ids.tolist()
    assert batch.references == tuple(tuple(captions(NAMES["test"][place])) for place in order)
    assert batch.caption_rows.tolist() == [0, 0, 1, 1]
    assert torch.equal(batch.images, data.processor.read_images([data.raw("test")[place] for place in order]))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_make_the_same_batches(tmp_path):
    path = write(tmp_path / "data", LAYOUTS["flickr8k zip"])
    alone, helped = (batches(CaptionData(path=path, batch_size=1, num_workers=n), "test") for n in (0, 2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, helped, strict=True))


def test_the_words_of_captions():
    tokenizer = Tokenizer.train(["x"], CAPTION_WORDS)
    tokenizer = Tokenizer.train(['A "tri-colored" dog\'s ball , on - the left(!)'], CAPTION_WORDS)
    assert set(tokenizer.vocabulary[2:]) == {"a", "tri-colored", "dog's", "ball", "on", "the", "left"}
    assert tokenizer.decode(tokenizer.encode("The DOG'S ball.")) == "the dog's ball"


def test_images_without_splits_are_cut_by_image(tmp_path):
    lines = "".join(f"{name},{text}\n" for name in ALL for text in captions(name))
    data = CaptionData(path=write(tmp_path, {"all.csv": "image,caption\n" + lines, **IMAGES}))
    assert data.describe().split_sizes == {"train": 4, "validation": 1, "test": 1}
    seen = [sample["image"] for split in NAMES for sample in data.raw(split)]
    assert len(set(seen)) == 6
    for_test = CaptionData(path=str(tmp_path))
    for_test.for_testing = True
    assert for_test.describe().split_sizes == {"test": 6}


def test_places_may_be_named(tmp_path):
    write(tmp_path / "photos", IMAGES)
    files = {"one.jsonl": jsonl("train"), "two.jsonl": jsonl("validation"), "three.jsonl": jsonl("test")}
    named = {"train": "one.jsonl", "validation": "two.jsonl", "test": "three.jsonl"}
    data = CaptionData(path=write(tmp_path / "text", files), images=str(tmp_path / "photos"), **named)
    assert data.describe().split_sizes == {"train": 3, "validation": 1, "test": 2}
    lists = {f"{split}.list": "".join(f"{name}\n" for name in names) for split, names in NAMES.items()}
    write(tmp_path / "lists", {"x.tsv": TOKENS, **lists})
    options = {split: f"{split}.list" for split in NAMES}
    folder = {"path": str(tmp_path / "lists"), "images": "../photos/images"}
    data = CaptionData(**folder, captions="x.tsv", format="flickr", **options)
    assert data.describe().split_sizes == {"train": 3, "validation": 1, "test": 2}


def test_other_names_of_columns(tmp_path):
    rows = [{"file": name, "first": captions(name)[0], "second": captions(name)[1]} for name in ALL]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path = write(tmp_path, {"all.jsonl": lines, **IMAGES})
    data = CaptionData(path=path, columns={"image": "file", "captions": "first, second"})
    assert sorted(data.raw("train")["captions"][0]) == sorted(captions(Path(data.raw("train")[0]["image"]).name))
    with pytest.raises(InputError, match="expected one of file, first, second, got 'captions'"):
        CaptionData(path=path, columns={"image": "file"}).describe()


def test_tables_that_hold_their_images(tmp_path):
    feature = datasets.Features({"image": datasets.Image(), "caption_0": datasets.Value("string")})
    rows = {"image": [{"bytes": png(name), "path": None} for name in ALL], "caption_0": [f"it is {n}" for n in ALL]}
    datasets.Dataset.from_dict(rows, features=feature).to_parquet(tmp_path / "train.parquet")
    data = CaptionData(path=str(tmp_path), batch_size=6, validation_fraction=0.2, test_fraction=0.2)
    (batch,) = batches(data)
    assert batch.images.shape == (4, 3, 8, 8)
    for sample in data.raw("test"):
        assert sample["image"] == png(sample["captions"][0].split()[-1])


def test_data_sets_of_the_hub(monkeypatch):
    rows = {"image": [{"bytes": png(name), "path": name} for name in ALL], "captions": [captions(n) for n in ALL]}
    feature = datasets.Features({"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))})
    table = datasets.Dataset.from_dict(rows, features=feature)
    splits = datasets.DatasetDict(train=table.select([2, 3, 4, 5]), test=table.select([0, 1]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: splits)
    data = CaptionData(hub="someone/photos")
    assert data.raw("test")[1] == {"image": png("b"), "captions": captions("b"), "name": "someone/photos test, row 1"}


def test_arrays_of_regions(tmp_path):
    arrays = {name.removesuffix(".png"): np.full((1 + place, 3), float(place)) for place, name in enumerate(ALL)}
    write(tmp_path, {"captions.jsonl": jsonl()})
    np.savez(tmp_path / "regions.npz", **arrays)
    data = CaptionData(path=str(tmp_path), batch_size=3)
    assert data.processor.region_size == 3
    (batch,) = batches(data)
    assert batch.images is None
    assert batch.regions.shape == (3, 3, 3)
    assert batch.region_counts.tolist() == [1 + number for number in batch.ids.tolist()]
    assert batch.regions[:, 0, 0].tolist() == batch.ids.tolist()


def test_long_captions_are_cut_in_training_without_an_end(tmp_path):
    data = CaptionData(path=write(tmp_path / "data", LAYOUTS["flickr8k"]), max_length=3)
    end = data.processor.tokenizer.end_id
    row = data.encoded("train")[0]  # a picture of a; this is a
    assert [len(caption) for caption in row["captions"]] == [3, 3]
    assert not any(end in caption for caption in row["captions"])
    assert row["cut"] == 3
    assert [caption[-1] for caption in data.encoded("test")[0]["captions"]] == [end, end]


def test_columns_of_captions_need_no_images_to_be_encoded(tmp_path):
    path = write(tmp_path / "data", LAYOUTS["flickr8k"])
    data = CaptionData(path=path, image_size=8)
    for name in ALL:
        (tmp_path / "data" / "images" / name).write_bytes(b"broken")
    assert data.encoded("train").table.num_rows == 3
    assert "image" not in data.encoded("train").table.column_names


# Features


def use_features(data, count):
    calls = []

    def encode(images):
        calls.append(len(images))
        return images.flatten(2).transpose(1, 2)[:, :5]  # [B, 5, 3]

    data.use_features(encode, "checksum")
    found = {split: batches(data, split) for split in NAMES}
    assert sum(calls) == count
    return found


def test_cached_features_are_what_the_encoder_gives_and_are_computed_once(tmp_path):
    path = write(tmp_path / "data", LAYOUTS["flickr8k zip"])
    data = CaptionData(path=path, batch_size=2)
    found = use_features(data, 6)
    for split, each in found.items():
        for batch in each:
            assert batch.images is None
            images = data.processor.read_images([data.raw(split)[place] for place in batch.ids.tolist()])
            assert batch.regions == pytest.approx(images.flatten(2).transpose(1, 2)[:, :5], abs=1e-3)
            assert batch.region_counts.tolist() == [5] * len(batch.ids)
    use_features(CaptionData(path=path, batch_size=2), 0)
    use_features(CaptionData(path=path, image_size=5), 6)  # other pixels, other features
    write(tmp_path / "data", {"photos.zip": zipped({**IMAGES, "images/a.png": png("z")})})
    use_features(CaptionData(path=path, image_size=8), 6)


def test_other_weights_have_other_features(tmp_path):
    path = write(tmp_path / "data", LAYOUTS["flickr8k"])
    for number in (1.0, 2.0):
        data = CaptionData(path=path)
        data.use_features(lambda images, number=number: images[:, :1, :1] * 0 + number, f"encoder {number}")
        assert batches(data, "test")[0].regions.unique().tolist() == [number]


def test_processes_wait_for_the_first_to_compute(tmp_path):
    path = write(tmp_path / "data", LAYOUTS["flickr8k"])
    for is_first in (True, False):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        data, events = CaptionData(path=path, num_workers=0), []
        barrier = SimpleNamespace(barrier=lambda events=events: events.append("wait"))
        data.trainer = SimpleNamespace(
            world_size=2, is_global_zero=is_first, global_rank=1 - is_first, strategy=barrier
        )
        data.use_features(lambda images, events=events: events.append("encode") or images.flatten(2), "checksum")
        data.test_dataloader()
        assert events == (["encode", "wait", "wait"] if is_first else ["wait", "encode", "wait"])


def test_native_regions_are_left_alone(tmp_path):
    write(tmp_path, {"captions.jsonl": jsonl()})
    np.savez(tmp_path / "regions.npz", **{name: np.ones((2, 3)) for name in ALL})
    data = CaptionData(path=str(tmp_path))
    data.use_features(lambda images: pytest.fail("there are no images"), "checksum")
    assert batches(data)[0].regions.shape == (3, 2, 3)


# The real one


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="no Flickr8k here")
def test_flickr8k():
    data = CaptionData(
        path=str(FLICKR8K), tokenizer=TokenizerOptions(lowercase=True, remove=CAPTION_WORDS.remove, min_count=5)
    )
    assert data.describe().split_sizes == {"train": 6000, "validation": 1000, "test": 1000}
    for split, size in data.describe().split_sizes.items():
        counts = [len(each) for each in data.raw(split)["captions"]]
        assert set(counts) == {5}
        assert sum(counts) == 5 * size
    assert data.processor.images.size == 128
    assert 2400 < data.processor.tokenizer.vocabulary_size < 2700
    assert next(iter(data.test_dataloader())).images.shape == (32, 3, 128, 128)
