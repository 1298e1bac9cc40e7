"""Windows and batches: every sample and frame is there, once where it must be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_files import batches, csv, sequence

from rnnzoo.batches import TextBatch
from rnnzoo.data import FrameData, TextClassificationData
from rnnzoo.data.frames import cut_windows
from rnnzoo.text.tokenizer import PAD_ID


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 30])
def test_windows_cover_every_frame_with_its_label(size):
    for stride in range(1, size + 1):
        for count in (1, 2, 3, 7, 8, 9, 20):
            frames = [[float(frame)] for frame in range(count)]
            found = cut_windows({"frames": [frames], "targets": [list(range(count))], "length": [count]}, size, stride)
            covered = {frame[0] for window in found["frames"] for frame in window}
            assert covered == set(range(count))
            for window, targets, length in zip(found["frames"], found["targets"], found["length"], strict=True):
                assert [frame[0] for frame in window] == targets
                assert targets == list(range(targets[0], targets[0] + length))
                assert length == min(size, count)
            starts = [targets[0] for targets in found["targets"]]
            assert starts == sorted(set(starts)), "a window is there twice"


def test_windows_of_training_cover_all_sequences_and_evaluation_reads_them_whole(folder):
    files = {"a.csv": sequence(11), "b.csv": sequence(3, 50), "c.csv": sequence(9, 80), "d.csv": sequence(9, 90)}
    named = {"features": ["x", "y"], "test": "c.csv", "validation": "d.csv"}  # x counts frames, and is an input here
    data = FrameData(path=folder(files), window_size=4, window_stride=2, batch_size=3, **named)
    mean, deviation = data.processor.inputs_scale.mean[0], data.processor.inputs_scale.deviation[0]
    covered = {}
    for batch in batches(data, "train"):
        assert batch.frames.shape[1] <= 4
        for row, length in enumerate(batch.lengths.tolist()):
            for frame in range(length):
                value = round(batch.frames[row, frame, 0].item() * deviation + mean)
                covered[value] = batch.targets[row, frame].item()
    expected = {**{n: n % 2 for n in range(11)}, **{50 + n: n % 2 for n in range(3)}}
    assert covered == expected
    assert batches(data, "test")[0].lengths.tolist() == [9]


def test_sequences_are_told_apart_by_a_column(folder):
    content = "x,video,labels\n1,A,a\n2,A,b\n3,B,a\n"
    data = FrameData(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}), sequence="video")
    assert [(row["name"], row["frames"]) for row in data.raw("test")] == [
        ("test.csv A", [[1.0], [2.0]]),
        ("test.csv B", [[3.0]]),
    ]


def test_the_number_of_a_sequence_is_no_input(folder):
    content = "x,video,labels\n1,1,a\n2,1,b\n3,2,a\n"
    data = FrameData(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}), sequence="video")
    assert data.processor.features == ["x"]


def as_process(data, rank, world):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
    return data


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [{"batch_size": 4}, {"max_tokens": 12}], ids=str)
def test_evaluation_hands_every_sample_to_one_process(folder, world, size):
    path = folder({"train.csv": csv(21), "dev.csv": csv(13), "test.csv": csv(17)})
    for split, count in (("validation", 13), ("test", 17)):
        ids = []
        for rank in range(world):
            data = as_process(TextClassificationData(path=path, **size), rank, world)
            for batch in batches(data, split):
                ids += batch.ids.tolist()
                assert all(data.raw(split)[sample]["text"].split()[0][0] == "w" for sample in batch.ids.tolist())
        assert sorted(ids) == list(range(count))


@pytest.mark.parametrize("world", [2, 3])
def test_training_hands_equally_many_batches_to_every_process(folder, world):
    path = folder({"train.csv": csv(21), "dev.csv": csv(3), "test.csv": csv(3)})
    found = [
        batches(as_process(TextClassificationData(path=path, batch_size=4), rank, world), "train")
        for rank in range(world)
    ]
    assert len({len(each) for each in found}) == 1
    assert {sample for each in found for batch in each for sample in batch.ids.tolist()} == set(range(21))


def test_batches_carry_ids_padding_and_targets(folder):
    content = "text,label\na b c,x\nd,y\ne f,x\n"
    data = TextClassificationData(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}))
    (batch,) = batches(data, "test")
    assert isinstance(batch, TextBatch)
    assert batch.ids.tolist() == [1, 2, 0]
    assert batch.lengths.tolist() == [1, 2, 3]
    assert batch.targets.tolist() == [1, 0, 0]
    assert (batch.tokens[0, 1:] == PAD_ID).all()
    assert data.encoded("test")[1]["id"] == 1


def test_training_batches_change_with_the_epoch_alone(folder):
    path = folder({"train.csv": csv(50)})
    loaders = [TextClassificationData(path=path, batch_size=4).train_dataloader() for _ in range(2)]
    orders = []
    for epoch in (0, 1):
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        one, other = ([batch.ids.tolist() for batch in loader] for loader in loaders)
        assert one == other
        orders.append(one)
    assert orders[0] != orders[1]
