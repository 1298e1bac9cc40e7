"""SacreBleu against sacrebleu's own interface, and exact matches."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
import sacrebleu
import torch

from rnnzoo.errors import InputError
from rnnzoo.metrics import ExactMatch, SacreBleu

OUTPUTS = [
    "A man in an orange hat is staring at something.",
    "A Boston terrier is running over green grass in front of a white fence.",
    "A girl in a karate uniform breaking a board with a kick.",
    "Five people in winter jackets and with helmets are standing in the snow with snow-mobiles in the background.",
    "People fix the roof of the house.",
    "",
    "A group of people stands in front of a “igloo”, isn't it?",
    "He paid $1,000.50 &amp; left...",
]
REFERENCES = [
    "A man in an orange hat starring at something.",
    "A Boston Terrier is running on lush green grass in front of a white fence.",
    "A girl in karate uniform breaking a stick with a front kick.",
    "Five people wearing winter jackets and helmets stand in the snow, with snowmobiles in the background.",
    "People are fixing the roof of a house.",
    "A man in light colored clothing photographs a group of men.",
    "A group of people standing in front of an igloo.",
    "He paid $1,000.50 and left.",
]
OTHERS = [
    [],
    ["A terrier runs on grass."],
    [],
    ["Five people stand in the snow.", "Five people, snow."],
    [""],
    [],
    [],
    [],
]


def measure(outputs, references, **options):
    metric = SacreBleu(**options)
    metric.update(torch.arange(len(outputs)), outputs, references)
    return {name: float(value) for name, value in metric.compute().items()}, metric.definitions


@pytest.mark.parametrize(("lowercase", "tokenize"), [(False, "13a"), (True, "13a"), (False, "intl"), (True, "char")])
def test_one_reference_is_scored_as_by_sacrebleu(lowercase, tokenize):
    found, _ = measure(OUTPUTS, [[text] for text in REFERENCES], lowercase=lowercase, tokenize=tokenize)
    bleu = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES], lowercase=lowercase, tokenize=tokenize)
    chrf = sacrebleu.CHRF(lowercase=lowercase).corpus_score(OUTPUTS, [REFERENCES])
    assert found == {"bleu": bleu.score, "chrf": chrf.score}
    assert 20 < found["bleu"] < 80


def test_the_options_change_the_value():
    values = [
        measure(OUTPUTS, [[text] for text in REFERENCES], lowercase=lowercase, tokenize=tokenize)[0]
        for lowercase in (False, True)
        for tokenize in ("13a", "intl", "char")
    ]
    assert len({each["bleu"] for each in values}) == 6
    assert len({each["chrf"] for each in values}) == 2


def test_two_references_are_scored_as_by_sacrebleu():
    second = [text.replace("A ", "One ").replace(" of ", " from ") for text in OUTPUTS]
    found, _ = measure(OUTPUTS, list(zip(REFERENCES, second, strict=True)))
    assert found["bleu"] == sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES, second]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES, second]).score


def test_samples_may_have_different_numbers_of_references():
    references = [[text, *more] for text, more in zip(REFERENCES, OTHERS, strict=True)]
    found, definitions = measure(OUTPUTS, references)
    streams = [[texts[k] if k < len(texts) else None for texts in references] for k in range(3)]
    assert found["bleu"] == sacrebleu.corpus_bleu(OUTPUTS, streams).score
    assert found["chrf"] == sacrebleu.corpus_chrf(OUTPUTS, streams).score
    assert found["bleu"] > measure(OUTPUTS, [[text] for text in REFERENCES])[0]["bleu"]
    assert "|case:mixed" in definitions["bleu"]
    assert "nrefs:var|" in definitions["bleu"]
    assert "nrefs:var|" in definitions["chrf"]


def test_definitions_hold_the_signatures_of_sacrebleu():
    _, definitions = measure(OUTPUTS, [[text] for text in REFERENCES])
    tail = f"version:{version('sacrebleu')}"
    assert definitions["bleu"].endswith(f"signature nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{tail}")
    assert definitions["chrf"].endswith(f"signature nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{tail}")
    _, definitions = measure(OUTPUTS, [[text] * 2 for text in REFERENCES], lowercase=True, tokenize="intl")
    assert "nrefs:2|case:lc|eff:no|tok:intl|smooth:exp" in definitions["bleu"]
    assert "nrefs:2|case:lc" in definitions["chrf"]


def test_before_a_value_the_signature_leaves_the_number_of_references_open():
    metric = SacreBleu()
    assert "nrefs:?|case:mixed" in metric.definitions["bleu"]
    metric.update(torch.tensor([0]), ["a"], [["a"]])
    metric.compute()
    assert "nrefs:1|case:mixed" in metric.definitions["bleu"]
    metric.reset()
    assert "nrefs:?|case:mixed" in metric.definitions["bleu"]


def test_an_output_that_is_a_reference_scores_100():
    texts = [text for text in REFERENCES if len(text.split()) > 4]
    found, _ = measure(texts, [["Something else.", text] for text in texts])
    assert found == pytest.approx({"bleu": 100, "chrf": 100})


def test_the_value_of_a_corpus_is_no_mean_over_sentences():
    found, _ = measure(OUTPUTS, [[text] for text in REFERENCES])
    single = [measure([output], [[text]])[0] for output, text in zip(OUTPUTS, REFERENCES, strict=True)]
    for name in ("bleu", "chrf"):
        assert abs(found[name] - sum(each[name] for each in single) / len(single)) > 1


def test_a_tokenizer_that_does_not_exist_is_named():
    with pytest.raises(InputError, match=r"tokenize: expected one of .*13a.*, got '13b'; did you mean '13a'"):
        SacreBleu(tokenize="13b")


def test_a_tokenizer_that_is_not_installed_says_what_to_install(monkeypatch):
    def missing(**options):
        raise ImportError("\n\nPlease install the sentencepiece library:\n\n  pip install sentencepiece ")

    missing.TOKENIZERS = {"spm"}
    monkeypatch.setattr("sacrebleu.metrics.BLEU", missing)
    with pytest.raises(
        InputError, match=r"tokenize: expected an installed tokenizer, got spm; .*pip install sentencep"
    ):
        SacreBleu(tokenize="spm")


@pytest.mark.slow
def test_sacrebleu_is_imported_when_it_is_needed():
    code = "import sys, rnnzoo.metrics; sys.exit('sacrebleu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("output", "references", "expected"),
    [
        ("2024-05-01", ["2024-05-01"], 100),
        ("2024-05-01", ["2024-05-02", "2024-05-01"], 100),
        ("  a  b\t", ["a b\n"], 100),
        ("ab", ["a b"], 0),
        ("a", ["A"], 0),
        ("a.", ["a ."], 0),
        ("", [" "], 100),
        ("", ["a"], 0),
    ],
)
def test_exact_matches_but_for_blanks(output, references, expected):
    metric = ExactMatch()
    metric.update(torch.tensor([0]), [output], [references])
    assert metric.compute() == {"exact_match": expected}
    assert set(metric.definitions) == {"exact_match"}


def test_exact_match_is_a_percentage_of_samples():
    metric = ExactMatch()
    metric.update(torch.tensor([4, 2, 7]), ["a", "b", "c"], [["a"], ["x"], ["y"]])
    metric.update(torch.tensor([4, 9]), ["a", "d"], [["a"], ["z", "d"]])
    assert metric.compute() == {"exact_match": 50}
