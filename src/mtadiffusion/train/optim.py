"""The optimiser, the learning rate as a function of the step, and the moving average of the weights.

The recipe's figures are in docs/method.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mtadiffusion.config import OptimConfig


def build_optimizer(
    config: OptimConfig, branch: nn.Module, vgg: nn.Module | None = None, vgg_lr: float = 0.0
) -> torch.optim.AdamW:
    """AdamW over the branch and, in a group of its own, what is trainable in the style VGG."""
    groups = [{"params": trainable(branch), "peak_lr": config.lr}]
    if vgg is not None and trainable(vgg):
        groups.append({"params": trainable(vgg), "peak_lr": vgg_lr})
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that take gradients, in the module's order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def lr_factor(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of step `step` (from 0) of `steps`, as a share of the peak rate."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "cosine":
        share = (step - config.warmup) / max(1, steps - config.warmup)
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    decay_steps = round(steps * config.decay_share)
    left = (steps - step) / decay_steps if decay_steps else 1.0
    return config.final + (1 - config.final) * min(1.0, max(0.0, left))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate is its peak times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def clip_gradients(groups: Iterable[Sequence[nn.Parameter]], limit: float) -> bool:
    """Clip each network's gradient by its own norm, so that one network cannot quieten another.

    Returns:
        Whether all gradients are finite.
    """
    finite = True
    for parameters in groups:
        norm = nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
        finite = finite and bool(torch.isfinite(norm))
        if limit > 0:
            nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return finite


class MovingAverage:
    """Exponential moving average of a module's parameters; early on it forgets quicker."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights after step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [value.detach() for _, value in module.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averages into a module of the same layout."""
        for name, value in module.named_parameters():
            value.copy_(self.weights[name])

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take saved averages."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
