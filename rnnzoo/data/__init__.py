"""One DataModule for each kind of input; `DATA_MODULES` lists them without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rnnzoo.registry import Registry

if TYPE_CHECKING:
    from rnnzoo.data.captions import CaptionData
    from rnnzoo.data.frames import FrameData
    from rnnzoo.data.language import LanguageData
    from rnnzoo.data.tagging import TaggingData
    from rnnzoo.data.text_classification import TextClassificationData
    from rnnzoo.data.translation import TranslationData
    from rnnzoo.data.vectors import VectorData

__all__ = [
    "DATA_MODULES",
    "CaptionData",
    "FrameData",
    "LanguageData",
    "TaggingData",
    "TextClassificationData",
    "TranslationData",
    "VectorData",
]

DATA_MODULES = Registry("data module")
DATA_MODULES.add(
    "TextClassificationData", "rnnzoo.data.text_classification:TextClassificationData", "texts with a label or several"
)
DATA_MODULES.add("TaggingData", "rnnzoo.data.tagging:TaggingData", "sentences with a tag a word")
DATA_MODULES.add("FrameData", "rnnzoo.data.frames:FrameData", "sequences of numbers with a label a frame")
DATA_MODULES.add("VectorData", "rnnzoo.data.vectors:VectorData", "fixed-size numbers with a label")
DATA_MODULES.add("TranslationData", "rnnzoo.data.translation:TranslationData", "texts and what they are translated to")
DATA_MODULES.add("LanguageData", "rnnzoo.data.language:LanguageData", "running text")
DATA_MODULES.add("CaptionData", "rnnzoo.data.captions:CaptionData", "images and what is said about them")


def __getattr__(name: str) -> Any:
    if name in DATA_MODULES:
        return DATA_MODULES[name]
    raise AttributeError(f"module 'rnnzoo.data' has no attribute {name!r}")
