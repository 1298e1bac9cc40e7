"""Tag schemes against conlleval and against all sequences that can be written."""

import itertools
import random

import pytest

from rnnzoo.errors import InputError
from rnnzoo.text.tags import (
    LETTERS,
    SCHEMES,
    allowed_transitions,
    convert,
    follows,
    scheme_of,
    spans,
    split_tag,
    tags_of,
    write_spans,
)

KINDS = ("X", "Y-Z")


def end_of_chunk(before, before_kind, tag, kind):
    """Port of endOfChunk of conlleval, with the rules for E and S that its later versions have."""
    ended = before in ("E", "S")
    for pair in (("B", "B"), ("B", "S"), ("B", "O"), ("I", "B"), ("I", "S"), ("I", "O")):
        ended = ended or (before, tag) == pair
    return ended or (before != "O" and before_kind != kind)


def start_of_chunk(before, before_kind, tag, kind):
    """Port of startOfChunk of conlleval, with the rules for E and S that its later versions have."""
    started = tag in ("B", "S")
    for pair in (("E", "E"), ("E", "I"), ("S", "E"), ("S", "I"), ("O", "E"), ("O", "I")):
        started = started or (before, tag) == pair
    return started or (tag != "O" and before_kind != kind)


def conlleval_spans(tags):
    found, begun, before, before_kind = [], 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = tag.split("-", 1) if "-" in tag else (tag, "")
        if end_of_chunk(before, before_kind, prefix, kind):
            found.append((before_kind, begun, place))
        if start_of_chunk(before, before_kind, prefix, kind):
            begun = place
        before, before_kind = prefix, kind
    return found


def original_conlleval_spans(tags):
    """Spans of B, I and O by the rules of the first conlleval (1999), which knew no S."""
    found, begun, before, before_kind = [], 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if (before + prefix) in ("BB", "BO", "IB", "IO") or (before != "O" and before_kind != kind):
            found.append((before_kind, begun, place))
        if (before + prefix) in ("BB", "IB", "OB", "OI") or (prefix != "O" and before_kind != kind):
            begun = place
        before, before_kind = prefix, kind
    return found


def draw_spans(rng, length):
    found, place = [], 0
    while place < length:
        end = rng.randint(place + 1, min(length, place + 4))
        if rng.random() < 0.7:
            found.append((rng.choice(("X", "Y-Z", "é")), place, end))
        place = end
    return found


def write_one(kind, size, scheme, after_same):
    """Write the tags of a span, straight from the definition of the scheme."""
    if scheme == "bioes":
        return [f"S-{kind}"] if size == 1 else [f"B-{kind}", *[f"I-{kind}"] * (size - 2), f"E-{kind}"]
    first = "B" if scheme == "bio" or after_same else "I"
    return [f"{first}-{kind}", *[f"I-{kind}"] * (size - 1)]


def all_well_formed(length, scheme, last=None):
    """Yield all tag sequences of a length that are right in a scheme; `last` is the type that ends just before."""
    if length == 0:
        yield ()
        return
    for rest in all_well_formed(length - 1, scheme):
        yield ("O", *rest)
    for size in range(1, length + 1):
        for kind in KINDS:
            head = write_one(kind, size, scheme, after_same=last == kind)
            for rest in all_well_formed(length - size, scheme, kind):
                yield (*head, *rest)


def all_tags(scheme):
    prefixes = "BIES" if scheme == "bioes" else "BI"
    return ["O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in prefixes)]


@pytest.mark.parametrize("tag", ["PER", "X-PER", "-PER", "b-PER"])
def test_tags_of_no_scheme_are_refused(tag):
    with pytest.raises(InputError, match="tags of spans: expected O, or a prefix among B, I, E, S, L, U, M, W and a"):
        convert(["O", tag], "bio")


def test_letters_of_other_schemes_are_known():
    assert convert(["B-PER", "L-PER", "U-PER", "U-LOC"], "bioes") == ["B-PER", "E-PER", "S-PER", "S-LOC"]
    assert convert(["B-PER", "M-PER", "E-PER", "W-PER", "O"], "bio") == ["B-PER", "I-PER", "I-PER", "B-PER", "O"]


def test_tags_are_split_at_the_first_dash():
    assert split_tag("O") == ("O", "")
    assert split_tag("I-a-b-c") == ("I", "a-b-c")
    assert split_tag("B-") == ("B", "")


@pytest.mark.parametrize(
    ("pool", "seed"),
    [
        (["O", "B-X", "I-X", "B-Y-Z", "I-Y-Z"], 0),
        (["O", "B-X", "I-X", "E-X", "S-X", "B-Y-Z", "I-Y-Z", "E-Y-Z", "S-Y-Z"], 1),
        (["O", "O", "O", "I-X", "E-X", "S-Y", "B", "I", "E", "S", "I-", "B-Y", "I-Y"], 2),
    ],
    ids=["bio", "bioes", "odd"],
)
def test_spans_are_those_of_conlleval_in_broken_sequences_too(pool, seed):
    rng = random.Random(seed)
    for _ in range(4000):
        tags = rng.choices(pool, k=rng.randint(0, 12))
        found = spans(tags)
        assert found == conlleval_spans(tags), tags
        if seed == 0:
            assert found == original_conlleval_spans(tags), tags


def test_spans_of_all_short_sequences_are_those_of_conlleval():
    pool = ["O", "B-X", "I-X", "E-X", "S-X", "I-Y", "E-Y"]
    for length in range(5):
        for tags in itertools.product(pool, repeat=length):
            assert spans(tags) == conlleval_spans(tags), tags


def test_spans_take_any_iterable():
    assert spans(iter(["B-X", "I-X"])) == [("X", 0, 2)]
    assert spans([]) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_that_are_written_are_read_again(scheme):
    rng = random.Random(3)
    for _ in range(1500):
        length = rng.randint(0, 15)
        found = draw_spans(rng, length)
        tags = write_spans(found, length, scheme)
        assert len(tags) == length
        assert spans(tags) == found


@pytest.mark.parametrize("route", list(itertools.permutations(SCHEMES)), ids="-".join)
def test_conversion_there_and_back_changes_nothing(route):
    rng = random.Random(4)
    for _ in range(700):
        length = rng.randint(0, 15)
        found = draw_spans(rng, length)
        written = {scheme: write_spans(found, length, scheme) for scheme in SCHEMES}
        tags = written[route[0]]
        for target in (*route[1:], route[0], route[0]):
            tags = convert(tags, target)
            assert tags == written[target]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_conversion_repairs_broken_sequences_and_keeps_their_spans(scheme):
    rng = random.Random(5)
    well_formed = {length: set(all_well_formed(length, scheme)) for length in range(6)}
    for _ in range(1500):
        tags = rng.choices(all_tags("bioes"), k=rng.randint(0, 5))
        repaired = convert(tags, scheme)
        assert spans(repaired) == conlleval_spans(tags)
        assert tuple(repaired) in well_formed[len(tags)]


def test_examples_of_each_scheme():
    found = [("X", 0, 1), ("X", 1, 3), ("Y", 3, 6), ("X", 7, 8)]
    assert " ".join(write_spans(found, 9, "bio")) == "B-X B-X I-X B-Y I-Y I-Y O B-X O"
    assert " ".join(write_spans(found, 9, "iob1")) == "I-X B-X I-X I-Y I-Y I-Y O I-X O"
    assert " ".join(write_spans(found, 9, "bioes")) == "S-X B-X E-X B-Y I-Y E-Y O S-X O"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_allowed_transitions_accept_exactly_the_well_formed_sequences(scheme):
    tags = all_tags(scheme)
    start, pairs, end = allowed_transitions(tags, scheme)
    assert len(start) == len(end) == len(pairs) == len(tags)
    for length in range(1, 5 if scheme == "bioes" else 6):
        accepted = {
            tuple(tags[place] for place in places)
            for places in itertools.product(range(len(tags)), repeat=length)
            if start[places[0]] and end[places[-1]] and all(pairs[a][b] for a, b in itertools.pairwise(places))
        }
        assert accepted == set(all_well_formed(length, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_follows_is_what_the_transitions_are_made_of(scheme):
    tags = all_tags(scheme)
    start, pairs, end = allowed_transitions(tags, scheme)
    for a, before in enumerate(tags):
        assert follows("", before, scheme) is start[a]
        assert follows(before, "", scheme) is end[a]
        assert [follows(before, after, scheme) for after in tags] == pairs[a]


def test_unknown_schemes_are_refused():
    with pytest.raises(InputError, match=r"tag scheme: .* bilou, bio, bioes, bmes, bmewo, iob1, got 'bios'"):
        write_spans([], 0, "bios")
    with pytest.raises(InputError, match="tag scheme"):
        convert(["O"], "BIO")
    with pytest.raises(InputError, match="tag scheme"):
        allowed_transitions(["O"], "iobes")


@pytest.mark.parametrize("kinds", [("",), ("X",), ("", "X", "Y-Z")], ids=["bare", "one type", "mixed"])
@pytest.mark.parametrize("inner", SCHEMES)
@pytest.mark.parametrize("outer", [*SCHEMES, *LETTERS])
def test_tags_of_every_scheme_come_back_from_every_other(outer, inner, kinds):
    rng = random.Random(6)
    for _ in range(300):
        length = rng.randint(0, 12)
        drawn = [(rng.choice(kinds), start, end) for _, start, end in draw_spans(rng, length)]
        tags = write_spans(drawn, length, outer)
        assert spans(tags) == drawn
        assert convert(convert(tags, inner), outer) == tags
        assert set(tags) <= tags_of(kinds, outer)
        assert set(convert(tags, inner)) <= tags_of(kinds, inner)


@pytest.mark.parametrize("kinds", [("",), ("X", "Y-Z")], ids=["bare", "types"])
@pytest.mark.parametrize("scheme", [*SCHEMES, *LETTERS])
def test_the_scheme_of_data_is_recognised(scheme, kinds):
    rng = random.Random(7)
    sentences = []
    for _ in range(60):
        length = rng.randint(1, 12)
        drawn = [(rng.choice(kinds), start, end) for _, start, end in draw_spans(rng, length)]
        sentences.append(write_spans(drawn, length, scheme))
    assert scheme_of(sentences) == scheme
    noisy = [*sentences, ["I-X", "O"]]
    assert scheme_of(noisy) == scheme


def test_empty_tags_are_left_out_before_spans_are_read():
    assert convert(["B-X", "", "I-X", "", "O", "B-X"], "bioes") == ["B-X", "", "E-X", "", "O", "S-X"]
    assert convert(["", ""], "bio") == ["", ""]
    assert scheme_of([["", "B-X", "", "I-X"]]) == "bio"
