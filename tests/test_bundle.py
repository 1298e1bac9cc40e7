"""Model folders: what is saved is loaded, alone; a model that started from another, and files that do not match."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from small_models import ARGUMENTS, batch_of, build, processor

import rnnzoo
from rnnzoo import bundle
from rnnzoo.errors import InputError

TOKENS = {"SequenceClassifier": "words", "SequenceTagger": "words", "LanguageModel": "words", "Translator": "words"}


def exchange(folder, name, text, *, checksum):
    """Put the processor of another vocabulary into a model folder by hand."""
    (folder / "processor.json").write_text(json.dumps(processor(name, text).to_json()))
    if checksum:
        config = json.loads((folder / "config.json").read_text())
        config["sha256"]["processor.json"] = bundle.sha256(folder / "processor.json")
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_model_that_started_from_another_is_loaded_without_it(name, tmp_path):
    rnnzoo.save(build(name), tmp_path / "old")
    torch.manual_seed(7)
    model = build(name, init_from=str(tmp_path / "old"), freeze="head")
    found = rnnzoo.warm_start(model)
    assert found.new == 0
    assert model.origin["class"] == name
    assert model.origin["path"] == str(tmp_path / "old")
    assert len(model.origin["sha256"]) == 64
    rnnzoo.save(model, tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    stored = json.loads((tmp_path / "new" / "config.json").read_text())["arguments"]
    assert {"init_from", "freeze"}.isdisjoint(stored)
    loaded = rnnzoo.load(tmp_path / "new")
    assert loaded.init_from is None
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    total, _ = loaded.objective(loaded(batch_of(loaded)), batch_of(loaded))
    assert bool(total.isfinite())


def test_a_model_is_replaced_when_the_new_one_is_whole_and_only_on_demand(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    rnnzoo.save(build("SequenceTagger"), folder)
    new = build("SequenceClassifier")
    with pytest.raises(InputError, match="expected a new folder, got one that exists"):
        rnnzoo.save(new, folder)
    with monkeypatch.context() as broken:
        broken.setattr(bundle, "sha256", lambda _: raise_full())
        with pytest.raises(OSError, match="disk full"):
            rnnzoo.save(new, folder, replace=True)
    assert type(rnnzoo.load(folder)).__name__ == "SequenceTagger"
    rnnzoo.save(new, folder, replace=True)
    assert type(rnnzoo.load(folder)).__name__ == "SequenceClassifier"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="expected a new folder, got one that exists"):
        rnnzoo.save(new, tmp_path / "other", replace=True)


def raise_full():
    raise OSError("disk full")


def test_a_model_of_which_nothing_fits_is_named_with_the_new_one(tmp_path):
    rnnzoo.save(build("FrameLabeller", cell="gru"), tmp_path / "frames")
    model = build("SequenceClassifier")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    message = (
        r"model.init_from .*frames: expected a model of which something fits this SequenceClassifier \(lstm, 1 layer"
        r"\(s\) of 8\), got a FrameLabeller \(gru, 1 layer\(s\) of 8\), of which nothing does: cell lstm, in the source"
    )
    with pytest.raises(InputError, match=message):
        rnnzoo.warm_start(model, tmp_path / "frames")
    assert model.origin is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("content", [None, "folder", "file", "broken"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "thing"
    if content == "file":
        path.write_text("weights")
    elif content is not None:
        path.mkdir()
        if content == "broken":
            (path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"thing.*: expected (a model folder|JSON that rnnzoo wrote)"):
        rnnzoo.warm_start(build("SequenceClassifier"), path)
    with pytest.raises(InputError, match=r"model.init_from: expected the folder of a trained model, got none"):
        rnnzoo.warm_start(build("SequenceClassifier"))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("name", TOKENS)
def test_a_vocabulary_of_another_size_than_the_weights_is_named_with_both_sizes(name, checksum, tmp_path):
    rnnzoo.save(build(name), tmp_path / "model")
    exchange(tmp_path / "model", name, "the cat", checksum=checksum)
    own = 1 if name in ("LanguageModel", "Translator") else 0  # the end token
    message = (
        rf"model.safetensors: expected weights of the {4 + own} words of processor.json, got weights of {7 + own} "
    )
    with pytest.raises(InputError, match=message) as caught:
        rnnzoo.load(tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert "size mismatch" not in str(caught.value)


def test_labels_that_do_not_match_are_named_too(tmp_path):
    rnnzoo.save(build("SequenceClassifier"), tmp_path / "model")
    path = tmp_path / "model" / "processor.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "labels": ["x", "y", "z"]}))
    with pytest.raises(InputError, match=r"expected weights of the 3 labels of processor.json, got weights of 2 "):
        rnnzoo.load(tmp_path / "model")


def test_a_vocabulary_of_the_same_size_is_betrayed_by_its_checksum(tmp_path):
    rnnzoo.save(build("SequenceClassifier"), tmp_path / "model")
    exchange(tmp_path / "model", "SequenceClassifier", "a b c d e", checksum=False)
    with pytest.raises(InputError, match=r"processor.json: expected the contents that config.json gives the checksum"):
        rnnzoo.load(tmp_path / "model")


def test_a_processor_cut_short_is_no_riddle(tmp_path):
    rnnzoo.save(build("SequenceClassifier"), tmp_path / "model")
    path = tmp_path / "model" / "processor.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"processor.json: .* got other contents \(cut short or changed\)"):
        rnnzoo.load(tmp_path / "model")
