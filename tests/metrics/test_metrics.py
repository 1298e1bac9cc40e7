"""Every metric against a plain recomputation, whatever the batches, their order and the processes."""

import itertools
import json
import math
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import rnnzoo
from rnnzoo import metrics
from rnnzoo.batches import IGNORED, UNSEEN
from rnnzoo.models.tasks import NumberTask
from rnnzoo.processors.normalisation import Normalisation

torch.set_num_threads(1)

NAMES = ["a", "b", "c", "d"]
TAGS = ["O", "O", "O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y"]
NAN = float("nan")


def percent(part, whole):
    return 100 * part / whole if whole else 0.0


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else 0.0


def f1_of(right, predicted, gold):
    precision, recall = percent(right, predicted), percent(right, gold)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# Each case draws samples (tuples of what `update` takes after the ids, for one sample) and has the plain recomputation.


def draw_losses(rng):
    count = rng.randint(0, 5)
    return torch.tensor(rng.uniform(0, 4) * count), torch.tensor(count)


def plain_losses(samples):
    items = sum(int(count) for _, count in samples)
    return {"loss": sum(float(total) for total, _ in samples) / items if items else NAN}


def draw_class(rng):
    return torch.tensor(rng.randrange(4)), torch.tensor(rng.choice([0, 0, 1, 2, UNSEEN, IGNORED]))


def draw_classes(rng):
    length = rng.randint(0, 6)
    gold = [rng.choice([0, 0, 1, 2, UNSEEN, IGNORED]) for _ in range(length)]
    predicted = [number if number >= 0 and rng.random() < 0.5 else rng.randrange(4) for number in gold]
    return torch.tensor(predicted, dtype=torch.long), torch.tensor(gold, dtype=torch.long)


def plain_classes(samples):
    pairs = [pair for p, g in samples for pair in zip(p.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True)]
    pairs = [(predicted, gold) for predicted, gold in pairs if gold != IGNORED]
    present = {gold for _, gold in pairs if gold != UNSEEN}
    scores = [
        f1_of(
            sum(p == g == label for p, g in pairs),
            sum(p == label for p, _ in pairs),
            sum(g == label for _, g in pairs),
        )
        for label in present
    ]
    return {
        "accuracy": percent(sum(p == g for p, g in pairs), len(pairs)),
        "macro_f1": mean(scores),
        "unseen_labels": sum(g == UNSEEN for _, g in pairs),
    }


def draw_sets(rng):
    gold = [rng.random() < share for share in (0.5, 0.3, 0.1, 0.0)]
    predicted = [value if rng.random() < 0.8 else not value for value in gold]
    unseen = [float(rng.randrange(3)) if rng.random() < 0.2 else 0.0]  # gold labels that training never saw
    return torch.tensor(predicted).long(), torch.tensor([*map(float, gold), *unseen])


def plain_sets(samples):
    pairs = [({i for i in range(4) if p[i]}, {i for i in range(4) if g[i]}) for p, g in samples]
    present = {label for _, gold in pairs for label in gold}
    scores = [
        f1_of(
            sum(label in p & g for p, g in pairs),
            sum(label in p for p, _ in pairs),
            sum(label in g for _, g in pairs),
        )
        for label in present
    ]
    return {
        "micro_f1": f1_of(
            sum(len(p & g) for p, g in pairs),
            sum(len(p) for p, _ in pairs),
            sum(len(g) for _, g in pairs) + sum(float(g[4]) for _, g in samples),
        ),
        "macro_f1": mean(scores),
        "exact_match": percent(
            sum(p == g and not rest[4] for (p, g), (_, rest) in zip(pairs, samples, strict=True)), len(pairs)
        ),
        "unseen_labels": sum(float(g[4]) for _, g in samples),
    }


def draw_numbers(rng):
    gold = [rng.choice([rng.gauss(3, 2), rng.gauss(3, 2), NAN]) for _ in range(3)]
    return torch.tensor([rng.gauss(3, 2) for _ in gold]), torch.tensor(gold)


def draw_number_frames(rng):
    rows = [draw_numbers(rng) for _ in range(rng.randint(1, 5))]
    return torch.stack([p for p, _ in rows]), torch.stack([g for _, g in rows])


def plain_numbers(samples):
    pairs = [pair for p, g in samples for pair in zip(p.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True)]
    pairs = [(predicted, gold) for predicted, gold in pairs if not math.isnan(gold)]
    if not pairs:
        return {"mae": NAN, "rmse": NAN, "r2": NAN}
    middle = mean(gold for _, gold in pairs)
    squared, spread = sum((p - g) ** 2 for p, g in pairs), sum((g - middle) ** 2 for _, g in pairs)
    return {
        "mae": mean(abs(p - g) for p, g in pairs),
        "rmse": math.sqrt(squared / len(pairs)),
        "r2": 1 - squared / spread if spread else NAN,
    }


def draw_tags(rng):
    gold = rng.choices(TAGS, k=rng.randint(0, 10))
    return [tag if rng.random() < 0.8 else rng.choice(TAGS) for tag in gold], gold


def chunk_ends(before, tag):
    first, second = before[0], tag[0]
    return first in "ES" or (first in "BI" and second in "BSO") or (first != "O" and before[2:] != tag[2:])


def chunk_starts(before, tag):
    first, second = before[0], tag[0]
    return second in "BS" or (first in "ESO" and second in "EI") or (second != "O" and before[2:] != tag[2:])


def plain_spans(samples):
    """Port of the main loop of conlleval, which counts while it reads and never lists the spans."""
    right = found = wanted = 0
    for predicted, gold in samples:
        inside, before = False, ("O", "O")
        for tags in [*zip(predicted, gold, strict=True), ("O", "O")]:
            ends = [chunk_ends(a, b) for a, b in zip(before, tags, strict=True)]
            if inside and all(ends) and before[0][2:] == before[1][2:]:
                inside, right = False, right + 1
            elif inside and (ends[0] != ends[1] or tags[0][2:] != tags[1][2:]):
                inside = False
            starts = [chunk_starts(a, b) for a, b in zip(before, tags, strict=True)]
            inside = inside or (all(starts) and tags[0][2:] == tags[1][2:])
            found, wanted = found + starts[0], wanted + starts[1]
            before = tags
    return {"precision": percent(right, found), "recall": percent(right, wanted), "f1": f1_of(right, found, wanted)}


CASES = {
    "loss": ("MeanLoss", {"item": "word"}, draw_losses, plain_losses),
    "class": ("ClassificationCounts", {"labels": NAMES, "item": "text"}, draw_class, plain_classes),
    "classes": ("ClassificationCounts", {"labels": NAMES, "item": "frame"}, draw_classes, plain_classes),
    "sets": ("MultiLabel", {"labels": NAMES}, draw_sets, plain_sets),
    "numbers": ("RegressionError", {}, draw_numbers, plain_numbers),
    "number_frames": ("RegressionError", {}, draw_number_frames, plain_numbers),
    "spans": ("SpanF1", {}, draw_tags, plain_spans),
}
ALL = pytest.mark.parametrize("case", CASES)


def make(case):
    name, options, *_ = CASES[case]
    return getattr(metrics, name)(**options)


def draw(case, count=40, seed=0):
    rng = random.Random(seed)
    return [(number, CASES[case][2](rng)) for number in range(count)]


def column(values, padding):
    if isinstance(values[0], list):
        return values
    return torch.stack(values) if values[0].dim() == 0 else pad_sequence(list(values), True, padding)


def collate(samples):
    """Make the arguments of `update` of samples (id, values)."""
    ids = torch.tensor([number for number, _ in samples])
    predicted, gold = zip(*(values for _, values in samples), strict=True)
    missing = NAN if not isinstance(gold[0], list) and gold[0].is_floating_point() else IGNORED
    return ids, column(list(predicted), 0), column(list(gold), missing)


def values_of(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def feed(case, samples, cuts=()):
    metric = make(case)
    for start, end in itertools.pairwise([0, *cuts, len(samples)]):
        metric.update(*collate(samples[start:end]))
    return values_of(metric)


def same(one, other):
    return one == pytest.approx(other, rel=0, abs=0, nan_ok=True)


@ALL
@pytest.mark.parametrize("seed", range(5))
def test_values_are_those_of_the_plain_recomputation(case, seed):
    samples = draw(case, count=1 + 12 * seed, seed=seed)
    expected = CASES[case][3]([values for _, values in samples])
    assert feed(case, samples) == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@ALL
def test_order_and_cut_of_batches_do_not_change_a_bit(case):
    samples = draw(case)
    expected = feed(case, samples)
    for seed in range(5):
        rng = random.Random(seed)
        shuffled = rng.sample(samples, len(samples))
        cuts = sorted(rng.sample(range(1, len(samples)), rng.choice([1, 5, 39])))
        assert same(feed(case, shuffled, cuts), expected)


@ALL
def test_samples_that_come_twice_count_once(case):
    samples = draw(case)
    expected = feed(case, samples)
    assert same(feed(case, samples + samples), expected)
    assert same(feed(case, [*samples, *samples[:3], *samples[1:9]], [7, 41]), expected)
    rng = random.Random(1)
    assert same(feed(case, rng.sample(samples * 3, len(samples) * 3), [50]), expected)


@ALL
def test_equal_samples_with_different_ids_count_each(case):
    (_, values), *_ = draw(case, count=1, seed=3)
    metric = make(case)
    metric.update(*collate([(number, values) for number in (7, 3, 10**9, 10**9 + 1)]))
    metric.update(*collate([(number, values) for number in (10**9, 0)]))
    single = make(case)
    single.update(*collate([(0, values)]))
    assert torch.allclose(metric.sums(), 5 * single.sums())


@ALL
def test_without_samples_there_is_a_value_still(case):
    expected = CASES[case][3]([])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics tells of `compute` before `update`
        assert values_of(make(case)) == pytest.approx(expected, nan_ok=True)


@ALL
def test_reset_forgets_everything(case):
    samples = draw(case)
    metric = make(case)
    for _ in range(2):
        metric.update(*collate(samples[:10]))
        values_of(metric)
        metric.reset()
        metric.update(*collate(samples[10:]))
        assert same(values_of(metric), feed(case, samples[10:]))
        metric.reset()
    assert not metric.sums().any()


@ALL
def test_values_may_be_asked_for_between_batches(case):
    samples = draw(case)
    metric = make(case)
    metric.update(*collate(samples[:15]))
    assert same(values_of(metric), feed(case, samples[:15]))
    metric.update(*collate(samples[15:]))
    assert same(values_of(metric), feed(case, samples))


@ALL
def test_calling_the_metric_gives_the_value_of_the_batch_and_keeps_the_samples(case):
    samples = draw(case)
    metric = make(case)
    for start in range(0, 40, 10):
        batch = samples[start : start + 10]
        found = {name: float(value) for name, value in metric(*collate(batch)).items()}
        assert same(found, feed(case, batch))
    assert same(values_of(metric), feed(case, samples))


@ALL
def test_every_value_is_a_number_and_is_defined(case):
    metric = make(case)
    metric.update(*collate(draw(case)))
    found = metric.compute()
    assert set(found) == set(metric.definitions)
    assert all(value.dim() == 0 for value in found.values())
    assert all(text and "\n" not in text for text in metric.definitions.values())


@pytest.mark.parametrize("name", ["ClassificationCounts", "RegressionError"])
def test_rows_without_steps_add_nothing(name):
    case = {"ClassificationCounts": "classes", "RegressionError": "number_frames"}[name]
    samples = draw(case)
    metric = make(case)
    metric.update(*collate(samples))
    empty = torch.zeros(2, 0, dtype=torch.long) if case == "classes" else torch.zeros(2, 0, 3)
    metric.update(torch.tensor([100, 101]), empty, empty)
    assert same(values_of(metric), feed(case, samples))


def test_labels_that_training_never_saw_are_mistakes_whatever_was_predicted():
    for predicted in range(3):
        metric = metrics.ClassificationCounts(labels=["a", "b", "c"], item="text")
        metric.update(torch.arange(2), torch.tensor([0, predicted]), torch.tensor([0, UNSEEN]))
        assert metric.compute()["accuracy"] == 50
        assert metric.compute()["unseen_labels"] == 1
        assert metric.matrix()[-1].tolist() == [float(label == predicted) for label in range(3)]


def test_ignored_targets_are_left_out_whatever_was_predicted():
    metric = metrics.ClassificationCounts(labels=["a", "b"], item="frame")
    metric.update(
        torch.arange(2), torch.tensor([[0, 1, IGNORED], [1, 0, 1]]), torch.tensor([[0, IGNORED, IGNORED]] * 2)
    )
    assert metric.matrix().tolist() == [[1, 1], [0, 0], [0, 0]]
    metric.reset()
    metric.update(torch.tensor([0]), torch.tensor([1]), torch.tensor([IGNORED]))
    assert values_of(metric) == {"accuracy": 0, "macro_f1": 0, "unseen_labels": 0}


@pytest.mark.parametrize("swap", [False, True])
def test_a_sample_that_was_predicted_otherwise_the_second_time_counts_once(swap):
    first, second = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]])  # as of a batch padded to another length
    metric, ids, gold = metrics.ClassificationCounts(labels=["a", "b"], item="frame"), torch.tensor([3]), first
    for predicted in (second, first) if swap else (first, second):
        metric.update(ids, predicted, gold)
    assert metric.matrix().sum() == 3
    again = metrics.ClassificationCounts(labels=["a", "b"], item="frame")
    for predicted in (first, second) if swap else (second, first):
        again.update(ids, predicted, gold)
    assert metric.matrix().tolist() == again.matrix().tolist()


def test_the_matrix_has_gold_rows_and_predicted_columns():
    metric = metrics.ClassificationCounts(labels=["a", "b"], item="text")
    metric.update(torch.arange(6), torch.tensor([0, 1, 1, 1, 0, 0]), torch.tensor([0, 0, 0, 1, UNSEEN, UNSEEN]))
    assert metric.matrix().tolist() == [[1, 2], [0, 1], [2, 0]]


def test_spans_of_types_that_training_never_saw_count_in_recall():
    metric = metrics.SpanF1()
    metric.update(torch.tensor([0]), [["B-X", "O"]], [["B-X", "B-NEW"]])
    assert values_of(metric) == pytest.approx({"precision": 100, "recall": 50, "f1": 200 / 3})


def test_spans_are_compared_across_schemes():
    metric = metrics.SpanF1()
    metric.update(torch.tensor([0]), [["B-X", "I-X", "O", "B-Y"]], [["B-X", "E-X", "O", "S-Y"]])
    assert values_of(metric) == {"precision": 100, "recall": 100, "f1": 100}


def test_predicted_and_gold_sentences_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        metrics.SpanF1().update(torch.arange(2), [["O"], ["O"]], [["O"]])


@pytest.mark.parametrize("gold", [[0.1] * 3, [0.3] * 7, [2.5] * 4, [0.7]])
def test_r2_of_constant_numbers_is_no_number(gold):
    metric = metrics.RegressionError()
    metric.update(torch.arange(len(gold)), torch.tensor(gold).double() + 1, torch.tensor(gold).double())
    found = values_of(metric)
    assert found["mae"] == pytest.approx(1)
    assert math.isnan(found["r2"])


@pytest.mark.parametrize("shape", [(200,), (50, 4), (1, 200)], ids=str)
@pytest.mark.parametrize("far", [0.0, 1e4, 1e8, 1e10])
def test_r2_of_numbers_far_from_zero(far, shape):
    rng = random.Random(0)
    gold = torch.tensor([far + rng.gauss(0, 1) for _ in range(200)], dtype=torch.float64)
    predicted = gold + torch.tensor([rng.gauss(0, 0.5) for _ in range(200)], dtype=torch.float64)
    metric = metrics.RegressionError()
    metric.update(torch.arange(shape[0]), predicted.reshape(shape), gold.reshape(shape))
    expected = 1 - (predicted - gold).square().sum() / (gold - gold.mean()).square().sum()
    assert values_of(metric)["r2"] == pytest.approx(float(expected), rel=1e-7)


def test_errors_of_numbers_with_a_mean_that_is_large_beside_their_deviation():
    scale = Normalisation(names=["x"], mean=[1.6e9], deviation=[10.0])
    task = NumberTask(names=["x"], restore=scale.restore)
    found = task.build_metrics()
    targets = torch.randn(50, 1)
    task.update_metrics(found, torch.arange(50), targets + 0.1, targets)
    errors = values_of(found["errors"])
    assert errors["mae"] == pytest.approx(1.0, rel=1e-4)
    assert errors["r2"] == pytest.approx(1 - 0.01 / float(targets.double().var(correction=0)), rel=1e-3)


def test_predictions_without_a_target_may_be_anything():
    metric = metrics.RegressionError()
    metric.update(torch.tensor([0]), torch.tensor([[1.0, NAN, math.inf]]), torch.tensor([[2.0, NAN, NAN]]))
    assert values_of(metric)["mae"] == 1


def test_a_sample_has_no_gradient_behind_it():
    metric = metrics.MeanLoss(item="word")
    metric.update(torch.tensor([0]), torch.tensor([2.0], requires_grad=True), torch.tensor([1]))
    assert not metric.compute()["loss"].requires_grad


PROCESS = """
import datetime, json, sys, warnings
import torch
import torch.distributed as dist
from rnnzoo import metrics

warnings.simplefilter("ignore")
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
)
results = []
for name, options, shares in torch.load(f"{folder}/shares.pt", weights_only=False):
    metric = getattr(metrics, name)(**options)
    for arguments in shares[rank]:
        metric.update(*arguments)
    first = {name: float(value) for name, value in metric.compute().items()}
    own = [len(rows) for rows in metric.rows]  # what is gathered is given back after the sum
    metric.reset()
    for arguments in shares[1 - rank]:
        metric.update(*arguments)
    second = {name: float(value) for name, value in metric.compute().items()}
    results.append([first, second, sum(own)])
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(results, file)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_of_which_one_has_no_sample(tmp_path):
    expected, shares, counts = [], [], []
    for case, (name, options, *_) in CASES.items():
        samples = draw(case)
        everything = [collate(samples[:25]), collate(samples[25:])]
        halves = [[collate(samples[::2])], [collate(samples[1::2]), collate(samples[:1])]]  # sample 0 comes twice
        for parts, sizes in (
            (halves, [20, 21]),
            ([everything, []], [40, 0]),
            ([[], everything], [0, 40]),
            ([[], []], [0, 0]),
        ):
            shares.append((name, options, parts))
            expected.append(CASES[case][3]([values for _, values in samples] if any(parts) else []))
            counts.append(sizes)
    torch.save(shares, tmp_path / "shares.pt")
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(rnnzoo.__file__).parents[1]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        for (first, second, own), values, sizes in zip(results, expected, counts, strict=True):
            assert first == pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True)
            assert same(second, first)
            assert (own == 0) == (sizes[rank] == 0), "after the values each process has its own samples again"
