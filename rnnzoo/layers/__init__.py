"""Parts of models: recurrent layers, embeddings, pooling, CRF, feed-forward network."""

from rnnzoo.layers.crf import CRF
from rnnzoo.layers.embedding import CharacterEmbedding, WordEmbedding
from rnnzoo.layers.feedforward import FeedForward
from rnnzoo.layers.pooling import Pooling
from rnnzoo.layers.recurrent import Recurrent

__all__ = ["CRF", "CharacterEmbedding", "FeedForward", "Pooling", "Recurrent", "WordEmbedding"]
