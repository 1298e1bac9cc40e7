"""The characters of the words of a batch as lists."""

from __future__ import annotations


def spelt(characters):
    """Return `WordCharacters` as B rows of words, each a list of ids."""
    words = [word.tolist() for word in characters.ids.split(characters.lengths.tolist())]
    return [[words[index] for index in row] for row in characters.indices.tolist()]
