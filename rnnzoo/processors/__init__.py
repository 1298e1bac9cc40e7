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
PROCESSORS.add(
    "captions", "rnnzoo.processors.captions:CaptionProcessor", "an image, or its features → pixels, and captions"
)
PROCESSORS.add("vectors", "rnnzoo.processors.vectors:VectorProcessor", "numbers → normalised numbers, and a label")
PROCESSORS.add(
    "translation", "rnnzoo.processors.translation:TranslationProcessor", "a text → token ids of it and of another text"
)
PROCESSORS.add("language", "rnnzoo.processors.language:LanguageProcessor", "text → a stream of token ids")
