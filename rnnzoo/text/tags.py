"""Tags that mark spans: reading, converting and checking the schemes BIO, IOB1 and BIOES.

A tag is ``O``, or a letter with a type (``B-PER``), or a letter alone where there is one type of span. An empty tag is
that of a word which is not labelled: it is left out before spans are read, as labels of -100 are by Hugging Face.

- ``bio`` (IOB2): every span begins with B-, goes on with I-.
- ``iob1``: a span begins with I-, or with B- where it follows a span of the same type without a gap.
- ``bioes``: B-, I-, E- (last word), S- (span of one word); ``bilou``, ``bmes`` and ``bmewo`` are the same with other
  letters.

What counts as a span, in broken sequences too, follows conlleval, the script of the CoNLL shared tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rnnzoo.errors import InputError, unknown_name

SCHEMES = ("bio", "iob1", "bioes")
PREFIXES = ("O", "B", "I", "E", "S")
LETTERS = {  # schemes that are BIOES with other letters
    "bilou": {"E": "L", "S": "U"},
    "bmes": {"I": "M"},
    "bmewo": {"I": "M", "S": "W"},
}
ALIASES = {other: letter for letters in LETTERS.values() for letter, other in letters.items()}  # L, U, M, W
Span = tuple[str, int, int]  # type, first word, word after the last


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into its prefix and type.

    >>> split_tag("B-per-name"), split_tag("O")
    (('B', 'per-name'), ('O', ''))
    """
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash else (tag, "")


def join_tag(prefix: str, kind: str) -> str:
    """Return the tag of a prefix and a type, which may be empty.

    >>> join_tag("B", "PER"), join_tag("B", "")
    ('B-PER', 'B')
    """
    return f"{prefix}-{kind}" if kind else prefix


def spans(tags: Iterable[str]) -> list[Span]:
    """Return the spans of a sequence of tags in any of the schemes, by the rules of conlleval; no tag may be empty.

    >>> spans(["I-PER", "I-PER", "B-PER", "O", "I-LOC"])
    [('PER', 0, 2), ('PER', 2, 3), ('LOC', 4, 5)]
    """
    found: list[Span] = []
    begun: int | None = None
    before, before_kind = "O", ""
    place = -1
    for place, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        prefix = ALIASES.get(prefix, prefix)
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

    >>> write_spans([("PER", 0, 2), ("PER", 2, 3)], 4, "bioes"), write_spans([("", 0, 2)], 2, "bilou")
    (['B-PER', 'E-PER', 'S-PER', 'O'], ['B', 'L'])
    """
    letters, base = LETTERS.get(scheme, {}), base_scheme(scheme)
    tags = ["O"] * length
    previous: Span | None = None
    for kind, start, end in sorted(found, key=lambda span: span[1]):
        prefixes = ["I"] * (end - start)
        adjacent = previous is not None and previous[0] == kind and previous[2] == start
        if base != "iob1" or adjacent:
            prefixes[0] = "B"
        if base == "bioes":
            prefixes[-1] = "S" if end - start == 1 else "E"
        tags[start:end] = [join_tag(letters.get(prefix, prefix), kind) for prefix in prefixes]
        previous = (kind, start, end)
    return tags


def base_scheme(scheme: str) -> str:
    """Return the one of `SCHEMES` that a scheme is, but for its letters.

    Raises:
        InputError: for an unknown scheme.
    """
    if scheme not in SCHEMES and scheme not in LETTERS:
        raise unknown_name("tag scheme", scheme, (*SCHEMES, *LETTERS))
    return "bioes" if scheme in LETTERS else scheme


def convert(tags: Sequence[str], target: str) -> list[str]:
    """Convert tags of any scheme to another; broken sequences are repaired as conlleval reads them.

    Empty tags stay empty.

    Raises:
        InputError: for a tag that belongs to no scheme.

    >>> convert(["I-LOC", "I-LOC", "B-LOC"], "bio"), convert(["B-PER", "", "L-PER", "U-PER"], "bio")
    (['B-LOC', 'I-LOC', 'B-LOC'], ['B-PER', '', 'I-PER', 'B-PER'])
    """
    labelled = [standard_tag(tag) for tag in tags if tag]
    converted = iter(write_spans(spans(labelled), len(labelled), target))
    return [next(converted) if tag else "" for tag in tags]


def scheme_of(sentences: Sequence[Sequence[str]]) -> str:
    """Return the scheme that tags are written in, one of `SCHEMES` or `LETTERS`.

    BIO and IOB1 are told apart by the number of tags that may not follow the tag before, the forms of BIOES by the
    letters; the first of several that fit equally well is taken, BIO before IOB1.

    Raises:
        InputError: for a tag that belongs to no scheme.

    >>> scheme_of([["I-PER", "O"]]), scheme_of([["B", "L", "O"]]), scheme_of([["B-PER", "O"]])
    ('iob1', 'bilou', 'bio')
    """
    tags = Counter(tag for sentence in sentences for tag in sentence if tag)
    letters: Counter[str] = Counter()
    for tag, count in tags.items():
        standard_tag(tag)  # refuses what is no tag of a scheme
        letters[split_tag(tag)[0]] += count
    if set(letters) - {"B", "I", "O"}:
        foreign = {name: sum(letters[x] for x in set(letters) - set(letters_of(name))) for name in ("bioes", *LETTERS)}
        return min(foreign, key=foreign.__getitem__)
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence in sentences:
        labelled = [tag for tag in sentence if tag]
        pairs.update(zip(["", *labelled], labelled, strict=False))
    wrong = {
        scheme: sum(count for pair, count in pairs.items() if not follows(*pair, scheme)) for scheme in ("bio", "iob1")
    }
    return min(wrong, key=wrong.__getitem__)


def letters_of(scheme: str) -> list[str]:
    """Return the letters that tags of a scheme begin with.

    >>> letters_of("bilou")
    ['O', 'B', 'I', 'L', 'U']
    """
    letters = LETTERS.get(scheme, {})
    return [letters.get(prefix, prefix) for prefix in (PREFIXES if base_scheme(scheme) == "bioes" else PREFIXES[:3])]


def tags_of(kinds: Iterable[str], scheme: str) -> set[str]:
    """Return all tags that spans of these types may have in a scheme.

    >>> sorted(tags_of(["PER"], "bio")), sorted(tags_of([""], "bio"))
    (['B-PER', 'I-PER', 'O'], ['B', 'I', 'O'])
    """
    return {"O", *(join_tag(letter, kind) for kind in kinds for letter in letters_of(scheme)[1:])}


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
    return join_tag(known, kind)


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
