"""Generating sequences: a decoder is a step function with a state; how words are chosen is written once for all."""

from rnnzoo.decoding.decoder import Decoder, Step

__all__ = ["Decoder", "Step"]
