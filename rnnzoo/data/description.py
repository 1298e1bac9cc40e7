"""What a data module says about its data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataDescription:
    """Where data come from and what was done to them, for reports.

    Args:
        source: Hub id, folder or synthetic task.
        revision: revision of the Hub, or file name → SHA-256.
        split_sizes: split → samples.
        notes: what was decided, in sentences.
        inputs: the columns that are inputs, of tables of numbers.
        left_out: column of such a table that is neither input nor answer → why.
    """

    source: str
    revision: str | dict[str, str]
    split_sizes: dict[str, int]
    notes: list[str]
    inputs: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
