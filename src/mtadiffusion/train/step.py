"""One training step of the branch: the forward pass, the joint objective, and its gradients loss by loss.

L = gamma L_noise + delta L_style + eta L_structure (docs/method.md, section 5). What a step is repeated for,
logged with or saved to is `trainer`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtadiffusion.config import LossConfig
from mtadiffusion.models.conditioning import branch_input
from mtadiffusion.train.losses import (
    noise_loss,
    previous_latents,
    reference_latents,
    structure_loss,
    style_loss,
)
from mtadiffusion.train.noise_schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """Encoded samples: all that a step reads."""

    latents: Tensor
    """z_0, float (B, C, h, w)."""

    masked_latents: Tensor
    """z_m, float (B, C, h, w)."""

    known: Tensor
    """float (B, 1, h, w), 1 = known."""

    edge: Tensor
    """s~, float (B, 1, h, w)."""

    text: Tensor
    """Text encoder states, float (B, L, D)."""

    def to(self, device: torch.device | str) -> LatentBatch:
        """The batch on `device`."""
        return LatentBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class StepModels:
    """The networks of a step."""

    branch: Any
    """InpaintBranch, the one that is trained."""

    unet: Any
    """The frozen stock UNet."""

    injection: Any
    """BranchInjection attached to `unet`."""

    schedule: NoiseSchedule
    """Noise levels and the kind of prediction."""

    vgg: nn.Module | None = None
    """LatentVGG of the style loss; None leaves that loss out."""

    autocast: bool = False
    """Run branch and UNet in bfloat16; losses and weights stay float32."""


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Losses of one step; `terms` are unweighted scalars by name, `weights` their factors."""

    terms: dict[str, Tensor]
    """noise, and style and structure where they are switched on."""

    weights: dict[str, float]
    """gamma, delta, eta by the same names."""

    vgg_features_rms: Tensor | None = None
    """Root mean square of the VGG's reference features."""

    def weighted(self) -> dict[str, Tensor]:
        """Each term times its weight."""
        return {name: self.weights[name] * term for name, term in self.terms.items()}

    @property
    def total(self) -> Tensor:
        """L, the sum of the weighted terms."""
        return torch.stack(list(self.weighted().values())).sum()


def draw_noise(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Noise (B, C, h, w), each sample from its own CPU generator."""
    noise = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(noise).to(like)


def offset_noise(noise: Tensor, strength: float, generators: Sequence[torch.Generator]) -> Tensor:
    """`noise` (B, C, h, w) plus `strength` times one value a sample and channel; 0: `noise` itself."""
    if strength == 0:
        return noise
    values = [torch.randn(noise.shape[1], 1, 1, generator=generator) for generator in generators]
    return noise + strength * torch.stack(values).to(noise)


def draw_timesteps(levels: int, generators: Sequence[torch.Generator], device: torch.device | str) -> Tensor:
    """Timesteps (B,) in [0, levels), each sample from its own CPU generator."""
    timesteps = [torch.randint(levels, (), generator=generator) for generator in generators]
    return torch.stack(timesteps).to(device)


def training_step(
    models: StepModels, batch: LatentBatch, config: LossConfig, generators: Sequence[torch.Generator]
) -> StepLosses:
    """The joint objective on one batch (docs/method.md, sections 1-5)."""
    noise = draw_noise(batch.latents, generators)
    timesteps = draw_timesteps(len(models.schedule), generators, noise.device)
    noise = offset_noise(noise, config.noise_offset, generators)
    noisy = models.schedule.add_noise(batch.latents, noise, timesteps)
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=models.autocast):
        outcome = models.branch(branch_input(noisy, batch.masked_latents, batch.known), timesteps)
        with models.injection.features(outcome.features):
            prediction = models.unet(noisy, timesteps, encoder_hidden_states=batch.text).sample.float()

    hole = 1 - batch.known
    target = models.schedule.target(batch.latents, noise, timesteps)
    counts = models.schedule.min_snr_weights(timesteps, config.min_snr) if config.min_snr else None
    terms, features_rms = {"noise": noise_loss(prediction, target, counts)}, None
    if models.vgg is not None and config.delta > 0:
        step = config.style_step
        previous = previous_latents(models.schedule, noisy, prediction, timesteps, step)
        other = noise if config.style_noise == "same" else draw_noise(noise, generators)
        reference = reference_latents(models.schedule, batch.latents, other, timesteps, step)
        region = hole if config.style_region == "hole" else None
        terms["style"], features_rms = style_loss(
            models.vgg, previous, reference, region, config.gram_normalisation
        )
    if config.eta > 0:
        region = hole if config.edge_region == "hole" else None
        terms["structure"] = structure_loss(outcome.edge, batch.edge, config.edge_reduction, region)
    weights = {"noise": config.gamma, "style": config.delta, "structure": config.eta}
    return StepLosses(
        terms=terms, weights={name: weights[name] for name in terms}, vgg_features_rms=features_rms
    )


def backward_apart(
    losses: StepLosses,
    branch_parameters: Sequence[Tensor],
    other_parameters: Sequence[Tensor] = (),
    *,
    share: float = 1.0,
) -> dict[str, float]:
    """Backward of the total, one loss at a time.

    Adds `share` of the gradients' sum to `.grad` of all parameters. Returns each weighted loss's gradient
    norm on the branch by name, and under `total` the norm of what is in `.grad` then.
    """
    parameters = [*branch_parameters, *other_parameters]
    norms = {}
    for name, loss in losses.weighted().items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms[name] = _norm(gradients[: len(branch_parameters)])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                part = share * gradient
                parameter.grad = part if parameter.grad is None else parameter.grad + part
    norms["total"] = _norm([parameter.grad for parameter in branch_parameters])
    return norms


def _norm(gradients: Sequence[Tensor | None]) -> float:
    present = [gradient for gradient in gradients if gradient is not None]
    return float(nn.utils.get_total_norm(present)) if present else 0.0
