"""The plain network without recurrence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rnnzoo.errors import InputError, check_share, unknown_name

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class FeedForward(nn.Module):
    """Linear layers with an activation and dropout between them.

    Args:
        input_size: I.
        hidden_sizes: units of each hidden layer; none makes the network linear.
        output_size: O.
        dropout: dropout after each hidden layer.
        activation: ``relu``, ``tanh`` or ``gelu``.

    Raises:
        InputError: for a size below 1, an unknown activation, or a dropout that is no share.

    >>> sum(p.numel() for p in FeedForward(input_size=2, hidden_sizes=[3], output_size=1).parameters())
    13
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_sizes: Sequence[int],
        output_size: int,
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        for name, size in (("input_size", input_size), ("output_size", output_size)):
            if size < 1:
                raise InputError(name, expected="at least 1", got=str(size))
        check_share("dropout", dropout)
        if any(size < 1 for size in hidden_sizes):
            raise InputError("hidden_sizes", expected="sizes of at least 1", got=str(list(hidden_sizes)))
        layers: list[nn.Module] = []
        size = input_size
        for hidden_size in hidden_sizes:
            layers += [nn.Linear(size, hidden_size), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            size = hidden_size
        self.layers = nn.Sequential(*layers, nn.Linear(size, output_size))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [..., I] to outputs [..., O]."""
        return self.layers(inputs)
