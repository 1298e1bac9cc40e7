"""SpanF1 against ports of conlleval that count over a stream of words, as the script does."""

from __future__ import annotations

import random

import pytest
import torch

from rnnzoo.metrics import SpanF1
from rnnzoo.text.tags import SCHEMES, convert


def chunk_ends(before, before_kind, tag, kind) -> bool:
    """conlleval.pl, endOfChunk, line by line."""
    pairs = {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("E", "E"), ("E", "I"), ("E", "O")}
    return (before, tag) in pairs or (before not in ("O", ".") and before_kind != kind)


def chunk_starts(before, before_kind, tag, kind) -> bool:
    """conlleval.pl, startOfChunk, line by line."""
    pairs = {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I"), ("E", "E"), ("E", "I"), ("O", "E")}
    return (before, tag) in pairs or (tag not in ("O", ".") and before_kind != kind)


def chunk_ends_bioes(before, before_kind, tag, kind) -> bool:
    """The same with S- and with E- before B-, as the Python ports of conlleval add them."""
    return (
        before in ("E", "S")
        or (before in ("B", "I") and tag in ("B", "S", "O"))
        or (before != "O" and before_kind != kind)
    )


def chunk_starts_bioes(before, before_kind, tag, kind) -> bool:
    return (
        tag in ("B", "S") or (before in ("E", "S", "O") and tag in ("E", "I")) or (tag != "O" and before_kind != kind)
    )


def conlleval(sentences, ends, starts) -> tuple[int, int, int, float, float, float]:
    """Count as the main loop of conlleval.pl does; a blank line ends each sentence."""
    right = found_gold = found_guess = 0
    in_correct = False
    last_gold = last_guess = "O"
    last_gold_kind = last_guess_kind = ""
    for gold_tags, guess_tags in sentences:
        for gold, guess in [*zip(gold_tags, guess_tags, strict=True), ("O", "O")]:
            gold_tag, _, gold_kind = gold.partition("-")
            guess_tag, _, guess_kind = guess.partition("-")
            gold_end = ends(last_gold, last_gold_kind, gold_tag, gold_kind)
            guess_end = ends(last_guess, last_guess_kind, guess_tag, guess_kind)
            gold_start = starts(last_gold, last_gold_kind, gold_tag, gold_kind)
            guess_start = starts(last_guess, last_guess_kind, guess_tag, guess_kind)
            if in_correct:
                if gold_end and guess_end and last_gold_kind == last_guess_kind:
                    in_correct = False
                    right += 1
                elif gold_end != guess_end or gold_kind != guess_kind:
                    in_correct = False
            if gold_start and guess_start and gold_kind == guess_kind:
                in_correct = True
            found_gold += gold_start
            found_guess += guess_start
            last_gold, last_gold_kind, last_guess, last_guess_kind = gold_tag, gold_kind, guess_tag, guess_kind
    right += in_correct
    precision = 100 * right / found_guess if found_guess else 0.0
    recall = 100 * right / found_gold if found_gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return right, found_guess, found_gold, precision, recall, f1


def check(sentences, ends, starts):
    metric = SpanF1()
    gold, guess = [list(side) for side in zip(*sentences, strict=True)]
    metric.update(torch.arange(len(sentences)), guess, gold)
    right, found_guess, found_gold, precision, recall, f1 = conlleval(sentences, ends, starts)
    assert metric.sums().tolist() == [right, found_guess, found_gold]
    got = {name: float(value) for name, value in metric.compute().items()}
    assert got == pytest.approx({"precision": precision, "recall": recall, "f1": f1}, abs=1e-9)


def corrupted(source, tags, prefixes):
    """Keep most tags, so that many spans agree."""
    alphabet = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in "XYZ")]
    return [tag if source.random() < 0.75 else source.choice(alphabet) for tag in tags]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("prefixes", ["BI", "I", "B"])
def test_broken_bio_and_iob1_score_as_conlleval(prefixes, seed):
    source = random.Random(seed)
    alphabet = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in "XYZ")]
    sentences = []
    for _ in range(60):
        gold = source.choices(alphabet, k=source.randint(0, 12))
        sentences.append((gold, corrupted(source, gold, prefixes)))
    check(sentences, chunk_ends, chunk_starts)
    check(sentences, chunk_ends_bioes, chunk_starts_bioes)  # the ports agree where the script has rules


@pytest.mark.parametrize("seed", range(20))
def test_broken_bioes_scores_as_the_ports_of_conlleval(seed):
    source = random.Random(seed)
    alphabet = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XYZ")]
    sentences = []
    for _ in range(60):
        gold = source.choices(alphabet, k=source.randint(0, 12))
        sentences.append((gold, corrupted(source, gold, "BIES")))
    check(sentences, chunk_ends_bioes, chunk_starts_bioes)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(5))
def test_the_scheme_does_not_change_the_score(seed, scheme):
    source = random.Random(seed)
    in_bio, in_scheme = [], []
    for _ in range(40):
        gold = convert(source.choices(["O", "B-X", "I-X", "B-Y", "I-Y"], k=9), "bio")
        guess = corrupted(source, gold, "BI")
        in_bio.append((gold, guess))
        in_scheme.append((convert(gold, scheme), convert(guess, scheme)))
    metric = SpanF1()
    metric.update(torch.arange(40), [guess for _, guess in in_scheme], [gold for gold, _ in in_scheme])
    right, found_guess, found_gold, *_ = conlleval(in_bio, chunk_ends, chunk_starts)
    assert metric.sums().tolist() == [right, found_guess, found_gold]


def test_a_span_does_not_cross_sentences():
    metric = SpanF1()
    metric.update(torch.arange(2), [["O", "I-X"], ["I-X", "O"]], [["O", "I-X"], ["I-X", "O"]])
    assert metric.sums().tolist() == [2, 2, 2]


def test_a_type_that_training_never_saw_is_missed():
    metric = SpanF1()
    metric.update(torch.tensor([0]), [["O", "B-X"]], [["B-NEW", "B-X"]])
    assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(
        {"precision": 100.0, "recall": 50.0, "f1": 200 / 3}
    )


def test_nothing_found_and_nothing_there_is_zero():
    metric = SpanF1()
    metric.update(torch.tensor([0, 1]), [["O"], []], [["O"], []])
    assert {float(value) for value in metric.compute().values()} == {0.0}


def test_predicted_and_gold_sentences_must_be_as_many():
    with pytest.raises(ValueError, match="longer"):
        SpanF1().update(torch.tensor([0, 1]), [["O"]], [["O"], ["O"]])
