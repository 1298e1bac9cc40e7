"""The processor of translations: texts to batches, pieces to copy from, and ids back to text."""

from __future__ import annotations

import json

import pytest
import torch

from rnnzoo.batches import IGNORED, PairBatch
from rnnzoo.errors import InputError
from rnnzoo.processors.base import load_processor
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.detokenizer import join_words
from rnnzoo.text.tokenizer import PAD_ID, UNKNOWN_ID, Tokenizer, TokenizerOptions

ENGLISH = ["A man's T-shirt.", "Two dogs run, fast!", "the café 😀 is (not) open"]
GERMAN = ["Das T-Shirt eines Mannes.", "Zwei Hunde laufen schnell!", "das Café 😀 ist (nicht) offen"]
SAMPLES = [{"source": source, "target": target} for source, target in zip(ENGLISH, GERMAN, strict=True)]
KINDS = {
    "words": {"kind": "words"},
    "marks": {"kind": "words", "split": "punctuation"},
    "lower": {"kind": "words", "split": "punctuation", "lowercase": True},
    "characters": {"kind": "characters"},
    "bytes": {"kind": "bytes"},
    "bpe": {"kind": "bpe", "max_size": 290},
}
EXACT = ("words", "marks", "characters", "bytes", "bpe")


def build(kind="words", *, joint=False, **options):
    settings = TokenizerOptions(**KINDS[kind])
    source = Tokenizer.train([*ENGLISH, *GERMAN] if joint else ENGLISH, settings)
    target = source if joint else Tokenizer.train(GERMAN, settings)
    return TranslationProcessor(source=source, target=target, shared=joint, **options)


def batch_of(processor, samples):
    return processor.collate([{**processor.encode(sample), "id": place} for place, sample in enumerate(samples)])


def same(one, other):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


# Batches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source_end", [True, False])
def test_a_batch_is_what_its_rows_are(kind, source_end):
    processor = build(kind, source_end=source_end)
    batch = batch_of(processor, SAMPLES)
    assert isinstance(batch, PairBatch)
    for place, sample in enumerate(SAMPLES):
        source = processor.source.encode(sample["source"]) + [processor.source.end_id] * source_end
        target = [*processor.target.encode(sample["target"]), processor.target.end_id]
        assert batch.source[place, : batch.source_lengths[place]].tolist() == source
        assert batch.source[place, batch.source_lengths[place] :].eq(PAD_ID).all()
        assert batch.targets[place, : batch.lengths[place]].tolist() == target
        assert batch.targets[place, batch.lengths[place] :].eq(IGNORED).all()
        assert batch.references[place] == (sample["target"],)
        assert processor.encode(sample)["length"] == max(len(source), len(target))
    assert batch.source.max() < processor.source_vocabulary_size
    assert batch.targets.max() == processor.target_vocabulary_size - 1
    assert PAD_ID not in batch.source[0, : batch.source_lengths[0]]


def test_a_batch_without_answers_has_source_lengths():
    samples = [{"source": sample["source"]} for sample in SAMPLES]
    batch = batch_of(build(), samples)
    assert batch.targets is None
    assert batch.references is None
    assert torch.equal(batch.lengths, batch.source_lengths)
    mixed = batch_of(build(), [*samples, SAMPLES[0]])
    assert mixed.targets is None


def test_the_first_of_several_references_is_learnt_and_all_are_kept():
    processor = build()
    batch = batch_of(processor, [{"source": "Two dogs", "target": ["Zwei Hunde", "zwei Hunde laufen"]}])
    assert processor.detokenize(batch.targets[0].tolist()) == processor.detokenize(
        processor.target.encode("Zwei Hunde")
    )
    assert batch.references == (("Zwei Hunde", "zwei Hunde laufen"),)


def test_blanks_around_a_source_do_not_matter():
    processor = build("bpe")
    assert processor.encode({"source": "  Two dogs \t"}) == processor.encode({"source": "Two dogs"})


# Pieces


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source_end", [True, False])
@pytest.mark.parametrize("text", [*ENGLISH, "Zwei Ma\u0308nner, 東京!", "x", "İstanbul ﬁn", "<unk> <pad>"])
def test_each_source_token_has_a_piece_of_the_text(kind, source_end, text):
    row = build(kind, source_end=source_end).encode({"source": text})
    assert len(row["pieces"]) == len(row["source"]) - source_end
    assert all(piece for piece in row["pieces"])
    if kind in ("characters", "words"):
        composed = text.replace("a\u0308", "ä")
        assert row["pieces"] == (list(composed) if kind == "characters" else composed.split())


def test_the_piece_of_an_unknown_word_is_the_word_as_it_was_written():
    processor = build("lower")
    row = processor.encode({"source": "Two Llamas, 東京"})
    assert row["pieces"] == ["Two", "Llamas", ",", "東京"]
    assert [number == UNKNOWN_ID for number in row["source"]] == [False, True, False, True, False]


def test_a_sentence_of_unknown_words_is_a_sentence():
    batch = batch_of(build(), [{"source": "xxx yyy zzz"}])
    assert batch.source.tolist() == [[UNKNOWN_ID] * 3 + [build().source.end_id]]
    assert batch.pieces == (("xxx", "yyy", "zzz"),)


# Back to text


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("text", GERMAN)
def test_targets_become_their_text_again(kind, text):
    processor = build(kind)
    row = processor.encode({"source": "x", "target": text})
    assert processor.detokenize(row["target"]) == text
    assert processor.detokenize(row["target"][:-1]) == text


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("text", ["  Ein  Satz,\tmit 東京 – 👩‍👩‍👧 und\u00a0mehr ", "\n", "", "a\u2028b"])
def test_bytes_and_byte_pairs_restore_any_text(kind, text):
    assert build(kind).detokenize(build(kind).encode({"source": "x", "target": text})["target"]) == text


@pytest.mark.parametrize("kind", KINDS)
def test_each_target_token_has_a_text(kind):
    processor = build(kind)
    target = processor.encode(SAMPLES[0])["target"]
    pieces = processor.target_pieces(target)
    assert len(pieces) == len(target)
    assert pieces[-1] == ""
    if kind in ("characters", "bytes", "bpe"):
        assert "".join(pieces) == GERMAN[0]


def test_copied_words_take_the_place_of_unknown_ones():
    processor = build("marks")
    ids = processor.target.encode("Zwei Lamas laufen ( Rom ) .")
    assert processor.detokenize(ids, {1: "Llamas", 4: "Tokyo"}) == "Zwei Llamas laufen (Tokyo)."
    characters = build("characters")
    ids = characters.target.encode("Hund")
    assert characters.detokenize(ids, {0: "東", 3: "京"}) == "東un京"
    assert characters.detokenize(ids, {}) == "Hund"
    assert processor.detokenize([], {}) == ""


@pytest.mark.parametrize(
    "text",
    [
        'He said: "Go!" and left, didn\'t he?',
        "Die Vor- und Nachteile (alle 1.000) von 1,5 Litern; um 10:30 Uhr…",
        "Das „Café“-Schild, the boys' T-shirt/jeans.",
        '"Stop".',
        "DON'T touch the dog's T-shirt!",
        "She wrote “yes” [twice].",
    ],
)
def test_words_and_marks_are_joined_as_in_print(text):
    processor = build("marks")
    words = processor.source.encode_pieces(text)[1]
    assert len(words) > len(text.split())
    assert join_words(words) == text


# Joint vocabularies and JSON


def test_a_joint_vocabulary_gives_both_sides_the_same_ids():
    processor = build("bpe", joint=True)
    assert processor.source_vocabulary_size == processor.target_vocabulary_size
    row = processor.encode({"source": "T-Shirt Café", "target": "T-Shirt Café"})
    assert row["source"] == row["target"]


def test_two_tokenizers_are_no_joint_vocabulary():
    one = build()
    with pytest.raises(InputError, match="one tokenizer"):
        TranslationProcessor(source=one.source, target=one.target, shared=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("joint", [True, False])
def test_a_processor_survives_json(kind, joint):
    processor = build(kind, joint=joint, source_end=joint, max_source_length=17)
    again = load_processor(json.loads(json.dumps(processor.to_json())))
    assert isinstance(again, TranslationProcessor)
    assert again.checksum == processor.checksum
    assert (again.shared, again.source_end, again.max_source_length) == (joint, joint, 17)
    assert again.target.split == processor.target.split
    assert same(batch_of(again, SAMPLES), batch_of(processor, SAMPLES))


# Bad input


@pytest.mark.parametrize(
    ("sample", "complaint"),
    [
        ({"source": ""}, "line 7: expected a text to translate, got an empty one"),
        ({"source": " \t\u00a0"}, "line 7: expected a text to translate, got an empty one"),
        ({"source": "a b c d"}, r"line 7: expected a text of at most 3 tokens \(max_source_length\), got 4 tokens"),
        ({"source": None}, "a text"),
        ({"source": "half \ud800"}, "surrogate"),
        ({"source": "a", "target": 3}, "a text or a list of texts"),
        ({"source": "a", "target": []}, "a translation"),
        ({"source": "a", "target": "\udfff"}, "surrogate"),
        ({}, "a text under 'source'"),
    ],
)
def test_bad_samples_are_refused(sample, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        build(max_source_length=3).encode({"name": "line 7", **sample})
    assert "\n" not in str(caught.value)


def test_the_longest_source_and_a_longer_one_with_its_translation_are_taken():
    processor = build(max_source_length=3)
    assert len(processor.encode({"source": "a b c"})["pieces"]) == 3
    assert len(processor.encode({"source": "a b c d", "target": "e"})["pieces"]) == 4
    with pytest.raises(InputError, match="max_source_length"):
        build(max_source_length=0)
