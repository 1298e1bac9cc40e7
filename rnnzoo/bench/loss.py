"""The loss over a large vocabulary: time, and the memory at its peak."""

from __future__ import annotations

import multiprocessing
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.bench.measure import Comparison, Contest, Row, Setting, Task, judge, run_contest
from rnnzoo.layers.vocabulary import VocabularyHead
from rnnzoo.memory import peak_resident


def loss(setting: Setting) -> list[Task]:
    """The chunked loss against plain cross-entropy, forward and backward."""
    work = "vocabulary 33,000, 70 × 32 targets, H 512"
    return [
        Task(work, partial(time_of_loss, work, setting)),
        Task(f"{work}, peak memory", partial(memory_of_loss, work, setting)),
    ]


def problem(setting: Setting) -> tuple[VocabularyHead, Tensor, Tensor]:
    """Return a head, hidden vectors [N, H] and targets [N]."""
    items, size, vocabulary = (6, 4, 11) if setting.quick else (70 * 32, 512, 33_000)
    torch.manual_seed(0)
    head = VocabularyHead(input_size=size, vocabulary_size=vocabulary).to(setting.device)
    hidden = torch.randn(items, size, device=setting.device, requires_grad=True)
    return head, hidden, torch.randint(vocabulary, (items,), device=setting.device)


def chunked(head: VocabularyHead, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the loss as the models take it."""
    return head.loss(hidden, targets)


def plain(head: VocabularyHead, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the loss from all logits at once."""
    return F.cross_entropy(F.linear(hidden, head.weight, head.bias), targets, reduction="sum")


WAYS = {"chunked": chunked, "cross-entropy": plain}


def time_of_loss(work: str, setting: Setting) -> list[Row]:
    """Measure the time of both."""
    head, hidden, targets = problem(setting)
    calls = {name: lambda way=way: way(head, hidden, targets).backward() for name, way in WAYS.items()}
    useful = dict.fromkeys(calls, 6.0 * hidden.numel() * len(head.weight))
    contest = Contest(work, calls, (Comparison("chunked", "cross-entropy", 1.1),), useful)
    return run_contest("loss", contest, setting)


def memory_of_loss(work: str, setting: Setting) -> list[Row]:
    """Measure the memory of both, each in a process of its own: what the loss adds to its peak there or on the GPU."""
    values = {}
    for name in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            values[name] = float(pool.apply(added_memory, (name, setting)))
    row = Row(
        "loss", work, "chunked", "cross-entropy", "memory",
        value=values["chunked"], baseline_value=max(values["cross-entropy"], 1.0), bar=0.4, repeats=1, dtype="float32",
    )  # fmt: skip
    return [judge(row)]


def added_memory(name: str, setting: Setting) -> int:
    """Return the bytes by which forward and backward raise the peak of this process, or of the GPU.

    The gradients of weights and inputs, which both need, are there before.
    """
    head, hidden, targets = problem(setting)
    small = hidden.detach()[:1].requires_grad_()
    WAYS[name](head, small, targets[:1]).backward()  # whatever is set up at the first call, and the gradients
    hidden.grad = torch.zeros_like(hidden)
    peak = peak_resident if setting.device == "cpu" else torch.cuda.max_memory_allocated
    before = peak()
    WAYS[name](head, hidden, targets).backward()
    return peak() - before
