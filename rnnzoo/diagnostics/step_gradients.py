"""The gradient of a loss, taken apart by time step: the step whose loss it is, and the step that uses the weights.

An unrolled network has the same weights W at every step, W_1 = W_2 = … = W. So

    dL/dW = Σ_t ∂L/∂W_t    the sum over the uses of the weights, and
    dL/dW = Σ_t dL_t/dW    the sum over the losses of the steps, where L = Σ_t L_t.

Axes: B rows, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rnnzoo.batches import IGNORED, Batch, CaptionBatch
from rnnzoo.cells.base import Cell
from rnnzoo.diagnostics.gradient_tape import cells_by_place, recording
from rnnzoo.errors import InputError
from rnnzoo.models.base import ZooModel
from rnnzoo.models.transfer import recurrent_layers

SUM_TOLERANCE = 1e-4  # relative to the loss: what differs by more is no sum over steps


@dataclass(frozen=True)
class StepGradients:
    """The result of `step_gradients`. W are all weights of the recurrent layers.

    Args:
        loss: L, the mean loss of the batch, without dropout.
        losses: L_1 ... L_T; empty for a loss that is no sum over steps: one label a sequence, or a CRF.
        loss_norms: ‖dL_t/dW‖ for each of them.
        use_norms: layer → ‖∂L/∂W_t‖ for the weights of this layer at each step.
        norm: ‖dL/dW‖.
        largest: the largest absolute number in dL/dW.
        loss_difference: the largest absolute difference between dL/dW, from one backward pass on the model's usual
            backend, and Σ_t dL_t/dW; None without `losses`.
        use_difference: the same between dL/dW and Σ_t ∂L/∂W_t.
    """

    loss: float
    losses: list[float]
    loss_norms: list[float]
    use_norms: dict[str, list[float]]
    norm: float
    largest: float
    loss_difference: float | None
    use_difference: float

    def sentences(self) -> list[str]:
        """Return what the numbers say."""
        found = []
        if self.loss_difference is not None:
            count = len(self.losses)
            found.append(
                f"The loss {self.loss:.4f} is the sum of the losses of {count} steps, and its gradient the sum of "
                f"their gradients: the largest difference is {self.loss_difference:.1e}, the largest number in the "
                f"gradient {self.largest:.1e}."
            )
        else:
            found.append(f"The loss {self.loss:.4f} is no sum over steps: it looks at whole sequences.")
        for layer, norms in self.use_norms.items():
            found.append(
                f"{layer}: the same weights are used at {len(norms)} steps, most strongly felt at step "
                f"{1 + max(range(len(norms)), key=norms.__getitem__)}."
            )
        found.append(
            "The sum of the gradients through these uses is the gradient of backpropagation: the largest difference is "
            f"{self.use_difference:.1e}."
        )
        return found


def step_gradients(model: ZooModel, batch: Batch) -> StepGradients:
    """Take the gradient of a batch's loss apart by step, without dropout.

    Args:
        model: any model with recurrent layers.
        batch: a batch with targets, on the model's device.

    Raises:
        InputError: if the model has no recurrent layers.
    """
    if not recurrent_layers(model):
        raise InputError("model", expected="one with recurrent layers", got=f"a {type(model).__name__}")
    cells = cells_by_place(model)
    weights = [parameter for cell in cells.values() for parameter in cell.parameters()]
    was_training, required = model.training, [parameter.requires_grad for parameter in weights]
    model.eval()
    try:
        for parameter in weights:
            parameter.requires_grad_(True)  # of frozen parts too
        with torch.enable_grad():
            total, items = model.objective(model(batch), batch)
            mean, count = total / items, items.detach()
            whole = gradients(mean, weights)
            with separate_weights(model, cells) as uses:
                (model.objective(model(batch), batch).total / count).backward(inputs=weights)
            losses, loss_norms, sums = losses_by_step(model, batch, weights, mean.detach(), count)
    finally:
        model.train(was_training)
        for parameter, before in zip(weights, required, strict=True):
            parameter.requires_grad_(before)
            parameter.grad = None
    by_use = [uses.sums[id(weight)] for weight in weights]
    return StepGradients(
        loss=mean.item(),
        losses=losses,
        loss_norms=loss_norms,
        use_norms={layer: uses.norms(cell) for layer, cell in cells.items()},
        norm=sum(float(part.square().sum()) for part in whole) ** 0.5,
        largest=max(float(part.abs().max()) for part in whole),
        loss_difference=largest_difference(whole, sums) if losses else None,
        use_difference=largest_difference(whole, by_use),
    )


def gradients(value: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of a number with respect to weights in float64, zeros where it does not depend on them."""
    found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(weight, dtype=torch.float64) if part is None else part.double()
        for part, weight in zip(found, weights, strict=True)
    ]


def largest_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the largest absolute difference."""
    return max(float((one - two).abs().max()) for one, two in zip(first, second, strict=True))


def losses_by_step(
    model: ZooModel, batch: Batch, weights: Sequence[Tensor], loss: Tensor, items: Tensor
) -> tuple[list[float], list[float], list[Tensor]]:
    """Return L_t, ‖dL_t/dW‖ and Σ_t dL_t/dW; nothing where the loss is no sum over the steps of the targets."""
    field = "captions" if isinstance(batch, CaptionBatch) else "targets"
    targets, lengths = getattr(batch, field), getattr(batch, "lengths", None)
    if (
        targets is None or targets.dim() < 2 or lengths is None or targets.shape[1] != int(lengths.max())
    ):  # a label a sequence
        return [], [], []
    rest: Any = batch
    losses, norms = [], []
    sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    with recording(model):
        outputs = model(batch)
    for step in range(targets.shape[1]):
        own = rest._replace(**{field: only_step(targets, step)})
        total, count = model.objective(outputs, own)
        part = total / items
        losses.append(part.item())
        if float(count) == 0:
            norms.append(0.0)
            continue
        found = gradients(part, weights)
        norms.append(sum(float(each.square().sum()) for each in found) ** 0.5)
        sums = [before + each for before, each in zip(sums, found, strict=True)]
    if abs(sum(losses) - float(loss)) > SUM_TOLERANCE * max(1.0, abs(float(loss))):
        return [], [], []
    return losses, norms, sums


def only_step(targets: Tensor, step: int) -> Tensor:
    """Return targets [B, T, ...] of which all but one step are left out."""
    other = torch.arange(targets.shape[1], device=targets.device) != step
    other = other.reshape(1, -1, *[1] * (targets.dim() - 2))
    return targets.masked_fill(other, float("nan") if targets.is_floating_point() else IGNORED)


class Uses:
    """The gradients through each use of the weights, as a backward pass comes by.

    Args:
        cells: the cells whose weights are watched.
    """

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        parameters = [parameter for cell in cells.values() for parameter in cell.parameters()]
        self.sums = {id(each): torch.zeros_like(each, dtype=torch.float64) for each in parameters}
        self.parts: dict[int, dict[int, Tensor]] = {
            id(cell): {} for cell in cells.values()
        }  # cell → step → square norm
        self.copies: dict[tuple[int, int], dict[str, Tensor]] = {}

    def copy(self, cell: Cell, step: int) -> dict[str, Tensor]:
        """Return the weights that a cell uses at a step: the same numbers, whose gradient is taken by itself."""
        if (id(cell), step) not in self.copies:
            self.copies[id(cell), step] = {
                name: self.watched(cell, step, parameter) for name, parameter in cell.named_parameters()
            }
        return self.copies[id(cell), step]

    def watched(self, cell: Cell, step: int, parameter: Tensor) -> Tensor:
        """Return a view of a parameter that adds its gradient to the sums."""
        view = parameter.view_as(parameter)

        def keep(gradient: Tensor) -> None:
            exact = gradient.detach().double()
            self.sums[id(parameter)] += exact
            before = self.parts[id(cell)].get(step, torch.zeros((), dtype=torch.float64))
            self.parts[id(cell)][step] = before + exact.square().sum().cpu()

        view.register_hook(keep)
        return view

    def norms(self, cell: Cell) -> list[float]:
        """Return the norm of the gradient through each step's use of a cell's weights."""
        parts = self.parts[id(cell)]
        return [float(parts.get(step, torch.zeros(()))) ** 0.5 for step in range(max(parts, default=-1) + 1)]


class Applied(nn.Module):
    """A function of a cell as a module, so that `functional_call` can run it with other weights."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, function: Any, *arguments: Any) -> Any:
        """Call the function."""
        return function(*arguments)


@contextmanager
def separate_weights(model: ZooModel, cells: Mapping[str, Cell]) -> Iterator[Uses]:
    """Run the recurrent layers of a model on the ``reference`` backend with weights of its own at each step."""
    uses = Uses(cells)
    with ExitStack() as undo:
        for layers in recurrent_layers(model).values():
            undo.callback(setattr, layers, "backend", layers.backend)
            layers.backend = "reference"
        for cell in cells.values():
            project, step = separated(cell, uses)
            for name, function in (("project", project), ("step", step)):
                setattr(cell, name, function)
                undo.callback(delattr, cell, name)
        yield uses


def separated(cell: Cell, uses: Uses) -> tuple[Any, Any]:
    """Return `project` and `step` of a cell that take the weights of the step that they are called for."""
    original_project, original_step = cell.project, cell.step
    applied, current = Applied(cell), [0]

    def call(step: int, function: Any, *arguments: Any) -> Any:
        names = {f"cell.{name}": value for name, value in uses.copy(cell, step).items()}
        return functional_call(applied, names, (function, *arguments))

    def project(inputs: Tensor) -> Tensor:
        if inputs.dim() == 2:  # [B, I]: of a model that goes step by step
            return call(current[0], original_project, inputs)
        current[0] = 0  # [B, T, I]: a sequence begins
        parts = [call(step, original_project, each) for step, each in enumerate(inputs.unbind(1))]
        return torch.stack(parts, dim=1)

    def step(projected: Tensor, state: Any) -> Any:
        current[0] += 1
        return call(current[0] - 1, original_step, projected, state)

    return project, step
