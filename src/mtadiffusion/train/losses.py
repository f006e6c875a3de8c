"""The three losses of the joint objective and the targets that they need (docs/method.md, sections 3-5).

Each is a pure function of tensors; weights and their sum live in `step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtadiffusion.models.latent_vgg import gram_matrix
from mtadiffusion.train.noise_schedule import NoiseSchedule


def noise_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L_noise: mean squared error of the backbone's prediction target, both (B, C, h, w) -> scalar."""
    return F.mse_loss(prediction.float(), target.float())


def luma(image: Tensor) -> Tensor:
    """Rec. 601 grey of (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]."""
    weights = image.new_tensor([0.299, 0.587, 0.114])
    return (image * weights[:, None, None]).sum(dim=1, keepdim=True)


def sobel_edges(image: Tensor) -> Tensor:
    """Sobel gradient magnitude of the grey image over its maximum, sqrt(20) (docs/method.md, section 3).

    (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]; the border's pixels are repeated outwards.
    """
    horizontal = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([horizontal, horizontal.T])[:, None]  # (2, 1, 3, 3)
    gradient = F.conv2d(F.pad(luma(image), (1, 1, 1, 1), mode="replicate"), kernels)
    return gradient.square().sum(dim=1, keepdim=True).sqrt() / math.sqrt(20)


EDGE_TARGETS: dict[str, Callable[[Tensor], Tensor]] = {"sobel": sobel_edges}
"""Structure targets by name: (B, 3, H, W) in [0, 1] -> (B, 1, H, W). Others plug in here."""


def edge_target(image: Tensor, size: tuple[int, int], name: str = "sobel") -> Tensor:
    """The map that the edge head should predict: (B, 3, H, W) in [0, 1] -> (B, 1, h, w), area-averaged."""
    return F.interpolate(EDGE_TARGETS[name](image), size=size, mode="area")


def structure_loss(
    prediction: Tensor, target: Tensor, reduction: str = "sum", hole: Tensor | None = None
) -> Tensor:
    """L_structure = (1/B) sum_i ||s_pred^i - s~^i||^2_F (docs/method.md, section 3).

    Args:
        prediction: s_pred, (B, 1, h, w).
        target: s~, (B, 1, h, w).
        reduction: `sum` over a map's entries, as in the paper, or their `mean`.
        hole: (B, 1, h, w), 1 = hole; restricts the loss to its cells. None: the whole map.
    """
    region = torch.ones_like(target) if hole is None else hole
    per_sample = (region * (prediction.float() - target)).square().sum(dim=(1, 2, 3))
    if reduction == "mean":
        per_sample = per_sample / region.sum(dim=(1, 2, 3)).clamp(min=1)
    return per_sample.mean()


def previous_latents(
    schedule: NoiseSchedule,
    noisy: Tensor,
    prediction: Tensor,
    timesteps: Tensor,
    step: int | str,
) -> Tensor:
    """X_{t-step}: one deterministic DDIM step from z_t by the model's prediction (docs/method.md, section 4).

    Args:
        schedule: noise levels and kind of prediction.
        noisy: z_t, (B, C, h, w).
        prediction: the backbone's output at z_t.
        timesteps: t, (B,).
        step: training timesteps to go back, or `x0` for the predicted clean latents.
    """
    clean, noise = schedule.split_prediction(noisy, prediction, timesteps)
    if step == "x0":
        return clean
    return schedule.add_noise(clean, noise, timesteps - int(step))


def reference_latents(
    schedule: NoiseSchedule, clean: Tensor, noise: Tensor, timesteps: Tensor, step: int | str
) -> Tensor:
    """X~_{t-step}: the true latents noised with the SAME noise to there (docs/method.md, section 4)."""
    return clean if step == "x0" else schedule.add_noise(clean, noise, timesteps - int(step))


def style_loss(
    vgg: nn.Module, latents: Tensor, reference: Tensor, hole: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """L_style = (1/(B N)) sum_b sum_i ||G(alpha_i) - G(beta_i)||^2_F (docs/method.md, section 4).

    Args:
        vgg: gives the list of N feature maps of latents.
        latents: X, (B, C, h, w).
        reference: X~, (B, C, h, w).
        hole: (B, 1, h, w), 1 = hole; known cells of X are then taken from X~. None: the whole latents.

    Returns:
        The loss, and the root mean square of the reference's features (a VGG that is trained on its own
        loss can shrink them).
    """
    if hole is not None:
        latents = hole * latents + (1 - hole) * reference
    predicted, wanted = vgg(latents), vgg(reference)
    distances = [
        (gram_matrix(alpha) - gram_matrix(beta)).square().sum(dim=(1, 2))  # (B,)
        for alpha, beta in zip(predicted, wanted, strict=True)
    ]
    features_rms = torch.stack([beta.detach().square().mean() for beta in wanted]).mean().sqrt()
    return torch.stack(distances).mean(), features_rms
