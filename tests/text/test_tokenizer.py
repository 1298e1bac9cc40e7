"""Text to ids and back, for every kind of token."""

import json
import pickle
import random
import unicodedata

import pytest

from rnnzoo.errors import InputError
from rnnzoo.text.tokenizer import KINDS, PAD, PAD_ID, UNKNOWN, UNKNOWN_ID, Tokenizer, TokenizerOptions

TEXTS = [
    "The cat sat on the mat.\nThe dog didn't, in 1998!",
    "naïve café — Zürich; ÀÉÎ",
    "日本語のテキスト\tと العربية и русский",
    "emoji 👩\u200d👩\u200d👧 🇩🇪, combining e\u0301 o\u0308\u0323",
    "\n\nparagraphs\n\n\n",
    "  two  blanks\r\n\r\n\ttabs\u2028line\u0085sep\xa0 ",
    "\x00\x01 < > <0x41> </s> ## Ġ Ċ ▁ \ufeff",
]
ALPHABET = sorted(set("".join(TEXTS)))
ALL = pytest.mark.parametrize("kind", KINDS)
PLAIN = TokenizerOptions(unicode=None)


def train(kind, texts=TEXTS, **options):
    return Tokenizer.train(texts, TokenizerOptions(kind=kind, **options))


def names(tokenizer, text):
    return [tokenizer.vocabulary[number] for number in tokenizer.encode(text)]


def random_texts(count=200):
    rng = random.Random(0)
    return ["".join(rng.choices(ALPHABET, k=rng.randint(0, 30))) for _ in range(count)]


@ALL
def test_the_first_ids_are_padding_and_unknown(kind):
    for texts in (TEXTS, [], ["<unk> <unk> <pad> <pad> b a a a"]):
        tokenizer = train(kind, texts)
        assert tokenizer.vocabulary[:2] == [PAD, UNKNOWN]
        assert (PAD_ID, UNKNOWN_ID) == (0, 1)
        assert len(tokenizer.vocabulary) == len(set(tokenizer.vocabulary)) == tokenizer.vocabulary_size
        assert max(tokenizer.encode("a b <unk> <pad> The ?")) < tokenizer.vocabulary_size


@ALL
def test_ids_are_within_the_vocabulary_and_never_padding(kind):
    tokenizer = train(kind)
    for text in [*TEXTS, *random_texts(50), "never seen: ŋ 😀"]:
        assert all(PAD_ID < number < tokenizer.vocabulary_size for number in tokenizer.encode(text))


@ALL
def test_no_text_no_tokens(kind):
    tokenizer = train(kind)
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.encode_many([]) == []


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize("unicode", [None, "NFC"])
def test_decoding_gives_the_text_back(kind, unicode):
    tokenizer = train(kind, unicode=unicode)
    for text in [*TEXTS, *random_texts()]:
        expected = text if unicode is None else unicodedata.normalize(unicode, text)
        # Composition may make characters that training never saw.
        if kind != "characters" or set(expected) <= set(tokenizer.vocabulary):
            assert tokenizer.decode(tokenizer.encode(text)) == expected


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_text_that_training_never_saw_comes_back_too(kind):
    tokenizer = train(kind, ["abc"], unicode=None)
    rng = random.Random(1)
    for _ in range(200):
        points = [rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))) for _ in range(10)]
        text = "".join(map(chr, points))
        found = tokenizer.encode(text)
        assert UNKNOWN_ID not in found
        assert tokenizer.decode(found) == text


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize("text", ["a<pad>b", "<pad>", "x <unk> y"])
def test_text_that_spells_a_special_token_is_text(kind, text):
    tokenizer = train(kind, [*TEXTS, "<pad> <unk> xyab"], unicode=None)
    found = tokenizer.encode(text)
    assert PAD_ID not in found
    assert UNKNOWN_ID not in found
    assert tokenizer.decode(found) == text


def test_a_word_that_spells_the_padding_is_not_padding():
    words = ["a", "<pad>", "b", "<unk>"]
    for tokenizer in (train("words", [" ".join(words)]), Tokenizer.train_words(words, TokenizerOptions())):
        assert tokenizer.vocabulary[:2] == [PAD, UNKNOWN]
        for found in (tokenizer.encode(" ".join(words)), tokenizer.encode_words(words)):
            assert len(found) == 4
            assert all(PAD_ID < number < tokenizer.vocabulary_size for number in found)


def test_a_word_that_spells_the_padding_is_not_padding_where_training_never_saw_it():
    for tokenizer in (train("words", ["a b"]), Tokenizer.train_words(["a", "b"], TokenizerOptions())):
        assert tokenizer.encode("a <pad> b") == tokenizer.encode_words(["a", "<pad>", "b"]) == [2, UNKNOWN_ID, 3]


@ALL
def test_padding_is_left_out_of_the_text(kind):
    tokenizer = train(kind, ["some words"])
    ids = tokenizer.encode("some words")
    assert tokenizer.decode([PAD_ID, *ids, PAD_ID, PAD_ID]) == "some words"


def test_unknown_tokens_are_seen_in_the_text():
    assert train("words", ["a b"]).decode([2, 1, 3]) == "a <unk> b"


@ALL
def test_many_texts_are_encoded_as_one_by_one(kind):
    tokenizer = train(kind)
    assert tokenizer.encode_many(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    assert tokenizer.encode_many(("", *TEXTS[:2])) == [[], *map(tokenizer.encode, TEXTS[:2])]


def test_characters_are_code_points():
    tokenizer = train("characters", unicode=None)
    for text in TEXTS:
        assert names(tokenizer, text) == list(text)


def test_bytes_are_those_of_utf8():
    tokenizer = train("bytes", unicode=None)
    assert tokenizer.vocabulary_size == 258
    for text in [*TEXTS, *random_texts(50)]:
        assert tokenizer.encode(text) == [byte + 2 for byte in text.encode()]


def test_words_are_split_at_blanks_or_at_punctuation_too():
    text = "It's a test, isn't\nit?"
    assert names(train("words", [text]), text) == ["It's", "a", "test,", "isn't", "it?"]
    expected = ["It", "'", "s", "a", "test", ",", "isn", "'", "t", "it", "?"]
    assert names(train("words", [text], split="punctuation"), text) == expected


def test_bpe_joins_what_is_frequent():
    tokenizer = train("bpe", ["lower lower lower newer newer"] * 10, max_size=270)
    assert tokenizer.vocabulary_size <= 270
    assert len(tokenizer.encode("lower")) < 5
    assert len(tokenizer.encode("lower")) < len(tokenizer.encode("qzxkj"))


@ALL
@pytest.mark.parametrize(
    "options",
    [{}, {"lowercase": True, "digits_to_zero": True, "unicode": "NFKD", "remove": r"<[^>]*>", "split": "punctuation"}],
    ids=["plain", "all"],
)
def test_json_keeps_everything(kind, options):
    tokenizer = train(kind, **options)
    text = tokenizer.to_json()
    json.loads(text)
    again = Tokenizer(text)
    assert again.to_json() == text
    assert again.checksum == tokenizer.checksum
    assert again.vocabulary == tokenizer.vocabulary
    assert again.vocabulary_size == tokenizer.vocabulary_size
    samples = [*TEXTS, *random_texts(30), "ABC <b>12</b> ﬁ"]
    assert again.encode_many(samples) == tokenizer.encode_many(samples)
    assert again.encode_words(["The", "cat", "1998"]) == tokenizer.encode_words(["The", "cat", "1998"])
    for ids in tokenizer.encode_many(TEXTS):
        assert again.decode(ids) == tokenizer.decode(ids)


@ALL
def test_tokenizers_can_be_sent_to_workers(kind):
    tokenizer = train(kind)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode_many(TEXTS) == tokenizer.encode_many(TEXTS)
    assert again.checksum == tokenizer.checksum


@ALL
def test_training_again_gives_the_same_tokenizer(kind):
    texts = [*TEXTS, *random_texts(50)]
    first = train(kind, texts)
    assert train(kind, iter(texts)).checksum == first.checksum
    assert train(kind, texts[::-1]).checksum == first.checksum
    assert len(first.checksum) == 64


def test_different_tokenizers_have_different_checksums():
    assert train("words", ["a b"]).checksum != train("words", ["a c"]).checksum
    assert train("words", ["a b"]).checksum != train("words", ["a b"], lowercase=True).checksum


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"version": "1.0"}'])
def test_bad_json_is_refused(text):
    with pytest.raises(InputError, match="tokenizer: expected JSON of the tokenizers library"):
        Tokenizer(text)


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "É 12", "É 12"),
        ({"lowercase": True}, "ÀÉ The", "àé the"),
        ({"digits_to_zero": True}, "in 1998, 3.5 ٣", "in 0000, 0.0 0"),
        ({"remove": r"<br\s*/?>"}, "a<br />b<br>c", "a b c"),
        ({"unicode": "NFC"}, "e\u0301", "é"),
        ({"unicode": "NFD"}, "é", "e\u0301"),
        ({"unicode": "NFKC"}, "ﬁ ２", "fi 2"),
        ({"unicode": "NFKD"}, "ﬁ é", "fi e\u0301"),
        ({"unicode": None}, "e\u0301 é", "e\u0301 é"),
        ({"unicode": "NFKC", "digits_to_zero": True}, "２²", "00"),
        ({"lowercase": True, "remove": "[A-Z]+"}, "aBCd", "a d"),
    ],
)
def test_what_is_done_to_text_before(kind, options, text, expected):
    tokenizer = train(kind, [text, expected], **options)
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_what_is_done_to_text_is_done_in_training_too():
    options = {"lowercase": True, "digits_to_zero": True, "remove": "<br />", "unicode": "NFC"}
    tokenizer = train("words", ["The THE the 12 34<br />cafe\u0301"], **options)
    assert sorted(tokenizer.vocabulary[2:]) == ["00", "café", "the"]
    assert names(tokenizer, "tHe 99 café<br />CAFÉ") == ["the", "00", "café", "café"]


def test_words_that_training_never_saw_are_unknown():
    tokenizer = train("words", ["the cat"])
    assert names(tokenizer, "the bird the The") == ["the", UNKNOWN, "the", UNKNOWN]
    assert train("characters", ["ab"]).encode("axb") == [2, UNKNOWN_ID, 3]
    assert train("words", []).encode("a b") == [UNKNOWN_ID, UNKNOWN_ID]


def test_rare_words_and_characters_are_unknown():
    texts = ["a a a b b c", "d d d d"]
    assert train("words", texts, min_count=1).vocabulary[2:] == ["d", "a", "b", "c"]
    assert train("words", texts, min_count=2).vocabulary[2:] == ["d", "a", "b"]
    assert train("words", texts, min_count=4).vocabulary[2:] == ["d"]
    assert train("characters", ["aaabbc"], min_count=3).vocabulary[2:] == ["a"]
    words = [word for text in texts for word in text.split()]
    assert Tokenizer.train_words(words, TokenizerOptions(min_count=3)).vocabulary[2:] == ["d", "a"]


def test_the_most_frequent_stay_in_a_small_vocabulary():
    texts = ["a a a b b c", "d d d d"]
    assert train("words", texts, max_size=4).vocabulary == [PAD, UNKNOWN, "d", "a"]
    assert train("words", texts, max_size=100).vocabulary_size == 6
    assert train("characters", ["aaabbc"], max_size=3).vocabulary == [PAD, UNKNOWN, "a"]
    words = [word for text in texts for word in text.split()]
    assert Tokenizer.train_words(words, TokenizerOptions(max_size=3)).vocabulary == [PAD, UNKNOWN, "d"]


def test_words_of_equal_count_are_in_the_order_of_letters():
    assert train("words", ["c a b"]).vocabulary[2:] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_vocabulary_that_cannot_be_so_small_is_refused_or_kept_small(kind):
    try:
        tokenizer = train(kind, ["some text"], max_size=100)
    except InputError:
        return
    assert tokenizer.vocabulary_size <= 100


def test_trained_words_are_not_split_any_further():
    words = ["New York", "don't", "U.S.", "New York", "1998", "e\u0301", "", "New York", "don't"]
    tokenizer = Tokenizer.train_words(words, TokenizerOptions(split="punctuation"))
    assert tokenizer.vocabulary == [PAD, UNKNOWN, "New York", "don't", "1998", "U.S.", "é"]
    found = tokenizer.encode_words(["don't", "don", "é", "e\u0301", "", "New", "New York", "U.S.", "us"])
    assert found == [3, 1, 6, 6, 1, 1, 2, 5, 1]
    assert tokenizer.encode_words([]) == []


def test_trained_words_are_normalised_one_by_one():
    options = TokenizerOptions(lowercase=True, digits_to_zero=True, remove="#")
    tokenizer = Tokenizer.train_words(["The", "the", "1998", "2001-02", "a#b"], options)
    assert sorted(tokenizer.vocabulary[2:]) == ["0000", "0000-00", "a b", "the"]
    found = tokenizer.encode_words(["THE", "1234", "9999-99", "A#B", "A"])
    assert [tokenizer.vocabulary[number] for number in found] == ["the", "0000", "0000-00", "a b", UNKNOWN]


def test_trained_words_survive_json():
    tokenizer = Tokenizer.train_words(["New York", "The", "12"], TokenizerOptions(lowercase=True))
    again = Tokenizer(tokenizer.to_json())
    words = ["new york", "THE", "12", "13", "York"]
    assert again.encode_words(words) == tokenizer.encode_words(words)
    assert again.checksum == tokenizer.checksum


def test_training_words_is_the_same_in_any_order():
    words = ["the", "a", "b", "the", "c", "d", "e", "f", "g", "a"]
    checksums = {Tokenizer.train_words(order, PLAIN).checksum for order in (words, words[::-1], sorted(words))}
    assert len(checksums) == 1


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_words_with_tags_need_the_kind_words(kind):
    with pytest.raises(InputError, match=r"words\.kind: expected 'words'"):
        Tokenizer.train_words(["a"], TokenizerOptions(kind=kind))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "word"}, r"tokenizer\.kind: expected one of bpe, bytes, characters, words.*did you mean 'words'"),
        ({"split": "space"}, r"tokenizer\.split: expected one of punctuation, whitespace"),
        ({"unicode": "nfc"}, r"tokenizer\.unicode: expected one of NFC, NFD, NFKC, NFKD"),
        ({"remove": "("}, r"tokenizer\.remove: expected a regular expression"),
        ({"remove": "[a-"}, r"tokenizer\.remove: expected a regular expression"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Tokenizer.train(["a"], TokenizerOptions(**options))
    if "kind" not in options:
        with pytest.raises(InputError, match=message):
            Tokenizer.train_words(["a"], TokenizerOptions(**options))


@pytest.mark.parametrize("options", [{"max_size": -5}, {"max_size": 0}, {"max_size": 1}, {"min_count": -1}], ids=str)
@pytest.mark.parametrize("trainer", [Tokenizer.train, Tokenizer.train_words], ids=["texts", "words"])
def test_numbers_out_of_range_are_refused(trainer, options):
    with pytest.raises(InputError, match=next(iter(options))):
        trainer(["a", "b"], TokenizerOptions(**options))
