"""Generating sequences: a decoder is a step function with a state; how words are chosen is written once for all."""

from rnnzoo.decoding.decoder import Decoder, Step
from rnnzoo.decoding.ensemble import Ensemble
from rnnzoo.decoding.options import SearchOptions
from rnnzoo.decoding.search import score, search, stream
from rnnzoo.decoding.trace import Hypothesis

__all__ = ["Decoder", "Ensemble", "Hypothesis", "SearchOptions", "Step", "score", "search", "stream"]
