"""``rnnzoo generate``, and ``predict`` with a language model: text as it is chosen, and one line for each mistake."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch

from rnnzoo import bundle
from rnnzoo.cli.main import main
from rnnzoo.models import LanguageModel, SequenceClassifier
from rnnzoo.models.generation import generation_options, never, token_distributions
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions
from rnnzoo.text.writer import TextWriter

TEXT = "so it goes\nand goes on\n"


def language_model(kind, **options):
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([TEXT], TokenizerOptions(kind=kind))
    return LanguageModel(
        processor=LanguageProcessor(tokenizer=tokenizer, **options), hidden_size=6, words={"size": 5}
    ).eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the folders of an untrained model of characters, one of words, and one that is no language model."""
    folder = tmp_path_factory.mktemp("models")
    bundle.save(language_model("characters"), folder / "characters")
    bundle.save(language_model("words", line_end=True), folder / "words")
    tokenizer = Tokenizer.train([TEXT], TokenizerOptions())
    processor = TextClassificationProcessor(tokenizer=tokenizer, labels=LabelMap(["x", "y"]))
    bundle.save(SequenceClassifier(processor=processor, hidden_size=4), folder / "classifier")
    return folder


@pytest.fixture
def generate(models, capsys):
    def run(*words, model="characters"):
        code = main(["generate", str(models / model), *words])
        captured = capsys.readouterr()
        return captured.out if code == 0 else f"{code}: {captured.err}"

    return run


def test_the_prompt_and_what_follows(generate):
    found = generate("--prompt", "so it", "--max_tokens", "20", "--seed", "3")
    expected = language_model("characters").generate("so it", max_tokens=20, options={"seed": 3})
    assert found.removesuffix("\n") == f"so it{expected}".removesuffix("\n")
    assert found.endswith("\n")
    assert generate("--prompt", "so it", "--max_tokens", "20", "--seed", "3") == found
    assert generate("--prompt", "so it", "--max_tokens", "20", "--seed", "4") != found


def test_words_follow_with_a_blank_between(generate):
    found = generate("--prompt", "so it", "--method", "greedy", "--max_tokens", "3", model="words")
    expected = language_model("words", line_end=True).generate("so it", max_tokens=3, options={"method": "greedy"})
    assert expected[0] in " \n"
    assert found == f"so it{expected}\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "greedy"],
        ["--method", "beam", "--beam_size", "3", "--block_ngrams", "2"],
        ["--temperature", "0.5", "--top_k", "4", "--top_p", "0.9"],
        ["--prompt", "", "--max_tokens", "1"],
    ],
)
def test_every_way_to_choose(generate, options):
    assert generate(*options).endswith("\n")


def test_several_texts_of_different_seeds(generate):
    first, second = generate("--count", "2", "--max_tokens", "20").split("--- 2 ---\n")
    assert first != second
    assert second == generate("--seed", "1", "--max_tokens", "20")


def test_the_prompt_from_a_file_or_a_pipe(generate, tmp_path, monkeypatch):
    options = ["--method", "greedy", "--max_tokens", "5"]
    expected = generate("--prompt", "so it\ngoes", *options)
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbfso it\r\ngoes\r\n")
    assert generate("--prompt_file", str(tmp_path / "prompt.txt"), *options) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"so it\ngoes\n")))
    assert generate("--prompt_file", "-", *options) == expected


def test_text_is_shown_piece_by_piece(models, monkeypatch):
    shown = []

    class Terminal(io.StringIO):
        def flush(self):
            shown.append(self.getvalue())

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["generate", str(models / "characters"), "--prompt", "so", "--max_tokens", "6"]) == 0
    assert [len(text) for text in shown[:6]] == [3, 4, 5, 6, 7, 8]


def test_unknown_characters_of_the_prompt(generate):
    complaint = generate("--prompt", "so Q!")
    assert complaint.startswith("2: rnnzoo: error: prompt: expected a text of the model's vocabulary, got unknown")
    assert "'Q', '!'" in complaint
    assert complaint.count("\n") == 1
    skipped = generate("--prompt", "so Q!", "--unknown", "skip", "--method", "greedy", "--max_tokens", "9")
    assert skipped[len("so Q!") :] == generate("--prompt", "so ", "--method", "greedy", "--max_tokens", "9")[3:]
    assert generate("--prompt", "so Q!", "--unknown", "keep").startswith("so Q!")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--prompt", "a", "--prompt_file", "b"], "expected --prompt or --prompt_file, got both"),
        (["--prompt_file", "nowhere.txt"], "--prompt_file nowhere.txt: expected UTF-8 text that can be read"),
        (["--max_tokens", "0"], "--max_tokens: expected a whole number of at least 1"),
        (["--count", "two"], "--count: expected a whole number of at least 1"),
        (["--temperature", "hot"], "--temperature: expected a number, got 'hot'"),
        (["--temperature", "0"], "temperature: expected a number above 0"),
        (["--top_k", "1.5"], "--top_k: expected a whole number"),
        (["--top_p", "2"], "top_p"),
        (["--method", "beem"], "did you mean 'beam'"),
        (["--unknown", "skp"], "did you mean 'skip'"),
        (["--promt", "a"], "did you mean '--prompt'"),
        (
            ["--beam_size", "3"],
            "--beam_size: expected the method beam, got sample; give --method beam, or",
        ),
        (["--method", "beam", "--count", "2"], "--count: expected the method sample, got beam"),
        (["--method", "greedy", "--temperature", "2"], "--temperature: expected the method sample, got greedy"),
    ],
)
def test_a_mistake_is_one_line(generate, options, complaint):
    found = generate(*options)
    assert found.startswith("2: rnnzoo: error: ")
    assert complaint in found
    assert found.count("\n") == 1


def test_other_models_do_not_generate(generate, capsys):
    assert "expected a LanguageModel, got a SequenceClassifier; rnnzoo predict" in generate(model="classifier")
    assert "nothing" in generate(model="absent")
    assert main(["generate"]) == 2
    assert "expected a run folder or a model folder" in capsys.readouterr().err
    assert main(["generate", "--help"]) == 0
    assert "--prompt TEXT" in capsys.readouterr().out


def test_lines_are_measured_by_predict(models, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("so it goes\n\nQ\n", encoding="utf-8")
    assert main(["predict", str(models / "characters"), "--input", str(tmp_path / "lines.txt")]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["tokens"] for answer in answers] == [10, 0, 1]
    assert [answer["loss"] is None for answer in answers] == [False, True, False]
    [expected] = language_model("characters").score(["so it goes"])
    assert answers[0]["loss"] == pytest.approx(expected["loss"], abs=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}, {"method": "greedy"}, {}])
def test_distributions_are_those_that_the_tokens_were_chosen_from(options):
    model = language_model("characters")
    with torch.no_grad():
        model.head.weight.mul_(20)
    chosen = generation_options(options, 30)
    tokens, found = token_distributions(model, "so it", options=chosen)
    writer = TextWriter(model.processor.tokenizer)
    assert writer.write(tokens) == model.generate("so it", options=chosen)
    ids = [model.processor.end_id, *model.processor.encode_prompt("so it"), *tokens]
    state, logits = model.start_state(1), []
    for number in ids[:-1]:
        out, state = model.read_step(torch.tensor([number]), state)
        logits.append(out[0])
    expected = torch.stack(logits[-len(tokens) :]).detach()
    expected[:, list(never(model))] = float("-inf")
    expected = (expected / options.get("temperature", 1.0)).softmax(1)
    if "top_k" in options:
        expected = expected * (expected >= expected.topk(2).values[:, -1:])
    if "top_p" in options:
        best, order = expected.sort(dim=1, descending=True)
        best[best.cumsum(1) - best >= 0.6] = 0
        expected = torch.zeros_like(expected).scatter(1, order, best)
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))
    assert all(row[token] > 0 for row, token in zip(found, tokens, strict=True))


def test_tokens_come_as_often_as_their_distribution_says():
    model = language_model("characters")
    with torch.no_grad():
        model.head.weight.mul_(5)
    drawn = [token_distributions(model, "so", options=generation_options({"seed": n}, 1)) for n in range(400)]
    first = drawn[0][1][0]
    counts = torch.bincount(torch.tensor([tokens[0] for tokens, _ in drawn]), minlength=len(first))
    assert all(torch.equal(found[0], first) for _, found in drawn)
    assert float((counts / 400 - first).abs().max()) < 0.08  # three standard deviations of the most probable one


def test_probabilities_are_drawn_and_told(generate, tmp_path):
    picture = tmp_path / "p.png"
    words = ["--prompt", "so it", "--max_tokens", "12", "--probabilities", str(picture)]
    found = generate(*words)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "In 12 steps the token that was chosen had a probability of" in found
    assert "expected a new file" in generate(*words)
    words[-1] = str(tmp_path / "other.png")
    assert "expected one text, by the method sample or greedy, got --count 2" in generate(*words, "--count", "2")
    assert "sample or greedy, got the method beam" in generate(*words, "--method", "beam")
    assert "expected a LanguageModel" in generate(*words, model="classifier")
    assert not (tmp_path / "other.png").exists()
