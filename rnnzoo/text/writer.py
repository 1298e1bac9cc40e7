"""Text that is written one token at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable

from rnnzoo.text.tokenizer import PAD_ID, Tokenizer

BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TextWriter:
    r"""Turns token ids into text as they come; a character whose bytes are not all there yet is held back.

    Words are joined by blanks, so that of white space only line ends are restored; characters, bytes and byte pairs
    are restored exactly. Bytes that are no UTF-8 become U+FFFD.

    Args:
        tokenizer: what the ids are of.

    >>> from rnnzoo.text.tokenizer import TokenizerOptions
    >>> writer = TextWriter(Tokenizer.train(["the cat"], TokenizerOptions()))
    >>> [writer.push(2), writer.push(3), writer.push(writer.end_id), writer.push(3)]
    ['cat', ' the', '\n', 'the']
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = tokenizer.vocabulary
        self.end_id = tokenizer.end_id
        tree = json.loads(tokenizer.to_json())
        self._bytes: dict[str, int] | None = None  # for byte pairs: the letter that stands for a byte → the byte
        self._kind = tree["model"]["type"]
        if self._kind == "BPE" and not tree["model"].get("byte_fallback"):
            self._bytes = byte_letters()
        self._joined = self._kind == "WordLevel" and (tree["decoder"] or {}).get("type") != "Fuse"
        self._fresh = True  # no blank stands before the first word of a line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Return the text that a token adds, often a part of it later; the end is a line end, padding nothing."""
        if token == PAD_ID:
            return ""
        if token == self.end_id:
            self._fresh = True
            return self.finish() + "\n"
        word = self.tokens[token]
        if self._kind == "BPE":
            return self._decoder.decode(self._encoded(word))
        blank = " " if self._joined and not self._fresh else ""
        self._fresh = False
        return blank + word

    def write(self, tokens: Iterable[int]) -> str:
        """Return the text that several tokens add."""
        return "".join(self.push(token) for token in tokens)

    def finish(self) -> str:
        """Return what is still held back: a character that was never finished, as U+FFFD."""
        return self._decoder.decode(b"", final=True)

    def _encoded(self, token: str) -> bytes:
        if self._bytes is None:
            found = BYTE.fullmatch(token)
            return bytes([int(found[1], 16)]) if found else token.encode()
        letters = self._bytes
        if any(letter not in letters for letter in token):  # <unk>
            return token.encode()
        return bytes(letters[letter] for letter in token)


def byte_letters() -> dict[str, int]:
    """Return the printable letter that stands for each byte in byte pair encoding, as GPT-2 chose them.

    >>> byte_letters()["Ġ"]
    32
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
