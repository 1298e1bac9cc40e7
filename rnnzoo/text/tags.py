"""Tags that mark spans: reading, converting and checking the schemes BIO, IOB1 and BIOES.

- ``bio`` (IOB2): every span begins with B-, goes on with I-.
- ``iob1``: a span begins with I-, or with B- where it follows a span of the same type without a gap.
- ``bioes``: B-, I-, E- (last word), S- (span of one word).

What counts as a span, in broken sequences too, follows conlleval, the script of the CoNLL shared tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rnnzoo.errors import InputError, unknown_name

SCHEMES = ("bio", "iob1", "bioes")
PREFIXES = ("O", "B", "I", "E", "S")
ALIASES = {"L": "E", "M": "I", "U": "S", "W": "S"}  # of BILOU, BMES and BMEWO
Span = tuple[str, int, int]  # type, first word, word after the last


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into its prefix and type.

    >>> split_tag("B-per-name"), split_tag("O")
    (('B', 'per-name'), ('O', ''))
    """
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash else (tag, "")


def spans(tags: Iterable[str]) -> list[Span]:
    """Return the spans of a sequence of tags in any of the schemes, by the rules of conlleval.

    >>> spans(["I-PER", "I-PER", "B-PER", "O", "I-LOC"])
    [('PER', 0, 2), ('PER', 2, 3), ('LOC', 4, 5)]
    """
    found: list[Span] = []
    begun: int | None = None
    before, before_kind = "O", ""
    place = -1
    for place, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        if begun is not None and _ends(before, before_kind, prefix, kind):
            found.append((before_kind, begun, place))
            begun = None
        if prefix != "O" and (begun is None or _begins(before, before_kind, prefix, kind)):
            begun = place
        before, before_kind = prefix, kind
    if begun is not None:
        found.append((before_kind, begun, place + 1))
    return found


def _ends(before: str, before_kind: str, prefix: str, kind: str) -> bool:
    return before in ("E", "S") or prefix in ("B", "S", "O") or kind != before_kind


def _begins(before: str, before_kind: str, prefix: str, kind: str) -> bool:
    return prefix in ("B", "S") or before in ("E", "S", "O") or kind != before_kind


def write_spans(found: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Write spans that do not overlap as `length` tags of a scheme.

    >>> write_spans([("PER", 0, 2), ("PER", 2, 3)], 4, "bioes")
    ['B-PER', 'E-PER', 'S-PER', 'O']
    """
    if scheme not in SCHEMES:
        raise unknown_name("tag scheme", scheme, SCHEMES)
    tags = ["O"] * length
    previous: Span | None = None
    for kind, start, end in sorted(found, key=lambda span: span[1]):
        tags[start:end] = [f"I-{kind}"] * (end - start)
        adjacent = previous is not None and previous[0] == kind and previous[2] == start
        if scheme != "iob1" or adjacent:
            tags[start] = f"B-{kind}"
        if scheme == "bioes":
            tags[end - 1] = f"S-{kind}" if end - start == 1 else f"E-{kind}"
        previous = (kind, start, end)
    return tags


def convert(tags: Sequence[str], target: str) -> list[str]:
    """Convert tags of any scheme to another; broken sequences are repaired as conlleval reads them.

    The last word of a span may be L- for E-, one between M- for I-, a span of one word U- or W- for S-.

    Raises:
        InputError: for a tag that belongs to no scheme.

    >>> convert(["I-LOC", "I-LOC", "B-LOC"], "bio"), convert(["B-PER", "L-PER", "U-PER"], "bio")
    (['B-LOC', 'I-LOC', 'B-LOC'], ['B-PER', 'I-PER', 'B-PER'])
    """
    return write_spans(spans(map(standard_tag, tags)), len(tags), target)


def standard_tag(tag: str) -> str:
    """Return a tag with the prefix that it has in BIOES.

    Raises:
        InputError: if it has none.
    """
    prefix, kind = split_tag(tag)
    known = ALIASES.get(prefix, prefix)
    if known not in PREFIXES:
        raise InputError(
            "tags of spans",
            expected=f"O, or a prefix among {', '.join((*PREFIXES[1:], *ALIASES))} and a dash",
            got=repr(tag),
            fix="leave out the scheme to take tags as they are",
        )
    return f"{known}-{kind}" if kind else known


def follows(before: str, after: str, scheme: str) -> bool:
    """Return whether `after` may follow `before` in a scheme; ``""`` stands for the start and the end.

    >>> follows("O", "I-PER", "bio"), follows("", "B-PER", "bio"), follows("B-PER", "", "bioes")
    (False, True, False)
    """
    if scheme not in SCHEMES:
        raise unknown_name("tag scheme", scheme, SCHEMES)
    prefix, kind = split_tag(before or "O")
    next_prefix, next_kind = split_tag(after or "O")
    same = kind == next_kind
    if scheme == "iob1":  # a B- needs a span of its type right before it
        return next_prefix != "B" or (prefix in ("I", "B") and same)
    inside = next_prefix in (("I",) if scheme == "bio" else ("I", "E"))
    if scheme == "bio":
        return not inside or (prefix in ("B", "I") and same)
    open_span = prefix in ("B", "I")
    return inside and same if open_span else not inside


class Allowed(NamedTuple):
    """Which of C tags may begin a sentence, follow each other, and end it."""

    start: list[bool]  # [C]
    transitions: list[list[bool]]  # [C from, C to]
    end: list[bool]  # [C]


def allowed_transitions(tags: Sequence[str], scheme: str) -> Allowed:
    """Return which of `tags` may begin a sentence, follow each other, and end it."""
    start = [follows("", tag, scheme) for tag in tags]
    pairs = [[follows(before, after, scheme) for after in tags] for before in tags]
    return Allowed(start, pairs, [follows(tag, "", scheme) for tag in tags])
