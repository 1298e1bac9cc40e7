"""Damaged data files, made by seeded changes to small valid ones: what readers must read, or refuse in one line."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from rnnzoo.data import (
    CaptionData,
    FrameData,
    LanguageData,
    TaggingData,
    TextClassificationData,
    TranslationData,
    VectorData,
)

WORDS = ("red", "blue", "café", "naïve", "#", "-", "10", "3.5", "a\u00a0b", '"', "日本")
# What breaks readers: separators, quotation marks, numbers that are none, markup, blanks of Unicode, broken UTF-8.
TOKENS = (
    b",", b"\t", b"\n", b"\n\n", b"\r\n", b"\r", b'"', b'""', b"'", b";", b"|", b" ", b"\\", b"\\n", b"{", b"}", b"[",
    b"]", b"{}", b"[]", b"null", b"true", b"NaN", b"nan", b"inf", b"-inf", b"1e999", b"-1", b"-100", b"0", b"9" * 30,
    b"0x10", b"1_000", b"-DOCSTART-", b"# ", b"#", b"1-2", b"8.1", b"B-", b"I-X", b"\xef\xbb\xbf", b"\xff", b"\xc3",
    b"\xed\xa0\x80", b"\\ud800", b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"\x7f", b"\xc2\x85", b"\xc2\xa0",
    b"\xe2\x80\xa8", b"\xe2\x80\xae", b"[[[[", b'{"a":' * 40, b"text", b"label", b"tokens", b"tags", b"x", b"image#0",
    b'"label": null', b'"tokens": [[1]]', b'"text": {"a": 1}',
)  # fmt: skip


class Case(NamedTuple):
    """A kind of data file.

    Args:
        name: of the file.
        make: generator of random numbers → the contents of a valid file.
        data: the path of its folder → the data module that reads it.
    """

    name: str
    make: Callable[[random.Random], bytes]
    data: Callable[[str], Any]


def words(draw: random.Random, most: int = 4) -> list[str]:
    return draw.choices(WORDS, k=draw.randint(1, most))


def delimited(separator: str, columns: Callable[[random.Random], dict[str, Any]]) -> Callable[[random.Random], bytes]:
    """Return what makes tables of text: a header and eight rows."""

    def make(draw: random.Random) -> bytes:
        rows = [columns(draw) for _ in range(8)]
        lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        quote = separator == ","
        return "".join(
            separator.join(f'"{field.replace(chr(34), chr(34) * 2)}"' if quote and '"' in field else field
                           for field in line) + "\n"
            for line in lines
        ).encode()  # fmt: skip

    return make


def json_lines(columns: Callable[[random.Random], dict[str, Any]]) -> Callable[[random.Random], bytes]:
    """Return what makes eight lines of JSON."""
    return lambda draw: "".join(json.dumps(columns(draw), ensure_ascii=False) + "\n" for _ in range(8)).encode()


def parquet(columns: Callable[[random.Random], dict[str, Any]]) -> Callable[[random.Random], bytes]:
    """Return what makes Parquet files of eight rows, some values of which are of another type or missing."""

    def make(draw: random.Random) -> bytes:
        table: dict[str, list[Any]] = {}
        for row in [columns(draw) for _ in range(8)]:
            for name, value in row.items():
                table.setdefault(name, []).append(value)
        for name in list(table):
            change = draw.random()
            if change < 0.1:
                table[name][draw.randrange(8)] = None
            elif change < 0.2:
                table[name] = [draw.choice([1, 2.5, -1, True]) for _ in range(8)]
                table[name] = [float(value) for value in table[name]]
            elif change < 0.3:
                table[name] = [[value] for value in table[name]]
            elif change < 0.35:
                table[name] = [{"a": value} for value in table[name]]
            elif change < 0.4:
                table[name] = [str(value).encode() for value in table[name]]
            elif change < 0.45:
                table[name] = [None] * 8
            elif change < 0.5:
                del table[name]
        if not table:
            table = {"other": [1] * 8}
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(table), file)
        return file.getvalue()

    return make


def text_and_label(draw: random.Random) -> dict[str, Any]:
    return {"text": " ".join(words(draw)), "label": draw.choice(["pos", "neg"])}


def text_and_labels(draw: random.Random) -> dict[str, Any]:
    return {"text": " ".join(words(draw)), "label": draw.sample(["a", "b", "c"], k=draw.randint(0, 3))}


def tagged(draw: random.Random) -> dict[str, Any]:
    tokens = words(draw)
    return {"tokens": tokens, "tags": draw.choices(["O", "B-X", "I-X"], k=len(tokens))}


def tagged_text(draw: random.Random) -> dict[str, Any]:
    return {name: " ".join(word.replace(" ", "_") for word in values) for name, values in tagged(draw).items()}


def vector(draw: random.Random) -> dict[str, Any]:
    return {"x": round(draw.random(), 3), "y": draw.randint(-9, 9), "label": draw.choice("ab")}


def frame(draw: random.Random) -> dict[str, Any]:
    return {"device": draw.choice("AB"), "x": round(draw.random(), 3), "labels": draw.choice(["on", "off"])}


def frames(draw: random.Random) -> dict[str, Any]:
    count = draw.randint(1, 4)
    return {
        "frames": [[draw.random(), draw.random()] for _ in range(count)],
        "labels": draw.choices(["on", "off"], k=count),
    }


def pair(draw: random.Random) -> dict[str, Any]:
    return {"en": " ".join(words(draw)), "de": " ".join(words(draw))}


def text(draw: random.Random) -> dict[str, Any]:
    return {"text": " ".join(words(draw))}


def conll(separator: str) -> Callable[[random.Random], bytes]:
    def make(draw: random.Random) -> bytes:
        sentences = [tagged(draw) for _ in range(5)]
        return "".join(
            "".join(f"{word}{separator}{tag}\n" for word, tag in zip(row["tokens"], row["tags"], strict=True)) + "\n"
            for row in sentences
        ).encode()

    return make


def conllu(draw: random.Random) -> bytes:
    lines = []
    for number in range(5):
        lines.append(f"# sent_id = {number}")
        for place, word in enumerate(words(draw), start=1):
            lines.append("\t".join([str(place), word, word, draw.choice(["NOUN", "VERB"]), *["_"] * 6]))
        lines.append("")
    return "\n".join(lines).encode()


def plain(draw: random.Random) -> bytes:
    return "".join(" ".join(words(draw, 8)) + "\n" for _ in range(8)).encode()


def flickr(draw: random.Random) -> bytes:
    return "".join(f"{n}.jpg#{m}\t{' '.join(words(draw))}\n" for n in range(3) for m in range(2)).encode()


def karpathy(draw: random.Random) -> bytes:
    images = [
        {"filename": f"{n}.jpg", "split": draw.choice(["train", "val", "test"]), "sentences": [{"raw": "a dog"}]}
        for n in range(4)
    ]
    return json.dumps({"images": images}).encode()


def packed(make: Callable[[random.Random], bytes], compress: Callable[[bytes], bytes]) -> Callable:
    return lambda draw: compress(make(draw))


def classify(path: str, **more: Any) -> Any:
    return TextClassificationData(path=path, **more)


def labels_of_many(path: str) -> Any:
    return TextClassificationData(path=path, multi_label=True)


def translate(path: str) -> Any:
    return TranslationData(path=path, source="en", target="de")


def upos(path: str) -> Any:
    return TaggingData(path=path, columns={"tags": "upos"})


def spans(path: str) -> Any:
    return TaggingData(path=path, scheme="bioes")


def grouped(path: str) -> Any:
    return FrameData(path=path, sequence="device")


def nested_frames(path: str) -> Any:
    return FrameData(path=path)


def vectors(path: str) -> Any:
    return VectorData(path=path)


def language(path: str) -> Any:
    return LanguageData(path=path)


def captions(path: str) -> Any:
    return CaptionData(path=path)


CASES = [
    Case("train.csv", delimited(",", text_and_label), classify),
    Case("train.tsv", delimited("\t", text_and_label), classify),
    Case("train.jsonl", json_lines(text_and_label), classify),
    Case("train.jsonl.gz", packed(json_lines(text_and_label), gzip.compress), classify),
    Case("train.csv.xz", packed(delimited(",", text_and_label), lzma.compress), classify),
    Case("train.parquet", parquet(text_and_label), classify),
    Case("train.jsonl", json_lines(text_and_labels), labels_of_many),
    Case("train.parquet", parquet(text_and_labels), labels_of_many),
    Case("train.conll", conll(" "), spans),
    Case("train.conll", conll("\t"), spans),
    Case("train.conllu", conllu, upos),
    Case("train.jsonl", json_lines(tagged), spans),
    Case("train.csv", delimited(",", tagged_text), spans),
    Case("train.parquet", parquet(tagged), spans),
    Case("train.csv", delimited(",", vector), vectors),
    Case("train.jsonl", json_lines(vector), vectors),
    Case("train.parquet", parquet(vector), vectors),
    Case("train.csv", delimited(",", frame), grouped),
    Case("train.tsv", delimited("\t", frame), grouped),
    Case("train.jsonl", json_lines(frame), grouped),
    Case("train.parquet", parquet(frame), grouped),
    Case("train.tsv", delimited("\t", pair), translate),
    Case("train.jsonl", json_lines(pair), translate),
    Case("train.parquet", parquet(pair), translate),
    Case("train.txt", plain, language),
    Case("train.txt.gz", packed(plain, gzip.compress), language),
    Case("train.jsonl", json_lines(text), language),
    Case("train.parquet", parquet(text), language),
    Case("captions.txt", flickr, captions),
    Case("dataset.json", karpathy, captions),
]


def damage(content: bytes, draw: random.Random) -> bytes:
    """Return a file with up to four changes: bytes flipped, cut, doubled or moved, or tokens inserted."""
    content = bytearray(content)
    for _ in range(draw.randint(0, 4)):
        if not content:
            break
        start = draw.randrange(len(content))
        stop = min(len(content), start + draw.randint(1, 40))
        kind = draw.randrange(6)
        if kind == 0:
            content[start] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del content[start:stop]
        elif kind == 2:
            content[start:start] = content[start:stop]
        elif kind == 3:
            part = content[start:stop]
            del content[start:stop]
            at = draw.randint(0, len(content))
            content[at:at] = part
        elif kind == 4:
            content[start:start] = draw.choice(TOKENS)
        else:
            del content[start:]
    return bytes(content)
