"""Whether attention lies on what a word names: the pointing game."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnzoo.metrics.base import SampleMetric, percent

Grounding = Sequence[Sequence[float]]  # for each word of a caption: [] or what it names


class Pointing(SampleMetric):
    """The share of named things that a caption writes as the reference does, and attends to as it writes them.

    The grounding of a reference has an entry for each word: nothing for words that name nothing to be seen, else
    ``[left, top, right, bottom]``, a box in shares of the sides of the image, or ``[index]`` of a region. A word with
    an entry is a hit if the caption has the same word at the same position, and the largest of its attention weights
    is that of a cell of the grid that overlaps the box, or of that region.

    Without such words there is no value.

    Source: the pointing game of Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", for the words
    of a caption.

    >>> metric = Pointing(grid=(2, 2))
    >>> weights = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]])
    >>> metric.update(torch.tensor([0]), [["red", "circle"]], [weights], [["red", "circle"]],
    ...               [[[0.0, 0.0, 0.4, 0.4], [0.5, 0.0, 0.9, 0.4]]])
    >>> float(metric.compute()["pointing"])
    50.0

    Args:
        grid: rows and columns of the grid; None where the data are features of regions.
    """

    def __init__(self, *, grid: tuple[int, int] | None) -> None:
        super().__init__(width=2)
        self.grid = grid

    def update(
        self,
        ids: Tensor,
        captions: Sequence[Sequence[str]],
        weights: Sequence[Tensor],
        references: Sequence[Sequence[str]],
        groundings: Sequence[Grounding],
    ) -> None:
        """Add samples.

        Args:
            ids: [B].
            captions: the words of the model's caption of each.
            weights: their attention weights [T, L].
            references: the words of the reference that is grounded.
            groundings: for each word of the reference, what it names.
        """
        counts = []
        for words, attended, reference, grounding in zip(captions, weights, references, groundings, strict=True):
            largest = attended.argmax(-1).tolist()  # [T]
            named = [index for index, target in enumerate(grounding) if len(target)]
            written = [index for index in named if list(words[index : index + 1]) == [reference[index]]]
            hits = sum(self._is_hit(largest[index], grounding[index]) for index in written)
            counts.append([hits, len(named)])
        self.update_rows(ids, torch.tensor(counts, dtype=torch.float64, device=ids.device).reshape(-1, 2))

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the share, if there is any word to be counted."""
        return {"pointing": percent(*sums)} if sums[1] > 0 else {}

    @property
    def definitions(self) -> dict[str, str]:
        """What the share is."""
        target = "region that the word names"
        if self.grid is not None:
            target = "cell of the grid that overlaps the bounding box of what the word names"
        return {
            "pointing": "percent of the words of the first reference that name something in the image which the "
            f"caption has at the same position, with its largest attention weight on a {target}"
        }

    def _is_hit(self, index: int, target: Sequence[float]) -> bool:
        if self.grid is None:
            return index == int(target[0])
        rows, columns = self.grid
        row, column = divmod(index, columns)
        left, top, right, bottom = target
        across = left < (column + 1) / columns and right > column / columns
        return across and top < (row + 1) / rows and bottom > row / rows
