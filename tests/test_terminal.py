"""What is in data, names and messages reaches no terminal as control characters, from whatever verb and place."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from small_models import build

import rnnzoo
import rnnzoo.recipes
from rnnzoo.cli import generate
from rnnzoo.cli.main import main
from rnnzoo.errors import InputError
from rnnzoo.terminal import UNSAFE, EscapedOutput, echo, escape, to_json

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data
ROOT = Path(rnnzoo.__file__).parent
NASTY = "x\x1b[31m\x07\r\x08\x7f\x85\x9b2J\u202e\u2066\u2069\u200f\u061cy"
NAME = "x\u202e\u2066\u2069\u200f\u061cy"  # what YAML, and so the command line, takes as a value
SMALL = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
CONTROL = [*map(chr, range(32)), *map(chr, range(127, 160))]
SURROGATE = chr(0xD800)
MARKS = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
OWN_WAY = {
    "terminal.py": {"print"},
    "cli/generate.py": {"write"},
    "data/features.py": {"print"},
}  # pieces; numbers alone


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_printed_in_another_way(path):
    calls = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            calls.add("print")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.stdout.write", "sys.stderr.write"):
            calls.add("write")
    assert calls <= OWN_WAY.get(path.relative_to(ROOT).as_posix(), set())


@pytest.mark.parametrize("letter", [*CONTROL, *MARKS, SURROGATE], ids=lambda letter: f"U+{ord(letter):04X}")
def test_each_character_is_shown_by_its_number(letter):
    shown = escape(f"a{letter}b")
    value = json.loads(to_json({letter: [letter]}))
    assert value == {letter: [letter]}
    assert not UNSAFE.search(to_json({letter: [letter]}))
    if letter in "\n\t":
        assert shown == f"a{letter}b"
    else:
        assert shown == f"a\\{'x' if ord(letter) < 256 else 'u'}{ord(letter):0{2 if ord(letter) < 256 else 4}x}b"
        assert escape(shown) == shown
    shown.encode()


def test_other_text_stays_as_it_is():
    text = "äöü שלום مرحبا 日本 🙂 \u00a0\u2028 tab\t line\n"
    assert escape(text) == text
    assert json.loads(to_json(text)) == text


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder of data and a run whose names, words, labels, columns and title are nasty."""
    folder = tmp_path_factory.mktemp("work")
    data = folder / f"da{NAME}ta"
    data.mkdir()
    rows = "".join(f"{NASTY}{index % 3} a,{NASTY}{index % 2}\n" for index in range(24))
    head = "".join(
        json.dumps({"te" + NAME: row.split(",")[0], "label": row.split(",")[1]}) + "\n"
        for row in rows.split("\n")
        if row
    )
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text(head)
    recipe = folder / f"re{NASTY}cipe.yaml"
    sst2 = next(each for each in rnnzoo.recipes.list_recipes() if each.name == "many_to_one/sst2")
    recipe.write_text("# \u202e\n" + sst2.path.read_text())
    return {"folder": folder, "data": data, "recipe": recipe, "run": folder / f"r{NASTY}un"}


def words_of(work):
    column = "--data.columns.text=te" + NAME
    return [str(work["recipe"]), "--data.path", str(work["data"]), column, "--model.hidden_size=4", *SMALL]


def check(capsys, code, *argv):
    """Run a command and see that nothing unsafe is printed; return what is."""
    try:
        returned = main(list(argv))
    except SystemExit as stop:
        returned = stop.code
    told = capsys.readouterr()
    assert returned == code, told.err
    found = UNSAFE.search(told.out + told.err)
    assert not found, (told.out + told.err)[max(0, found.start() - 80) : found.start() + 20]
    return told


def test_a_training_and_all_that_is_done_with_it(work, capsys):
    run = str(work["run"])
    told = check(capsys, 0, "fit", *words_of(work), "--run_dir", run)
    assert r"x\u001b[31m\u0007" in told.out
    for name in ("report.md", "report.json"):
        assert not UNSAFE.search((work["run"] / name).read_text(encoding="utf-8"))
    assert "was set aside" in told.out or "set aside" in told.out  # a note
    source = work["folder"] / f"i{NASTY}n.txt"
    source.write_text(f"{NASTY} a\n", newline="")
    told = check(capsys, 0, "predict", run, "--input", str(source))
    assert json.loads(told.out.splitlines()[0])["label"].startswith(NASTY)
    told = check(capsys, 0, "test", run)
    assert r"data: " in told.out
    check(capsys, 2, "fit", "--resume", run)
    check(capsys, 2, "generate", run)
    check(capsys, 0, "fit", "--resume", run, "--trainer.max_epochs=2")
    (work["data"] / "test.jsonl").write_text((work["data"] / "test.jsonl").read_text() * 2)
    told = check(capsys, 2, "fit", "--resume", run, "--trainer.max_epochs=3")
    assert "test.jsonl was changed" in told.err
    (work["run"] / "model" / "config.json").unlink()
    (work["run"] / "model").rename(work["run"] / "gone")
    check(capsys, 0, "test", run)
    check(capsys, 0, "gradients", *words_of(work), "--steps=0", "--run_dir", run + "2")


@pytest.mark.parametrize(
    "argv",
    [
        [NASTY],
        ["fit", NASTY],
        ["fit", NASTY + ".yaml"],
        ["fit", "sst2", "--" + NASTY, "1"],
        ["fit", "sst2", "--model.cell", NASTY],
        ["fit", "sst2", "--model." + NASTY, "1"],
        ["fit", "sst2", "--data.path", NASTY],
        ["fit", "sst2", "--data.columns", "{" + NASTY + ": a}"],
        ["fit", "--resume", NASTY],
        ["test", NASTY],
        ["predict", NASTY],
        ["predict", "a", "--input", NASTY],
        ["generate", NASTY, "--prompt", NASTY],
        ["generate", "a", "--temperature", NASTY],
        ["compare", "sst2", "--cells", NASTY],
        ["gradients", "sst2", "--cells", NASTY],
        ["bench", NASTY],
        ["bench", "--explain", NASTY],
        ["recipes", NASTY],
        ["cells", NASTY],
        ["models", NASTY],
        ["cells", "--import", NASTY + ".py"],
        ["cells", "--import", NASTY],
    ],
    ids=lambda argv: " ".join(argv).replace(NASTY, "X"),
)
def test_errors(tmp_path, monkeypatch, capsys, argv):
    monkeypatch.chdir(tmp_path)
    told = check(capsys, 2, *argv)
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_configuration_that_is_printed(work, capsys):
    told = check(capsys, 0, "fit", *words_of(work), "--print_config")
    assert "class_path" in told.out
    check(capsys, 0, "fit", *words_of(work), "--model.help")


def test_listings(work, tmp_path, monkeypatch, capsys):
    pattern = tmp_path / "pat"
    pattern.mkdir()
    (pattern / "a.yaml").write_text(f"# a\x1b[31m\u202e{MARKS[0]}\n")
    monkeypatch.setattr(rnnzoo.recipes, "recipe_folder", lambda: tmp_path)
    assert r"a\x1b[31m\u202e\u061c" in check(capsys, 0, "recipes").out
    assert json.loads(check(capsys, 0, "recipes", "--json").out)[0]


def test_bugs_and_warnings(capsys, monkeypatch):
    def fail(_):
        raise KeyError(NASTY)

    def refuse(_):
        raise InputError(NASTY, expected=NASTY, got=NASTY)

    monkeypatch.setattr(sys, "excepthook", None)
    for run, words in ((fail, []), (refuse, ["--debug"])):
        monkeypatch.setattr("rnnzoo.cli.cells.run", run)
        with pytest.raises((KeyError, InputError)) as caught:
            main(["cells", *words])
        sys.excepthook(caught.type, caught.value, caught.tb)
        told = capsys.readouterr().err
        assert "Traceback" in told
        assert not UNSAFE.search(told)
    monkeypatch.setattr("rnnzoo.cli.cells.run", lambda _: 0)
    check(capsys, 0, "cells")
    assert "beware of x\\x1b" in warnings.formatwarning(f"beware of {NASTY}", UserWarning, NASTY, 1)
    assert not UNSAFE.search(warnings.formatwarning(f"beware of {NASTY}", UserWarning, NASTY, 1))


@pytest.mark.parametrize("tty", [True, False])
def test_generated_text_is_exact_but_on_a_terminal(monkeypatch, tty):
    class Model:
        def stream(self, prompt, **_):
            yield from ("\x1b", "[31m", "ä")

    class Stream(io.StringIO):
        def isatty(self):
            return tty

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    generate.write(Model(), "\x9b", options=None, unknown="keep")
    assert stream.getvalue() == ("\\x9b\\x1b[31mä\n" if tty else "\x9b\x1b[31mä\n")


def test_what_libraries_write():
    stream = io.StringIO()
    EscapedOutput(stream).write(NASTY)
    echo(NASTY, file=stream)
    assert not UNSAFE.search(stream.getvalue())
    assert not EscapedOutput(stream).isatty()


def test_a_surrogate_in_an_answer_does_not_end_the_command(tmp_path):
    rnnzoo.save(build("Captioner"), tmp_path / "model")
    (tmp_path / "in.jsonl").write_text('{"image": "\\ud800.jpg"}\n')
    command = [sys.executable, "-m", "rnnzoo", "predict", str(tmp_path / "model"), "--skip_bad", "--input"]
    found = subprocess.run(
        [*command, str(tmp_path / "in.jsonl")], capture_output=True, text=True, check=False, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert "\\ud800.jpg" in found.stdout
    assert UNSAFE.search(found.stdout) is None
