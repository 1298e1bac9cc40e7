"""What a processor learns comes from the training split alone."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from small_files import batches, csv, sequence
from spelling import spelt

from rnnzoo.batches import UNSEEN
from rnnzoo.data import FrameData, TaggingData, TextClassificationData, VectorData
from rnnzoo.errors import InputError
from rnnzoo.text.tokenizer import UNKNOWN_ID


def test_vocabulary_and_labels_come_from_the_training_split_alone(folder):
    files = {
        "train.csv": "text,label\ncat sat,x\ncat ran,y\n",
        "dev.csv": "text,label\nzebra sat,z\n",
        "test.csv": "text,label\nquokka,x\n",
    }
    data = TextClassificationData(path=folder(files))
    assert set(data.processor.tokenizer.vocabulary) == {"<pad>", "<unk>", "cat", "sat", "ran"}
    assert list(data.processor.labels) == ["x", "y"]
    (batch,) = batches(data, "validation")
    assert batch.tokens[0, 0] == UNKNOWN_ID
    assert batch.targets.tolist() == [UNSEEN]
    assert batches(data, "test")[0].tokens.tolist() == [[UNKNOWN_ID]]


def test_vocabulary_knows_nothing_of_splits_that_were_made(folder):
    data = TextClassificationData(path=folder({"all.csv": csv(60)}))
    words = set(chain.from_iterable(text.split() for text in data.raw("train")["text"]))
    assert set(data.processor.tokenizer.vocabulary) == {"<pad>", "<unk>"} | words


def test_words_characters_and_tags_come_from_the_training_split_alone(folder):
    files = {"train.conll": "ab X\n", "dev.conll": "abz Y\nab X\n", "test.conll": "ab X\n"}
    data = TaggingData(path=folder(files))
    assert data.processor.words.vocabulary == ["<pad>", "<unk>", "ab"]
    assert set(data.processor.characters.vocabulary) == {"<pad>", "<unk>", "a", "b"}
    (batch,) = batches(data, "validation")
    assert batch.words.tolist() == [[UNKNOWN_ID, 2]]
    assert spelt(batch.characters)[0][0][2] == UNKNOWN_ID
    assert batch.targets.tolist() == [[UNSEEN, 0]]
    assert batch.tags == (("Y", "X"),)


def test_normalisation_comes_from_the_training_part_alone(folder):
    files = {"a.csv": sequence(11), "b.csv": sequence(6, 50), "c.csv": sequence(7, 1000), "d.csv": sequence(5, -9999)}
    named = {"features": ["x", "y"], "test": "c.csv", "validation": "d.csv"}  # x counts frames, and is an input here
    data = FrameData(path=folder(files), window_size=4, **named)
    training = np.concatenate([np.arange(11.0), np.arange(50.0, 56.0)])
    scale = data.processor.inputs_scale
    assert np.allclose(scale.mean, [training.mean(), 5])
    assert np.allclose(scale.deviation, [training.std(), 1])
    (batch,) = batches(data, "test")
    assert np.allclose(batch.frames[0, :, 0], (np.arange(1000.0, 1007.0) - training.mean()) / training.std(), atol=1e-4)
    assert (batch.frames[..., 1] == 0).all()


def test_vectors_are_normalised_by_the_training_split(folder):
    rows = "x,label\n" + "".join(f"{n},{n % 2}\n" for n in range(10))
    data = VectorData(path=folder({"train.csv": rows, "dev.csv": "x,label\n77,0\n", "test.csv": "x,label\n-5,1\n"}))
    (batch,) = batches(data, "validation")
    assert batch.inputs.item() == pytest.approx((77 - 4.5) / np.arange(10).std(), rel=1e-6)


@pytest.mark.parametrize("kind", [VectorData, FrameData])
def test_columns_of_a_trained_model_are_taken_by_name(folder, kind):
    rows = [(3 * n, 10 * n, "ab"[n % 2]) for n in range(12)]
    answer = "label" if kind is VectorData else "labels"
    table = f"x,y,{answer}\n" + "".join(f"{x},{y},{c}\n" for x, y, c in rows)
    first = folder({"train.csv": table, "dev.csv": table, "test.csv": table}, "one")
    other = folder({"a.csv": f"y,{answer},z,x\n" + "".join(f"{y},{c},0,{x}\n" for x, y, c in rows)}, "two")
    bare = folder({"a.csv": f"y,{answer}\n" + "".join(f"{y},{c}\n" for _, y, c in rows)}, "three")
    trained = kind(path=first)
    for path in (other, bare):
        data = kind(path=path)
        data.processor = trained.processor
        data.for_testing = True
        if path == bare:
            with pytest.raises(InputError, match="expected a column among y"):
                data.describe()
            continue
        row = data.raw("test")[0]
        assert (row["vector"] if kind is VectorData else row["frames"][0]) == [0.0, 0.0]
        row = data.raw("test")[1] if kind is VectorData else row
        assert (row["vector"] if kind is VectorData else row["frames"][1]) == [3.0, 10.0]


def test_a_processor_that_is_set_takes_the_place_of_the_learnt_one(folder):
    first = TextClassificationData(path=folder({"train.csv": csv(20, "one")}, "one"))
    second = TextClassificationData(path=folder({"train.csv": csv(20, "two")}, "two"))
    second.encoded("test")
    second.processor = first.processor
    assert second.processor is first.processor
    assert second.encoded("test")[0]["tokens"][0] == UNKNOWN_ID
