"""What laws are tried on: layers of a cell, what they are run on, and all that a run gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnzoo.layers.recurrent import Recurrent, States
from rnnzoo.state import flatten, map_state

ROWS, STEPS = 4, 4  # B, T
LENGTHS: dict[str, list[int] | None] = {
    "no lengths": None,
    "lengths 4 4 4 4": [4, 4, 4, 4],
    "lengths 0 1 4 3": [0, 1, 4, 3],
    "lengths 2 0 1 3": [2, 0, 1, 3],
    "lengths 0 0 0 0": [0, 0, 0, 0],
}
TOLERANCES = {torch.float32: (1e-4, 2e-5), torch.float64: (1e-9, 1e-11)}  # relative, absolute


class DifferenceError(Exception):
    """What is not as a law has it."""


class Result(NamedTuple):
    """All that a run gives, forward and backward."""

    outputs: Tensor
    final: States
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Subject:
    """A cell that is looked at, run by one backend.

    Args:
        cell: its name.
        backend: the name of the backend.
        input_size: I.
        hidden_size: H.
        options: further arguments of the cell.
    """

    cell: str
    backend: str
    input_size: int
    hidden_size: int
    options: Mapping[str, Any]

    def layers(
        self,
        *,
        backend: str | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> Recurrent:
        """Build layers; those that are built alike have the same weights.

        Each number is moved a little from where the cell begins, so that a bias of zero hides nothing.
        """
        torch.manual_seed(seed)
        made = Recurrent(
            cell=self.cell,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            backend=backend or self.backend,
            cell_options=self.options,
        )
        with torch.no_grad():
            for weight in made.parameters():
                weight.copy_(torch.where(weight == 0, 0.2 * torch.randn_like(weight), weight * noise(weight)))
        return made.to(dtype)

    def trial(
        self,
        lengths: list[int] | None = None,
        *,
        backend: str | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> Trial:
        """Build layers with random inputs and a state that they can get into."""
        layer = self.layers(backend=backend, num_layers=num_layers, bidirectional=bidirectional, dtype=dtype)
        before = self.layers(backend="reference", num_layers=num_layers, bidirectional=bidirectional)
        generator = torch.Generator().manual_seed(1)
        first, inputs = (draw(generator, ROWS, STEPS, self.input_size) for _ in range(2))
        with torch.no_grad():
            _, state = before(first)
            template = layer.initial_state(ROWS)
        state = map_state(lambda field, like: field.detach().to(like.dtype).requires_grad_(), state, template)
        rows = None if lengths is None else torch.tensor(lengths)
        return Trial(layer, inputs.to(dtype).requires_grad_(), rows, state)


@dataclass(frozen=True)
class Trial:
    """Layers and what they are run on; inputs and state are leaves that want gradients."""

    layer: Recurrent
    inputs: Tensor  # [B, T, I]
    lengths: Tensor | None  # [B]
    state: States

    @property
    def rows(self) -> Tensor:
        """The valid steps of each row [B]."""
        return torch.full((ROWS,), STEPS) if self.lengths is None else self.lengths

    def run(self) -> tuple[Tensor, States]:
        """Run the layers."""
        return self.layer(self.inputs, self.lengths, self.state)

    @cached_property
    def result(self) -> Result:
        """What a run gives, with all gradients."""
        return self.differentiate(*self.run())

    def differentiate(self, outputs: Tensor, final: States) -> Result:
        """Take the gradients of a loss in which every output and every number of the final state has its own weight."""
        generator = torch.Generator().manual_seed(2)
        values = [value for value in (outputs, *flatten(final)) if value.requires_grad]
        loss = sum((draw(generator, *value.shape).to(value.dtype) * value).sum() for value in values)
        leaves = {"inputs": self.inputs, **dict(self.layer.named_parameters())}
        leaves |= {f"the first state's {name}": field for name, field in named(self.state).items()}
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)  # type: ignore[arg-type]
        gradients = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        return Result(outputs.detach(), map_state(torch.detach, final), gradients)


def noise(like: Tensor) -> Tensor:
    """Return factors around 1."""
    return 1 + 0.2 * (torch.rand_like(like) - 0.5)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Draw normal numbers in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def named(states: States) -> dict[str, Tensor]:
    """Name the fields of the states of a stack."""
    return {f"{name} ({place})": field for place, state in enumerate(states) for name, field in state._asdict().items()}


def same(name: str, got: Tensor, expected: Tensor, tolerance: tuple[float, float] | None = None) -> None:
    """Compare two tensors.

    Raises:
        DifferenceError: naming the worst place.
    """
    if got.shape != expected.shape:
        raise DifferenceError(f"{name} of shape {list(expected.shape)}, got {list(got.shape)}")
    if got.dtype != expected.dtype:
        raise DifferenceError(f"{name} in {expected.dtype}, got {got.dtype}")
    relative, absolute = TOLERANCES[expected.dtype] if tolerance is None else tolerance
    if torch.allclose(got, expected, rtol=relative, atol=absolute):
        return
    apart = torch.where(got == expected, 0.0, (got - expected).abs()).nan_to_num(torch.inf, torch.inf)
    worst = tuple(int(place) for place in torch.unravel_index(apart.argmax(), apart.shape))
    raise DifferenceError(
        f"{name} {expected[worst].item():.6g} at {list(worst)}, got {got[worst].item():.6g} "
        f"({int((apart > 0).sum())} of {apart.numel()} numbers differ)"
    )


def same_states(name: str, got: States, expected: States, tolerance: tuple[float, float] | None = None) -> None:
    """Compare the states of two stacks; see `same`."""
    for (field, left), right in zip(named(got).items(), named(expected).values(), strict=True):
        same(f"{name} {field}", left, right, tolerance)


def same_results(got: Result, expected: Result, tolerance: tuple[float, float] | None = None) -> None:
    """Compare all that two runs give; see `same`."""
    same("outputs", got.outputs, expected.outputs, tolerance)
    same_states("final", got.final, expected.final, tolerance)
    for name, gradient in expected.gradients.items():
        same(f"gradient of {name}", got.gradients[name], gradient, tolerance)
