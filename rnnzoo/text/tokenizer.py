"""Text to ids and back, on top of the `tokenizers` library.

Ids 0 and 1 are always ``<pad>`` and ``<unk>``. What a tokenizer does to text (case, Unicode form, digits) is part of
its JSON, so it is the same in training and ever after.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from rnnzoo.errors import InputError, unknown_name
from rnnzoo.text.stored import check_tokenizer

PAD, UNKNOWN = "<pad>", "<unk>"
PAD_ID, UNKNOWN_ID = 0, 1
BYTE_TOKENS = 258  # 256 bytes and the two special tokens
KINDS = ("words", "characters", "bytes", "bpe")
SPLITS = ("whitespace", "punctuation")
UNICODE_FORMS = {
    "NFC": normalizers.NFC,
    "NFD": normalizers.NFD,
    "NFKC": normalizers.NFKC,
    "NFKD": normalizers.NFKD,
}


@dataclass(frozen=True)
class TokenizerOptions:
    """What a token is, and what is done to the text before.

    Args:
        kind: ``words``, ``characters`` (code points), ``bytes`` (of UTF-8), or ``bpe`` (byte pair encoding, trained on
            the training split).
        lowercase: map letters to lower case.
        unicode: Unicode normal form: NFC, NFD, NFKC or NFKD; None leaves the text as it is.
        digits_to_zero: map every digit to 0.
        remove: a regular expression whose matches become a blank, such as ``<br />``.
        split: for words: ``whitespace``, or ``punctuation`` to split off punctuation marks too.
        min_count: words and characters that are rarer in training are unknown.
        max_size: the largest vocabulary, special tokens included; the most frequent stay.
    """

    kind: str = "words"
    lowercase: bool = False
    unicode: str | None = "NFC"
    digits_to_zero: bool = False
    remove: str | None = None
    split: str = "whitespace"
    min_count: int = 1
    max_size: int | None = None


class Tokenizer:
    """A trained tokenizer.

    Args:
        text: what `to_json` gave: the format of the `tokenizers` library.

    >>> tokenizer = Tokenizer.train(["the cat", "the dog"], TokenizerOptions())
    >>> tokenizer.encode("the bird")
    [2, 1]
    """

    def __init__(self, text: str) -> None:
        check_tokenizer(text, (PAD, UNKNOWN))
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises plain Exception, and panics are none
            raise InputError("tokenizer", expected="JSON of the tokenizers library", got=str(error)) from error
        self.vocabulary_size = self._tokenizer.get_vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str], options: TokenizerOptions) -> Tokenizer:
        """Learn a vocabulary from texts (of the training split alone).

        Raises:
            InputError: for an unknown kind, split or Unicode form, or a broken regular expression.
        """
        bare = build(options)
        if options.kind == "bytes":
            return cls(bare.to_str())
        size = options.max_size or (10_000 if options.kind == "bpe" else 10**9)
        settings: dict[str, Any] = {
            "vocab_size": size,
            "min_frequency": options.min_count,
            "special_tokens": [PAD, UNKNOWN],
            "show_progress": False,
        }
        if options.kind == "bpe":
            trainer: trainers.Trainer = trainers.BpeTrainer(
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **settings
            )
        else:
            trainer = trainers.WordLevelTrainer(**settings)
        bare.train_from_iterator(texts, trainer=trainer)
        return cls(without_special_tokens(bare.to_str()))

    @classmethod
    def train_words(cls, words: Iterable[str], options: TokenizerOptions) -> Tokenizer:
        """Learn a vocabulary of words that are given one by one and are not split any further.

        Raises:
            InputError: if the options ask for another kind of token.
        """
        if options.kind != "words":
            raise InputError("words.kind", expected="'words', since each word has a tag", got=repr(options.kind))
        bare = build(options)
        bare.pre_tokenizer = None
        texts = (word for word in words if word)
        trainer = trainers.WordLevelTrainer(
            vocab_size=options.max_size or 10**9,
            min_frequency=options.min_count,
            special_tokens=[PAD, UNKNOWN],
            show_progress=False,
        )
        bare.train_from_iterator(texts, trainer=trainer)
        bare.pre_tokenizer = build(options).pre_tokenizer
        return cls(without_special_tokens(bare.to_str()))

    @property
    def end_id(self) -> int:
        """The id after the vocabulary: of the token that starts and ends a sequence to be generated."""
        return self.vocabulary_size

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of a text."""
        return real_ids(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of the tokens of each text, computed together."""
        return [real_ids(found.ids) for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def encode_pieces(self, text: str) -> tuple[list[int], list[str]]:
        """Return the ids of the tokens of a text, and the part of the text that each stands for.

        The part is as it was written, of an unknown token too; where the bytes of a character are tokens, it is the
        whole character for each of them.
        """
        composed = unicodedata.normalize("NFC", text)  # places in a text that is composed on the way are not exact
        if composed != text and self.encode(composed) == self.encode(text):
            text = composed
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return real_ids(found.ids), [text[start:end] for start, end in found.offsets]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Return the ids of the tokens of each text, and where in the text each token ends."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(real_ids(each.ids), [end for _, end in each.offsets]) for each in found]

    def encode_words(self, words: Sequence[str]) -> list[int]:
        """Return one id for each word: the word as it is after normalisation, not split any further."""
        vocabulary = self._vocabulary
        normalizer = self._tokenizer.normalizer
        normal = words if normalizer is None else [normalizer.normalize_str(word) for word in words]
        return real_ids([vocabulary.get(word, UNKNOWN_ID) for word in normal])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; padding is left out."""
        return self._tokenizer.decode([number for number in ids if number != PAD_ID], skip_special_tokens=False)

    @property
    def kind(self) -> str:
        """What a token is: one of `KINDS`."""
        model = self._tokenizer.model
        if isinstance(model, models.BPE):
            return "bytes" if model.byte_fallback else "bpe"
        return "characters" if isinstance(self._tokenizer.pre_tokenizer, pre_tokenizers.Split) else "words"

    @property
    def split(self) -> str | None:
        """How texts are split into words, one of `SPLITS`; None for other tokens, whose texts join without a gap."""
        found = {pre_tokenizers.WhitespaceSplit: "whitespace", pre_tokenizers.Whitespace: "punctuation"}
        return found.get(type(self._tokenizer.pre_tokenizer))

    @property
    def vocabulary(self) -> list[str]:
        """The tokens in the order of their ids."""
        return sorted(self._vocabulary, key=self._vocabulary.__getitem__)

    @property
    def _vocabulary(self) -> dict[str, int]:
        if not hasattr(self, "_table"):
            self._table: dict[str, int] = self._tokenizer.get_vocab()
        return self._table

    def to_json(self) -> str:
        """Return the whole tokenizer as JSON."""
        return self._tokenizer.to_str()

    @property
    def checksum(self) -> str:
        """SHA-256 of the JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def real_ids(ids: list[int]) -> list[int]:
    """Return ids with padding, which only a text that spells it can hold, as unknown."""
    return [number or UNKNOWN_ID for number in ids]


def without_special_tokens(text: str) -> str:
    """Return the JSON of a trained tokenizer in which no text is read as a special token, and these have ids 0 and 1.

    The library takes every ``<pad>`` in a text for its token, and gives it another id if training saw it as a word.
    """
    tree = json.loads(text)
    tree["added_tokens"] = []
    vocabulary = tree["model"]["vocab"]
    words = [word for word in sorted(vocabulary, key=vocabulary.__getitem__) if word not in (PAD, UNKNOWN)]
    if tree["model"]["type"] == "WordLevel":
        tree["model"]["vocab"] = {word: place for place, word in enumerate([PAD, UNKNOWN, *words])}
    return json.dumps(tree, ensure_ascii=False)


def build(options: TokenizerOptions) -> tokenizers.Tokenizer:
    """Return an untrained tokenizer of the `tokenizers` library.

    Raises:
        InputError: for an unknown kind, split or Unicode form, or a broken regular expression.
    """
    if options.kind not in KINDS:
        raise unknown_name("tokenizer.kind", options.kind, KINDS)
    if options.split not in SPLITS:
        raise unknown_name("tokenizer.split", options.split, SPLITS)
    smallest = BYTE_TOKENS if options.kind in ("bpe", "bytes") else 3
    if options.max_size is not None and options.max_size < smallest:
        raise InputError("tokenizer.max_size", expected=f"at least {smallest}", got=str(options.max_size))
    if options.min_count < 1:
        raise InputError("tokenizer.min_count", expected="at least 1", got=str(options.min_count))
    if options.unicode is not None and options.unicode not in UNICODE_FORMS:
        raise unknown_name("tokenizer.unicode", options.unicode, UNICODE_FORMS)
    steps: list[normalizers.Normalizer] = []
    if options.remove is not None:
        try:
            steps.append(normalizers.Replace(Regex(options.remove), " "))
        except Exception as error:  # the library raises plain Exception
            raise InputError("tokenizer.remove", expected="a regular expression", got=str(error)) from error
    if options.unicode is not None:
        steps.append(UNICODE_FORMS[options.unicode]())
    if options.lowercase:
        steps.append(normalizers.Lowercase())
    if options.digits_to_zero:
        steps.append(normalizers.Replace(Regex(r"\d"), "0"))
    if options.kind == "bpe":
        found = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        found.decoder = decoders.ByteLevel()
    elif options.kind == "bytes":
        alphabet = [PAD, UNKNOWN, *(f"<0x{byte:02X}>" for byte in range(256))]
        found = tokenizers.Tokenizer(
            models.BPE(
                {token: place for place, token in enumerate(alphabet)}, [], unk_token=UNKNOWN, byte_fallback=True
            )
        )
        found.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    else:
        found = tokenizers.Tokenizer(models.WordLevel({PAD: PAD_ID, UNKNOWN: UNKNOWN_ID}, unk_token=UNKNOWN))
        if options.kind == "characters":
            found.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            found.decoder = decoders.Fuse()
        elif options.split == "punctuation":
            found.pre_tokenizer = pre_tokenizers.Whitespace()
        else:
            found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if steps:
        found.normalizer = normalizers.Sequence(steps)
    return found
