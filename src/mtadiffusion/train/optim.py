"""The optimiser, the learning rate as a function of the step, and the moving average of the weights.

The recipe's figures are in docs/method.md, section 5.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtadiffusion.config import CriticConfig, OptimConfig
from mtadiffusion.errors import UserError
from mtadiffusion.train.processes import own_part, split_like, whole


def build_optimizer(
    config: OptimConfig,
    branch: nn.Module,
    vgg: nn.Module | None = None,
    vgg_lr: float = 0.0,
    critic: nn.Module | None = None,
    critic_config: CriticConfig | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of the branch and, in groups of their own, of what is trainable in VGG and critic.

    A group's `rate` is the name that its learning rate is logged under.

    Raises:
        UserError: it needs a package that is not installed.
    """
    groups: list[dict[str, Any]] = [{"params": trainable(branch), "peak_lr": config.lr, "rate": "lr"}]
    if vgg is not None and trainable(vgg):
        groups.append({"params": trainable(vgg), "peak_lr": vgg_lr, "rate": "lr_vgg"})
    if critic is not None and critic_config is not None:
        own = {"peak_lr": critic_config.lr, "betas": critic_config.betas, "rate": "lr_critic"}
        groups.append({"params": trainable(critic), **own})
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.kind == "sgd":
        return torch.optim.SGD(groups, **settings)
    if config.kind == "adamw8bit":
        return _adamw_8bit()(groups, betas=config.betas, **settings)
    return torch.optim.AdamW(groups, betas=config.betas, fused=True, **settings)


def _adamw_8bit() -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "pip install bitsandbytes, or set optim.kind=adamw"
        raise UserError("optim.kind", "needs the package bitsandbytes", "adamw8bit", remedy)
    return importlib.import_module("bitsandbytes").optim.AdamW8bit


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
        finite = bool(torch.isfinite(whole(norm))) and finite
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
        current = [own_part(value.detach()) for _, value in module.named_parameters()]
        torch._foreach_lerp_([own_part(value) for value in self.weights.values()], current, 1 - decay)

    def gathered(self) -> dict[str, Tensor]:
        """The averages in full, where processes hold parts of them; not copied where this one has all."""
        return {name: whole(value) for name, value in self.weights.items()}

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take saved averages."""
        for name, value in self.weights.items():
            value.copy_(split_like(weights[name], value))
