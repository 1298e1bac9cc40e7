"""Parts of models: recurrent layers, embeddings, pooling, CRF, feed-forward network."""

from rnnzoo.layers.attention import Attention
from rnnzoo.layers.crf import CRF
from rnnzoo.layers.embedding import CharacterEmbedding, WordEmbedding
from rnnzoo.layers.feedforward import FeedForward
from rnnzoo.layers.pooling import Pooling
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.layers.vocabulary import VocabularyHead

__all__ = [
    "CRF",
    "Attention",
    "CharacterEmbedding",
    "FeedForward",
    "Pooling",
    "Recurrent",
    "VocabularyHead",
    "WordEmbedding",
]
