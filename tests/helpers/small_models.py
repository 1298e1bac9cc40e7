"""Every model on a few samples that are written out here: no data module, no cache, nothing to wait for."""

from __future__ import annotations

import numpy as np
import torch

from rnnzoo.models import MODELS
from rnnzoo.processors.captions import CaptionProcessor
from rnnzoo.processors.frames import FrameProcessor
from rnnzoo.processors.images import ImageOptions
from rnnzoo.processors.language import LanguageProcessor
from rnnzoo.processors.normalisation import Normalisation
from rnnzoo.processors.tagging import TaggingProcessor
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.processors.vectors import VectorProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

SCALE = Normalisation(names=["u", "v"], mean=[0.0, 1.0], deviation=[1.0, 2.0])
TEXT = "the cat sat on the mat"
WORDS = {"hidden_size": 8, "words": {"size": 6}}
SAMPLES = {
    "VectorClassifier": [{"vector": [0.5, 1.0], "label": "x"}, {"vector": [-1.0, 3.0], "label": "y"}],
    "SequenceClassifier": [{"text": "the cat", "label": "x"}, {"text": "sat on the mat", "label": "y"}],
    "SequenceTagger": [
        {"tokens": ["the", "cat", "sat"], "tags": ["D", "N", "V"]},
        {"tokens": ["cat", "sat", "the", "mat"], "tags": ["N", "V", "D", "N"]},
    ],
    "FrameLabeller": [{"frames": [[0.5, 1.0], [-1.0, 3.0], [2.0, 0.0]], "labels": ["x", "y", "x"]}],
    "LanguageModel": [{"text": "the cat sat on"}, {"text": "the mat sat on the cat"}],
    "Translator": [{"source": "the cat", "target": "cat sat"}, {"source": "the mat sat", "target": "on the mat"}],
    "Captioner": [
        {"image": np.full((8, 8, 3), 90, np.uint8), "captions": ["the cat", "the cat sat"]},
        {"image": np.eye(8, dtype=np.uint8)[..., None].repeat(3, -1) * 255, "captions": ["on the mat"]},
    ],
}
ARGUMENTS = {
    "VectorClassifier": {"hidden_sizes": [8]},
    "SequenceClassifier": {**WORDS, "pooling": ["last", "attention"]},
    "SequenceTagger": {**WORDS, "characters": {"size": 4, "output_size": 5}, "crf": True},
    "FrameLabeller": {"hidden_size": 8},
    "LanguageModel": WORDS,
    "Translator": WORDS,
    "Captioner": {**WORDS, "image": {"channels": [8, 8]}, "region_size": 8},
}


def tokenizer(text=TEXT, kind="words"):
    """Return a tokenizer that knows the tokens of a text."""
    return Tokenizer.train([text], TokenizerOptions(kind=kind))


def processor(name, text=TEXT):
    """Return the processor of a model, which knows the words of a text."""
    xy, words = LabelMap(["x", "y"]), tokenizer(text)
    if name == "SequenceTagger":
        bare = Tokenizer.train_words(text.split(), TokenizerOptions())
        tags = LabelMap(["D", "N", "V"])
        return TaggingProcessor(words=bare, characters=tokenizer(text, "characters"), tags=tags)
    return {
        "VectorClassifier": lambda: VectorProcessor(inputs_scale=SCALE, labels=xy),
        "SequenceClassifier": lambda: TextClassificationProcessor(tokenizer=words, labels=xy),
        "FrameLabeller": lambda: FrameProcessor(inputs_scale=SCALE, labels=xy),
        "LanguageModel": lambda: LanguageProcessor(tokenizer=words),
        "Translator": lambda: TranslationProcessor(source=words, target=tokenizer(text)),
        "Captioner": lambda: CaptionProcessor(tokenizer=words, images=ImageOptions(size=8)),
    }[name]()


def build(name, text=TEXT, **options):
    """Return a small model."""
    torch.manual_seed(0)
    return MODELS[name](processor=processor(name, text), **{**ARGUMENTS[name], **options})


def batch_of(model):
    """Return the samples of a model as a batch."""
    samples = SAMPLES[type(model).__name__]
    return model.processor.collate(
        [{**model.processor.encode(sample), "id": place} for place, sample in enumerate(samples)]
    )
