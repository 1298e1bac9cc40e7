"""Words and punctuation marks back to text."""

from __future__ import annotations

from collections.abc import Iterable

CLOSING = frozenset(".,!?;:)]}%…’»")  # no blank before
OPENING = frozenset("([{«¿¡#$€£")  # no blank after
JOINING = frozenset("-/")  # no blank on either side
QUOTES = frozenset('"“”„')  # open and close in turn
APOSTROPHES = frozenset("'’")
ENDINGS = frozenset(("s", "t", "d", "m", "re", "ve", "ll"))  # after an apostrophe: man's, don't
LISTING = frozenset(("und", "oder", "bis", "bzw", "and", "or", "to"))  # after a hyphen for a common part: auf- und ab
POINTS = frozenset(".,:")  # no blank after between digits


def join_words(words: Iterable[str]) -> str:
    """Join words that were split at punctuation, by the rules of English and German print.

    The blanks around a mark are lost when a text is split, so this is a guess: hyphens and slashes join the words
    around them, points and commas join digits, double quotation marks open and close in turn. Of the sentences of
    Multi30k it restores more than 99 % as they were; byte pair encoding restores all.

    >>> join_words(["A", "man", "'", "s", "T", "-", "shirt", "(", "red", ")", ",", "size", "1", ".", "5", "."])
    "A man's T-shirt (red), size 1.5."
    >>> join_words(["He", "said", ":", '"', "Go", "!", '"', "and", "left", "."])
    'He said: "Go!" and left.'
    """
    text = before = ""
    quoted = False
    for word in words:
        joined = (
            not text
            or (word[0] in QUOTES and quoted)
            or word[0] in CLOSING | JOINING | APOSTROPHES
            or before[-1] in OPENING
            or (before[-1] in QUOTES and quoted)
            or (before[-1] in JOINING and word.lower() not in LISTING)
            or (before in APOSTROPHES and is_ending(word, after=text[-2:-1]))
            or (before in POINTS and word[0].isdigit() and text[-2:-1].isdigit())
        )
        text += word if joined else f" {word}"
        quoted ^= sum(mark in QUOTES for mark in word) % 2 == 1
        before = word
    return text


def is_ending(word: str, *, after: str) -> bool:
    """Return whether a word after an apostrophe belongs to the word whose last letter is `after`.

    >>> is_ending("s", after="n"), is_ending("T", after="N"), is_ending("T", after="s")
    (True, True, False)
    """
    return word.lower() in ENDINGS and (word.islower() or after.isupper())
