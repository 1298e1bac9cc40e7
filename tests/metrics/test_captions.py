"""Caption scores against pycocoevalcap's scorers; words against output of the tokenizer that coco-caption calls."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from rnnzoo.metrics import CaptionScores, CiderD, caption_tokens
from rnnzoo.metrics.captions import common_length, corpus_bleu, rouge_l

FLICKR8K = Path(__file__).parents[2].parent / "shared" / "data" / "flickr8k" / "Flickr8k.token.txt"

CAPTIONS = [
    [
        "A black-and-white dog runs across the snow.",
        "The dog is running in the snow",
        "A dog, running through deep snow!",
        "Dog runs.",
    ],
    [
        "Two men in hats are playing the guitar on a stage.",
        "Men's band plays guitars",
        "Two guitarists with hats perform on stage.",
        "A man plays a guitar, and another man plays a guitar too.",
    ],
    [
        "A girl in a pink dress climbs up the stairs.",
        "A little girl is climbing the stairs to her playhouse.",
        "The girl isn't climbing a tree; she climbs stairs",
        "A girl going into a wooden building.",
    ],
    [
        "A boy jumps into the water.",
        "A boy jumping into a pool of water",
        "The boy is in mid-air over the pool.",
        "A child jumps off the board into the pool of blue water at 5 p.m.",
    ],
    [
        "A brown dog and a white dog are running on the beach.",
        "Two dogs run along the water",
        "Two dogs, one brown and one white, are playing on the beach.",
        "The dogs are in the sand.",
    ],
]


def flickr8k():
    """Return the captions of each image of the data set, in the order of the file."""
    if not FLICKR8K.is_file():
        pytest.skip(f"{FLICKR8K} is absent")
    images = defaultdict(list)
    for line in FLICKR8K.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t")
        images[name.rpartition("#")[0]].append(caption)
    return list(images.values())


def held_out(images, seed=0):
    """Take one caption of each image as its output, with a few words changed, and leave the others as references."""
    rng = random.Random(seed)
    outputs, references = [], []
    for captions in images:
        place = rng.randrange(len(captions))
        words = [word for word in captions[place].split() if rng.random() < 0.9]
        outputs.append(" ".join(words))
        references.append(captions[:place] + captions[place + 1 :])
    return outputs, references


def coco(outputs, references):
    """Score tokens with pycocoevalcap: BLEU-1 to 4, ROUGE-L and CIDEr-D, the latter two for each image too."""
    gold = {number: [" ".join(text) for text in texts] for number, texts in enumerate(references)}
    found = {number: [" ".join(text)] for number, text in enumerate(outputs)}
    bleu, _ = Bleu(4).compute_score(gold, found, verbose=0)
    bleu = [value if value > 1e-3 else 0.0 for value in bleu]  # without a match it is a root of the added 1e-15
    return bleu, *Rouge().compute_score(gold, found), *Cider().compute_score(gold, found)


def values_of(outputs, references):
    metric = CaptionScores()
    metric.update(torch.arange(len(outputs)), outputs, references)
    return {name: float(value) for name, value in metric.compute().items()}


def check(outputs, references):
    """Compare with pycocoevalcap, which adds 1e-9 to some counts of BLEU."""
    words, gold = [caption_tokens(text) for text in outputs], [[caption_tokens(t) for t in row] for row in references]
    bleu, rouge, rouges, cider, ciders = coco(words, gold)
    assert corpus_bleu(words, gold) == pytest.approx(bleu, rel=1e-7)
    assert [rouge_l(*pair) for pair in zip(words, gold, strict=True)] == pytest.approx(rouges.tolist(), rel=1e-9)
    assert CiderD(gold).score(words, gold) == pytest.approx(ciders, rel=1e-9, abs=1e-12)
    found = values_of(outputs, references)
    assert found["cider_d"] == pytest.approx(cider, rel=1e-9)
    assert found["rouge_l"] == pytest.approx(100 * rouge, rel=1e-9)
    assert [found[f"bleu{order}"] for order in (1, 2, 3, 4)] == pytest.approx([100 * each for each in bleu], rel=1e-7)
    return found


@pytest.mark.parametrize("seed", range(10))
def test_captions_are_scored_as_by_pycocoevalcap(seed):
    outputs, references = held_out(CAPTIONS, seed)
    found = check(outputs, [texts[: 1 + (seed + number) % 3] for number, texts in enumerate(references)])
    assert 0 < found["bleu1"] < 100
    assert 0 < found["cider_d"] < 10


def test_flickr8k_is_scored_as_by_pycocoevalcap():
    found = check(*held_out([captions for captions in flickr8k() if len(captions) > 1][:250]))
    assert 10 < found["bleu4"] < 40
    assert 0.4 < found["cider_d"] < 1.2


@pytest.mark.parametrize("seed", range(3))
def test_repeated_words_are_clipped_as_by_pycocoevalcap(seed):
    rng = random.Random(seed)
    drawn = [[rng.choices("abcde", k=rng.randint(1, 12)) for _ in range(4)] for _ in range(20)]
    words, gold = [texts[0] for texts in drawn], [texts[1:] for texts in drawn]
    bleu, _, rouges, _, ciders = coco(words, gold)
    assert corpus_bleu(words, gold) == pytest.approx(bleu, rel=1e-7)
    assert [rouge_l(*pair) for pair in zip(words, gold, strict=True)] == pytest.approx(rouges.tolist(), rel=1e-9)
    assert CiderD(gold).score(words, gold) == pytest.approx(ciders, rel=1e-9)


def test_the_captions_themselves_score_100():
    outputs = [captions[0] for captions in CAPTIONS]
    found = values_of(outputs, CAPTIONS)
    assert [found[f"bleu{order}"] for order in (1, 2, 3, 4)] == pytest.approx([100] * 4)
    assert found["rouge_l"] == pytest.approx(100)
    assert 2 < found["cider_d"] < 10  # the other references are not like the caption
    assert values_of(outputs, [[text] for text in outputs])["cider_d"] == pytest.approx(10)


def test_case_and_punctuation_do_not_count():
    outputs, references = held_out(CAPTIONS)
    loud = [f'"{text.upper()}"!' for text in outputs]
    assert values_of(loud, references) == values_of(outputs, references)


def test_an_image_counts_once_whatever_the_number_of_its_references():
    words = [["a", "b", "c", "d"], ["x", "y"]]
    one = corpus_bleu(words, [[["a", "b", "c", "d"]], [["z", "z"]]])
    assert one == pytest.approx([4 / 6, math.sqrt(4 / 6 * 3 / 4), (4 / 6 * 3 / 4) ** (1 / 3), (4 / 6 * 3 / 4) ** 0.25])
    assert corpus_bleu(words, [[["a", "b", "c", "d"]] * 5, [["z", "z"]]]) == one


def test_the_reference_length_is_the_nearest_and_the_shorter_of_two():
    hypothesis = ["a"] * 4
    for lengths, wanted in (([2, 6], 2), ([3, 5], 3), ([5, 7], 5), ([6, 1], 6)):
        found = corpus_bleu([hypothesis], [[["a"] * length for length in lengths]])[0]
        best = min(4, max(lengths)) / 4
        assert found == pytest.approx(best * min(1, math.exp(1 - wanted / 4)))


def test_orders_without_a_match_are_zero():
    assert corpus_bleu([["a", "b"]], [[["a", "b"]]]) == [1, 1, 0, 0]
    assert corpus_bleu([["a", "c", "b"]], [[["a", "b", "c"]]]) == [1, 0, 0, 0]
    assert corpus_bleu([[]], [[["a"]]]) == corpus_bleu([["x"]], [[[]]]) == [0] * 4


def test_rouge_of_nothing_is_zero():
    assert rouge_l([], [["a"]]) == rouge_l(["a"], [[]]) == rouge_l([], [[]]) == rouge_l(["a"], [["b"], []]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_common_subsequence_is_the_longest(seed):
    rng = random.Random(seed)
    one, other = rng.choices("abc", k=7), rng.choices("abc", k=rng.randint(0, 7))
    subsequences = {
        tuple(w for w, keep in zip(one, map(int, f"{mask:07b}"), strict=True) if keep) for mask in range(128)
    }

    def is_in(short):
        rest = iter(other)
        return all(word in rest for word in short)

    assert common_length(one, other) == common_length(other, one) == max(len(s) for s in subsequences if is_in(s))


# CIDEr-D by itself: frequencies of one corpus, captions of another


def tokens_of(images):
    return [[caption_tokens(text) for text in captions] for captions in images]


def test_frequencies_of_a_corpus_score_pairs_one_by_one():
    gold = tokens_of(CAPTIONS)
    corpus = CiderD(gold)
    hypotheses, references = [texts[1] for texts in gold], [texts[:1] + texts[2:] for texts in gold]
    together = corpus.score(hypotheses, references)
    assert together.shape == (5,)
    assert together.dtype == np.float64
    alone = [corpus.score([each], [texts])[0] for each, texts in zip(hypotheses, references, strict=True)]
    assert together.tolist() == alone
    samples = corpus.score([each for each in hypotheses for _ in range(3)], [t for t in references for _ in range(3)])
    assert samples.tolist() == np.repeat(together, 3).tolist()
    assert corpus.score([], []).shape == (0,)


def test_frequencies_are_those_of_the_corpus_not_of_the_batch():
    gold = tokens_of(CAPTIONS)
    pairs = [gold[0][1]], [gold[0][2:]]
    assert CiderD(gold).score(*pairs) != CiderD(gold[:2]).score(*pairs)
    assert CiderD(iter(gold)).score(*pairs) == CiderD(gold).score(*pairs)


def test_tokens_may_be_ids():
    gold = tokens_of(CAPTIONS)
    ids = {word: number for number, word in enumerate(sorted({w for texts in gold for text in texts for w in text}))}
    numbers = [[[ids[word] for word in text] for text in texts] for texts in gold]
    words = CiderD(gold).score([texts[0] for texts in gold], [texts[1:] for texts in gold])
    assert CiderD(numbers).score([t[0] for t in numbers], [t[1:] for t in numbers]) == pytest.approx(words, rel=1e-12)


def test_an_end_rewards_captions_that_end():
    end = "</s>"
    gold = [[[*text, end] for text in texts] for texts in tokens_of(CAPTIONS)]
    cut = gold[0][0][:5]  # a black-and-white dog runs across
    ended, unfinished = CiderD(gold).score([[*gold[0][0]], gold[0][0][:-1]], [gold[0]] * 2)
    assert ended > unfinished
    assert CiderD(gold).score([[*cut, end]], [gold[0]])[0] <= ended


def test_a_corpus_of_one_image_and_unknown_words():
    assert CiderD([[["a", "b"]]]).score([["a", "b"]], [[["a", "b"]]]).tolist() == [0]
    assert CiderD([]).score([["a"]], [[["a"]]]).tolist() == [0]
    corpus = CiderD([[["a"]], [["b"]]])
    assert corpus.score([["new"], [], ["x"]], [[["new"]], [["a"]], [["y"], []]]).tolist() == [2.5, 0, 0]


def test_references_must_be_as_many_as_captions():
    with pytest.raises(ValueError, match="zip"):
        CiderD(CAPTIONS).score([["a"]], [])


# Words: each line is a caption and what the Stanford tokenizer made of it, less coco-caption's punctuation.

WORDS = {
    "A child in a pink dress is climbing up a set of stairs in an entry way .": None,
    "": "",
    " \t ": "",
    "... ?! - 'n' --": "?! 'n'",
    "A man's black-and-white dog isn't here, is it?": "a man 's black-and-white dog is n't here is it",
    "They can't, won't, cannot; I'd've gone": "they ca n't wo n't can not i 'd 've gone",
    "I'm gonna wanna gimme 'tis": "i 'm gon na wan na gim me 't is",
    "Mr. Smith of the U.S. army, at 5 p.m. in St. Louis.": "mr. smith of the u.s. army at 5 p.m. in st. louis",
    "The boy (left) and the girl [right]": "the boy -lrb- left -rrb- and the girl -lsb- right -rsb-",
    "It costs $5.00 or 1,000, 50% or 1/2, #1 at 10:30.": "it costs $ 5.00 or 1,000 50 % or 1/2 # 1 at 10:30",
    'A t-shirt: "I love NY" -- really...yes': "a t-shirt i love ny really yes",
    "“Quoted” – it’s ‘here’ … don’t": "quoted it 's here do n't",
    "Slip 'n' slide in the '90s; rock'n'roll": "slip 'n' slide in the '90s rock 'n' roll",
    "O'Neil at 3 o'clock, ma'am": "o'neil at 3 o'clock ma'am",
    "AT&T at&t Texas A&amp;M": "at&t at & t texas a&m",
    "man/woman and/or child.Another one , the dogs' toys": "man/woman and/or child.another one the dogs toys",
    "A dog,cat and 3,4": "a dog cat and 3,4",
    "the no. 5 player. No.": "the no. 5 player no",
    "See http://x.com/y or mail a@b.com to @user": "see http://x.com/y or mail a@b.com to @user",
    "naïve café Mädchen 犬": "naïve café mädchen 犬",
}


@pytest.mark.parametrize("caption", WORDS)
def test_words_are_those_of_the_tokenizer_of_coco_caption(caption):
    expected = WORDS[caption]
    assert " ".join(caption_tokens(caption)) == (caption.lower()[:-2] if expected is None else expected)


def test_words_of_words_are_the_same_words():
    for captions in CAPTIONS:
        for caption in captions:
            assert caption_tokens(" ".join(caption_tokens(caption))) == caption_tokens(caption)


def test_a_long_text_is_read_in_a_moment():
    for text in (
        "a" * 50_000,
        "a-" * 25_000,
        "<a" * 25_000,
        "a." * 25_000,
        "'" * 50_000,
        "a'a" * 15_000,
        "1,1" * 15_000,
    ):
        caption_tokens(text)
