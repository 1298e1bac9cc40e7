"""The translator: what is trained is what is decoded, options do what they say, answers do not depend on company."""

from __future__ import annotations

import math

import pytest
import torch

from rnnzoo.batches import IGNORED
from rnnzoo.decoding.search import score
from rnnzoo.errors import InputError
from rnnzoo.models.translator import Translator
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.tokenizer import UNKNOWN_ID, Tokenizer, TokenizerOptions

PAIRS = [
    ("the cat sat", "die Katze saß"),
    ("a dog", "ein Hund"),
    ("the dog sat down here", "der Hund setzte sich"),
    ("cat", "Katze"),
]
SMALL = {"hidden_size": 8, "dropout": 0.0, "words": {"size": 6}}


def processor(kind="words", *, joint=False):
    options = TokenizerOptions(kind=kind)
    sources, targets = ([pair[side] for pair in PAIRS] for side in (0, 1))
    if joint:
        both = Tokenizer.train([*sources, *targets], options)
        return TranslationProcessor(source=both, target=both, shared=True)
    return TranslationProcessor(source=Tokenizer.train(sources, options), target=Tokenizer.train(targets, options))


def build(kind="words", *, joint=False, **arguments):
    torch.manual_seed(1)
    return Translator(processor=processor(kind, joint=joint), **{**SMALL, **arguments})


def batch_of(model, pairs=PAIRS):
    samples = [{"source": source, "target": target} for source, target in pairs]
    return model.processor.collate(
        [{**model.processor.encode(sample), "id": place} for place, sample in enumerate(samples)]
    )


def trained(steps=200, **arguments):
    model = build(**arguments)
    batch = batch_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        total, count = model.objective(model(batch), batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize(
    ("cell", "attention"),
    [("rnn", "additive"), ("gru", "additive"), *(("lstm", each) for each in ("additive", "dot", "general", "none"))],
)
def test_pairs_are_learnt_by_heart(cell, attention):
    model = trained(cell=cell, attention=attention)
    assert model.translate([source for source, _ in PAIRS]) == [target for _, target in PAIRS]


@pytest.mark.parametrize(
    "options",
    [{"input_feeding": True}, {"coverage": True}, {"kind": "bpe", "joint": True, "shared_embeddings": True}],
    ids=["feeding", "coverage", "joint"],
)
def test_options_learn_too(options):
    model = trained(**options)
    assert model.translate([source for source, _ in PAIRS]) == [target for _, target in PAIRS]


def test_the_score_of_a_translation_is_its_teacher_forced_score():
    model = trained(steps=20)
    batch = batch_of(model)
    with torch.no_grad():
        outputs = model(batch)
        found = [each[0] for each in model.hypotheses(outputs.context, batch)]
        longest = max(len(each.tokens) for each in found) + 1
        targets = torch.full((len(found), longest), IGNORED)
        for row, each in enumerate(found):
            ids = [*each.tokens, model.decoder.end_id] if each.finished else each.tokens
            targets[row, : len(ids)] = torch.tensor(ids)
        hidden, _ = model.decoder(targets, outputs.context)
        forced = model.decoder.head.log_likelihoods(hidden, targets).sum(1)
        stepwise = score(model.decoder, outputs.context, targets)
    assert [each.log_probability for each in found] == pytest.approx(forced.tolist(), abs=1e-4)
    assert stepwise.tolist() == pytest.approx(forced.tolist(), abs=1e-4)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_answers_do_not_depend_on_the_rest_of_the_batch(method):
    model = trained(steps=15, search={"method": method, "beam_size": 3, "max_length": 12})
    texts = [source for source, _ in PAIRS]
    together = model.translate(texts, batch_size=4)
    if method != "sample":  # a sample's seed is its place
        assert model.translate(texts[::-1], batch_size=3)[::-1] == together
        assert model.translate(texts, batch_size=1) == together


def test_greedy_is_a_beam_of_one():
    texts = [source for source, _ in PAIRS]
    model = trained(steps=15, search={"method": "greedy"})
    greedy = model.translate(texts)
    again = Translator(processor=model.processor, **SMALL, search={"beam_size": 1})
    again.load_state_dict(model.state_dict())
    assert again.eval().translate(texts) == greedy


def test_the_loss_is_the_mean_over_target_tokens_whatever_the_smoothing():
    plain, smooth = build(), build(label_smoothing=0.3)
    batch = batch_of(plain)
    losses = []
    for model in (plain, smooth):
        metrics = model.build_metrics()
        with torch.no_grad():
            model.eval().update_metrics(metrics, model(batch), batch)
        losses.append(float(metrics["loss"].compute()["loss"]))
    total, count = plain.objective(plain(batch), batch)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(float(total.detach() / count), rel=1e-5)
    assert int(count) == sum(len(target.split()) + 1 for _, target in PAIRS)
    smoothed, _ = smooth.objective(smooth(batch), batch)
    assert float(smoothed.detach()) != pytest.approx(float(total.detach()), rel=1e-5)


def test_unknown_words_are_copied_from_the_source():
    model = build(copy_unknown=True)
    model.decoder.head.bias.data[UNKNOWN_ID] = 50.0  # nothing but unknown words
    model.search_options = type(model.search_options)(method="greedy", max_length=2)
    answer = model.eval().translate(["the zebra"])[0].split()
    assert len(answer) == 2
    assert set(answer) <= {"the", "zebra", ""}


def test_a_sentence_of_unknown_words_is_translated_without_nan():
    model = trained(steps=5)
    answer = next(iter(model.answer([{"source": "qwertz uiop"}])))
    assert math.isfinite(answer["log_probability"])


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_line_is_one_clear_error(text):
    with pytest.raises(InputError, match="empty"):
        build().translate([text])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "adition"}, "did you mean 'additive'"),
        ({"hidden_size": 7}, "even number"),
        ({"coverage": True, "attention": "dot"}, "additive attention"),
        ({"shared_embeddings": True}, "joint vocabulary"),
        ({"label_smoothing": 1.0}, "share"),
        ({"selection": "blue"}, "did you mean 'bleu'"),
        ({"copy_unknown": True, "attention": "none"}, "attention to copy"),
        ({"input_feeding": True, "attention": "none"}, "with attention"),
        ({"search": {"beam": 3}}, "beam_size"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        build(**arguments)


def test_n_best_translations_are_different_and_sorted():
    model = trained(steps=15, search={"beam_size": 4, "n_best": 3})
    answer = next(iter(model.answer([{"source": "the cat sat"}])))
    scores = [each["log_probability"] for each in answer["n_best"]]
    assert len({each["translation"] for each in answer["n_best"]}) == 3
    assert answer["translation"] == answer["n_best"][0]["translation"]
    assert len(scores) == 3


def test_attention_is_drawn(tmp_path):
    model = trained(steps=20)
    names = model.draw([{"source": source, "target": target} for source, target in PAIRS], tmp_path)
    assert names
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert trained(steps=1, attention="none").draw([{"source": "cat"}], tmp_path) == []
