"""One LightningModule for each sequence pattern; `MODELS` lists them without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rnnzoo.registry import Registry

if TYPE_CHECKING:
    from rnnzoo.models.captioner import Captioner
    from rnnzoo.models.frame_labeller import FrameLabeller
    from rnnzoo.models.language_model import LanguageModel
    from rnnzoo.models.sequence_classifier import SequenceClassifier
    from rnnzoo.models.sequence_tagger import SequenceTagger
    from rnnzoo.models.translator import Translator
    from rnnzoo.models.vector_classifier import VectorClassifier

__all__ = [
    "MODELS",
    "Captioner",
    "FrameLabeller",
    "LanguageModel",
    "SequenceClassifier",
    "SequenceTagger",
    "Translator",
    "VectorClassifier",
    "list_models",
]

MODELS = Registry("model")
MODELS.add(
    "VectorClassifier",
    "rnnzoo.models.vector_classifier:VectorClassifier",
    "a plain network over fixed-size inputs, the baseline without recurrence",
    pattern="one_to_one",
)
MODELS.add(
    "SequenceClassifier",
    "rnnzoo.models.sequence_classifier:SequenceClassifier",
    "one label, or a set of labels, for a text: sentiment, question type, language of a name",
    pattern="many_to_one",
)
MODELS.add(
    "SequenceTagger",
    "rnnzoo.models.sequence_tagger:SequenceTagger",
    "one tag a word: parts of speech, named entities; softmax or CRF",
    pattern="many_to_many",
)
MODELS.add(
    "FrameLabeller",
    "rnnzoo.models.frame_labeller:FrameLabeller",
    "one label or number for each real-valued frame of a video or sensor",
    pattern="many_to_many",
)
MODELS.add(
    "LanguageModel",
    "rnnzoo.models.language_model:LanguageModel",
    "the next token of running text: characters, bytes, words or byte pairs; generates text",
    pattern="next_step",
)
MODELS.add(
    "Captioner",
    "rnnzoo.models.captioner:Captioner",
    "a sentence about an image: soft, hard, top-down or no attention over a grid of features",
    pattern="one_to_many",
)
MODELS.add(
    "Translator",
    "rnnzoo.models.translator:Translator",
    "a sequence becomes another one: translation, normalisation; attention, beam search, BLEU",
    pattern="encoder_decoder",
)


def list_models(pattern: str | None = None) -> list[str]:
    """Return the names of the models, of one pattern if it is given.

    >>> list_models("many_to_one")
    ['SequenceClassifier']
    """
    return [name for name in MODELS if pattern in (None, MODELS.entry(name).facts["pattern"])]


def __getattr__(name: str) -> Any:
    if name in MODELS:
        return MODELS[name]
    raise AttributeError(f"module 'rnnzoo.models' has no attribute {name!r}")
