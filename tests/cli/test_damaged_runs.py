"""Each file of a run folder, damaged in many ways, under each verb: an answer, or one line that names the file."""

from __future__ import annotations

import shutil
from itertools import product

import pytest

from rnnzoo.cli import compare
from rnnzoo.cli.compare_run import can_resume
from rnnzoo.cli.main import main
from rnnzoo.cli.resume import find_interrupted
from rnnzoo.cli.run_folder import LOCK, read_owner, start_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data
SMALL = ["hidden_markov", "--data.limit", "60", "--trainer.max_epochs", "1", "--model.hidden_size", "6"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
NULLS = b'{"model": null, "data": null, "training": null, "metrics": null, "files": null, "changes": null}'
DAMAGES = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "not UTF-8": lambda whole: b"\xff\xfe\0" + whole,
    "nested": lambda whole: b"[" * 100_000,
    "list": lambda whole: b"[1, 2]",
    "nulls": lambda whole: NULLS,
    "words": lambda whole: b'epoch,step,train/loss\nx,1,"y\n',
    "no numbers": lambda whole: whole.replace(b"1", b"x"),
    "zeros": lambda whole: bytes(len(whole)),
}
RECORDS = ("config.yaml", "inputs.json", "metrics.csv", "report.json", LOCK)
STORED = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "model/config.json", "model/processor.json")
VERBS = {
    "test": ["test", "c/lstm/seed_1"],
    "predict": ["predict", "c/lstm/seed_1", "--input", "words.txt"],
    "resume": ["fit", "--resume", "c/lstm/seed_1", "--trainer.max_epochs", "2"],
    "repeat": ["fit", "c/lstm/seed_1/config.yaml", "--run_dir", "new"],
    "compare": ["compare", *SMALL, "--cells", "lstm", "--run_dir", "c"],
}
ALL = [*product((*RECORDS, *STORED, "model/model.safetensors", "../../settings.json"), DAMAGES, VERBS)]
QUICK = [
    *product(("report.json", "../../settings.json"), ("half", "not UTF-8", "nested", "list", "nulls"), ("compare",)),
    *product(("metrics.csv",), ("not UTF-8", "words", "no numbers"), ("compare",)),
    *product(("inputs.json",), ("nested", "nulls"), ("resume",)),
    ("config.yaml", "not UTF-8", "resume"),
    ("metrics.csv", "not UTF-8", "resume"),
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Return a folder with a comparison ``c`` of one run, and something to answer."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(compare, "train", train_here)
        assert main(VERBS["compare"]) == 0
    (folder / "words.txt").write_text("a b\n")
    return folder


def train_here(plan, variant, seed, place):
    return "" if main(["fit", plan.recipe, *plan.overrides, *variant.words, f"--run_dir={place}"]) == 0 else "failed"


@pytest.fixture
def run(comparison, tmp_path, monkeypatch):
    """Return the run of a copy of the comparison, in the current folder."""
    shutil.copytree(comparison, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy" / "c" / "lstm" / "seed_1"


def check(run, capsys, file, damage, verb):
    path = run / file
    path.write_bytes(DAMAGES[damage](path.read_bytes() if path.is_file() else b"{}"))
    code = main(VERBS[verb])
    printed = capsys.readouterr().err.splitlines()
    errors = [line for line in printed if line.startswith("rnnzoo: error: ")]
    assert (code, len(errors)) in ((0, 0), (2, 1)), printed
    return code


@pytest.mark.parametrize(("file", "damage", "verb"), QUICK)
def test_a_damaged_record_is_told_in_one_line(run, capsys, file, damage, verb):
    code = check(run, capsys, file, damage, verb)
    assert code == (0 if file == "metrics.csv" else 2)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage", "verb"), ALL)
def test_any_damaged_file_is_told_in_one_line_or_survived(run, capsys, file, damage, verb):
    check(run, capsys, file, damage, verb)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_comparison_resumes_only_what_can_be_read(run, damage):
    assert can_resume(run)
    (run / "config.yaml").write_bytes(DAMAGES[damage]((run / "config.yaml").read_bytes()))
    assert can_resume(run) in (True, False)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_report_tells_no_steps_and_a_damaged_lock_no_owner(run, damage):
    assert find_interrupted(run).reported_steps() > 0
    (run / "report.json").write_bytes(DAMAGES[damage]((run / "report.json").read_bytes()))
    assert find_interrupted(run).reported_steps() == -1 or damage == "no numbers"
    (run / LOCK).write_bytes(DAMAGES[damage](b'{"pid": 11, "host": "a"}'))
    with (run / LOCK).open("rb") as file:
        assert read_owner(file.fileno()) == {} or damage in ("nulls", "no numbers")
    assert start_of("1\0") is None
