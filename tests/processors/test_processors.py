"""Processors: the same numbers after a round trip through JSON, and batches that pad and mark as promised."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from spelling import spelt

from rnnzoo.batches import IGNORED, UNSEEN, FrameBatch, TaggingBatch, TextBatch, VectorBatch, WordCharacters
from rnnzoo.errors import InputError
from rnnzoo.processors import PROCESSORS
from rnnzoo.processors.base import load_processor, pad
from rnnzoo.processors.frames import FrameProcessor, pad_rows
from rnnzoo.processors.normalisation import Normalisation, refuse_nan
from rnnzoo.processors.tagging import TaggingProcessor
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.processors.vectors import VectorProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import PAD_ID, UNKNOWN_ID, Tokenizer, TokenizerOptions

WORDS = ["the", "Cat", "sat", "down"]
SCALE = Normalisation(names=["a", "b"], mean=[1.0, 10.0], deviation=[2.0, 5.0])
TARGETS = Normalisation(names=["y"], mean=[100.0], deviation=[10.0])


def text_processor(kind="words", **options):
    tokenizer = Tokenizer.train(["the Cat sat", "the down"], TokenizerOptions(kind=kind, lowercase=True))
    return TextClassificationProcessor(tokenizer=tokenizer, labels=LabelMap(["neg", "pos"]), **options)


def tagger(characters=True, scheme=None, tags=("B-PER", "I-PER", "O")):
    return TaggingProcessor(
        words=Tokenizer.train_words(WORDS, TokenizerOptions()),
        characters=Tokenizer.train(WORDS, TokenizerOptions(kind="characters")) if characters else None,
        tags=LabelMap(tags),
        scheme=scheme,
    )


TEXTS = [{"text": "the cat", "label": "pos"}, {"text": "a bird sat down", "label": "neg"}, {"text": "", "label": "odd"}]
TOPICS = [{"text": "the", "label": ["pos", "neg"]}, {"text": "cat sat", "label": []}, {"text": "x", "label": ["odd"]}]
SENTENCES = [
    {"tokens": ["the", "Cat"], "tags": ["O", "B-PER"]},
    {"tokens": ["elephants"], "tags": ["B-LOC"]},
    {"tokens": ["the", "Cat", "sat"], "tags": ["O", "B-PER", "I-PER"]},
]
FRAMES = [
    {"frames": [[1.0, 10.0], [3.0, 15.0], [5.0, 20.0]], "labels": ["x", "y", "odd"]},
    {"frames": [[-1.0, 5.0]], "labels": ["y"]},
]
NUMBERS = [
    {"frames": [[1.0, 10.0], [3.0, 15.0]], "labels": [[math.nan], [110.0]]},
    {"frames": [[1.0, 10.0]], "labels": [[90.0]]},
]
VECTORS = [{"vector": [1.0, 10.0], "label": "x"}, {"vector": [3.0, 0.0], "label": "odd"}]
AMOUNTS = [{"vector": [1.0, 10.0], "label": [120.0]}, {"vector": [3.0, 0.0], "label": 90.0}]
XY = LabelMap(["x", "y"])
CASES = {  # processor and samples
    "texts": (text_processor, TEXTS),
    "texts of characters": (lambda: text_processor("characters"), TEXTS),
    "texts of bytes": (lambda: text_processor("bytes", max_length=5), TEXTS),
    "texts of pairs": (lambda: text_processor("bpe"), TEXTS),
    "label sets": (lambda: text_processor(multi_label=True), TOPICS),
    "tags": (tagger, SENTENCES),
    "tags without characters": (lambda: tagger(characters=False), SENTENCES),
    "tags in a scheme": (lambda: tagger(scheme="bio"), SENTENCES),
    "frames": (lambda: FrameProcessor(inputs_scale=SCALE, labels=XY), FRAMES),
    "frames with numbers": (lambda: FrameProcessor(inputs_scale=SCALE, labels=None, targets_scale=TARGETS), NUMBERS),
    "vectors": (lambda: VectorProcessor(inputs_scale=SCALE, labels=XY), VECTORS),
    "vectors with numbers": (lambda: VectorProcessor(inputs_scale=SCALE, labels=None, targets_scale=TARGETS), AMOUNTS),
}


def batch_of(processor, samples):
    return processor.collate([{**processor.encode(sample), "id": place} for place, sample in enumerate(samples)])


def assert_same(one, other):
    assert type(one) is type(other)
    for name, left, right in zip(one._fields, one, other, strict=True):
        if isinstance(left, WordCharacters):
            assert_same(left, right)
        elif isinstance(left, torch.Tensor):
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True, msg=name)
        else:
            assert left == right, name


def complaint(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Laws of all processors


@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_through_json_changes_nothing(case):
    make, samples = CASES[case]
    processor = make()
    again = load_processor(json.loads(json.dumps(processor.to_json())))
    assert type(again) is type(processor)
    assert again.to_json() == processor.to_json()
    assert again.checksum == processor.checksum
    assert_same(batch_of(again, samples), batch_of(processor, samples))


@pytest.mark.parametrize("case", CASES)
def test_what_is_made_twice_has_one_checksum_and_others_have_others(case):
    make, _ = CASES[case]
    assert make().checksum == make().checksum
    assert sum(make().checksum == other().checksum for other, _ in CASES.values()) == 1


@pytest.mark.parametrize("case", CASES)
def test_rows_are_plain_json_values(case):
    make, samples = CASES[case]
    for sample in samples:
        row = make().encode(sample)
        assert repr(json.loads(json.dumps(row))) == repr(row)


@pytest.mark.parametrize("case", CASES)
def test_a_sample_in_a_batch_is_what_it_is_alone(case):
    make, samples = CASES[case]
    processor = make()
    batch = batch_of(processor, samples)
    assert batch.ids.tolist() == list(range(len(samples)))
    for place, sample in enumerate(samples):
        alone = batch_of(processor, [sample])
        for name, together, single in zip(batch._fields[1:], batch[1:], alone[1:], strict=True):
            if isinstance(together, WordCharacters):
                words = spelt(single)[0]
                assert spelt(together)[place][: len(words)] == words
                continue
            if not isinstance(together, torch.Tensor):
                assert together is None or together[place] == single[0], name
                continue
            row = together[place]
            row = row[tuple(slice(size) for size in single.shape[1:])]
            torch.testing.assert_close(row, single[0], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_samples_without_answers_make_batches_without_targets(case):
    make, samples = CASES[case]
    processor = make()
    bare = [{name: sample[name] for name in processor.inputs} for sample in samples]
    batch = batch_of(processor, bare)
    assert batch.targets is None
    assert_same(batch._replace(targets=None), batch)
    mixed = batch_of(processor, [samples[0], *bare[1:]])
    assert mixed.targets is None, "a batch with targets for some rows alone"


@pytest.mark.parametrize("case", CASES)
def test_an_input_that_is_missing_or_of_another_kind_is_named(case):
    processor = CASES[case][0]()
    (name,) = processor.inputs
    assert f"under {name!r}" in complaint(processor.encode, {"other": 1})
    assert name in complaint(processor.encode, {name: 3})
    assert name in complaint(processor.encode, {name: None})


def test_every_kind_is_registered_under_its_name():
    assert {kind: PROCESSORS[kind].kind for kind in PROCESSORS} == {kind: kind for kind in PROCESSORS}
    elsewhere = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")} & set(PROCESSORS)
    assert {make().kind for make, _ in CASES.values()} | elsewhere == set(PROCESSORS)


def test_json_that_describes_no_processor_is_refused():
    values = text_processor().to_json()
    assert "did you mean 'tagging'?" in complaint(load_processor, {**values, "kind": "taging"})
    for name in values:
        assert name in complaint(load_processor, {key: value for key, value in values.items() if key != name})
    complaint(load_processor, {**values, "tokenizer": "{}"})


# Texts


def test_texts_are_padded_and_unknown_words_and_labels_marked():
    processor = text_processor()
    batch = batch_of(processor, TEXTS)
    assert isinstance(batch, TextBatch)
    assert batch.tokens.shape == (3, 4)
    assert batch.lengths.tolist() == [2, 4, 0]
    assert (batch.tokens[0, 2:] == PAD_ID).all()
    assert (batch.tokens[2] == PAD_ID).all()
    assert batch.tokens[1, :2].tolist() == [UNKNOWN_ID, UNKNOWN_ID]
    assert batch.targets.tolist() == [1, 0, UNSEEN]
    assert batch.tokens.dtype == batch.lengths.dtype == batch.targets.dtype == torch.int64


def test_sets_of_labels_become_zeros_and_ones_and_a_count_of_unseen_ones():
    batch = batch_of(text_processor(multi_label=True), TOPICS)
    assert batch.targets.tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert batch.targets.dtype == torch.float32


def test_a_set_of_labels_must_be_a_list():
    assert "'label'" in complaint(text_processor(multi_label=True).encode, {"text": "the", "label": "pos"})


@pytest.mark.parametrize(("limit", "kept", "cut"), [(None, 4, 0), (4, 4, 0), (3, 3, 1), (1, 1, 3)])
def test_the_beginning_of_a_long_text_is_kept_and_the_rest_counted(limit, kept, cut):
    row = text_processor(max_length=limit).encode(TEXTS[1])
    assert row["tokens"] == text_processor().encode(TEXTS[1])["tokens"][:kept]
    assert (row["length"], row["cut"]) == (kept, cut)


# Tags


def test_sentences_are_padded_and_unknown_words_and_tags_marked():
    batch = batch_of(tagger(), SENTENCES)
    assert isinstance(batch, TaggingBatch)
    assert batch.words.shape == (3, 3)
    assert batch.characters.indices.shape == (3, 3)
    assert batch.lengths.tolist() == [2, 1, 3]
    assert batch.words[1].tolist() == [UNKNOWN_ID, PAD_ID, PAD_ID]
    assert batch.targets.tolist() == [[2, 0, IGNORED], [UNSEEN, IGNORED, IGNORED], [2, 0, 1]]
    assert batch.tags == (("O", "B-PER"), ("B-LOC",), ("O", "B-PER", "I-PER"))
    characters = spelt(batch.characters)
    assert [[len(word) for word in row] for row in characters] == [[3, 3, 0], [9, 0, 0], [3, 3, 3]]
    assert characters[0][0][0] == characters[0][1][2], "both are the letter t"
    assert UNKNOWN_ID in characters[1][0]
    assert PAD_ID not in batch.characters.ids
    assert characters[0][:2] == characters[2][:2]
    assert len(batch.characters.lengths) == 1 + 4, "each different word once, and the one of the padding"


@pytest.mark.parametrize("characters", [True, False])
def test_sentences_without_words(characters):
    processor = tagger(characters)
    batch = batch_of(processor, [{"tokens": []}, {"tokens": []}])
    assert batch.words.shape == (2, 0)
    assert batch.lengths.tolist() == [0, 0]
    batch = batch_of(processor, [{"tokens": []}, {"tokens": ["the", ""]}])
    assert batch.words.shape == (2, 2)
    assert batch.lengths.tolist() == [0, 2]
    assert (batch.words[0] == PAD_ID).all()
    if characters:
        assert [[len(word) for word in row] for row in spelt(batch.characters)] == [[0, 0], [3, 0]]


def test_tags_are_converted_to_the_scheme():
    processor = tagger(scheme="bioes", tags=["O", "B-PER", "I-PER", "E-PER", "S-PER"])
    row = processor.encode({"tokens": ["the", "Cat", "sat", "down"], "tags": ["I-PER", "I-PER", "O", "I-PER"]})
    assert row["tags"] == ["B-PER", "E-PER", "O", "S-PER"]
    assert row["targets"] == [1, 3, 0, 4]
    row = processor.encode({"tokens": ["the", "Cat", "sat"], "tags": ["I-PER", "", "I-PER"]})
    assert row["tags"] == ["B-PER", "", "E-PER"]
    assert row["targets"] == [1, IGNORED, 3]


def test_more_tags_than_tokens_and_words_that_are_none():
    assert "as many tags as tokens, 1" in complaint(tagger().encode, {"tokens": ["a"], "tags": ["O", "O"]})
    assert "a list of words" in complaint(tagger().encode, {"tokens": ["a", 3]})
    assert "a list of words" in complaint(tagger().encode, {"tokens": "a b"})


# Numbers


def test_frames_are_normalised_padded_and_marked():
    batch = batch_of(FrameProcessor(inputs_scale=SCALE, labels=XY), FRAMES)
    assert isinstance(batch, FrameBatch)
    assert batch.frames.tolist() == [[[0, 0], [1, 1], [2, 2]], [[-1, -1], [0, 0], [0, 0]]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.targets.tolist() == [[0, 1, UNSEEN], [1, IGNORED, IGNORED]]
    assert batch.frames.dtype == torch.float32


def test_numbers_of_frames_are_normalised_and_nan_where_there_is_none():
    processor = FrameProcessor(inputs_scale=SCALE, labels=None, targets_scale=TARGETS)
    batch = batch_of(processor, NUMBERS)
    torch.testing.assert_close(batch.targets, torch.tensor([[[math.nan], [1.0]], [[-1.0], [math.nan]]]), equal_nan=True)
    assert processor.restore_targets(batch.targets)[0, 1].item() == 110.0
    assert processor.targets == ["y"]
    assert processor.features == ["a", "b"]


def test_frames_may_be_an_array_or_none_at_all():
    processor = FrameProcessor(inputs_scale=SCALE, labels=XY)
    assert processor.encode({"frames": np.array([[1.0, 10.0]])}) == {"frames": [[0.0, 0.0]], "length": 1}
    assert processor.encode({"frames": []}) == {"frames": [], "length": 0}
    batch = batch_of(processor, [{"frames": []}, {"frames": [[1, 10]]}])
    assert batch.frames.shape == (2, 1, 2)
    assert batch_of(processor, [{"frames": []}]).frames.shape == (1, 0, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_frames_that_are_not_finite_name_row_and_column(bad):
    processor = FrameProcessor(inputs_scale=SCALE, labels=XY)
    text = complaint(processor.encode, {"name": "a.csv", "frames": [[1.0, 2.0], [1.0, bad]]})
    assert "a.csv, row 1, column 'b'" in text
    assert "column 'a'" in complaint(VectorProcessor(inputs_scale=SCALE, labels=XY).encode, {"vector": [bad, 1.0]})


@pytest.mark.parametrize(
    "frames", [[[1.0]], [[1.0, 2.0, 3.0]], [[1.0, 2.0], [1.0]], [["a", "b"]], [1.0, 2.0], [[None, 1]]]
)
def test_frames_of_another_shape_are_refused(frames):
    complaint(FrameProcessor(inputs_scale=SCALE, labels=XY).encode, {"frames": frames})


def test_more_labels_than_frames():
    processor = FrameProcessor(inputs_scale=SCALE, labels=XY)
    assert "as many labels as frames, 1" in complaint(processor.encode, {"frames": [[1, 2]], "labels": ["x", "y"]})


def test_vectors_are_normalised_and_stacked():
    batch = batch_of(VectorProcessor(inputs_scale=SCALE, labels=XY), VECTORS)
    assert isinstance(batch, VectorBatch)
    assert batch.inputs.tolist() == [[0, 0], [1, -2]]
    assert batch.targets.tolist() == [0, UNSEEN]
    processor = VectorProcessor(inputs_scale=SCALE, labels=None, targets_scale=TARGETS)
    batch = batch_of(processor, AMOUNTS)
    assert batch.targets.tolist() == [[2.0], [-1.0]]
    assert processor.restore_targets(batch.targets).tolist() == [[120.0], [90.0]]


def test_vectors_of_another_width_are_refused():
    processor = VectorProcessor(inputs_scale=SCALE, labels=XY)
    for vector in ([1.0], [1.0, 2.0, 3.0], [], ["a", "b"], [[1.0, 2.0]]):
        complaint(processor.encode, {"vector": vector})


# Normalisation


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9])
def test_normalisation_measures_as_numpy_does(offset):
    random = np.random.default_rng(0)
    tables = [random.normal(offset, 3.0, (rows, 4)) for rows in (1, 50, 7)]
    found = Normalisation.learn(list("abcd"), tables)
    everything = np.concatenate(tables)
    assert np.allclose(found.mean, everything.mean(0), rtol=1e-12)
    assert np.allclose(found.deviation, everything.std(0), rtol=1e-5)
    normal = np.concatenate([found.apply(table.tolist(), "here") for table in tables])
    assert np.allclose(normal.mean(0), 0, atol=1e-4)
    assert np.allclose(normal.std(0), 1, atol=1e-4)


def test_normalisation_leaves_nan_out():
    nan = math.nan
    tables = [[[1.0, nan], [3.0, 10.0]], [[nan, 30.0]]]
    found = Normalisation.learn(["a", "b"], tables)
    assert np.allclose(found.mean, [2, 20])
    assert np.allclose(found.deviation, [1, 10])


def test_normalisation_leaves_nan_out_where_a_first_table_lacks_a_column():
    nan = math.nan
    found = Normalisation.learn(["a", "b"], [[[nan, 10.0]], [[1.0, 20.0], [3.0, 30.0]]])
    assert np.allclose(found.mean, [2, 20])
    assert np.allclose(found.deviation, [1, np.std([10, 20, 30])])


def test_a_number_that_never_changes_becomes_zero():
    found = Normalisation.learn(["a"], [[[7.0], [7.0]]])
    assert found.deviation == [1.0]
    assert found.apply([[7.0]], "here").tolist() == [[0.0]]


def test_restore_takes_normalisation_back():
    numbers = torch.tensor([[0.0, 1.0], [-1.0, 2.0]])
    assert SCALE.restore(numbers).tolist() == [[1.0, 15.0], [-1.0, 20.0]]
    assert SCALE.apply(SCALE.restore(numbers).tolist(), "here").tolist() == numbers.tolist()


def test_finite_numbers_pass():
    refuse_nan(np.zeros((2, 2)), ["a", "b"], "here")
    refuse_nan(np.zeros((0, 2)), ["a", "b"], "here")


# Padding


def test_padding():
    assert pad([[1], [2, 3]], IGNORED).tolist() == [[1, IGNORED], [2, 3]]
    assert pad([[], []]).shape == (2, 0)
    assert pad([]).shape == (0, 0)
    assert pad_rows([[[1.0, 2.0]], []], 2, -1.0).tolist() == [[[1, 2]], [[-1, -1]]]
    assert pad_rows([], 3).shape == (0, 0, 3)
