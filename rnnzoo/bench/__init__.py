"""Speed and memory as ratios against named baselines of the same run; `SUITES` lists them without importing torch."""

from __future__ import annotations

from rnnzoo.registry import Registry

__all__ = ["SUITES"]

SUITES = Registry("suite")
SUITES.add(
    "cells",
    "rnnzoo.bench.layers:cells",
    "each gated cell through `fused`, forward and backward; three in bf16 too, where it is fast",
    baseline="nn.LSTM, scaled by the matrix products; the cell's own reference",
)
SUITES.add(
    "ragged",
    "rnnzoo.bench.layers:ragged",
    "a bidirectional LSTM over rows of different lengths",
    baseline="packed nn.LSTM",
)
SUITES.add(
    "scan", "rnnzoo.bench.layers:scan_suite", "linear cells over 1,024 steps, forward and backward", baseline="nn.LSTM"
)
SUITES.add("step", "rnnzoo.bench.layers:step", "one step of one row without a gradient", baseline="nn.LSTM with T = 1")
SUITES.add(
    "loss",
    "rnnzoo.bench.loss:loss",
    "the loss over a large vocabulary: peak memory and time",
    baseline="plain cross-entropy",
)
SUITES.add(
    "train",
    "rnnzoo.bench.training:train",
    "whole training steps: translator, tagger, language model",
    baseline="the same models in plain torch, packed",
)
SUITES.add(
    "decode",
    "rnnzoo.bench.decode:decode",
    "beam search over 200 sentences in batches",
    baseline="the same search, one sentence at a time",
)
