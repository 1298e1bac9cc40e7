"""The benchmark's arithmetic, and that what it compares is the same work. Nothing is timed here."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from rnnzoo.bench import SUITES
from rnnzoo.bench.layers import packed
from rnnzoo.bench.loss import WAYS, problem
from rnnzoo.bench.measure import PRODUCT, Comparison, Contest, Setting, interleave, run_contest
from rnnzoo.bench.training import language_model, loss_of, plain_loss, tagger, translator
from rnnzoo.cli.main import main
from rnnzoo.layers.recurrent import Recurrent

QUICK = Setting(repeats=1, quick=True, cells=("lstm", "gru_reset_before", "mingru"))


class Clock:
    """A clock that moves only when work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        taken = itertools.cycle(seconds)

        def call():
            self.now += next(taken)

        return call


def test_contenders_take_turns_after_a_warm_up():
    done = []
    calls = {name: lambda name=name: done.append(name) for name in "ab"}
    samples = interleave(calls, repeats=3, clock=Clock(), least=0.0)
    assert done == [*"aaabbb", *"ababab"]
    assert {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3}


def test_short_calls_are_repeated_within_a_sample():
    clock, done = Clock(), []
    work = clock.work([0.25])
    samples = interleave({"a": lambda: (done.append(1), work())}, repeats=2, clock=clock, least=1.0)
    assert len(done) == 3 + 2 * 4
    assert samples["a"] == pytest.approx([0.25, 0.25])


def test_a_ratio_is_that_of_the_medians_and_knows_its_bar():
    clock = Clock()
    calls = {"ours": clock.work([9, 9, 9, 1.0, 3.0, 2.0]), "base": clock.work([9, 9, 9, 8.0, 4.0, 100.0])}
    comparisons = (Comparison("ours", "base", 0.3), Comparison("ours", "base", 0.3, scale=0.5))
    rows = run_contest("s", Contest("w", calls, comparisons), Setting(repeats=3), clock=clock)
    assert [(row.value, row.baseline_value, row.ratio, row.ok) for row in rows] == [
        (2.0, 8.0, 0.25, True),
        (2.0, 8.0, 0.5, False),
    ]


def test_the_share_of_the_limit_is_of_a_large_product_in_the_same_run(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("rnnzoo.bench.measure.large_product", lambda dtype, setting: (clock.work([1.0]), 100.0))
    contest = Contest("w", {"ours": clock.work([2.0])}, (Comparison("ours", "ours"),), flops={"ours": 50.0})
    (row,) = run_contest("s", contest, Setting(repeats=3), clock=clock)
    assert row.share == pytest.approx(0.25)
    assert PRODUCT not in contest.calls


@pytest.mark.parametrize("make", [translator, tagger, language_model])
def test_plain_models_have_the_loss_and_gradients_of_ours(make):
    torch.manual_seed(0)
    ours, plain, batches = make(QUICK)
    for batch in batches:
        torch.testing.assert_close(loss_of(ours.train(), batch), plain_loss(plain, batch), rtol=1e-4, atol=1e-5)
    ours.zero_grad()
    loss_of(ours, batches[0]).backward()
    plain_loss(plain, batches[0]).backward()
    norms = [
        torch.stack([parameter.grad.norm() for parameter in model.words.parameters()]).norm()
        if hasattr(model, "words")
        else next(iter(model.source.parameters())).grad.norm()
        for model in (ours, plain)
    ]
    torch.testing.assert_close(*norms, rtol=1e-4, atol=1e-6)


def test_packed_rows_give_the_outputs_of_ours():
    layer = Recurrent(cell="lstm", input_size=3, hidden_size=4, bidirectional=True)
    inputs, lengths = torch.randn(3, 6, 3), torch.tensor([6, 2, 4])
    torch.testing.assert_close(packed(layer.to_torch(), inputs, lengths), layer(inputs, lengths)[0])


def test_both_losses_are_the_same():
    head, hidden, targets = problem(QUICK)
    values = [way(head, hidden, targets) for way in WAYS.values()]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", [name for name in SUITES if name != "loss"])
def test_every_suite_runs(name):
    rows = [row for task in SUITES[name](QUICK) for row in task.rows()]
    assert rows
    assert all(row.suite == name and row.ratio > 0 for row in rows)


def test_rows_as_json(capsys):
    assert main(["bench", "step", "--quick", "--repeats", "1", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"torch", "threads", "processor"} <= set(told["machine"])
    assert {"suite", "work", "ratio", "bar", "value", "baseline_value"} <= set(told["rows"][0])


def test_figures_of_quick_sizes_are_called_meaningless(capsys):
    assert main(["bench", "step", "--quick", "--repeats", "1"]) == 0
    assert capsys.readouterr().out.endswith("--quick: tiny sizes, the figures mean nothing\n")


def test_bf16_is_measured_where_it_is_fast(monkeypatch):
    for fast in (False, True):
        monkeypatch.setattr("rnnzoo.bench.training.has_fast_bf16", lambda device, fast=fast: fast)
        tasks = SUITES["train"](QUICK)
        assert any("bf16" in task.work for task in tasks) == fast
    (row,) = tasks[-1].rows()
    assert row.bar == 0.55


def test_explain_names_a_backend_and_a_reason(capsys):
    assert main(["bench", "--explain", "gru"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["shape", "backend", "runs", "as", "why"]
    assert all("native" in line or "fused" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "suite: expected one of cells, decode, loss, ragged, scan, step, train, got 'trian'; did you mean"),
        (["--cells", "lstmm"], "cell: expected one of"),
        (["--explain", "nothing"], "cell: expected one of"),
        (["--repeats", "0"], "--repeats: expected a whole number above 0, got '0'"),
        (["--repeat", "3"], "did you mean '--repeats'"),
        (["--json"], "--json: expected a value, got none"),
        (["--json", __file__], "expected a new file, got one that exists"),
    ],
)
def test_bad_input_gets_one_line(capsys, arguments, expected):
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
