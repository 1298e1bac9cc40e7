"""When calls are recorded, and what is kept of them; what graphs compute is tested where there is a GPU."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.kernels import cuda_graphs


class Graph:
    """Does again what was recorded, as a graph would."""

    def __init__(self, function, given, results):
        self.function, self.given, self.results = function, given, results
        self.replayed = 0

    def replay(self):
        self.replayed += 1
        cuda_graphs.copy_all(self.results, self.function(*self.given))


@pytest.fixture
def recorded(monkeypatch):
    """Record on a CPU, with room for two calls of a thousand numbers; return what was recorded, in order."""
    made = []

    def record(function, tensors, where):
        given = [torch.empty_like(each) for each in tensors]
        results = [torch.empty_like(each) for each in function(*tensors)]
        made.append(Graph(function, given, results))
        return cuda_graphs.Recorded(made[-1], given, results)

    for name, value in {
        "record": record,
        "can_record": lambda like: True,
        "stream_of": lambda like: "here",
        "memory_of": lambda device: 16 * 16_000,
        "_seen": type(cuda_graphs._seen)(),
        "_graphs": {},
        "_calls": 0,
        "RECORD_AFTER": 3,
        "UNUSED_CALLS_BEFORE_EVICTION": 20,
    }.items():
        monkeypatch.setattr(cuda_graphs, name, value)
    monkeypatch.delenv("RNNZOO_COMPILE")
    return made


def double(numbers):
    return [2 * numbers]


def test_a_call_is_recorded_when_it_has_come_often(recorded):
    for call in range(6):
        numbers = torch.full((3,), float(call))
        (found,) = cuda_graphs.replay(double, "double", [numbers])
        assert found.tolist() == [2.0 * call] * 3
        assert len(recorded) == (call >= 2)
    assert recorded[0].replayed == 4


def test_results_are_not_written_again(recorded):
    kept = [cuda_graphs.replay(double, "double", [torch.full((3,), float(call))])[0] for call in range(6)]
    assert [each[0].item() for each in kept] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("other", [torch.zeros(4), torch.zeros(3, dtype=torch.float64), torch.zeros(1, 3)], ids=repr)
def test_shapes_types_and_marks_are_told_apart(recorded, other):
    for _ in range(3):
        cuda_graphs.replay(double, "double", [torch.zeros(3)])
    for _ in range(2):
        cuda_graphs.replay(double, "double", [other])
        cuda_graphs.replay(double, "another", [torch.zeros(3)])
    assert len(recorded) == 1


def test_what_is_in_use_is_not_dropped_and_what_is_stale_is(recorded):
    """Three shapes in turns where two have room: recording all of them again and again would take longest."""
    for _ in range(12):
        for size in (1001, 1002, 1003):
            (found,) = cuda_graphs.replay(double, "double", [torch.ones(size)])
            assert found.shape == (size,)
    assert [len(graph.given[0]) for graph in recorded] == [1001, 1002]
    for _ in range(30):
        for size in (1002, 1003):
            cuda_graphs.replay(double, "double", [torch.ones(size)])
    assert [len(graph.given[0]) for graph in recorded] == [1001, 1002, 1003]
    assert [len(each.given[0]) for each in cuda_graphs._graphs.values()] == [1002, 1003]


def test_nothing_is_recorded_on_a_cpu():
    assert not cuda_graphs.can_record(torch.zeros(3))
    assert cuda_graphs.replay(double, "double", [torch.ones(2)])[0].tolist() == [2, 2]
