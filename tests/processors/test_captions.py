"""Images and captions to batches, the same from every form of a raw sample."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from rnnzoo.batches import IGNORED
from rnnzoo.errors import InputError
from rnnzoo.processors.base import load_processor
from rnnzoo.processors.captions import CaptionProcessor
from rnnzoo.processors.images import ImageOptions
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

CAPTIONS = ["a dog runs", "a cat", "the dog and the cat sleep"]


def processor(**options):
    tokenizer = Tokenizer.train(CAPTIONS, TokenizerOptions())
    images = ImageOptions(**{"size": 4, **options.pop("images", {})})
    return CaptionProcessor(tokenizer=tokenizer, images=images, **options)


def picture(seed, size=4):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def batch_of(made, samples):
    return made.collate([{**made.encode(sample), "id": place} for place, sample in enumerate(samples)])


def test_all_captions_of_an_image_stay_with_it():
    made = processor()
    end = made.tokenizer.end_id
    batch = batch_of(
        made, [{"image": picture(0), "captions": CAPTIONS[:2]}, {"image": picture(1), "captions": CAPTIONS[2:]}]
    )
    assert batch.images.shape == (2, 3, 4, 4)
    assert batch.regions is None
    assert batch.region_counts is None
    assert batch.captions.shape == (3, 7)
    assert batch.caption_rows.tolist() == [0, 0, 1]
    assert batch.lengths.tolist() == [4, 3, 7]
    assert batch.references == (("a dog runs", "a cat"), ("the dog and the cat sleep",))
    for row, (caption, length) in enumerate(zip(CAPTIONS, batch.lengths.tolist(), strict=True)):
        tokens = batch.captions[row].tolist()
        assert tokens[: length - 1] == made.tokenizer.encode(caption)
        assert tokens[length - 1] == end
        assert set(tokens[length:]) <= {IGNORED}


def test_without_captions_there_is_only_the_image():
    batch = batch_of(processor(), [{"image": picture(0)}, {"image": picture(1), "captions": CAPTIONS}])
    assert batch.captions is batch.caption_rows is batch.references is None
    assert batch.lengths.tolist() == [1, 1]
    assert batch.ids.tolist() == [0, 1]


def test_no_rows_make_an_empty_batch():
    batch = processor(images={"size": 6}).collate([])
    assert batch.ids.shape == (0,)
    assert processor(region_size=3).collate([]).lengths.shape == (0,)


def test_the_length_of_a_row_is_that_of_its_padded_captions():
    row = processor().encode({"image": picture(0), "captions": CAPTIONS})
    assert row["length"] == 3 * 7
    assert processor().encode({"image": picture(0)})["length"] == 1


def test_pixels_are_scaled_and_normalised_by_channel():
    options = {"scale": 1 / 256, "mean": (0.1, 0.2, 0.3), "deviation": (0.5, 1.0, 2.0)}
    pixels = picture(0)
    batch = batch_of(processor(images=options), [{"image": pixels}])
    for channel, (mean, deviation) in enumerate(zip(options["mean"], options["deviation"], strict=True)):
        expected = (pixels[:, :, channel] / 256 - mean) / deviation
        assert batch.images[0, channel].numpy() == pytest.approx(expected, abs=1e-6)


def test_every_form_of_an_image_gives_the_same_batch(tmp_path):
    raw = png(picture(0))
    (tmp_path / "a.png").write_bytes(raw)
    made = processor()
    forms = [str(tmp_path / "a.png"), tmp_path / "a.png", raw, picture(0), Image.fromarray(picture(0))]
    batch = batch_of(made, [{"image": form} for form in forms])
    assert all(torch.equal(image, batch.images[0]) for image in batch.images)


def test_images_of_other_sizes_fit_the_square():
    made = processor()
    assert batch_of(made, [{"image": picture(0, 9)}, {"image": picture(1, 2)}]).images.shape == (2, 3, 4, 4)
    assert made.picture({"image": picture(0, 9)}).shape == (4, 4, 3)
    assert (made.picture({"image": picture(0)}) == picture(0)).all()


def test_regions_are_padded_and_counted(tmp_path):
    tables = [np.arange(6.0).reshape(2, 3), np.arange(3.0).reshape(1, 3)]
    np.save(tmp_path / "a.npy", tables[0])
    made = processor(region_size=3)
    batch = batch_of(
        made, [{"regions": str(tmp_path / "a.npy")}, {"regions": tables[1].tolist(), "captions": CAPTIONS}]
    )
    assert batch.images is None
    assert batch.regions.tolist() == [tables[0].tolist(), [*tables[1].tolist(), [0.0, 0.0, 0.0]]]
    assert batch.region_counts.tolist() == [2, 1]
    assert made.inputs == ("regions",)


def test_features_take_the_place_of_images_where_rows_have_them():
    made = processor()
    rows = [{**made.encode_captions({"captions": CAPTIONS}), "regions": np.ones((2, 5), np.float16), "id": 0}]
    batch = made.collate(rows)
    assert batch.images is None
    assert batch.regions.shape == (1, 2, 5)
    assert batch.regions.dtype == torch.float32


@pytest.mark.parametrize("made", [processor(), processor(region_size=7, images={"size": 9, "resize": "squash"})])
def test_json_and_back(made):
    again = load_processor(json.loads(json.dumps(made.to_json())))
    assert again.to_json() == made.to_json()
    assert again.checksum == made.checksum
    assert again.images == made.images


def test_the_checksum_knows_the_options():
    sums = [
        processor(),
        processor(images={"size": 5}),
        processor(images={"resize": "squash"}),
        processor(region_size=4),
    ]
    assert len({made.checksum for made in sums}) == 4


# Bad input


def test_a_sample_without_an_image():
    for sample in ({"captions": CAPTIONS, "name": "row 3"}, {"image": None, "name": "row 3"}):
        with pytest.raises(InputError, match="row 3: expected an image under 'image'"):
            processor().encode(sample)
    with pytest.raises(InputError, match="expected features of regions under 'regions', got keys"):
        processor(region_size=3).encode({"image": picture(0)})


@pytest.mark.parametrize("captions", ["a dog", [], [3], 3])
def test_captions_that_are_none(captions):
    with pytest.raises(InputError, match=r"^row 3"):
        processor().encode({"image": picture(0), "captions": captions, "name": "row 3"})


def test_half_a_surrogate_pair():
    with pytest.raises(InputError, match="half of a surrogate pair"):
        processor().encode({"image": picture(0), "captions": ["a \ud800 dog"]})


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "half.png").write_bytes(png(picture(0, 30))[:200])
    made = processor()
    with pytest.raises(InputError, match=r"half.png: expected a whole image"):
        batch_of(made, [{"image": picture(0)}, {"image": str(tmp_path / "half.png")}])
    with pytest.raises(InputError, match=r"^train, row 7: expected an image"):
        batch_of(made, [{"image": b"no image", "name": "train, row 7"}])
    with pytest.raises(InputError, match=r"^sample 1: expected an image"):
        batch_of(made, [{"image": picture(0)}, {"image": b"no image"}])


def test_regions_of_another_width(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"a.npy: expected 3 numbers a region, got 4"):
        batch_of(processor(region_size=3), [{"regions": str(tmp_path / "a.npy")}])


def test_caption_of_nothing_but_its_end():
    batch = batch_of(processor(), [{"image": picture(0), "captions": ["", "a cat"]}])
    assert batch.lengths.tolist() == [1, 3]
    assert batch.captions[0].tolist() == [processor().tokenizer.end_id, IGNORED, IGNORED]
