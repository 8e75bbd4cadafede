"""Muon for matrices, NAdam with weight decay for all other weights.

Muon (Jordan et al. 2024) replaces the momentum of a matrix by the nearest matrix whose singular
values are all about one. timm's Muon finds it in bfloat16; here the iteration runs in float32,
which takes no longer on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from timm.optim.nadamw import nadamw
from torch import Tensor, nn

_ITERATION = [  # coefficients of five steps (K. Jordan, modded-nanogpt)
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
_MOMENTUM = 0.95
_BETAS = (0.9, 0.95)


class Muon(torch.optim.Optimizer):
    """Updates groups with `matrices=True` by Muon, others by NAdam at half the learning rate."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "matrices": False})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """Update the weights once."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["matrices"]:
                for weight in weights:
                    self._update_matrix(weight, group["lr"], group["weight_decay"])
            elif weights:
                self._update_other_weights(weights, group["lr"], group["weight_decay"])

    def _update_matrix(self, weight: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        weight.mul_(1 - lr * weight_decay)

        momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
        matrix = weight.grad.lerp(momentum, _MOMENTUM).flatten(1)
        update = zeropower_via_newtonschulz(
            matrix,
            len(_ITERATION),
            _ITERATION,
            dtype=torch.float32,
        )
        weight.add_(update.reshape(weight.shape), alpha=-lr * 0.2 * max(update.shape) ** 0.5)

    def _update_other_weights(self, weights: list[Tensor], lr: float, weight_decay: float) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight].update(
                    step=torch.tensor(0.0),
                    mean=torch.zeros_like(weight),
                    square=torch.zeros_like(weight),
                )
        states = [self.state[weight] for weight in weights]
        nadamw(
            weights,
            [weight.grad for weight in weights],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [state["step"] for state in states],
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=lr / 2,
            weight_decay=weight_decay,
            eps=1e-7,
            caution=False,
            maximize=False,
            max_lr=None,
        )


def muon_of(
    model: nn.Module,
    is_matrix: Callable[[str, Tensor], bool],
    learning_rate: float,
    weight_decay: float,
) -> Muon:
    """The optimiser of all weights of a model that learn."""
    matrices: list[Tensor] = []
    other_weights: list[Tensor] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (matrices if is_matrix(name, weight) else other_weights).append(weight)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "matrices": True, "weight_decay": weight_decay},
        {"params": other_weights},
    ]
    return Muon(groups, learning_rate)
