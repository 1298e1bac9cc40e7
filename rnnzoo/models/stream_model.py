"""Models that read a stream chunk by chunk: truncated backpropagation through time, optimised by Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from rnnzoo.batches import Batch, StreamBatch
from rnnzoo.layers import Recurrent
from rnnzoo.layers.lanes import carry, restore, resume
from rnnzoo.models.base import ZooModel
from rnnzoo.models.training import gathered
from rnnzoo.state import State, flatten

CARRIED = "carried_state"  # the key in a checkpoint


class StreamModel(ZooModel):
    """A model whose state is carried from one `StreamBatch` to the next, cut from the graph.

    Training, validation and testing carry states of their own. That of the training goes into the checkpoint. Where
    chunks are of varied length, the learning rate of a step is scaled by that length.

    `forward` is to begin with `carried` and to end with `carry_on`; outside of the steps of training and evaluation
    these do nothing.
    """

    recurrent: Recurrent

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._states: dict[str, State] = {}  # split → the state carried from batch to batch
        self._split: str | None = None  # the split whose state is carried in the running step
        self._scales: list[float] = []  # of the batches since the last optimizer step

    def carried(self, batch: StreamBatch) -> State | None:
        """Return the state that the batch before left, with new dropout masks; None where all lanes begin."""
        state = self._states.get(self._split or "")
        if state is None or bool(batch.begins.all()):
            return None
        return resume(self.recurrent, state)

    def carry_on(self, state: State) -> None:
        """Keep the state after a batch for the next."""
        if self._split is not None:
            self._states[self._split] = carry(self.recurrent, state)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Take a step from the state that the batch before left; see `ZooModel`."""
        assert isinstance(batch, StreamBatch)
        self._scales.append(float(batch.scale))
        with self._carrying("train"):
            return super().training_step(batch, batch_index)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count a validation batch; the state of the training stays as it is."""
        with self._carrying("val"):
            super().validation_step(batch, batch_index)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Count a test batch; the state of the training stays as it is."""
        with self._carrying("test"):
            super().test_step(batch, batch_index)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Scale the learning rate of this step by the length of its chunks where lengths are varied."""
        super().on_before_optimizer_step(optimizer)
        scale = sum(self._scales) / max(1, len(self._scales))
        self._scales.clear()
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * scale

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Optimizer | Any, optimizer_closure: Any = None
    ) -> None:
        """Take the step, and give the learning rate back that `on_before_optimizer_step` scaled."""
        rates = [group["lr"] for group in optimizer.param_groups]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the state that training carries in each process, as plain tensors."""
        if "train" in self._states:
            checkpoint[CARRIED] = gathered([field.cpu() for field in flatten(self._states["train"])])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the state that training carried in this process; on other numbers of processes all lanes begin."""
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self._trainer is not None else (1, 0)
        carried = checkpoint.get(CARRIED, [])
        if len(carried) == processes:
            self._states["train"] = restore(self.recurrent, carried[rank])

    @contextmanager
    def _carrying(self, split: str) -> Iterator[None]:
        self._split = split
        try:
            yield
        finally:
            self._split = None
