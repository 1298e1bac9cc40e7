"""``rnnzoo predict`` with a captioner: folders, zips, single images and lists of paths."""

from __future__ import annotations

import json

import datasets
import pytest
from caption_layouts import ALL, IMAGES, png, write, zipped

from rnnzoo import bundle
from rnnzoo.cli.main import main
from rnnzoo.data import CaptionData
from rnnzoo.models import Captioner


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        text = "".join(json.dumps({"image": name, "caption": f"it is {name[0]}"}) + "\n" for name in ALL)
        data = CaptionData(path=write(folder / "data", {"captions.jsonl": text, **IMAGES}))
        made = Captioner(processor=data.processor, hidden_size=8, words={"size": 4}, image={"channels": [8]})
        return str(bundle.save(made, folder / "model"))


def predict(model, source, tmp_path, *options):
    output = tmp_path / "out.jsonl"
    code = main(["predict", model, "--input", str(source), "--output", str(output), *options])
    return code, [json.loads(line) for line in output.read_text().splitlines()] if code == 0 else []


def test_a_folder_a_zip_and_a_list_have_the_same_answers(model, tmp_path):
    folder = write(tmp_path / "data", IMAGES)
    write(tmp_path, {"photos.zip": zipped(IMAGES), "list.txt": "".join(f"{folder}/images/{name}\n" for name in ALL)})
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"image": f"{folder}/{name}"}) + "\n" for name in IMAGES))
    found = {}
    for place in ("data", "photos.zip", "list.txt", "list.jsonl"):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        code, rows = predict(model, tmp_path / place, tmp_path, "--batch_size", "4")
        assert code == 0
        found[place] = {row["image"].rpartition("/")[2]: row["caption"] for row in rows}
        assert [row["image"].rpartition("/")[2] for row in rows] == ALL
    assert found["data"] == found["photos.zip"] == found["list.txt"] == found["list.jsonl"]


def test_one_image(model, tmp_path):
    (tmp_path / "a.png").write_bytes(png("a"))
    code, rows = predict(model, tmp_path / "a.png", tmp_path)
    assert code == 0
    assert [row["image"] for row in rows] == ["a.png"]


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({"in/a.png": b"no image"}, "in", "a.png: expected an image, got 8 bytes of no known image format"),
        ({"in/notes.txt": "x"}, "in", "expected images, or arrays of features, got 1 files"),
        ({"list.txt": "gone.png\n"}, "list.txt", "gone.png: expected an image, got nothing"),
        ({"list.txt": "\n"}, "list.txt", "list.txt, line 1: expected an image"),
    ],
)
def test_what_is_no_image_is_one_clear_line(model, tmp_path, capsys, files, source, message):
    write(tmp_path, files)
    code, _ = predict(model, tmp_path / source, tmp_path)
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert not (tmp_path / "out.jsonl").exists()
