"""The last layer of everything that puts out words: logits over a vocabulary, and the loss without holding them all.

Axes: N items, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rnnzoo.errors import InputError
from rnnzoo.kernels.products.linear import WeightGrad, linear, multiply
from rnnzoo.layers.calls import as_call
from rnnzoo.numerics import wide, widen

CHUNK_NUMBERS = 2**23  # logits that are held at once: 32 MiB in float32
CHUNK_NUMBERS_ON_GPU = 2**25  # more, for each pass over them has to fill the GPU


class VocabularyHead(nn.Module):
    """Logits W P h + b over a vocabulary, where P is left out if the sizes need none.

    Args:
        input_size: H.
        vocabulary_size: V.
        tied: an embedding whose weights [V, E] are used as W ("tied weights"; Press & Wolf 2017, Inan et al. 2017).
        project: map H to the embedding's size by a linear layer P where they differ.

    Raises:
        InputError: for tied weights of another size without `project`, or of another vocabulary.
    """

    def __init__(
        self, *, input_size: int, vocabulary_size: int, tied: nn.Embedding | None = None, project: bool = True
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.projection: nn.Linear | None = None
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))
        if tied is None:
            self.weight = nn.Parameter(torch.empty(vocabulary_size, input_size))
            nn.init.uniform_(self.weight, -(input_size**-0.5), input_size**-0.5)
            return
        if tied.num_embeddings != vocabulary_size or (tied.embedding_dim != input_size and not project):
            raise InputError(
                "tied weights",
                expected=f"an embedding of {vocabulary_size} vectors of {input_size} numbers",
                got=f"{tied.num_embeddings} of {tied.embedding_dim}",
            )
        if tied.embedding_dim != input_size:
            self.projection = nn.Linear(input_size, tied.embedding_dim, bias=False)
        self.weight = cast(nn.Parameter, tied.weight)

    def forward(
        self, hidden: Tensor, *arguments: Any, method: Callable[..., Any] | None = None, **options: Any
    ) -> Tensor:
        """Return the logits of hidden [..., H] as [..., V]; or what a `method` that is called computes instead."""
        if method is not None:
            return method(self, hidden, *arguments, **options)
        return linear(self._project(hidden), self.weight, self.bias)

    def loss(self, hidden: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the summed cross-entropy in nats (scalar) of targets [N] given hidden [N, H].

        The logits are computed in chunks, their gradient at once with them, so that those of all items are never held
        at the same time. A negative target counts nothing. Cannot be differentiated twice.
        """
        return self.losses(hidden, targets, label_smoothing=label_smoothing)[0]

    @as_call
    def losses(self, hidden: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return what `loss` does, and the same without label smoothing, which has no gradient."""
        known = targets >= 0
        inputs, targets = self._project(hidden[known]), targets[known]
        wanted = torch.is_grad_enabled()  # inside the function it is always off
        return ChunkedCrossEntropy.apply(inputs, self.weight, self.bias, targets, label_smoothing, wanted)

    @as_call
    def log_likelihoods(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p(target) in nats of targets [...] given hidden [..., H]; 0 for a negative target.

        Chunked like `loss` where no gradient is needed.
        """
        inputs, wanted = self._project(hidden).flatten(0, -2), targets.reshape(-1)
        parts = []
        rows = chunk_rows(inputs, self.vocabulary_size)
        for chunk, target in zip(*(each.split(rows) for each in (inputs, wanted)), strict=True):
            logits = widen(linear(chunk, self.weight, self.bias))  # [n, V]
            found = logits.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
            parts.append(torch.where(target >= 0, found, 0.0))
        return (torch.cat(parts) if parts else widen(hidden.new_zeros(0))).reshape(targets.shape)

    def _project(self, hidden: Tensor) -> Tensor:
        return hidden if self.projection is None else self.projection(hidden)


def chunk_rows(like: Tensor, vocabulary_size: int) -> int:
    """Return how many items are in a chunk."""
    return max(1, (CHUNK_NUMBERS_ON_GPU if like.is_cuda else CHUNK_NUMBERS) // vocabulary_size)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of a linear layer, with the gradient computed in the forward pass, chunk by chunk.

    The matrix products run in the autocast type if autocast is on; the softmax in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        """Return Σ loss of inputs [N, E], weight [V, E], bias [V], targets [N], with gradients if they are wanted.

        The second number is the sum without smoothing.
        """
        device = inputs.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        size = weight.shape[0]
        need_inputs, need_weight, need_bias = (wanted and needed for needed in ctx.needs_input_grad[:3])
        with torch.autocast(device, enabled=False):
            low = weight.to(dtype)
            plain = widen(torch.zeros((), dtype=weight.dtype, device=inputs.device))
            spread = torch.zeros_like(plain)  # what smoothing adds
            inputs_grad = torch.empty_like(inputs) if need_inputs else None
            weight_grad = WeightGrad(weight, dtype=dtype) if need_weight else None  # sums over chunks
            bias_grad = torch.zeros_like(bias, dtype=wide(bias.dtype)) if need_bias else None
            rows = chunk_rows(inputs, size)
            for start in range(0, len(inputs), rows):
                chunk, target = inputs[start : start + rows].to(dtype), targets[start : start + rows]
                if dtype == bias.dtype:
                    logits = widen(multiply(chunk, low, bias))  # [n, V]
                else:
                    logits = widen(multiply(chunk, low)).add_(bias)
                logits = torch.log_softmax(logits, 1)
                found = logits.gather(1, target.unsqueeze(1))
                plain -= found.sum()
                if smoothing > 0:
                    spread += smoothing * (found - logits.mean(1, keepdim=True)).sum()
                if not (need_inputs or need_weight or need_bias):
                    continue
                grad = logits.exp_()  # softmax − target distribution, in place: a pass over V costs as a product does
                if smoothing > 0:
                    grad.sub_(smoothing / size)
                grad.scatter_add_(1, target.unsqueeze(1), torch.full_like(found, smoothing - 1))
                if bias_grad is not None:
                    bias_grad += grad.sum(0)
                grad = grad.to(dtype)
                if inputs_grad is not None:
                    inputs_grad[start : start + rows] = multiply(grad, low.t())
                if weight_grad is not None:
                    weight_grad.add(grad, chunk)
        narrow = ((None if weight_grad is None else weight_grad.total(), weight), (bias_grad, bias))
        ctx.save_for_backward(inputs_grad, *(None if each is None else each.to(like.dtype) for each, like in narrow))
        ctx.mark_non_differentiable(plain)
        return plain + spread, plain

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Any) -> Any:
        """Scale what the forward pass found.

        Raises:
            RuntimeError: with `create_graph`, for a second derivative would silently lack this part.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("the chunked loss cannot be differentiated twice: do not use create_graph=True")
        grads = [None if each is None else each * grad_output.to(each.dtype) for each in ctx.saved_tensors]
        return (*grads, None, None, None)
