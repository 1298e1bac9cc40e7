"""Images, or features of their regions, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnzoo.batches import IGNORED, CaptionBatch
from rnnzoo.errors import InputError
from rnnzoo.processors.base import Processor, Row, need, pad, row_ids
from rnnzoo.processors.images import ImageOptions, as_json, fit_image, read_image, read_regions
from rnnzoo.text.tokenizer import Tokenizer


class CaptionProcessor(Processor):
    """``{"image": ..., "captions": [str]}``, or ``{"regions": ..., "captions": [str]}``, ↔ `CaptionBatch`.

    An image is a path, a ``zip://MEMBER::ARCHIVE`` reference, bytes, an array or a Pillow image; see `read_image`. It
    is read when a batch is put together, by the process that does so. Regions are a table [L, D], or the path of one.
    All captions of an image stay in its row, so that it is encoded once for all of them.

    Args:
        tokenizer: turns a caption into ids.
        images: what becomes of the pixels.
        region_size: D of the features that samples hold under ``regions``; None for samples with images.
        grounded: samples have ``grounding``, which says what the words of their first caption name; see
            `rnnzoo.metrics.pointing.Pointing`. Their tokens have to be words.
    """

    kind = "captions"
    answer = "captions"

    def __init__(
        self, *, tokenizer: Tokenizer, images: ImageOptions, region_size: int | None = None, grounded: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.images = images
        self.region_size = region_size
        self.grounded = grounded

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one input: ``image`` or ``regions``."""
        return ("image",) if self.region_size is None else ("regions",)

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return what `encode_captions` does, and ``image`` or ``regions`` as it came."""
        (name,) = self.inputs
        if sample.get(name) is None:
            need(
                {key: value for key, value in sample.items() if value is not None},
                name,
                object,
                "an image" if name == "image" else "features of regions",
            )
        return {**self.encode_captions(sample), name: sample[name]}

    def encode_captions(self, sample: Mapping[str, Any]) -> Row:
        """Return ``length`` (padded tokens of all captions) and, if there are any, ``captions`` and ``references``."""
        row: Row = {"length": 1}
        if "name" in sample:
            row["name"] = sample["name"]
        if sample.get("captions") is not None:
            references = need(sample, "captions", list, "a list of captions")
            if not references or not all(isinstance(text, str) for text in references):
                where = str(sample.get("name", "sample"))
                raise InputError(where, expected="at least one caption", got=repr(references)[:80])
            captions = [[*tokens, self.tokenizer.end_id] for tokens in self.tokenizer.encode_many(references)]
            row |= {"captions": captions, "references": references}
            row["length"] = len(captions) * max(map(len, captions))
            if sample.get("grounding") is not None:
                row["grounding"] = self._grounding(sample, len(captions[0]) - 1)
        return row

    def collate(self, rows: Sequence[Row]) -> CaptionBatch:
        """Read the images, or the features where rows have them, and pad."""
        images = regions = counts = captions = places = references = grounding = None
        if all("regions" in row for row in rows):
            regions, counts = self._regions(rows)
        else:
            images = self.read_images(rows)
        lengths = torch.ones(len(rows), dtype=torch.int64)
        if all("captions" in row for row in rows):
            texts = [caption for row in rows for caption in row["captions"]]  # C
            captions = pad(texts, IGNORED)
            lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
            numbers = torch.tensor([len(row["captions"]) for row in rows], dtype=torch.int64)
            places = torch.arange(len(rows)).repeat_interleave(numbers)
            references = tuple(tuple(row["references"]) for row in rows)
            if all("grounding" in row for row in rows):
                grounding = tuple(row["grounding"] for row in rows)
        return CaptionBatch(row_ids(rows), images, regions, counts, captions, places, lengths, references, grounding)

    def picture(self, sample: Mapping[str, Any]) -> np.ndarray:
        """Return the image of a raw sample as the model sees it: [Y, X, 3] of 0 … 255."""
        return fit_image(read_image(sample["image"], name_of(sample)), self.images)

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """Return pixels [B, Y, X, 3] of 0 … 255 as the input of an image encoder [B, 3, Y, X]."""
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (self.images.mean, self.images.deviation))
        channels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float()  # [B, 3, Y, X]
        return channels.mul_(self.images.scale).sub_(mean).div_(deviation)

    def read_images(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return the normalised images [B, 3, Y, X] of rows or raw samples."""
        side = self.images.size
        if not rows:
            return torch.zeros(0, 3, side, side)
        return self.normalise(np.stack([self.picture(row) for row in rows]))

    def _regions(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        tables = [read_regions(row["regions"], name_of(row)) for row in rows]
        width = self.region_size or (tables[0].shape[1] if tables else 0)
        counts = torch.tensor([len(table) for table in tables], dtype=torch.int64)
        padded = torch.zeros(len(tables), max(map(len, tables), default=0), width)  # [B, L, D]
        for place, (row, table) in enumerate(zip(rows, tables, strict=True)):
            if table.shape[1] != width:
                where = str(row["regions"]) if isinstance(row["regions"], str | Path) else name_of(row)
                raise InputError(where, expected=f"{width} numbers a region", got=str(table.shape[1]))
            padded[place, : len(table)] = torch.from_numpy(table)
        return padded, counts

    def _grounding(self, sample: Mapping[str, Any], token_count: int) -> list[list[float]]:
        grounding = sample["grounding"]
        if len(grounding) != token_count:
            raise InputError(
                f"{name_of(sample)}, grounding",
                expected=f"an entry for each of the {token_count} tokens of the first caption",
                got=str(len(grounding)),
                fix="let tokens be words: data.tokenizer.kind words",
            )
        return grounding

    def to_json(self) -> dict[str, Any]:
        """Return tokenizer and options."""
        return {
            "kind": self.kind,
            "tokenizer": self.tokenizer.to_json(),
            "images": as_json(self.images),
            "region_size": self.region_size,
            "grounded": self.grounded,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CaptionProcessor:
        """Make a processor from what `to_json` gave."""
        return cls(
            tokenizer=Tokenizer(values["tokenizer"]),
            images=ImageOptions(**values["images"]),
            region_size=values["region_size"],
            grounded=values.get("grounded", False),  # models of version 0.1 lack it
        )


def name_of(row: Mapping[str, Any]) -> str:
    """Return what messages call a sample."""
    return str(row.get("name") or f"sample {row.get('id', '')}".strip())
