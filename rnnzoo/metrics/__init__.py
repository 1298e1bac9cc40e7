"""Metrics that count samples by their ids, so that the number does not depend on batches, order or processes."""

from rnnzoo.metrics.base import MeanLoss, SampleMetric, ZooMetric
from rnnzoo.metrics.caption_tokens import caption_tokens
from rnnzoo.metrics.captions import CaptionScores
from rnnzoo.metrics.cider import CiderD
from rnnzoo.metrics.classification import ClassificationCounts, MultiLabel
from rnnzoo.metrics.pointing import Pointing
from rnnzoo.metrics.regression import RegressionError
from rnnzoo.metrics.spans import SpanF1
from rnnzoo.metrics.texts import TextMetric, TextSample
from rnnzoo.metrics.translation import ExactMatch, SacreBleu

__all__ = [
    "CaptionScores",
    "CiderD",
    "ClassificationCounts",
    "ExactMatch",
    "MeanLoss",
    "MultiLabel",
    "Pointing",
    "RegressionError",
    "SacreBleu",
    "SampleMetric",
    "SpanF1",
    "TextMetric",
    "TextSample",
    "ZooMetric",
    "caption_tokens",
]
