"""Metrics that count samples by their ids, so that the number does not depend on batches, order or processes."""

from rnnzoo.metrics.base import MeanLoss, SampleMetric
from rnnzoo.metrics.classification import ClassificationCounts, MultiLabel
from rnnzoo.metrics.regression import RegressionError
from rnnzoo.metrics.spans import SpanF1

__all__ = ["ClassificationCounts", "MeanLoss", "MultiLabel", "RegressionError", "SampleMetric", "SpanF1"]
