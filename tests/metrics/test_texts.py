"""Texts are gathered by their ids: order, batches, duplicates and processes do not change a value."""

import itertools
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import rnnzoo
from rnnzoo import metrics
from rnnzoo.errors import InputError

NAMES = ["SacreBleu", "ExactMatch", "CaptionScores"]
ALL = pytest.mark.parametrize("name", NAMES)
SUBJECTS = ["a dog", "the small girl", "two men", "Ein Mädchen", "an old man"]
VERBS = ["runs", "is sleeping", "jumps over a log", "plays\nthe guitar", "reads “a book”"]
PLACES = ["on the beach.", "in a park", "near the red car!", "", "at 5 p.m."]


def text(rng):
    return f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(PLACES)}".strip()


def draw(count=40, seed=0):
    """Make samples (id, output, references) with one to three references; one output is empty."""
    rng = random.Random(seed)
    samples = []
    for number in rng.sample(range(10**6, 10**6 + 3 * count), count):
        references = [text(rng) for _ in range(rng.randint(1, 3))]
        samples.append((number, rng.choice([references[0], text(rng), text(rng)]), references))
    samples[3] = (samples[3][0], "", samples[3][2])
    return samples


def collate(samples):
    numbers, hypotheses, references = zip(*samples, strict=True)
    return torch.tensor(numbers), list(hypotheses), list(references)


def values_of(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def feed(name, samples, cuts=()):
    metric = getattr(metrics, name)()
    for start, end in itertools.pairwise([0, *cuts, len(samples)]):
        metric.update(*collate(samples[start:end]))
    return values_of(metric)


@ALL
def test_order_and_cut_of_batches_do_not_change_a_bit(name):
    samples = draw()
    expected = feed(name, samples)
    assert all(0 < value < 100 for value in expected.values())
    for seed in range(3):
        rng = random.Random(seed)
        cuts = sorted(rng.sample(range(1, len(samples)), rng.choice([1, 5, 39])))
        assert feed(name, rng.sample(samples, len(samples)), cuts) == expected


@ALL
def test_samples_that_come_twice_count_once(name):
    samples = draw()
    expected = feed(name, samples)
    assert feed(name, samples + samples) == expected
    assert feed(name, random.Random(1).sample(samples * 3, 120), [50]) == expected


@ALL
def test_equal_texts_with_different_ids_count_each(name):
    (_, *right), (_, *wrong) = (0, "a b c d e f", ["a b c d e f"]), (0, "x y z u v w", ["a b c d e f"])
    once = feed(name, [(0, *right), (1, *wrong)])
    twice = feed(name, [(0, *right), (1, *wrong), (2, *wrong)])
    for value in set(once) - {"cider_d"}:
        assert twice[value] < once[value]


@ALL
def test_without_samples_the_values_are_zero(name):
    metric = getattr(metrics, name)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics tells of `compute` before `update`
        found = values_of(metric)
    assert set(found.values()) == {0.0}
    metric.reset()
    metric.update(torch.zeros(0, dtype=torch.long), [], [])
    assert values_of(metric) == found
    assert set(metric.definitions) == set(found)


@ALL
def test_empty_outputs_are_worth_nothing(name):
    assert set(feed(name, [(0, "", ["a dog runs here"]), (1, "", ["a cat", "the cat"])]).values()) == {0.0}
    with_one = feed(name, [(0, "", ["a dog runs here"]), (1, "a cat is on it", ["a cat is on it"])])
    assert all(0 < value < 100 for value in with_one.values())


@ALL
def test_an_output_may_be_a_reference_without_words(name):
    for texts in (("", [""]), (" ", ["", "..."])):
        for value in feed(name, [(0, *texts)]).values():
            assert value in (0.0, 100.0)


@ALL
def test_reset_forgets_everything(name):
    samples = draw()
    metric = getattr(metrics, name)()
    metric.update(*collate(samples[:10]))
    values_of(metric)
    metric.reset()
    metric.update(*collate(samples[10:]))
    assert values_of(metric) == feed(name, samples[10:])


@ALL
def test_values_may_be_asked_for_between_batches(name):
    samples = draw()
    metric = getattr(metrics, name)()
    metric.update(*collate(samples[:15]))
    assert values_of(metric) == feed(name, samples[:15])
    metric.update(*collate(samples[15:]))
    assert values_of(metric) == feed(name, samples)


@ALL
def test_calling_the_metric_gives_the_value_of_the_batch_and_keeps_the_samples(name):
    samples = draw()
    metric = getattr(metrics, name)()
    for start in range(0, 40, 10):
        batch = samples[start : start + 10]
        found = {key: float(value) for key, value in metric(*collate(batch)).items()}
        assert found == feed(name, batch)
    assert values_of(metric) == feed(name, samples)


@pytest.mark.parametrize("name", ["SacreBleu", "CaptionScores"])
def test_states_put_together_as_processes_do_give_the_value_of_all(name):
    samples = draw()
    for shares in (
        [samples[::2], samples[1::2] + samples[:1]],
        [[], samples],
        [samples[:7], samples[3:30], samples[20:]],
    ):
        parts = [getattr(metrics, name)() for _ in shares]
        for part, share in zip(parts, shares, strict=True):
            if share:
                part.update(*collate(share))
        whole = getattr(metrics, name)()
        whole.update(*collate(samples[:1]))
        whole.lines = torch.cat([torch.cat(part.lines) for part in parts])  # what a gathered state is
        assert values_of(whole) == feed(name, samples)


@pytest.mark.parametrize("name", ["SacreBleu", "CaptionScores"])
def test_without_samples_there_is_something_to_gather(name):
    metric = getattr(metrics, name)()
    for _ in range(2):
        assert [(part.shape, part.dtype) for part in metric.lines] == [((0,), torch.uint8)]
        metric.update(*collate(draw(5)))
        metric.reset()


def test_samples_come_back_as_they_went_in():
    odd = ['tab\t, "quotes", \\ and \n newlines', "ß 犬 \N{GRINNING FACE}", "\u2028 \x85 \x0b \x00", "\ud800", ""]
    metric = metrics.SacreBleu()
    metric.update(torch.tensor([9, 2**60]), [odd[0], odd[1]], [odd[2:], [odd[0]]])
    metric.update(torch.tensor([-1]), [odd[4]], [(odd[1],)])
    assert metric.samples() == [
        metrics.TextSample(-1, "", (odd[1],)),
        metrics.TextSample(9, odd[0], tuple(odd[2:])),
        metrics.TextSample(2**60, odd[1], (odd[0],)),
    ]


@pytest.mark.parametrize(("references", "got"), [([], "none"), ("a dog", "the string 'a dog'"), ("", "none")])
def test_a_sample_needs_a_list_of_references(references, got):
    with pytest.raises(InputError, match=rf"sample 7: expected a list of one reference or more, got {got}"):
        metrics.SacreBleu().update(torch.tensor([7]), ["a"], [references])


@ALL
def test_ids_outputs_and_references_must_be_as_many(name):
    with pytest.raises(ValueError, match=r"zip|size|stack"):
        getattr(metrics, name)().update(torch.arange(2), ["a", "b"], [["a"]])


@ALL
def test_a_metric_is_part_of_a_model(name):
    module = torch.nn.ModuleDict({"texts": getattr(metrics, name)()}).half()
    module["texts"].update(*collate(draw()))
    assert values_of(module["texts"]) == feed(name, draw())
    assert not module.state_dict()


PROCESS = """
import datetime, json, sys, warnings
import torch
import torch.distributed as dist
from rnnzoo import metrics

warnings.simplefilter("ignore")
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=300)
)
results = []
for name, shares in json.load(open(f"{folder}/shares.json")):
    metric = getattr(metrics, name)()
    found = []
    for share in (shares[rank], shares[1 - rank]):
        for ids, hypotheses, references in share:
            metric.update(torch.tensor(ids), hypotheses, references)
        found.append({name: float(value) for name, value in metric.compute().items()})
        metric.reset()
    results.append([*found, metric.definitions])
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(results, file)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_of_which_one_has_no_sample(tmp_path):
    samples = draw()
    batches = [[list(each) for each in zip(*part, strict=True)] for part in (samples[:25], samples[20:], samples[::2])]
    one, two, even = batches
    splits = [([one], [two]), ([even, one], [two]), ([one, two], []), ([], [one, two]), ([], [])]
    shares = [(name, split) for name in NAMES for split in splits]
    (tmp_path / "shares.json").write_text(json.dumps(shares))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(rnnzoo.__file__).parents[1])}
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
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        for (first, second, definitions), (name, split) in zip(results, shares, strict=True):
            expected = feed(name, samples) if any(split) else dict.fromkeys(definitions, 0.0)
            assert first == second == expected
