"""Words and punctuation marks back to text."""

from __future__ import annotations

from collections.abc import Iterable

CLOSING = frozenset(".,!?;:)]}%…’”“»")  # no blank before; German closing marks too
OPENING = frozenset("([{„«¿¡#$€£")  # no blank after
JOINING = frozenset("-/'’")  # no blank on either side between words


def join_words(words: Iterable[str]) -> str:
    """Join words that were split at punctuation, by the rules of English and German print.

    The blanks around a mark are lost when a text is split, so this is a guess: hyphens, slashes and apostrophes join
    the words around them, points and commas join digits, double quotation marks open and close in turn. Byte pair
    encoding restores texts exactly.

    >>> join_words(["A", "man", "'", "s", "T", "-", "shirt", "(", "red", ")", ",", "size", "1", ".", "5", "."])
    "A man's T-shirt (red), size 1.5."
    >>> join_words(["He", "said", ":", '"', "Go", "!", '"', "and", "left", "."])
    'He said: "Go!" and left.'
    """
    text = ""
    tight = True  # whether no blank comes before the next word
    quoted = False
    before = ""
    for word in words:
        first, last = word[:1], word[-1:]
        if word == '"':
            closes, quoted = quoted, not quoted
            text += word if closes or tight else f" {word}"
            tight = not closes
        elif first in CLOSING or word in JOINING:
            text += word
            tight = word in JOINING
        else:
            number = first.isdigit() and before in (".", ",", ":") and text[-2:-1].isdigit()
            text += word if tight or number else f" {word}"
            tight = last in OPENING
        before = word
    return text
