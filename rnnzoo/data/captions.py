"""Images with captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from torch.utils.data import DataLoader, Dataset

from rnnzoo.data.base import ZooData
from rnnzoo.data.caption_files import (
    FORMATS,
    Captioned,
    captions_of,
    find_caption_files,
    read_captions,
    read_lists,
)
from rnnzoo.data.features import Encode, Features, compute_features, feature_file
from rnnzoo.data.images import ImageStore, list_images
from rnnzoo.data.named_files import file_notes, in_order, split_of_set
from rnnzoo.data.readers import Row
from rnnzoo.data.sources import checksums, fingerprint
from rnnzoo.data.tables import EncodedDataset, Sample, from_generator, rows_of
from rnnzoo.errors import InputError
from rnnzoo.processors.captions import CaptionProcessor
from rnnzoo.processors.images import ImageOptions, as_json, read_bytes, read_image, read_preprocessor, read_regions
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

# Punctuation, but for hyphens and apostrophes inside a word: what the scores of captions leave out too.
PUNCTUATION = r"[^\w\s'-]|(?<!\w)['-]|['-](?!\w)"
CAPTION_WORDS = TokenizerOptions(lowercase=True, remove=PUNCTUATION)
LARGEST_OWN_SIZE = 224  # pixels; of images whose size nothing tells
ENCODING_BATCH = 16  # as fast as any on a GPU, and what fits the caches of a CPU


class CaptionDataset(EncodedDataset):
    """Encoded captions with their images, or with features of these.

    Args:
        table: encoded captions, a row an image.
        raw: the raw samples, in the same order.
        kind: the column of `raw` that is the input.
    """

    def __init__(self, table: datasets.Dataset, raw: datasets.Dataset, kind: str) -> None:
        super().__init__(table)
        self.inputs = raw.select_columns([kind])
        self.kind = kind
        self.features: Features | None = None

    def __getitem__(self, place: int) -> Row:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: list[int]) -> list[Row]:
        """Return several rows at once."""
        rows = super().__getitems__(places)
        if self.features is not None:
            return [{**row, "regions": self.features[place]} for row, place in zip(rows, places, strict=True)]
        inputs = rows_of(self.inputs, places)
        return [{**row, **each} for row, each in zip(rows, inputs, strict=True)]


class ImageDataset(Dataset[Row]):
    """Raw samples with their images alone."""

    def __init__(self, raw: datasets.Dataset) -> None:
        self.table = raw.select_columns([name for name in ("image", "name") if name in raw.column_names])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, place: int) -> Row:
        return {**self.table[place], "id": place}


class CaptionData(ZooData):
    """Images and what is said about them; an image stays together with all its captions.

    - A folder as Flickr8k comes: ``IMAGE#0<tab>CAPTION`` lines, lists of the images of each split, and the images in
      a folder or a zip, which is not unpacked.
    - A table (CSV, TSV, JSONL, Parquet) with the columns ``image`` (a path) and ``caption`` or ``captions``, a row for
      each image or for each caption, and maybe ``split``; or one table for each split.
    - JSON as Karpathy's splits have it.
    - A data set of the Hub with a column of images.

    In place of an image there may be an array [L, D] of features of its regions: ``.npy`` files in a folder or a zip,
    or one ``.npz`` with an array for each image.

    Args:
        images: the folder, zip or ``.npz`` with the images; in `path` if left out.
        captions: the file of captions; in `path` if left out.
        tokenizer: what a token of a caption is.
        image_size: pixels on a side; the preprocessor's if left out, or else the shorter side of the first training
            image, at most 224.
        resize: ``crop`` keeps proportions and cuts off what is over, ``squash`` keeps all and changes proportions.
        preprocessor: a pretrained vision model, as folder or Hub id, whose scale, mean and deviation of pixels are
            used; ½ and ½ for values from 0 to 1 if left out.
        max_length: tokens of a caption that are trained on; of a longer one the beginning is, and its end is not
            taught. Evaluation reads all.
        skip_corrupt: leave out images that cannot be read, and say how many, instead of stopping at the first. All
            are read once to find them.
        source: where the data come from; see `ZooData`. Files named for a split are lists of its images, one a line,
            or tables of its captions.
    """

    formats = FORMATS
    canonical = ("image", "captions")

    def __init__(
        self,
        *,
        images: str | None = None,
        captions: str | None = None,
        tokenizer: TokenizerOptions = CAPTION_WORDS,
        image_size: int | None = None,
        resize: str = "crop",
        preprocessor: str | None = None,
        max_length: int | None = None,
        skip_corrupt: bool = False,
        **source: Any,
    ) -> None:
        super().__init__(**source)
        if max_length is not None and max_length < 1:
            raise InputError("data.max_length", expected="at least 1", got=str(max_length))
        self.images, self.captions = images, captions
        self.tokenizer_options = tokenizer
        self.image_size, self.resize, self.preprocessor = image_size, resize, preprocessor
        ImageOptions(1 if image_size is None else image_size, resize)  # refuses what cannot be before anything is read
        self.max_length = max_length
        self.skip_corrupt = skip_corrupt
        self._encoder: tuple[Encode, str] | None = None

    @classmethod
    def task_columns(cls) -> tuple[tuple[str, ...], ...]:
        """Return the columns of images and of regions with captions, and what their words name."""
        return ("image", "captions", "grounding"), ("regions", "captions", "grounding")

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"image", "captions", "name"}`` from rows that hold their images."""
        for where, row in rows:
            image = self.pick(row, "image", where)
            captions = captions_of(row, self.pick, self.columns, where)
            yield {"image": read_bytes(image, where)[0], "captions": captions, "name": where}

    def learn_processor(self, train: datasets.Dataset) -> CaptionProcessor:
        """Train the tokenizer, and settle what becomes of the pixels."""
        texts = (caption for captions in train["captions"] for caption in captions)
        tokenizer = Tokenizer.train(texts, self.tokenizer_options)
        grounded = "grounding" in train.column_names
        if "regions" in train.column_names:
            size = read_regions(train[0]["regions"], "sample 0").shape[1]
            return CaptionProcessor(tokenizer=tokenizer, images=ImageOptions(1), region_size=size, grounded=grounded)
        settings: dict[str, Any] = {} if self.preprocessor is None else read_preprocessor(self.preprocessor)
        if self.image_size is not None:
            settings["size"] = self.image_size
        elif "size" not in settings:
            settings["size"] = min(*read_image(train[0]["image"], "sample 0").size, LARGEST_OWN_SIZE)
        images = ImageOptions(**settings, resize=self.resize)
        return CaptionProcessor(tokenizer=tokenizer, images=images, grounded=grounded)

    def accept(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Leave out images that cannot be read, if that is asked for."""
        if not self.skip_corrupt:
            return splits
        kept = {}
        for split, table in splits.items():
            key = fingerprint(table._fingerprint, "readable")
            kept[split] = table.filter(is_readable, new_fingerprint=key)
            if skipped := len(table) - len(kept[split]):
                notes.append(f"{split}: {skipped} of {len(table)} images could not be read and are left out")
        return kept

    def training_rows(self, table: datasets.Dataset) -> datasets.Dataset:
        """Cut long captions, if there is a longest."""
        if self.max_length is None:
            return table
        return table.map(
            cut_captions,
            fn_kwargs={"longest": self.max_length},
            new_fingerprint=fingerprint(table._fingerprint, "cut", self.max_length),
        )

    def encoded(self, split: str) -> CaptionDataset:
        """Return the captions of a split as numbers, cached on disk, with images that are read when they are needed."""
        if split not in self._encoded:
            raw, processor = self.raw(split), self.processor
            assert isinstance(processor, CaptionProcessor)
            (kind,) = processor.inputs
            if kind not in raw.column_names:
                got = next(name for name in ("image", "regions") if name in raw.column_names)
                raise InputError(f"split {split}", expected=f"samples with {kind}", got=got)
            texts = raw.remove_columns([kind])
            table = texts.map(
                processor.encode_captions,
                remove_columns=texts.column_names,
                new_fingerprint=fingerprint(raw._fingerprint, processor.checksum, "encode captions"),
            )
            table = self.training_rows(table) if split == "train" else table
            self._encoded[split] = CaptionDataset(table, raw, kind)
        found = self._encoded[split]
        assert isinstance(found, CaptionDataset)
        return found

    # Features of a frozen encoder

    def use_features(self, encode: Encode, checksum: str) -> None:
        """Give the features of images instead of images from now on.

        The features of a split are computed when its batches are first asked for, and are kept on disk under a key of
        data, encoder and image options, so that a second training with the same encoder reads them.

        Args:
            encode: normalised images [B, 3, Y, X] → features [B, L, D] on any device, always the same.
            checksum: of the encoder; other weights must have another.
        """
        self._encoder = (encode, checksum)

    def _loader(self, split: str) -> DataLoader:
        if self._encoder is not None and self.encoded(split).kind == "image":
            self.encoded(split).features = self._features(split)
        return super()._loader(split)

    def _features(self, split: str) -> Features:
        assert self._encoder is not None
        raw, processor = self.raw(split), self.processor
        assert isinstance(processor, CaptionProcessor)
        encode, checksum = self._encoder
        path = feature_file(fingerprint(raw._fingerprint, checksum, as_json(processor.images), "features"))
        processes = self.trainer.world_size if self.trainer is not None else 1
        for first in (True, False):  # the first process computes; others do so only if they do not see its files
            mine = processes == 1 or (self.trainer is not None and self.trainer.is_global_zero)
            if mine == first and not path.is_file():
                self._compute(path, raw, encode, split)
            if processes > 1 and self.trainer is not None:
                self.trainer.strategy.barrier()
        return Features(path)

    def _compute(self, path: Path, raw: datasets.Dataset, encode: Encode, split: str) -> None:
        assert isinstance(self.processor, CaptionProcessor)
        batches = DataLoader(
            ImageDataset(raw), ENCODING_BATCH, collate_fn=self.processor.read_images, num_workers=self.num_workers
        )
        compute_features(path, batches, encode, count=len(raw), what=f"images of the {split} split")

    # Loading

    def _load_files(self, path: str) -> tuple[dict[str, datasets.Dataset], dict[str, str]]:
        files = find_caption_files(path, captions=self.captions, format=self.format, named=self.named)
        digests = checksums(dict.fromkeys([*files.captions, *files.lists], ""))
        contents: dict[str, list[tuple[str, str]]] = {}
        for file, part in {**files.captions, **files.lists}.items():
            if part is not None:
                contents.setdefault(part, []).append((file.name, digests.get(str(file)) or digests[file.name]))
        self._notes += file_notes(contents, pooled=True)
        self._read_first_rows(files.formats)
        store = self._store(Path(path))
        listed = read_lists(files.lists)
        entries: dict[str, list[Captioned]] = {}
        for file, split in files.captions.items():
            rows = self._rows(str(file), files.formats[file])
            found = read_captions(file, files.formats[file], rows, self.pick, self.columns)
            for entry in found:
                entry.split = split or entry.split
            for chosen, entry in assign(found, listed, "test" if self.for_testing else "train"):
                entries.setdefault(chosen, []).append(entry)
        if listed:
            refuse_uncaptioned(listed, [entry for chosen in entries.values() for entry in chosen])
        if not entries.get("train") and not (self.for_testing and entries):
            raise InputError(f"data.path {path}", expected="captions of training images", got=f"{', '.join(entries)}")
        parts = [store.checksum, str(Path(store.place).resolve())] if store is not None else []
        tables = {
            split: from_generator(
                samples_of,
                {"entries": entries[split], "store": store},
                fingerprint(type(self).__name__, self._reading(), digests, parts, split, self.for_testing),
            )
            for split in in_order(entries)
        }
        if store is not None:
            digests[f"{Path(store.place).name} (its {len(store.references)} names, sizes and CRC-32 or times)"] = (
                store.checksum
            )
        return tables, digests

    def _store(self, path: Path) -> ImageStore | None:
        """Return where the images are: as told, or the one archive of the folder, or the folder itself."""
        folder = path.parent if path.is_file() else path
        if self.images is not None:
            chosen = folder / self.images
            return list_images(chosen if chosen.exists() else Path(self.images))
        archives = [each for each in sorted(folder.iterdir()) if each.suffix.lower() in (".zip", ".npz")]
        if len(archives) > 1:
            raise InputError(
                f"data.path {path}",
                expected="one zip or .npz",
                got=", ".join(each.name for each in archives),
                fix="say where the images are with --data.images",
            )
        try:
            return list_images(archives[0] if archives else folder)
        except InputError:
            if archives:
                raise
            return None  # the table may hold them, or paths of their own

    def _reading(self) -> list[Any]:
        return [*super()._reading(), self.images, self.captions, self.format, self.named]


def assign(
    entries: Sequence[Captioned], listed: dict[str, tuple[str, str]], other: str
) -> Iterator[tuple[str, Captioned]]:
    """Yield each image with its split; those that no list names are left out if there is a list of `other` ones."""
    complete = any(split_of_set(split) == other for split, _ in listed.values())
    for entry in entries:
        place = listed.get(entry.image) if isinstance(entry.image, str) else None
        if place is not None:
            yield place[0], entry
        elif not complete:
            yield entry.split or other, entry


def refuse_uncaptioned(listed: dict[str, tuple[str, str]], entries: Sequence[Captioned]) -> None:
    """Refuse a list that names an image without captions.

    Raises:
        InputError: naming the line of the list.
    """
    known = {entry.image for entry in entries if isinstance(entry.image, str)}
    for name, (_, where) in listed.items():
        if name not in known:
            raise InputError(where, expected="an image with captions", got=repr(name))


def samples_of(entries: list[Captioned], store: ImageStore | None) -> Iterator[Sample]:
    """Yield the raw samples of a split.

    Raises:
        InputError: if an image is nowhere, or has no caption, with the line that names it.
    """
    for entry in entries:
        if not entry.captions:
            raise InputError(entry.where, expected="at least one caption", got="none")
        if not isinstance(entry.image, str):
            yield {"image": read_bytes(entry.image, entry.where)[0], "captions": entry.captions, "name": entry.where}
        elif store is not None and not Path(entry.image).is_absolute():
            yield {store.kind: store.find(entry.image, entry.where), "captions": entry.captions}
        elif Path(entry.image).is_file():
            kind = "regions" if entry.image.endswith(".npy") else "image"
            yield {kind: entry.image, "captions": entry.captions}
        else:
            raise InputError(
                entry.where,
                expected="a path of an image",
                got=repr(entry.image),
                fix="say where the images are with --data.images",
            )


def is_readable(sample: Sample) -> bool:
    """Return whether the image, or the array, of a raw sample can be read."""
    try:
        if sample.get("image") is not None:
            read_image(sample["image"], "")
        else:
            read_regions(sample["regions"], "")
    except InputError:
        return False
    return True


def cut_captions(row: Row, longest: int) -> Row:
    """Cut the captions of a row; ``cut`` says how many tokens were left out.

    >>> cut_captions({"captions": [[5, 6, 9], [5, 9]], "length": 6}, 2)
    {'captions': [[5, 6], [5, 9]], 'length': 4, 'cut': 1}
    """
    kept = [caption[:longest] for caption in row["captions"]]
    cut = sum(map(len, row["captions"])) - sum(map(len, kept))
    return {**row, "captions": kept, "length": len(kept) * max(map(len, kept)), "cut": cut}
