"""Splits made of a training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from rnnzoo.errors import InputError


def set_aside(groups: Sequence[Any], fractions: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Choose samples for other splits than training, whole groups at a time.

    Args:
        groups: the group of each sample.
        fractions: split → its share of all samples; at least one sample and whole groups are taken.
        seed: of the choice.

    Returns:
        Split → places of its samples in ascending order, with what is left under ``train``.

    Raises:
        InputError: if nothing would be left to train on.

    >>> set_aside("aabbcc", {"test": 0.2}, seed=0)
    {'test': [4, 5], 'train': [0, 1, 2, 3]}
    """
    members: dict[Any, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    found = list(members.values())
    shuffled = [found[place] for place in np.random.default_rng(seed).permutation(len(found))]
    ends = np.cumsum([len(group) for group in shuffled])  # of each group in the order below
    order = [place for group in shuffled for place in group]
    total, start = len(order), 0
    splits = {}
    for split, fraction in fractions.items():
        share = max(1, round(total * fraction))
        stop = int(ends[np.searchsorted(ends, start + share)]) if start + share < total else total
        if stop >= total:
            raise InputError(
                "data",
                expected=f"enough training samples to make a {split} split",
                got=f"{total}",
                fix=f"name a file with --data.{split}",
            )
        splits[split] = sorted(order[start:stop])
        start = stop
    return {**splits, "train": sorted(order[start:])}


def limited(train: datasets.Dataset, limit: int, seed: int, notes: list[str]) -> datasets.Dataset:
    """Return so many training samples, chosen by the seed since files are often sorted, with a note."""
    total = len(train)
    if limit >= total > 0:
        notes.append(f"limit {limit} changes nothing: there are {total} training samples")
    elif total:
        chosen = np.random.default_rng(seed).permutation(total)[:limit]
        notes.append(f"only {limit} of {total} training samples are used (seed {seed})")
        train = train.select(sorted(chosen.tolist()))
    return train


def with_pooled_test(splits: dict[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    """Return splits with a test split of all test sets, if there are such.

    Raises:
        InputError: if their samples are of different kinds.
    """
    sets = [split for split in splits if split.startswith("test/")]
    if not sets:
        return splits
    try:
        return {**splits, "test": datasets.concatenate_datasets([splits[name] for name in sets])}
    except ValueError as error:  # the types of their columns differ
        raise InputError(
            f"data.test, {', '.join(sets)}",
            expected="samples of one kind",
            got=str(error).splitlines()[0],
            fix="measure them one by one",
        ) from error
