"""Contents of small data files, and the batches of a data module."""

from __future__ import annotations


def texts(count, word="w", mark=","):
    return "".join(f"{word}{number} shared{mark}{'pos' if number % 3 else 'neg'}\n" for number in range(count))


def csv(count, word="w"):
    return "text,label\n" + texts(count, word)


def sequence(count, start=0.0, slope=1.0):
    """Return a CSV of frames whose first column counts on and whose second is constant."""
    rows = (f"{start + slope * frame},5,{'ab'[frame % 2]}\n" for frame in range(count))
    return "x,y,labels\n" + "".join(rows)


def batches(data, split):
    return list(
        {"train": data.train_dataloader, "validation": data.val_dataloader, "test": data.test_dataloader}[split]()
    )
