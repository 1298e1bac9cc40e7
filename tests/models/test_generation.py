"""Text that goes on from a prompt: pieces and whole, seeds, ends, frequencies, prompts that cannot be read."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from rnnzoo.errors import InputError
from rnnzoo.models import LanguageModel
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.text.tokenizer import KINDS, Tokenizer, TokenizerOptions

TEXT = "so it goes\nand goes on\n\nas it went before\n" * 3


def build(text=TEXT, kind="characters", line_end=False, document_end=False, **options):
    tokenizer = Tokenizer.train(text.split("\n") if line_end else [text], TokenizerOptions(kind=kind, unicode=None))
    processor = LanguageProcessor(tokenizer=tokenizer, line_end=line_end, document_end=document_end)
    torch.manual_seed(0)
    return LanguageModel(processor=processor, **{"hidden_size": 6, "words": {"size": 5}, **options}).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["sample", "greedy", "beam"])
def test_text_comes_in_pieces_that_make_the_whole(kind, method):
    model = build(kind=kind, line_end=kind == "words")
    options = {"method": method, "seed": 3}
    pieces = list(model.stream("so it", max_tokens=12, options=options))
    assert "".join(pieces) == model.generate("so it", max_tokens=12, options=options)
    assert method == "beam" or len(pieces) > 1
    assert not model.training
    if kind == "words":
        assert pieces[0].startswith((" ", "\n"))
        assert "<unk>" not in "".join(pieces)


def test_seeds_make_other_texts_and_the_same_seed_the_same():
    model = build()
    texts = [model.generate(max_tokens=30, options={"seed": seed}) for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]
    assert model.generate(max_tokens=30, seed=1) != model.generate(max_tokens=30, seed=2)
    assert all(len(text) == 30 for text in texts)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("prompt", ["", "s", "so it goes\nand"])
def test_greedy_text_is_what_the_steps_say(cell, prompt, monkeypatch):
    monkeypatch.setattr("rnnzoo.models.generation.READ_STEPS", 4)
    model = build(cell=cell)
    state, logs = model.start_state(1), None
    expected = []
    for token in [model.processor.end_id, *model.processor.encode_prompt(prompt)]:
        logs, state = model.step(torch.tensor([token]), state)
    for _ in range(10):
        logs[0, [0, 1, model.processor.end_id]] = -math.inf
        expected.append(int(logs.argmax()))
        logs, state = model.step(torch.tensor([expected[-1]]), state)
    assert model.generate(prompt, max_tokens=10, options={"method": "greedy"}) == model.processor.decode(expected)


def bias(model, token, value):
    with torch.no_grad():
        model.head.bias[token] = value
    return model


def test_an_end_ends_a_document_and_is_a_line_end_elsewhere():
    ending = build(document_end=True)
    assert bias(ending, ending.processor.end_id, 50.0).generate("so", max_tokens=9) == ""
    lines = build(line_end=True)
    assert bias(lines, lines.processor.end_id, 50.0).generate("so", max_tokens=9) == "\n" * 9
    plain = build()
    assert len(bias(plain, plain.processor.end_id, 50.0).generate("so", max_tokens=9)) == 9


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_ngrams_of_the_prompt_are_blocked_too(method):
    model = build()
    for name, value in (("o", 90), ("s", 60)):  # o wherever it may come, else s
        (token,) = model.processor.encode_prompt(name)
        bias(model, token, value)
    options = {"method": method, "block_ngrams": 2}
    assert model.generate("so", max_tokens=1, options=options) == "o"
    assert model.generate("oo", max_tokens=1, options=options) == "s"
    assert model.generate("ooso", max_tokens=1, options=options) not in ("o", "s")


def test_a_model_in_training_goes_on_training():
    model = build(dropout=0.5, num_layers=2).train()
    assert model.generate("so", options={"method": "greedy"}) == model.eval().generate(
        "so", options={"method": "greedy"}
    )
    model.train()
    list(model.stream("so", max_tokens=3))
    assert model.training
    model.score(["so"])
    assert model.training


def test_sampled_text_has_the_frequencies_of_the_model():
    model = build("ab" * 10, hidden_size=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    a, b = model.processor.tokenizer.encode("ab")
    bias(bias(model, a, math.log(0.8)), b, math.log(0.2))
    bias(bias(model, 0, -50.0), 1, -50.0)
    counts = Counter(model.generate(max_tokens=600))
    assert counts["a"] / 600 == pytest.approx(0.8, abs=0.05)


def test_prompts_that_cannot_be_read():
    model = build()
    with pytest.raises(InputError, match="got unknown 'Q', '!'"):
        model.generate("Q!")
    assert model.generate("soQ!", unknown="skip") == model.generate("so")
    with torch.no_grad():
        model.words.table.weight[1] = 9.0
    options = {"method": "greedy"}
    assert model.generate("soQ!", unknown="keep", options=options) != model.generate("so", options=options)
    with pytest.raises(InputError, match=r"options\.beams: .*did you mean 'beam_size'"):
        model.generate(options={"beams": 3})
    with pytest.raises(InputError, match="max_length: expected an integer of at least 1"):
        model.generate(max_tokens=0)
