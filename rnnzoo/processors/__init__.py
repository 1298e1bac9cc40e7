"""From raw samples to batches, the same in training and ever after; `PROCESSORS` lists the kinds."""

from __future__ import annotations

from rnnzoo.registry import Registry

__all__ = ["PROCESSORS"]

PROCESSORS = Registry("processor")
PROCESSORS.add(
    "text_classification",
    "rnnzoo.processors.text_classification:TextClassificationProcessor",
    "a text → token ids, and a label or a set of labels",
)
PROCESSORS.add("tagging", "rnnzoo.processors.tagging:TaggingProcessor", "words → ids of words and characters, and tags")
PROCESSORS.add("frames", "rnnzoo.processors.frames:FrameProcessor", "frames of numbers → normalised frames, and labels")
PROCESSORS.add("vectors", "rnnzoo.processors.vectors:VectorProcessor", "numbers → normalised numbers, and a label")
