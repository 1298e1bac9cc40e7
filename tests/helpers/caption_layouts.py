"""The same few images and captions in every layout that `CaptionData` reads."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
from PIL import Image

NAMES = {"train": ["a.png", "b.png", "c.png"], "validation": ["d.png"], "test": ["e.png", "f.png"]}
ALL = [name for names in NAMES.values() for name in names]


def png(name, size=8):
    file = io.BytesIO()
    noise = np.random.default_rng(ord(name[0])).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def captions(name):
    return [f"A picture of {name[0]} .", f"This is {name[0]}!"]


IMAGES = {f"images/{name}": png(name) for name in ALL}
TOKENS = "".join(f"{name}#{place}\t{text}\n" for name in ALL for place, text in enumerate(captions(name)))
LISTS = {
    f"Flickr_8k.{word}Images.txt": "".join(f"{name}\n" for name in NAMES[split])
    for word, split in (("train", "train"), ("dev", "validation"), ("test", "test"))
}


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def jsonl(split=None, **extra):
    rows = [
        {"image": name, "captions": captions(name), **({"split": each} if split is None else {}), **extra}
        for each, names in NAMES.items()
        for name in names
        if split in (None, each)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def karpathy():
    names = {"validation": "val"}
    images = [
        {
            "filename": name,
            "split": "restval" if name == "c.png" else names.get(split, split),
            "sentences": [{"raw": text, "tokens": []} for text in captions(name)],
        }
        for split, each in NAMES.items()
        for name in each
    ]
    return json.dumps({"images": images, "dataset": "flickr8k"})


def csv_by_split(numbered=False):
    header = "image,caption_0,caption_1\n" if numbered else "image,caption\n"
    found = {}
    for split, names in NAMES.items():
        rows = [f"{name},{','.join(captions(name))}\n" for name in names]
        single = [f"{name},{text}\n" for name in names for text in captions(name)]
        found[f"{split}.csv"] = header + "".join(rows if numbered else single)
    return found


LAYOUTS = {
    "flickr8k": {"Flickr8k.token.txt": TOKENS, **LISTS, **IMAGES},
    "flickr8k zip": {"Flickr8k.token.txt": TOKENS, **LISTS, "photos.zip": zipped(IMAGES)},
    "jsonl with splits": {"captions.jsonl": jsonl(), **IMAGES},
    "karpathy": {"dataset.json": karpathy(), **IMAGES},
    "csv by split": {**csv_by_split(), **IMAGES},
    "csv with several columns": {**csv_by_split(numbered=True), **IMAGES},
    "csv called txt, with lists": {
        "captions.txt": "image,caption\n" + "".join(f"{n},{t}\n" for n in ALL for t in captions(n)),
        **LISTS,
        **IMAGES,
    },
}
