"""Hard attention: one place is looked at, drawn from the weights.

Axes: C captions, T tokens, N rows, L places.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnzoo.errors import InputError, check_share, unknown_name

ESTIMATORS = ("reinforce", "gumbel")
CREDITS = ("sentence", "rest")
EVALUATIONS = ("argmax", "expected")


@dataclass(frozen=True)
class HardOptions:
    """How hard attention learns, and what it does when it is not learning; see `HardChoice`.

    Args:
        estimator: ``reinforce`` or ``gumbel``.
        credit: ``sentence`` or ``rest``, of ``reinforce``.
        reward_weight: λ_r, of ``reinforce``.
        entropy_weight: λ_e.
        expected_share: share of the captions in training that take weighted means.
        temperature: of ``gumbel``.
        evaluation: ``argmax`` or ``expected``.

    Raises:
        InputError: for an unknown name or a value out of range.
    """

    estimator: str = "reinforce"
    credit: str = "sentence"
    reward_weight: float = 1.0
    entropy_weight: float = 0.002
    expected_share: float = 0.5
    temperature: float = 1.0
    evaluation: str = "argmax"

    def __post_init__(self) -> None:
        """Check every value."""
        for name, known in (("estimator", ESTIMATORS), ("credit", CREDITS), ("evaluation", EVALUATIONS)):
            if getattr(self, name) not in known:
                raise unknown_name(f"model.hard.{name}", getattr(self, name), known)
        check_share("model.hard.expected_share", self.expected_share)
        if self.temperature <= 0:
            raise InputError("model.hard.temperature", expected="a number above 0", got=str(self.temperature))


class HardChoice(nn.Module):
    """Draws a place from attention weights, and says how the weights learn from where that led.

    ``reinforce`` maximises the lower bound Σ_s p(s | a) log p(y | s, a) by

        Σ_t ∂log p(y_t)  +  λ_r (R - b) Σ_t ∂log α_t,s_t  +  λ_e Σ_t ∂H[α_t]

    with the baseline b ← 0.9 b + 0.1 R. ``sentence`` is the paper: R = log p(y | s, a) of the whole caption. ``rest``
    credits a place with what comes at and after its step only, R_t - b_t = Σ_{t' ≥ t} (log p(y_t') - b), where b
    follows the mean of log p over tokens: the same expectation with less variance. In training a caption takes the
    weighted mean in place of all its draws with the probability `expected_share`, and has no term with λ_r then.

    ``gumbel`` draws by the Gumbel-max trick and takes the gradient of the softmax at `temperature` for that of the
    draw (straight through; Jang, Gu & Poole 2017): neither baseline nor λ_r.

    In evaluation nothing is drawn: the place is the one with the largest weight, or (``expected``) the weighted mean.

    Args:
        options: see `HardOptions`.

    Source: Xu et al. 2015, "Show, Attend and Tell", equations (11) to (13).
    """

    baseline: Tensor  # scalar: b; 0, which no mean of log p is, before the first batch and with gumbel

    def __init__(self, options: HardOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("baseline", torch.tensor(0.0))

    def expected(self, rows: int, device: torch.device) -> Tensor:
        """Decide which of `rows` captions take the weighted mean at every step: [N] bool."""
        if self.training:
            return torch.rand(rows, device=device) < self.options.expected_share
        return torch.full((rows,), self.options.evaluation == "expected", device=device)

    def forward(self, weights: Tensor, expected: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
        """Choose places.

        Args:
            weights: α [N, L].
            expected: [N], the rows that take the weighted mean.
            places: [N], places that are given instead of drawn.

        Returns:
            What the places are weighted with [N, L], and the places [N], -1 where the weighted mean is taken.
        """
        logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()  # padding is never drawn unless all is padding
        noisy = logs
        if self.training and places is None:
            noisy = logs - torch.empty_like(logs).exponential_().log()  # Gumbel noise
        drawn = noisy.argmax(-1) if places is None else places  # [N]
        single = F.one_hot(drawn, weights.shape[-1]).to(weights.dtype) * (weights > 0)
        if self.training and self.options.estimator == "gumbel":
            soft = (noisy / self.options.temperature).softmax(-1)
            single = single + soft - soft.detach()
        rows = expected.unsqueeze(-1)
        return torch.where(rows, weights, single), torch.where(expected, -1, drawn)

    def regulariser(self, weights: Tensor, places: Tensor, logs: Tensor, valid: Tensor) -> Tensor:
        """Return what is added to the summed loss of captions, a scalar; moves the baseline in training.

        Args:
            weights: α [C, T, L], zeros on padding.
            places: [C, T], the places drawn, -1 where there are none.
            logs: log p(y_t) [C, T] of the targets, zeros on padding; constants.
            valid: [C, T], false on padding.
        """
        safe = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()  # [C, T, L]
        entropy = -(weights * safe).sum()
        if self.options.estimator == "gumbel":
            return -self.options.entropy_weight * entropy
        chosen = safe.gather(-1, places.clamp(min=0).unsqueeze(-1)).squeeze(-1)  # [C, T]
        chosen = torch.where((places >= 0) & valid, chosen, 0.0)
        advantages = self._advantages(logs.detach(), valid)
        return -self.options.reward_weight * (advantages * chosen).sum() - self.options.entropy_weight * entropy

    def _advantages(self, logs: Tensor, valid: Tensor) -> Tensor:
        """Return R − b for each step, [C, T] or [C, 1]."""
        sentence = self.options.credit == "sentence"
        mean = logs.sum(1).mean() if sentence else logs.sum() / valid.sum().clamp(min=1)
        mean = mean.to(self.baseline.dtype)
        baseline = torch.where(self.baseline == 0, mean, self.baseline)
        if self.training:
            self.baseline.copy_(0.9 * baseline + 0.1 * mean)
        if sentence:
            return logs.sum(1, keepdim=True) - baseline
        above = torch.where(valid, logs - baseline, 0.0)
        return above.flip(1).cumsum(1).flip(1)
