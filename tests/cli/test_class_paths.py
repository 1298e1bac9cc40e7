"""Classes that recipes name: subclasses of what their keys are for, of modules that are trusted or imported first."""

from __future__ import annotations

import sys

import pytest
import yaml

from rnnzoo.cli.main import main
from rnnzoo.imports import import_code

RECIPE = {
    "model": {"class_path": "rnnzoo.models.SequenceTagger", "init_args": {"hidden_size": 4}},
    "data": {"class_path": "rnnzoo.data.TaggingData", "init_args": {"synthetic": "hidden_markov", "limit": 40}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}
CODE = """
import torch
from lightning.pytorch.callbacks import Callback
open("ran", "a").write("x")
class Mine(torch.optim.SGD): pass
class MyCallback(Callback): pass
def function(*arguments): open("called", "w").close()
"""
CALLBACK = "lightning.pytorch.callbacks.LambdaCallback"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Lay out a module that tells when it runs, where imports find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "evil_code.py").write_text(CODE)
    (tmp_path / "evil.yaml").write_text("class_path: evil_code.Mine\n")
    yield tmp_path
    sys.modules.pop("evil_code", None)


def write(folder, change):
    """Write the recipe after a change."""
    tree = yaml.safe_load(yaml.safe_dump(RECIPE))
    change(tree)
    (folder / "own.yaml").write_text(yaml.safe_dump(tree))
    return "own.yaml"


def refused(capsys, folder, *words):
    """Run a command that has to fail in one line, without code that it names; return the line."""
    assert main(list(words)) == 2
    found = capsys.readouterr()
    (line,) = found.err.splitlines()
    assert not (folder / "ran").exists()
    assert not (folder / "called").exists()
    assert not (folder / "runs").exists()
    return line


def at(*keys):
    """Return what puts a value at a place of the recipe."""

    def put(tree, value):
        for key in keys[:-1]:
            tree = tree.setdefault(key, {})
        tree[keys[-1]] = value

    return put


PLACES = {
    "model": at("model"),
    "data": at("data"),
    "optimizer": at("model", "init_args", "optimizer"),
    "lr_scheduler": at("model", "init_args", "lr_scheduler"),
    "callbacks": lambda tree, value: at("trainer", "callbacks")(tree, [value]),
    "one callback": at("trainer", "callbacks"),
    "logger": at("trainer", "logger"),
    "loggers": lambda tree, value: at("trainer", "logger")(tree, [value]),
    "strategy": at("trainer", "strategy"),
    "accelerator": at("trainer", "accelerator"),
    "plugins": lambda tree, value: at("trainer", "plugins")(tree, [value]),
    "profiler": at("trainer", "profiler"),
    "options of a cell": lambda tree, value: at("model", "init_args", "recurrent")(
        tree, {"cell_options": {"x": value}}
    ),
    "an argument of a callback": lambda tree, value: at("trainer", "callbacks")(
        tree, [{"class_path": CALLBACK, "init_args": {"on_fit_start": value}}]
    ),
    "a further argument of an optimizer": lambda tree, value: at("model", "init_args", "optimizer")(
        tree, {"class_path": "torch.optim.SGD", "dict_kwargs": {"x": value}}
    ),
}
NAMES = ("os.system", "subprocess.Popen", "evil_code.function", "evil_code.Mine", "builtins.eval", "torch.hub.load")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_subclass_or_of_no_trusted_module_is_refused(place, name, folder, capsys):
    for value in ({"class_path": name}, {"class_path": name, "init_args": {"command": "touch called"}}):
        line = refused(capsys, folder, "fit", write(folder, lambda tree, value=value: PLACES[place](tree, value)))
        assert name in line or "expected" in line
    if place not in ("model", "data", "options of a cell"):  # these want a mapping
        line = refused(capsys, folder, "fit", write(folder, lambda tree: PLACES[place](tree, name)))
        assert repr(name) in line


OVERRIDES = [
    ["--model.optimizer", "os.system"],
    ["--model.optimizer.class_path", "os.system"],
    ["--model.optimizer", "{class_path: os.system}"],
    ["--model.init_args.optimizer", "evil_code.Mine"],
    ["--trainer.callbacks", "evil_code.MyCallback"],
    ["--trainer.callbacks+", "evil_code.MyCallback"],
    ["--trainer.callbacks", "[{class_path: evil_code.MyCallback}]"],
    ["--trainer.callbacks", CALLBACK, "--trainer.callbacks.on_fit_start", "evil_code.function"],
    ["--trainer.logger", "evil.yaml"],
    ["--model.optimizer", "evil.yaml"],
    ["--model.class_path", "evil_code.Mine"],
    ["--data.class_path", "subprocess.Popen"],
]


@pytest.mark.parametrize("words", OVERRIDES, ids=" ".join)
def test_overrides_are_held_to_the_same(words, folder, capsys):
    refused(capsys, folder, "fit", write(folder, lambda tree: None), *words)


def test_two_files_are_read_together(folder, capsys):
    """What one file says of the class of a callback, and another of its arguments."""
    first = write(folder, lambda tree: tree["trainer"].update(callbacks={"class_path": CALLBACK}))
    second = folder / "second.yaml"
    second.write_text("trainer: {callbacks: {init_args: {on_fit_start: evil_code.function}}}\n")
    refused(capsys, folder, "fit", first, "--config", str(second))


def test_a_class_of_a_trusted_module_is_taken(folder, capsys):
    def change(tree):
        tree["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
        tree["model"]["init_args"]["lr_scheduler"] = "torch.optim.lr_scheduler.ReduceLROnPlateau"
        tree["trainer"]["callbacks"] = [
            {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/loss"}},
            "EarlyStopping",
        ]
        tree["trainer"]["callbacks"][1] = {
            "class_path": "EarlyStopping",
            "init_args": {"monitor": "val/accuracy", "mode": "max"},
        }
        tree["trainer"]["profiler"] = "simple"
        tree["trainer"]["default_root_dir"] = "a.b"
        tree["trainer"]["fast_dev_run"] = True

    assert main(["fit", write(folder, change), "--model.optimizer.momentum", "0.5"]) == 0


def test_a_class_of_ones_own_is_taken_after_its_import(folder, capsys):
    recipe = write(folder, lambda tree: tree["trainer"].update(fast_dev_run=True))
    words = ["fit", recipe, "--model.optimizer", "evil_code.Mine", "--model.optimizer.lr", "0.1"]
    words += ["--trainer.callbacks", "[{class_path: evil_code.MyCallback}]"]
    line = refused(capsys, folder, *words)
    assert line.endswith("got 'evil_code.Mine'; if you trust it, give --import evil_code")
    assert main([*words, "--import", "evil_code"]) == 0
    import_code("evil_code.py")
    assert (folder / "ran").read_text() == "x"


YAML = {
    "a tag of Python": "model: !!python/object/apply:os.system ['touch called']\n",
    "a name of Python": "model: {class_path: !!python/name:os.system ''}\n",
    "nested lists": "model: " + "[" * 100_000 + "]" * 100_000 + "\n",
    "nested mappings": "model: " + "{a: " * 100_000 + "}" * 100_000 + "\n",
    "indented mappings": "".join(" " * depth + f"a{depth}:\n" for depth in range(300)),
    "aliases that multiply": "a0: &a0 [1, 1]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
    "merges that multiply": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)),
    "an alias of itself": "a: &a [*a]\n",
    "a date that is none": "model: 2024-13-45\n",
    "a number in base 60 without end": "model: " + "1:" * 5000 + "1\n",
    "a long file": "model: x\n" + "# comment\n" * 2_000_000,
    "another encoding": "model: ä\n".encode("utf-16"),
    "a file of zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("kind", YAML)
def test_yaml_that_asks_for_much_or_names_code_is_refused(kind, folder, capsys):
    text = YAML[kind]
    (folder / "own.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refused(capsys, folder, "fit", "own.yaml")
    assert "own.yaml" in line or "error: model: " in line
