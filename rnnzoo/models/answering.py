"""Answering a stream of raw samples batch by batch, also where some of them are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rnnzoo.errors import InputError
from rnnzoo.processors.base import Processor
from rnnzoo.schema import is_finite

Sample = Mapping[str, Any] | InputError  # an error where a sample could not be read
Row = dict[str, Any] | InputError  # encoded


class AnsweringModel(Protocol):
    """What is used of `ZooModel`, which imports this module."""

    processor: Processor

    def to_batch(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Return encoded samples as a batch."""

    def answer_batch(self, batch: Any) -> list[dict[str, Any]]:
        """Return an answer for each sample of a batch."""


def answer_stream(
    model: AnsweringModel, samples: Iterable[Sample], *, batch_size: int, skip_bad: bool
) -> Iterator[dict[str, Any]]:
    """Answer raw samples in their order; those before one that is refused are answered before the error is raised.

    Args:
        model: the model, in evaluation mode.
        samples: raw samples, or errors where they could not be read.
        batch_size: samples that are computed together.
        skip_bad: answer what is refused with ``{"error": message}`` and go on.

    Raises:
        InputError: for the first sample that is refused, unless it is skipped, and for whatever the stream raises.
    """
    stream = iter(samples)
    first, stopped, ended = 0, None, False
    while not ended:
        rows: list[Row] = []
        names: list[str] = []
        while len(rows) < batch_size and stopped is None:
            try:
                sample = next(stream)
            except StopIteration:
                ended = True
                break
            except InputError as error:  # the stream cannot go on
                stopped = error
                break
            row = encoded(model, sample, first + len(rows))
            if isinstance(row, InputError) and not skip_bad:
                stopped = row
                break
            rows.append(row)
            names.append(
                "" if isinstance(sample, InputError) else str(sample.get("name", f"sample {first + len(names)}"))
            )
        batch, refused = make_batch(model, rows, names, skip_bad=skip_bad)
        stopped = refused or stopped
        yield from answer_rows(model, batch, rows, names, skip_bad=skip_bad)
        if stopped is not None:
            raise stopped
        first += len(rows)


def name_of(sample: Sample, index: int) -> str:
    """Return what messages call a sample."""
    return f"sample {index}" if isinstance(sample, InputError) else str(sample.get("name", f"sample {index}"))


def encoded(model: AnsweringModel, sample: Sample, index: int) -> dict[str, Any] | InputError:
    """Return a raw sample as numbers, with its index as its id; or the error if it is refused."""
    if isinstance(sample, InputError):
        return sample
    try:
        return {**model.processor.encode(sample), "id": index}
    except InputError as error:
        return named(error, name_of(sample, index))


def named(error: InputError, name: str) -> InputError:
    """Return an error that names the sample."""
    return error if name in str(error) else InputError.from_text(f"{name}: {error}")


def make_batch(
    model: AnsweringModel, rows: list[Row], names: list[str], *, skip_bad: bool
) -> tuple[Any, InputError | None]:
    """Return a batch of the encoded samples that are no errors; None if there are none.

    Some are refused only now, such as images that cannot be read: errors take their place, or, if nothing is skipped,
    the rows end before the first of them, whose error is returned too.
    """
    try:
        return collated(model, rows), None
    except InputError as error:
        for index, row in enumerate(rows):
            rows[index] = collatable(model, row, names[index])
        bad = [(index, row) for index, row in enumerate(rows) if isinstance(row, InputError)]
        if not bad:
            raise error from None
    if skip_bad:
        return collated(model, rows), None
    first, refused = bad[0]
    del rows[first:], names[first:]
    return collated(model, rows), refused


def collated(model: AnsweringModel, rows: list[Row]) -> Any:
    """Return a batch of the encoded samples that are no errors."""
    good = [row for row in rows if not isinstance(row, InputError)]
    return model.to_batch(good) if good else None


def collatable(model: AnsweringModel, row: Row, name: str) -> Row:
    """Return an encoded sample, or the error if no batch can be made of it."""
    try:
        if not isinstance(row, InputError):
            model.processor.collate([row])
    except InputError as error:
        return named(error, name)
    return row


def answer_rows(
    model: AnsweringModel, batch: Any, rows: list[Row], names: list[str], *, skip_bad: bool
) -> Iterator[dict[str, Any]]:
    """Answer a batch, and the errors among the encoded samples that it is of."""
    answers = iter(() if batch is None else model.answer_batch(batch))
    for row, name in zip(rows, names, strict=True):
        answer = {"error": str(row)} if isinstance(row, InputError) else next(answers)
        if not is_finite(answer):
            fix = "weights or input are too large"
            error = InputError(name, expected="an answer of finite numbers", got=str(answer)[:80], fix=fix)
            if not skip_bad:
                raise error
            answer = {"error": str(error)}
        yield answer
