"""One bad input costs one answer: what comes before it is kept, and with --skip_bad what comes after is answered."""

from __future__ import annotations

import gzip
import json

import pytest
from PIL import Image
from small_models import build

import rnnzoo
from rnnzoo.cli.main import main
from rnnzoo.data.streams import read_samples
from rnnzoo.errors import InputError

GOOD = 70  # more than two batches


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in (
        "SequenceTagger",
        "SequenceClassifier",
        "Translator",
        "FrameLabeller",
        "VectorClassifier",
        "Captioner",
    ):
        rnnzoo.save(build(name), folder / name)
    return folder


def predict(models, name, source, *words):
    output = source.with_name("out.jsonl")
    output.unlink(missing_ok=True)
    code = main(["predict", str(models / name), "--input", str(source), "--output", str(output), *words])
    lines = [json.loads(line) for line in output.read_text().splitlines()] if output.is_file() else None
    return code, lines


FORMATS = {  # model, name of the file, header, a good item, bad items
    "jsonl": (
        "SequenceTagger",
        "in.jsonl",
        b"",
        b'{"tokens": ["a", "b"]}\n',
        [b"{\n", b"[]\n", b'{"x": 1}\n', b'{"tokens": 3}\n', b'{"tokens": ["\xff"]}\n', b'{"tokens": [1]}\n'],
    ),
    "text": ("SequenceClassifier", "in.txt", b"", b"a b\n", [b"\xff\n"]),
    "translation": ("Translator", "in.txt", b"", b"a b\n", [b"\n", b"\xc3\n"]),
    "csv": ("SequenceClassifier", "in.csv", b"text,x\n", b"a b,1\n", [b"a\n", b"a,b,c,d\n", b"\xff,1\n"]),
    "tsv": ("SequenceClassifier", "in.tsv", b"text\tx\n", b"a b\t1\n", [b"a\n", b"\xff\t1\n"]),
    "frames": ("FrameLabeller", "in.txt", b"", b"1 2\n3 4\n\n", [b"1 2\nx 4\n5 6\n\n", b"1 2\n\xff\n3 4\n\n"]),
    "vectors": ("VectorClassifier", "in.txt", b"", b"1 2\n", [b"1 x\n", b"1\n", b"nan 1\n"]),
}
CASES = [(name, index) for name, case in FORMATS.items() for index in range(len(case[4]))]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_one_bad_input_costs_one_answer(models, tmp_path, capsys, name, index):
    model, file, header, good, bad = FORMATS[name]
    source = tmp_path / file
    source.write_bytes(header + good * GOOD)
    code, whole = predict(models, model, source)
    assert (code, len(whole)) == (0, GOOD)
    for before in (0, 1, 32, 69, GOOD):
        source.write_bytes(header + good * before + bad[index] + good * (GOOD - before))
        capsys.readouterr()
        code, lines = predict(models, model, source)
        told = capsys.readouterr().err
        assert code == 2
        assert told.count("\n") == 1
        if before == 0:
            assert lines is None
        else:
            assert lines == whole[:before]
            assert f"; the {before} answers before it are in {source.with_name('out.jsonl')}; --skip_bad" in told
        code, lines = predict(models, model, source, "--skip_bad")
        told = capsys.readouterr().err
        assert code == 0
        assert list(lines[before]) == ["error"]
        assert f"{source}, line " in lines[before]["error"]
        assert lines[:before] + lines[before + 1 :] == whole
        assert told == f"note: 1 of {GOOD + 1} inputs were refused: see 'error' in their lines\n"


def test_answers_on_standard_output_are_there_too(models, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('{"tokens": ["a"]}\n' * 3 + "{\n")
    assert main(["predict", str(models / "SequenceTagger"), "--input", str(tmp_path / "in.jsonl")]) == 2
    told = capsys.readouterr()
    assert told.out.count("\n") == 3
    assert "; the 3 answers before it were written; --skip_bad" in told.err


@pytest.mark.parametrize("words", [(), ("--skip_bad",)])
def test_what_ends_the_input_ends_the_command(models, tmp_path, capsys, words):
    """A file that is cut short, or an unclosed quotation mark: nothing after it can be read."""
    numbers = [number * 7919 % 10007 for number in range(2000)]
    for name, head, row in (("jsonl", b"", b'{"tokens": ["w%d"]}\n'), ("csv", b"tokens,x\n", b"w%d,1\n")):
        source = tmp_path / f"in.{name}.gz"
        source.write_bytes(gzip.compress(head + b"".join(row % number for number in numbers))[:-900])
        code, lines = predict(models, "SequenceTagger", source, *words)
        assert code == 2
        assert 0 < len(lines) < 2000
        assert "expected a file that can be read" in capsys.readouterr().err
    table = tmp_path / "in.csv"
    table.write_text("text,x\n" + "a,1\n" * 40 + '"a,1\n' + "a,1\n" * 40)
    code, lines = predict(models, "SequenceClassifier", table, *words)
    assert (code, len(lines)) == (2, 40)
    assert "expected a table" in capsys.readouterr().err
    table.write_text("other,x\n" + "a,1\n" * 40)
    assert predict(models, "SequenceClassifier", table, *words)[1] is None or words


def test_a_sequence_with_a_bad_row_is_refused_as_a_whole():
    lines = [b"id,f0,f1\n", b"a,1,2\n", b"b,1,2\n", b"a,x,2\n", b"b,3,4\n", b"a,5,6\n"]
    options = {"kind": "frames", "format": "csv", "column": "id", "features": ["f0", "f1"], "where": "in"}
    first, second = read_samples(lines, **options, skip_bad=True)
    assert isinstance(first, InputError)
    assert "line 4" in str(first)
    assert second["frames"] == [[1, 2], [3, 4]]
    with pytest.raises(InputError, match="line 4"):
        list(read_samples(lines, **options))
    with pytest.raises(InputError, match="expected 3 fields"):  # of no known sequence
        list(read_samples([*lines, b"a,1\n"], **options, skip_bad=True))


def test_from_python(models):
    model = rnnzoo.load(models / "SequenceTagger")
    samples = [{"tokens": ["a"]}, {"tokens": 3, "name": "mine"}, {"tokens": ["b", "a"]}]
    answers = list(model.answer(samples, skip_bad=True))
    assert [list(answer) for answer in answers] == [["tags"], ["error"], ["tags"]]
    assert "mine" in answers[1]["error"]
    stream = model.answer(samples)
    assert next(stream) == answers[0]
    with pytest.raises(InputError, match="mine"):
        next(stream)


@pytest.mark.parametrize("value", ["true", "false", ""])
def test_the_flag_takes_a_value(models, tmp_path, value):
    (tmp_path / "in.jsonl").write_text('{"tokens": ["a"]}\n{\n')
    words = ["--skip_bad", value] if value else ["--skip_bad"]
    assert predict(models, "SequenceTagger", tmp_path / "in.jsonl", *words)[0] == (2 if value == "false" else 0)


@pytest.mark.parametrize("bad", ["missing.png", "broken.png", "in.txt"])
def test_a_bad_image_costs_one_caption(models, tmp_path, capsys, bad):
    for index in range(3):
        Image.new("RGB", (16, 16), (80 * index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    paths = [str(tmp_path / f"{index}.png") for index in (0, 1, 2, 0, 1)]
    source = tmp_path / "in.txt"
    source.write_text("\n".join(paths) + "\n")
    whole = predict(models, "Captioner", source)[1]
    source.write_text("\n".join([*paths[:3], str(tmp_path / bad), *paths[3:]]) + "\n")
    assert predict(models, "Captioner", source) == (2, whole[:3])
    assert str(tmp_path / bad) in capsys.readouterr().err
    code, lines = predict(models, "Captioner", source, "--skip_bad")
    assert (code, lines[:3] + lines[4:]) == (0, whole)
    assert lines[3].keys() == {"image", "error"}
