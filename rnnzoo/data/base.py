"""What all data modules share: sources, splits, caching, batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from rnnzoo.data.description import DataDescription
from rnnzoo.data.headers import first_rows, missing_column
from rnnzoo.data.named_files import SPLITS, file_notes, in_order, name_test_sets, refuse_without_folder
from rnnzoo.data.readers import Row
from rnnzoo.data.row_counters import RowSource
from rnnzoo.data.sampler import EpochSampler, LengthBucketSampler
from rnnzoo.data.sources import dataset_rows, file_checksum, file_rows, find_files, fingerprint, hub_revision, load_hub
from rnnzoo.data.splits import limited, set_aside, with_pooled_test
from rnnzoo.data.synthetic import make_task
from rnnzoo.data.tables import EncodedDataset, Sample, from_generator, table_of
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.processors.base import Processor

FileFormat = tuple[str, str]  # a file and its format


class ZooData(LightningDataModule):
    """Samples from the Hub, from files or from a synthetic task, as batches of about equal length.

    Args:
        hub: id of a data set of the Hugging Face Hub.
        hub_config: its configuration.
        revision: its revision, a tag or commit.
        path: a folder or a file; takes the place of the Hub and of a synthetic task.
        synthetic: name of a synthetic task; takes the place of the Hub.
        synthetic_options: arguments of the synthetic task, such as ``{"lengths": [100, 200]}`` of ``adding`` or
            ``{"sizes": {"train": 500}}`` of any.
        format: the format of the files; by their names if left out.
        train: the file, or files with commas between, of the training split; by their names if left out.
        validation: likewise.
        test: likewise; or test sets that are measured one by one and together, as ``NAME=FILE`` pairs with commas
            between (``2016=a.csv,2017=b.csv``) or as a mapping of names to files.
        columns: what we call a column → what the data call it.
        file_columns: names of the columns of files that have no header.
        validation_fraction: share of the training split that becomes a validation split where there is none.
        test_fraction: share of the training split that becomes a test split where there is none.
        batch_size: sequences per batch and process.
        max_tokens: padded tokens per batch and process; takes the place of `batch_size`.
        limit: use only so many training samples, chosen by the seed.
        num_workers: processes that make batches ahead of time; 0 makes them in the training process.
        seed: of splits that are made, of synthetic tasks, and of the order of batches.
    """

    formats: tuple[str, ...]  # what files may be; the first stands for names that say nothing
    canonical: ClassVar[tuple[str, ...]]  # our names of columns

    def __init__(
        self,
        *,
        hub: str | None = None,
        hub_config: str | None = None,
        revision: str | None = None,
        path: str | None = None,
        synthetic: str | None = None,
        synthetic_options: dict[str, Any] | None = None,
        format: str | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: dict[str, str] | str | None = None,
        columns: dict[str, str] | None = None,
        file_columns: list[str] | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        batch_size: int = 32,
        max_tokens: int | None = None,
        limit: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, share in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
            if not 0 < share < 0.5:
                raise InputError(f"data.{name}", expected="a share above 0 and below 0.5", got=str(share))
        for name, size in (("batch_size", batch_size), ("max_tokens", max_tokens), ("limit", limit)):
            if size is not None and size < 1:
                raise InputError(f"data.{name}", expected="at least 1", got=str(size))
        for name in columns or {}:
            if name not in self.canonical:
                raise unknown_name("data.columns", name, self.canonical)
        self.hub, self.hub_config, self.revision = hub, hub_config, revision
        self.path = path
        self.synthetic = synthetic
        self.synthetic_options = synthetic_options or {}
        self.format = format
        self.named = {"train": train, "validation": validation, **name_test_sets(test, Path(path or "."))}
        self.columns = {name: (columns or {}).get(name, name) for name in self.canonical}
        self.file_columns = file_columns
        self.fractions = {"validation": validation_fraction, "test": test_fraction}
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.limit = limit
        self.num_workers = num_workers
        self.seed = seed
        self.tested = "test"  # the split that is read for `Trainer.test`: ``test``, or a test set ``test/NAME``
        self._resumed_at: tuple[int, int] | None = None  # epoch and batch at which a training begins
        self.for_testing = False  # data that a trained model never saw: files whose names say nothing are test data
        self._raw: dict[str, datasets.Dataset] | None = None
        self._encoded: dict[str, EncodedDataset] = {}
        self._processor: Processor | None = None
        self._description = DataDescription("", "", {}, [])
        self._notes: list[str] = []  # of the description, while data are read
        self.header_lines: dict[Path, int] = {}  # headers of files that should have none
        self.reading_split = ""  # the split whose rows are being read
        self.unlabelled: set[str] = set()  # splits that were left out, since nothing in them has a label

    # What a data module says about itself

    @abstractmethod
    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Turn rows of a file, or of a split of the Hub, into raw samples."""

    def inspect(self, sources: Sequence[RowSource], notes: list[str]) -> None:
        """See the rows before they are read as samples; for settings that depend on the columns."""

    def column_roles(self) -> dict[str, str]:
        """Return column of the data → our name of it."""
        return {column: name for name, column in self.columns.items()}

    def further_columns(self) -> Sequence[str]:
        """Return further columns that the settings name."""
        return ()

    def input_columns(self) -> tuple[list[str], dict[str, str]]:
        """Return the columns of numbers that are inputs, and those that were left out with the reason."""
        return [], {}

    @abstractmethod
    def learn_processor(self, train: datasets.Dataset) -> Processor:
        """Learn vocabularies, labels and normalisation from raw training samples."""

    def accept(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Look over the splits as they were read, before missing ones are made; drop or refuse what is unusable."""
        return splits

    def filter_training(self, train: datasets.Dataset, notes: list[str]) -> datasets.Dataset:
        """Return the raw training samples that are fit for training; no other split is filtered."""
        return train

    def pools_files(self) -> bool:
        """Return whether several files of a split are several sets; not so where each file is a sample or a class."""
        return True

    def groups(self, train: datasets.Dataset) -> Sequence[Any]:
        """Return a group for each sample: where splits are made, a group is never in two of them."""
        return range(len(train))

    def training_rows(self, table: datasets.Dataset) -> datasets.Dataset:
        """Return the encoded training samples as they are trained on; cut into windows, for one."""
        return table

    # What users and models ask

    @property
    def processor(self) -> Processor:
        """The processor, learnt from the training split on first use unless one was set."""
        if self._processor is None:
            self._processor = self.learn_processor(self.raw("train"))
        return self._processor

    @processor.setter
    def processor(self, processor: Processor) -> None:
        self._processor = processor
        self._encoded = {}

    def describe(self) -> DataDescription:
        """Return where the data come from."""
        self._load()
        return self._description

    def raw(self, split: str) -> datasets.Dataset:
        """Return the raw samples of a split.

        Raises:
            InputError: if there is no such split.
        """
        splits = self._load()
        if split in self.unlabelled:
            raise InputError(f"split {split}", expected="samples with a label", got="none, so it was left out")
        if split not in splits:
            raise unknown_name(f"split of {self._description.source}", split, splits)
        return splits[split]

    def encoded(self, split: str) -> EncodedDataset:
        """Return the samples of a split as numbers, cached on disk by data, processor and version."""
        if split not in self._encoded:
            raw, processor = self.raw(split), self.processor
            table = raw.map(
                processor.encode,
                remove_columns=raw.column_names,
                new_fingerprint=fingerprint(raw._fingerprint, processor.checksum, "encode"),
            )
            self._encoded[split] = EncodedDataset(self.training_rows(table) if split == "train" else table)
        return self._encoded[split]

    @classmethod
    def task_columns(cls) -> tuple[tuple[str, ...], ...]:
        """Return which columns the samples of a synthetic task may have: one tuple or several."""
        return (cls.canonical,)

    @property
    def best_scores(self) -> dict[str, dict[str, float]]:
        """Split → metric → the best that any model can reach; for synthetic tasks only."""
        if self.synthetic is None or self.path is not None:
            return {}
        task = make_task(self.synthetic, self.seed, self.task_columns(), self.synthetic_options)
        return {split: task.best(list(self.raw(split))) for split in ("validation", "test")}

    # Lightning's side

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches, other ones each epoch."""
        loader = self._loader("train")
        place, self._resumed_at = self._resumed_at, None  # it is of one training
        if place is not None and self.trainer is not None and self.trainer.current_epoch <= place[0]:
            assert isinstance(loader.batch_sampler, EpochSampler)
            loader.batch_sampler.begin(*place)  # now, for workers fetch batches before Lightning tells them the epoch
        return loader

    def resume_at(self, epoch: int, batch: int) -> None:
        """Let the training that is resumed next begin at a batch of an epoch."""
        self._resumed_at = (epoch, batch)

    def val_dataloader(self) -> DataLoader:
        """Return the validation split, every sample once."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Return the test split, or the test set that `tested` names, every sample once."""
        return self._loader(self.tested)

    def _loader(self, split: str) -> DataLoader:
        encoded = self.encoded(split)
        sampler = LengthBucketSampler(
            encoded.lengths.tolist(),
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            shuffle=split == "train",
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer is not None else 0,
            world_size=self.trainer.world_size if self.trainer is not None else 1,
        )
        return self._batches(encoded, sampler)

    def _batches(self, samples: Dataset, sampler: Sampler) -> DataLoader:
        """Return the batches that a sampler picks. A loader draws a number whenever it begins, here one of its own."""
        return DataLoader(
            samples,
            batch_sampler=sampler,
            collate_fn=self.processor.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),
        )

    # Loading

    def _load(self) -> dict[str, datasets.Dataset]:
        if self._raw is None:
            datasets.disable_progress_bars()
            notes = self._notes = []
            revision: str | dict[str, str]
            refuse_without_folder(self.named, self.path, self.synthetic or self.hub or "no data")
            if self.path is not None:
                splits, revision = self._load_files(self.path)
                source = self.path
            elif self.synthetic is not None:
                task = make_task(self.synthetic, self.seed, self.task_columns(), self.synthetic_options)
                splits = {split: table_of(task.sample(split)) for split in SPLITS}
                source, revision = f"synthetic task {self.synthetic}", f"seed {self.seed}"
                source += "".join(f", {name} {value}" for name, value in self.synthetic_options.items())
            elif self.hub is not None:
                splits, revision = self._load_hub()
                source = self.hub + (f" ({self.hub_config})" if self.hub_config else "")
            else:
                raise InputError(
                    "data",
                    expected="a source: data.path, data.hub or data.synthetic",
                    got="none",
                    fix="give a folder or file of your own with --data.path",
                )
            splits = with_pooled_test(self.accept(splits, notes))
            if "test" not in splits and any(name.startswith("test/") for name in self.unlabelled):
                self.unlabelled.add("test")
            if "train" in splits:
                splits = self._complete(splits, notes)
                splits["train"] = self.filter_training(splits["train"], notes)
                if self.limit is not None:
                    splits["train"] = limited(splits["train"], self.limit, self.seed, notes)
            for split, table in splits.items():
                if len(table) == 0:
                    raise InputError(f"{source}, split {split}", expected="at least one sample", got="none")
            sizes = {split: len(splits[split]) for split in in_order(splits)}
            self._description = DataDescription(source, revision, sizes, notes, *self.input_columns())
            self._raw = splits
        return self._raw

    def _load_files(self, path: str) -> tuple[dict[str, datasets.Dataset], dict[str, str]]:
        files = find_files(
            path,
            format=self.format,
            allowed=self.formats,
            named=self.named,
            trained=self.for_testing,
        )
        self._read_first_rows({file: files.formats[file] for paths in files.splits.values() for file in paths})
        sources = [
            RowSource(str(file), split, partial(self._rows, str(file), files.formats[file]))
            for split, paths in files.splits.items()
            for file in paths
        ]
        self.inspect(sources, self._notes)
        contents = {
            split: [(path.name, file_checksum(files, path)) for path in paths] for split, paths in files.splits.items()
        }
        self._notes += file_notes(contents, pooled=self.pools_files())
        tables = {}
        for split, paths in files.splits.items():
            read = [(path.name, files.formats[path], file_checksum(files, path)) for path in paths]
            key = fingerprint(type(self).__name__, self._reading(), read)
            self.reading_split = split
            tables[split] = self._build([(str(path), files.formats[path]) for path in paths], key)
        return tables, files.checksums

    def _load_hub(self) -> tuple[dict[str, datasets.Dataset], str]:
        assert self.hub is not None
        tables = {}
        loaded = load_hub(self.hub, self.hub_config, self.revision)
        sources = [
            RowSource(split, split, partial(dataset_rows, loaded[split], f"{self.hub} {split}"))
            for split in SPLITS
            if split in loaded
        ]
        self.inspect(sources, self._notes)
        for split, table in loaded.items():
            key = fingerprint(type(self).__name__, self._reading(), table._fingerprint)
            rows = dataset_rows(table, f"{self.hub} {split}")
            self.reading_split = split
            tables[split] = from_generator(self.samples, {"rows": rows, "file": f"{self.hub} {split}"}, key)
        return tables, hub_revision(loaded["train"]) or self.revision or "the newest on the Hub"

    def _build(self, files: Sequence[FileFormat], key: str) -> datasets.Dataset:
        # A tuple: of a list, `datasets` would call the generator once for each item.
        return from_generator(self._generate, {"files": tuple(files)}, key)

    def _read_first_rows(self, formats: dict[Path, str]) -> None:
        """See whether the first rows of files, those for training first, are headers or samples."""
        self.header_lines, notes = first_rows(formats, self.file_columns, self.column_roles(), self.further_columns())
        self._notes += notes

    def _rows(self, path: str, format: str, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Row]]:
        return file_rows(Path(path), format, self.file_columns, columns, skip=self.header_lines.get(Path(path)))

    def _generate(self, files: Sequence[FileFormat]) -> Iterator[Sample]:
        for path, format in files:
            empty = True
            for sample in self.samples(self._rows(path, format), path):
                empty = False
                yield sample
            if empty:
                raise InputError(path, expected=f"samples in the format {format}", got="none")

    def _reading(self) -> list[Any]:
        """Return the settings that change what is read: part of the fingerprint."""
        return [self.columns, self.file_columns]

    def _complete(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Cut missing splits from the training split, by the seed."""
        wanted = ("validation",) if "test" in self.unlabelled else ("test", "validation")
        missing = {split: self.fractions[split] for split in wanted if split not in splits}
        if not missing:
            return splits
        train = splits["train"]
        places = set_aside(self.groups(train), missing, self.seed)
        names = {split: f"labelled {split}" if split in self.unlabelled else split for split in missing}
        notes += [
            f"the data have no {names[split]} split: {len(places[split])} of {len(train)} training samples were set "
            f"aside (seed {self.seed})"
            for split in missing
        ]
        return {**splits, **{split: train.select(chosen) for split, chosen in places.items()}}

    def pick(self, row: Row, name: str, where: str) -> Any:
        """Return the value of one of our columns in a row of the data.

        Raises:
            InputError: if the row has no such column, naming those that it has.
        """
        column = self.columns[name]
        if column not in row:
            raise missing_column(row, name, column, where, headless=self.file_columns is not None)
        return row[column]
