"""What the JSON of a tokenizer may hold: what `rnnzoo.text.tokenizer.build` makes, and nothing else.

The `tokenizers` library reads much more: padding to 2³¹ tokens, expressions that take for ever, ids without rows.
"""

from __future__ import annotations

from typing import Any

from rnnzoo.documents import parse_json
from rnnzoo.errors import InputError

WHERE = "tokenizer"
NONE = ("truncation", "padding", "post_processor")
LONGEST_PATTERN = 1000  # characters of a regular expression
PARTS = {  # key → types of its steps
    "normalizer": ("Sequence", "Replace", "Lowercase", "NFC", "NFD", "NFKC", "NFKD"),
    "pre_tokenizer": ("Split", "Whitespace", "WhitespaceSplit", "ByteLevel"),
    "decoder": ("Sequence", "ByteFallback", "Fuse", "ByteLevel"),
    "model": ("WordLevel", "BPE"),
}
STEPS = ("normalizers", "pretokenizers", "decoders")  # of a sequence


def check_tokenizer(text: str, first: tuple[str, ...]) -> None:
    """Refuse the JSON of a tokenizer that this package does not write.

    Args:
        text: the JSON.
        first: the tokens that have the ids 0, 1, …

    Raises:
        InputError: naming the part that is wrong.
    """
    tree = parse_json(text, WHERE, values="PROCESSOR_VALUES", expected="JSON of the tokenizers library")
    if not isinstance(tree, dict) or "model" not in tree:
        raise InputError(WHERE, expected="JSON of the tokenizers library", got=repr(tree)[:80])
    for name in NONE:
        if tree.get(name) is not None:
            raise InputError(f"{WHERE}.{name}", expected="null", got=repr(tree[name])[:80])
    if tree.get("added_tokens"):
        raise InputError(f"{WHERE}.added_tokens", expected="none", got=repr(tree["added_tokens"])[:80])
    for name, kinds in PARTS.items():
        if name == "model" or tree.get(name) is not None:
            check_part(tree.get(name), kinds, f"{WHERE}.{name}")
    check_ids(tree["model"], first)


def check_part(part: Any, kinds: tuple[str, ...], where: str) -> None:
    """Refuse a step of another type, a pattern that is too long, or a replacement by anything but a blank or 0."""
    kind = part.get("type") if isinstance(part, dict) else part
    if not isinstance(part, dict) or kind not in kinds:
        raise InputError(f"{where}.type", expected=f"one of {', '.join(kinds)}", got=repr(kind)[:80])
    for name in STEPS:
        steps = part.get(name, [])
        if not isinstance(steps, list):
            raise InputError(f"{where}.{name}", expected="a list", got=repr(steps)[:80])
        for index, step in enumerate(steps):
            check_part(step, tuple(name for name in kinds if name != "Sequence"), f"{where}.{name}[{index}]")
    if len(str(part.get("pattern", ""))) > LONGEST_PATTERN:
        raise InputError(f"{where}.pattern", expected=f"at most {LONGEST_PATTERN} characters", got="more")
    if kind == "Replace" and part.get("content") not in (" ", "0"):
        raise InputError(f"{where}.content", expected="a blank or 0", got=repr(part.get("content"))[:80])


def check_ids(model: dict[str, Any], first: tuple[str, ...]) -> None:
    """Refuse a vocabulary whose ids are not 0, 1, … in some order, or do not begin with the special tokens."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        raise InputError(f"{WHERE}.model.vocab", expected="tokens with their ids", got=repr(vocabulary)[:80])
    if [vocabulary.get(token) for token in first] != list(range(len(first))):
        raise InputError(f"{WHERE}.model.vocab", expected=f"{' and '.join(first)} as the first ids", got="others")
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise InputError(
            f"{WHERE}.model.vocab", expected=f"the ids 0 to {len(vocabulary) - 1}, each once", got="others"
        )
    if model.get("unk_token") != first[-1]:
        raise InputError(f"{WHERE}.model.unk_token", expected=repr(first[-1]), got=repr(model.get("unk_token"))[:80])
