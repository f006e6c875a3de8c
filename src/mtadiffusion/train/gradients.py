"""The gradients of one optimiser step: its samples in parts, forward and backward, by one process or several.

What is done with them is `trainer`'s business; the objective itself is `step`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mtadiffusion.config import TrainConfig
from mtadiffusion.seeding import torch_generator
from mtadiffusion.train.batches import BatchSource
from mtadiffusion.train.optim import trainable
from mtadiffusion.train.processes import Processes
from mtadiffusion.train.step import (
    StepLosses,
    StepModels,
    active_losses,
    backward_apart,
    gradient_norm,
    loss_weights,
)


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """What a step leaves to be looked at."""

    parts: tuple[StepLosses, ...]
    """Of each forward pass, before the step."""

    norms: dict[str, float]
    """Each weighted loss's gradient norm in the last forward pass, where it was measured, and their sum's."""


@dataclass(frozen=True, kw_only=True)
class StepGradients:
    """Takes the gradients of a run's steps."""

    config: TrainConfig
    """The run's."""

    models: StepModels
    """The networks as they are, of which `objective` may be wrapped."""

    objective: Any
    """A JointObjective, wrapped if several processes share it."""

    optimizer: torch.optim.Optimizer
    """Holds the parameters whose gradients are taken."""

    scaler: torch.amp.GradScaler
    """Scales the loss."""

    processes: Processes
    """Those that share a step's samples."""

    @property
    def samples_a_step(self) -> int:
        """Samples that a step averages over, of all processes together."""
        return self.config.samples_a_step * self.processes.count

    def take(self, batches: BatchSource, step: int, *, apart: bool) -> StepDone:
        """Leave the gradients of step number `step` in `.grad`; `apart` measures each loss's by itself."""
        by_passes = apart and self.processes.wraps
        norms = self._norms_by_passes(batches, step) if by_passes else {}
        parts, last = [], self.config.accumulate - 1
        for part in range(self.config.accumulate):
            with self.processes.backward_context(self.objective, part == last):
                losses = self.forward(batches, step, part)
                parts.append(losses)
                if apart and part == last and not by_passes:
                    norms = self._backward_apart(losses)
                else:
                    self._backward(losses)
        self.scaler.unscale_(self.optimizer)
        if by_passes:
            norms["total"] = gradient_norm([one.grad for one in trainable(self.models.branch)])
        return StepDone(parts=tuple(parts), norms=norms)

    def forward(self, batches: BatchSource, step: int, part: int) -> StepLosses:
        """The losses of a part of a step's samples, which are numbered step * samples_a_step, ...

        A part is `batch_size` samples for each process in turn: which samples a step has does not depend on
        the number of processes, nor on the part that one takes at a time.
        """
        config, processes = self.config, self.processes
        place = part * processes.count + processes.index
        first = step * self.samples_a_step + place * config.batch_size
        numbers = range(first, first + config.batch_size)
        generators = [torch_generator(config.seed, "noise", number) for number in numbers]
        terms, rms = self.objective(batches.batch(numbers).to(processes.device), generators)
        weights = loss_weights(config.loss, terms)
        return StepLosses(terms=terms, weights=weights, vgg_features_rms=rms)

    def _backward(self, losses: StepLosses) -> None:
        self.scaler.scale(losses.total / self.config.accumulate).backward()

    def _backward_apart(self, losses: StepLosses) -> dict[str, float]:
        others = [network for network in (self.models.vgg, self.models.critic) if network is not None]
        trained = [parameter for network in others for parameter in trainable(network)]
        share, scale = 1 / self.config.accumulate, self._loss_scale()
        return backward_apart(losses, trainable(self.models.branch), trained, share=share, scale=scale)

    def _loss_scale(self) -> float:
        """What the scaler multiplies a loss with; it makes its mind up at the first thing that it scales."""
        return float(self.scaler.scale(torch.ones((), device=self.processes.device)))

    def _norms_by_passes(self, batches: BatchSource, step: int) -> dict[str, float]:
        """Each weighted loss's gradient norm on the branch over all processes, by a pass for each.

        Wrapped networks bring gradients together in the backward pass to `.grad` alone, so that the losses'
        gradients cannot be taken one by one from a single forward pass.
        """
        norms: dict[str, float] = {}
        for name in active_losses(self.models, self.config.loss):
            self._backward(self.forward(batches, step, self.config.accumulate - 1).alone(name))
            gradients = [parameter.grad for parameter in trainable(self.models.branch)]
            norms[name] = gradient_norm(gradients) * self.config.accumulate / self.scaler.get_scale()
            self.optimizer.zero_grad()
        return norms
