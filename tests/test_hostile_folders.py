"""Model folders from anywhere: what no saved model holds is refused in one line; nothing runs, no memory is taken."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys

import pytest
import torch
from hostile import EVIL, VALUES, Folder, save_all, some, watched
from safetensors.torch import load, save
from small_models import ARGUMENTS, SAMPLES, build

import rnnzoo
from rnnzoo import bundle
from rnnzoo.bundle import CONFIG, PROCESSOR, WEIGHTS
from rnnzoo.cells import CELLS
from rnnzoo.errors import InputError

QUICK = 30  # cases of each kind of model in a quick run


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Save a model of each kind."""
    return save_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """Lay out a module that tells when it is imported."""
    (tmp_path / "evil_canary.py").write_text("class Evil:\n    pass\nopen('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    assert not (tmp_path / "ran").exists()
    assert "evil_canary" not in sys.modules


def attempt(folder):
    """Load a folder; return the line with which it is refused, or None if it loads."""
    with watched():
        try:
            model = rnnzoo.load(folder)
        except InputError as error:
            text = str(error)
            assert "\n" not in text.strip()
            assert str(folder) in text, text
            return text
    for name, value in model.state_dict().items():
        assert not value.is_floating_point() or bool(value.isfinite().all()), name
    return None


def spoil_each_value(name, templates, folder, count):
    cases = [(path, kind) for path in Folder(name, templates[name]).leaves() for kind in VALUES]
    refused = 0
    for number, (path, kind) in enumerate(some(cases, count)):
        spoilt = Folder(name, templates[name])
        spoilt.set(path, VALUES[kind])
        target = spoilt.write(folder / str(number))
        try:
            refused += attempt(target) is not None
        except BaseException as error:
            error.add_note(f"{name}: {kind} at {'.'.join(map(str, path))}")
            raise
        shutil.rmtree(target)
    return refused / min(count, len(cases))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_wrong_value_is_refused_or_does_no_harm(name, templates, tmp_path):
    assert spoil_each_value(name, templates, tmp_path, QUICK) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_wrong_value_is_refused_or_does_no_harm(name, templates, tmp_path):
    assert spoil_each_value(name, templates, tmp_path, 10**6) > 0.5


def spoilt_files():
    """Return what is done to the files of a folder that is whole: description → function of the folder."""

    def rewrite(name, change):
        def spoil(folder):
            raw = change((folder / name).read_bytes())
            (folder / name).write_bytes(raw)

        return spoil

    def reheader(change):
        def spoil(raw):
            length = struct.unpack("<Q", raw[:8])[0]
            header = json.loads(raw[8 : 8 + length])
            change(header, next(key for key in header if key != "__metadata__"))
            text = json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + raw[8 + length :]

        return rewrite(WEIGHTS, spoil)

    def retensor(change):
        def spoil(raw):
            tensors = load(raw)
            change(tensors, next(key for key in tensors if tensors[key].is_floating_point()))
            return save(tensors)

        return rewrite(WEIGHTS, spoil)

    def fill(value):
        return retensor(lambda tensors, first: tensors[first].view(-1)[-1:].fill_(value))

    def device(name, target):
        def spoil(folder):
            (folder / name).unlink()
            (folder / name).symlink_to(target)

        return spoil

    def pipe(name):
        def spoil(folder):
            (folder / name).unlink()
            os.mkfifo(folder / name)

        return spoil

    def sparse(name, size):
        return lambda folder: os.truncate(folder / name, size)

    kinds = {}
    for name in (CONFIG, PROCESSOR, WEIGHTS):
        kinds |= {
            f"{name} is missing": lambda folder, name=name: (folder / name).unlink(),
            f"{name} is empty": rewrite(name, lambda raw: b""),
            f"{name} is cut short": rewrite(name, lambda raw: raw[:-7]),
            f"{name} is half there": rewrite(name, lambda raw: raw[: len(raw) // 2]),
            f"{name} has more": rewrite(name, lambda raw: raw + b"{}"),
            f"{name} is random": rewrite(name, lambda raw: bytes(range(256)) * 9),
            f"{name} is a pickle": rewrite(name, lambda raw: b"cos\nsystem\n(S'touch ran'\ntR."),
            f"{name} is a link to zeros without end": device(name, "/dev/zero"),
            f"{name} is a link to a file of the system": device(name, "/etc/passwd"),
            f"{name} is a link to itself": device(name, name),
            f"{name} is a pipe": pipe(name),
            f"{name} is a folder": lambda folder, name=name: ((folder / name).unlink(), (folder / name).mkdir()),
            f"{name} has 100 GB without contents": sparse(name, 10**11),
        }
    for name in (CONFIG, PROCESSOR):
        kinds |= {
            f"{name} is nested": rewrite(name, lambda raw: b"[" * 100_000 + b"]" * 100_000),
            f"{name} is nested in an object": rewrite(name, lambda raw: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
            f"{name} is a list": rewrite(name, lambda raw: b"[1, 2]"),
            f"{name} is a number of many digits": rewrite(name, lambda raw: b"9" * 100_000),
            f"{name} is UTF-16": rewrite(name, lambda raw: raw.decode().encode("utf-16")),
            f"{name} is of ten million lists": rewrite(name, lambda raw: b"[" + b"[]," * 10**7 + b"1]"),
        }
    kinds |= {
        "the header is endless": rewrite(WEIGHTS, lambda raw: struct.pack("<Q", 2**63) + raw[8:]),
        "the header is of 30 MB": rewrite(WEIGHTS, lambda raw: struct.pack("<Q", 3 * 10**7) + b" " * 3 * 10**7),
        "the header is nested": rewrite(WEIGHTS, lambda raw: struct.pack("<Q", 200_000) + b"[" * 200_000),
        "a shape is below zero": reheader(lambda header, key: header[key].update(shape=[-1])),
        "a shape is endless": reheader(lambda header, key: header[key].update(shape=[2**62, 2**62])),
        "a shape is no list": reheader(lambda header, key: header[key].update(shape="x")),
        "a shape is of 10¹² numbers": reheader(lambda header, key: header[key].update(shape=[10**6, 10**6])),
        "a type is unknown": reheader(lambda header, key: header[key].update(dtype="F128")),
        "a type is a list": reheader(lambda header, key: header[key].update(dtype=[])),
        "a type is another": reheader(lambda header, key: header[key].update(dtype="I32")),
        "offsets are out of the file": reheader(lambda header, key: header[key].update(data_offsets=[0, 10**12])),
        "offsets are turned": reheader(lambda header, key: header[key].update(data_offsets=[8, 0])),
        "offsets are missing": reheader(lambda header, key: header[key].pop("data_offsets")),
        "an entry is a number": reheader(lambda header, key: header.update({key: 3})),
        "the name of a tensor is a path": reheader(lambda header, key: header.update({"../../x": header.pop(key)})),
        "a tensor is missing": retensor(lambda tensors, first: tensors.pop(first)),
        "a tensor is added": retensor(lambda tensors, first: tensors.update(extra=torch.zeros(2))),
        "a tensor is added that names code": retensor(lambda tensors, first: tensors.update({EVIL: torch.zeros(2)})),
        "a tensor is turned": retensor(lambda tensors, first: tensors.update({first: torch.zeros(3, 1, 7)})),
        "all tensors are swapped": retensor(swap),
        "a tensor is empty": retensor(lambda tensors, first: tensors.update({first: torch.zeros(0)})),
        "a tensor is of integers": retensor(lambda tensors, first: tensors.update({first: tensors[first].int()})),
        "a weight is NaN": fill(float("nan")),
        "a weight is infinite": fill(float("inf")),
        "a weight is minus infinity": fill(float("-inf")),
    }
    return kinds


def swap(tensors, first):
    names, values = list(tensors), list(tensors.values())
    tensors.update(zip(names, values[1:] + values[:1], strict=True))


FILES = spoilt_files()


@pytest.mark.parametrize("kind", FILES)
def test_a_spoilt_file_is_refused(kind, templates, tmp_path):
    quick = list(ARGUMENTS)[list(FILES).index(kind) % len(ARGUMENTS)]
    for name in [quick, "SequenceTagger"]:
        folder = tmp_path / name
        if folder.exists():
            continue
        shutil.copytree(templates[name], folder)
        FILES[kind](folder)
        config = folder / CONFIG
        if not kind.startswith(CONFIG):  # whoever spoils a file gives it the right checksum
            tree = json.loads(config.read_text())
            for part in (PROCESSOR, WEIGHTS):
                if (folder / part).is_file() and (folder / part).stat().st_size < 10**9:
                    tree["sha256"][part] = bundle.sha256(folder / part)
            config.write_text(json.dumps(tree))
        assert attempt(folder) is not None, name


def sizes():
    """Return configurations that ask for far more than their weights: description → model, path, value."""
    return {
        "layers": ("SequenceTagger", ("arguments", "num_layers"), 100_000),
        "layers of a language model": ("LanguageModel", ("arguments", "num_layers"), 10**9),
        "units": ("SequenceClassifier", ("arguments", "hidden_size"), 10**6),
        "numbers per word": ("SequenceTagger", ("arguments", "words", "size"), 10**8),
        "numbers per character": ("SequenceTagger", ("arguments", "characters", "output_size"), 10**8),
        "sizes of a plain network": ("VectorClassifier", ("arguments", "hidden_sizes"), [10**5] * 3),
        "layers of a plain network": ("VectorClassifier", ("arguments", "hidden_sizes"), [8] * 10**5),
        "channels": ("Captioner", ("arguments", "image", "channels"), [8] * 10**5),
        "wide channels": ("Captioner", ("arguments", "image", "channels"), [8 * 10**5]),
        "the size of images": ("Captioner", ("processor", "images", "size"), 10**5),
        "the beam": ("Translator", ("arguments", "search"), {"beam_size": 10**8}),
        "regions": ("Captioner", ("arguments", "region_size"), 10**9),
        "padding": (
            "SequenceClassifier",
            ("processor", "tokenizer", "padding"),
            {
                "strategy": {"Fixed": 2**31},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            },
        ),
        "truncation": (
            "SequenceClassifier",
            ("processor", "tokenizer", "truncation"),
            {"direction": "Right", "max_length": 2**40, "strategy": "LongestFirst", "stride": 0},
        ),
        "an id": ("Translator", ("processor", "source", "model", "vocab", "cat"), 4_000_000_000),
    }


@pytest.mark.parametrize("what", sizes())
def test_a_configuration_that_asks_for_more_than_its_weights_is_refused(what, templates, tmp_path):
    name, path, value = sizes()[what]
    spoilt = Folder(name, templates[name])
    spoilt.set(path, value)
    assert attempt(spoilt.write(tmp_path / "model")) is not None


def test_a_cell_of_the_zoo_is_not_taken_for_one_of_the_user(templates, tmp_path, monkeypatch):
    """Those may need numbers while they are made; all others are built without memory first."""
    spoilt = Folder("SequenceTagger", templates["SequenceTagger"])
    spoilt.set(("config", "own_cells"), {"lstm": "my_cells.py"})
    spoilt.set(("arguments", "hidden_size"), 12_000)
    spoilt.set(("arguments", "cell"), "lstm")
    devices, real = [], bundle.build
    monkeypatch.setattr(bundle, "build", lambda *rest: devices.append(str(torch.get_default_device())) or real(*rest))
    assert "a model of the size of its weights" in attempt(spoilt.write(tmp_path / "model"))
    assert devices == ["meta"]


def test_a_cell_of_the_user_may_ask_for_numbers(tmp_path):
    @rnnzoo.register_cell("asking")
    class AskingCell(CELLS["lstm"]):
        def __init__(self, *, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size=input_size, hidden_size=hidden_size)
            self.start = float(self.input_weight.detach().sum())

    try:
        rnnzoo.save(build("SequenceTagger", cell="asking"), tmp_path / "model")
        assert attempt(tmp_path / "model") is None
    finally:
        CELLS.remove("asking")


CODE = {
    "a pretrained encoder by its folder": {"name": "evil"},
    "one of the Hub": {"name": "user/evil"},
    "one whose configuration names code": {
        "name": "evil",
        "config": {"model_type": "vit", "auto_map": {"AutoModel": EVIL, "AutoConfig": EVIL}},
    },
    "one of an unknown type": {"name": "evil", "config": {"model_type": "evil", "auto_map": {"AutoConfig": EVIL}}},
    "one that takes its parts from the Hub": {
        "name": "evil",
        "config": {"model_type": "detr", "backbone": "user/evil", "use_pretrained_backbone": True},
    },
    "one of timm": {"name": "evil", "config": {"model_type": "timm_wrapper", "architecture": "hf-hub:user/evil"}},
    "one with kernels of the Hub": {
        "name": "evil",
        "config": {"model_type": "vit", "attn_implementation": "user/evil", "_attn_implementation": "user/evil"},
    },
    "one of endless layers": {"name": "evil", "config": {"model_type": "vit", "num_hidden_layers": 10**6}},
    "one of endless stages": {"name": "evil", "config": {"model_type": "swin", "depths": [10**9]}},
}


@pytest.mark.parametrize("what", CODE)
def test_no_image_encoder_is_looked_for(what, templates, tmp_path, monkeypatch):
    """A folder beside holds code that transformers would run, and the answer to its question is yes."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "code.Evil", "AutoModel": "code.Evil"}})
    )
    (tmp_path / "evil" / "code.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    spoilt = Folder("Captioner", templates["Captioner"])
    spoilt.set(("arguments", "image"), CODE[what])
    assert attempt(spoilt.write(tmp_path / "model")) is not None


@pytest.mark.parametrize("own", [{"leaky": "evil_canary.py"}, {"leaky": "evil_canary"}, {EVIL: "evil_canary"}])
def test_a_cell_of_a_folder_is_not_imported(own, templates, tmp_path):
    spoilt = Folder("SequenceTagger", templates["SequenceTagger"])
    spoilt.set(("config", "own_cells"), own)
    assert "expected a cell that is known here" in attempt(spoilt.write(tmp_path / "model"))


def test_a_file_of_vectors_is_not_read(templates, tmp_path):
    spoilt = Folder("SequenceTagger", templates["SequenceTagger"])
    spoilt.set(("arguments", "words", "vectors"), "/dev/zero")
    assert "words.vectors: expected null" in attempt(spoilt.write(tmp_path / "model"))


@pytest.mark.parametrize("name", ["init_from", "freeze", "optimizer", "lr_scheduler", "processor", "self"])
def test_what_no_model_stores_is_no_argument(name, templates, tmp_path):
    spoilt = Folder("SequenceTagger", templates["SequenceTagger"])
    spoilt.set(("arguments", name), "x")
    assert f"arguments.{name}: expected an argument of SequenceTagger" in attempt(spoilt.write(tmp_path / "model"))


@pytest.mark.parametrize("part", ["config", "arguments", "processor"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_missing_key_is_named_or_has_a_default(name, part, templates, tmp_path):
    keys = [path for path in Folder(name, templates[name]).leaves() if path[0] == part and len(path) == 2]
    for number, (_, key) in enumerate(keys):
        spoilt = Folder(name, templates[name])
        {"config": spoilt.config, "arguments": spoilt.config["arguments"], "processor": spoilt.processor}[part].pop(key)
        text = attempt(spoilt.write(tmp_path / str(number)))
        assert text is None or part != "processor" or key in text or "kind" in text, text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_answer_comes_from_weights_that_are_no_numbers(name, value, templates, tmp_path):
    """The last number of some tensors in turn."""
    stored = load((templates[name] / WEIGHTS).read_bytes())
    for number, key in enumerate(some(list(stored), 4)):
        spoilt = Folder(name, templates[name])
        tensors = {other: tensor.clone() for other, tensor in stored.items()}
        if not tensors[key].is_floating_point():
            continue
        tensors[key].view(-1)[-1] = value
        spoilt.weights = save(tensors)
        text = attempt(spoilt.write(tmp_path / str(number)))
        assert f"{WEIGHTS}, {key}: expected finite numbers, got {'NaN' if value != value else 'an infinity'}" in text


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_folder_that_is_as_it_was_saved_loads_and_answers(name, templates, tmp_path):
    folder = Folder(name, templates[name]).write(tmp_path / "model")
    assert attempt(folder) is None
    with watched():
        found = list(rnnzoo.load(folder).answer(SAMPLES[name]))
    assert len(found) == len(SAMPLES[name])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_built_without_memory_first(cell, tmp_path):
    rnnzoo.save(build("LanguageModel", cell=cell), tmp_path / "model")
    config = bundle.read_config(tmp_path / "model")
    processor = bundle.read_processor(tmp_path / "model")
    header = bundle.read_header(tmp_path / "model" / WEIGHTS)
    draft = bundle.build_draft(tmp_path / "model" / CONFIG, config, processor, header)
    assert {value.device.type for value in draft.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_weights_have_the_mode_of_their_neighbours(umask, templates, tmp_path):
    model = rnnzoo.load(templates["VectorClassifier"])
    before = os.umask(umask)
    try:
        rnnzoo.save(model, tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}, modes
