"""One training step of the branch: the forward pass, the joint objective, and its gradients loss by loss.

L = gamma L_noise + delta L_style + eta L_structure (docs/method.md, section 5), a perceptual and an
adversarial loss. What a step is repeated for, logged with or saved to is `trainer`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mtadiffusion.config import LossConfig
from mtadiffusion.models.conditioning import branch_input
from mtadiffusion.train.losses import (
    adversarial_losses,
    noise_loss,
    perceptual_loss,
    previous_latents,
    reference_latents,
    structure_loss,
    style_loss,
)
from mtadiffusion.train.noise_schedule import NoiseSchedule
from mtadiffusion.train.processes import whole


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

    pooled_text: Tensor | None = None
    """SDXL's pooled text, float (B, P); None for other backbones."""

    sizes: Tensor | None = None
    """(B, 6): original size, crop's corner, target size; needed with `pooled_text`."""

    @property
    def added_cond_kwargs(self) -> dict[str, Tensor] | None:
        """SDXL's added conditions as diffusers' UNet takes them; None for other backbones."""
        if self.pooled_text is None or self.sizes is None:
            return None
        return {"text_embeds": self.pooled_text, "time_ids": self.sizes.to(self.pooled_text.dtype)}

    def to(self, device: torch.device | str) -> LatentBatch:
        """The batch on `device`."""
        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return LatentBatch(**{name: tensor.to(device) for name, tensor in tensors.items()})


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

    critic: nn.Module | None = None
    """LatentCritic of the adversarial loss; None leaves that loss out."""

    critic_noise: float = 0.0
    """Standard deviation, at most, of noise on what the critic sees."""

    autocast: bool = False
    """Run branch and UNet in `autocast_dtype`; losses and trained weights stay float32."""

    autocast_dtype: torch.dtype = torch.bfloat16
    """bfloat16 or float16."""


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Losses of one step; `terms` are unweighted scalars by name, `weights` their factors."""

    terms: dict[str, Tensor]
    """noise, and the others where they are switched on; `critic` is the critic's own."""

    weights: dict[str, float]
    """gamma, delta, eta by the same names."""

    vgg_features_rms: Tensor | None = None
    """Root mean square of the VGG's reference features."""

    def weighted(self) -> dict[str, Tensor]:
        """Each term times its weight."""
        return {name: self.weights[name] * term for name, term in self.terms.items()}

    @property
    def total(self) -> Tensor:
        """L, the sum of the weighted terms, and the critic's own loss where there is one."""
        return torch.stack(list(self.weighted().values())).sum()

    def alone(self, name: str) -> StepLosses:
        """The same with the weights of all but one loss at 0."""
        return replace(self, weights={one: self.weights[one] if one == name else 0.0 for one in self.terms})


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


def blurring_noise(like: Tensor, most: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Noise (B, C, h, w) of a standard deviation that is drawn for each sample, `most` at most."""
    strengths = torch.stack([most * torch.rand(1, 1, 1, generator=generator) for generator in generators])
    return strengths.to(like) * draw_noise(like, generators)


def draw_timesteps(
    levels: int, generators: Sequence[torch.Generator], device: torch.device | str, power: float = 1.0
) -> Tensor:
    """Timesteps (B,) in [0, levels), each sample from its own CPU generator.

    They are a uniform number to `power`: at 1 all are equally likely, below it late ones are likelier.
    """
    drawn = [torch.randint(levels, (), generator=generator) for generator in generators]
    timesteps = torch.stack(drawn)
    if power != 1:
        timesteps = (levels * (timesteps / levels) ** power).long()
    return timesteps.to(device)


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Noised latents and what branch and backbone make of them."""

    noise: Tensor
    """What was added, (B, C, h, w)."""

    noisy: Tensor
    """z_t, (B, C, h, w)."""

    timesteps: Tensor
    """(B,)"""

    prediction: Tensor
    """The backbone's, of noise or velocity, (B, C, h, w)."""

    edge: Any
    """The branch's edges, (B, 1, h, w); None without an edge head."""


def training_step(
    models: StepModels,
    batch: LatentBatch,
    config: LossConfig,
    generators: Sequence[torch.Generator],
    timesteps: Tensor | None = None,
) -> StepLosses:
    """The joint objective on one batch (docs/method.md, sections 1-5).

    `timesteps` (B,) are drawn from the generators too where they are not given.
    """
    done = denoise(models, batch, config, generators, timesteps)
    hole = 1 - batch.known
    terms, features_rms = {"noise": _noise_term(models, batch, config, done)}, None
    if models.vgg is not None and config.delta > 0:
        both = _style_latents(models, batch, config, done, generators)
        region = hole if config.style_region == "hole" else None
        terms["style"], features_rms = style_loss(models.vgg, *both, region, config.gram_normalisation)
    clean, _ = models.schedule.split_prediction(done.noisy, done.prediction, done.timesteps)
    if models.vgg is not None and config.perceptual > 0:
        terms["perceptual"] = perceptual_loss(models.vgg, clean, batch.latents, hole)
    if models.critic is not None and models.vgg is not None and config.adversarial > 0:
        blur = blurring_noise(batch.latents, models.critic_noise, generators)
        seen = hole * clean + (1 - hole) * batch.latents + blur, batch.latents + blur
        terms["adversarial"], terms["critic"] = adversarial_losses(
            models.critic, models.vgg, *seen, hole, batch.text
        )
    if config.eta > 0:
        region = hole if config.edge_region == "hole" else None
        terms["structure"] = structure_loss(done.edge, batch.edge, config.edge_reduction, region)
    return StepLosses(terms=terms, weights=loss_weights(config, terms), vgg_features_rms=features_rms)


def denoise(
    models: StepModels,
    batch: LatentBatch,
    config: LossConfig,
    generators: Sequence[torch.Generator],
    timesteps: Tensor | None = None,
) -> Denoising:
    """Noise a batch's latents, to drawn timesteps or to `timesteps` (B,), and predict from them."""
    noise = draw_noise(batch.latents, generators)
    if timesteps is None:
        timesteps = draw_timesteps(len(models.schedule), generators, noise.device, config.timestep_power)
    noise = offset_noise(noise, config.noise_offset, generators)
    noisy = models.schedule.add_noise(batch.latents, noise, timesteps)
    with autocast(models, noisy.device):
        seen, added = branch_input(noisy, batch.masked_latents, batch.known), batch.added_cond_kwargs
        outcome = models.branch(seen, timesteps, added_cond_kwargs=added)
        with models.injection.features(outcome.features):
            prediction = models.unet(
                noisy, timesteps, encoder_hidden_states=batch.text, added_cond_kwargs=added
            ).sample.float()
    return Denoising(noise=noise, noisy=noisy, timesteps=timesteps, prediction=prediction, edge=outcome.edge)


def _noise_term(models: StepModels, batch: LatentBatch, config: LossConfig, done: Denoising) -> Tensor:
    target = models.schedule.target(batch.latents, done.noise, done.timesteps)
    counts = models.schedule.min_snr_weights(done.timesteps, config.min_snr) if config.min_snr else None
    emphasis = 1 + (config.hole_weight - 1) * (1 - batch.known) if config.hole_weight != 1 else None
    return noise_loss(done.prediction, target, counts, emphasis)


def _style_latents(
    models: StepModels,
    batch: LatentBatch,
    config: LossConfig,
    done: Denoising,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """X_{t-1} and X~_{t-1}, whose styles are compared, (B, C, h, w) each."""
    at, step = done.timesteps, config.style_step
    other = done.noise if config.style_noise == "same" else draw_noise(done.noise, generators)
    return (
        previous_latents(models.schedule, done.noisy, done.prediction, at, step),
        reference_latents(models.schedule, batch.latents, other, at, step),
    )


def autocast(models: StepModels, device: torch.device) -> torch.autocast:
    """The context in which branch and UNet run."""
    return torch.autocast(device.type, models.autocast_dtype, enabled=models.autocast)


def active_losses(models: StepModels, config: LossConfig) -> list[str]:
    """The losses that a step has terms of."""
    wanted = {
        "noise": True,
        "style": models.vgg is not None and config.delta > 0,
        "perceptual": models.vgg is not None and config.perceptual > 0,
        "adversarial": models.critic is not None and config.adversarial > 0,
        "structure": config.eta > 0,
    }
    return [name for name, active in wanted.items() if active]


def loss_weights(config: LossConfig, names: Iterable[str]) -> dict[str, float]:
    """gamma, delta, eta of the losses of these names; the critic's own has a rate instead."""
    weights = {
        "noise": config.gamma,
        "style": config.delta,
        "perceptual": config.perceptual,
        "adversarial": config.adversarial,
        "critic": 1.0,
        "structure": config.eta,
    }
    return {name: weights[name] for name in names}


class JointObjective(nn.Module):
    """`training_step` as a module of the networks that are trained, which several processes can wrap.

    The frozen UNet is no part of it, so that it is neither wrapped nor divided.
    """

    def __init__(self, models: StepModels, config: LossConfig) -> None:
        super().__init__()
        self.branch, self.vgg, self.critic = models.branch, models.vgg, models.critic
        self._models, self._config = models, config

    def forward(
        self, batch: LatentBatch, generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The terms and the RMS of the VGG's features, bare tensors in which a wrapper finds the graph."""
        losses = training_step(self._models, batch, self._config, generators)
        return losses.terms, losses.vgg_features_rms


def backward_apart(
    losses: StepLosses,
    branch_parameters: Sequence[Tensor],
    other_parameters: Sequence[Tensor] = (),
    *,
    share: float = 1.0,
    scale: float = 1.0,
) -> dict[str, float]:
    """Backward of the total, one loss at a time; of networks that are not wrapped.

    Adds `share` of the gradients' sum, `scale` times over, to `.grad` of all parameters.

    Returns:
        Each weighted loss's gradient norm on the branch by name, and under `total` the norm of what is in
        `.grad` then, both without `scale`.
    """
    parameters = [*branch_parameters, *other_parameters]
    norms = {}
    for name, loss in losses.weighted().items():
        gradients = torch.autograd.grad(scale * loss, parameters, retain_graph=True, allow_unused=True)
        norms[name] = gradient_norm(gradients[: len(branch_parameters)]) / scale
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                part = share * gradient
                parameter.grad = part if parameter.grad is None else parameter.grad + part
    norms["total"] = gradient_norm([parameter.grad for parameter in branch_parameters]) / scale
    return norms


def gradient_norm(gradients: Sequence[Tensor | None]) -> float:
    """The norm of all gradients that are there, joined; processes may hold parts of them."""
    present = [gradient for gradient in gradients if gradient is not None]
    return float(whole(nn.utils.get_total_norm(present))) if present else 0.0
