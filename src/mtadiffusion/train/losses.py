"""The losses of the joint objective and the targets that they need (docs/method.md, sections 3-5).

Each is a pure function of tensors; weights and their sum live in `step`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.models.latent_vgg import gram_matrix
from mtadiffusion.train.noise_schedule import NoiseSchedule


def noise_loss(
    prediction: Tensor, target: Tensor, weights: Tensor | None = None, emphasis: Tensor | None = None
) -> Tensor:
    """L_noise: mean squared error of the backbone's prediction target, both (B, C, h, w) -> scalar.

    `weights` (B,) say how much each sample counts, `emphasis` (B, 1, h, w) how much each place of a sample
    does beside its other places; None: all alike.
    """
    if weights is None and emphasis is None:
        return F.mse_loss(prediction.float(), target.float())
    errors = F.mse_loss(prediction.float(), target.float(), reduction="none")
    if emphasis is not None:
        errors = errors * (emphasis / emphasis.mean(dim=(1, 2, 3), keepdim=True))
    samples = errors.flatten(1).mean(1)
    return samples.mean() if weights is None else (weights * samples).mean()


def luma(image: Tensor) -> Tensor:
    """Rec. 601 grey of (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]."""
    red, green, blue = image.split(1, dim=1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def sobel_edges(image: Tensor) -> Tensor:
    """Sobel gradient magnitude of the grey image over its maximum, sqrt(20) (docs/method.md, section 3).

    (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]; the border's pixels are repeated outwards.
    """
    grey = F.pad(luma(image), (1, 1, 1, 1), mode="replicate")
    down = (grey[:, :, :-2] + grey[:, :, 2:]).add_(grey[:, :, 1:-1], alpha=2)  # (B, 1, H, W + 2)
    across = (grey[..., :-2] + grey[..., 2:]).add_(grey[..., 1:-1], alpha=2)  # (B, 1, H + 2, W)
    horizontal, vertical = down[..., 2:] - down[..., :-2], across[:, :, 2:] - across[:, :, :-2]
    return horizontal.square_().addcmul_(vertical, vertical).sqrt_().div_(math.sqrt(20))


EDGE_TARGETS: dict[str, Callable[[Tensor], Tensor]] = {"sobel": sobel_edges}
"""Structure targets by name: (B, 3, H, W) in [0, 1] -> (B, 1, H, W). Others plug in here."""


def check_edge_target(name: str) -> None:
    """Raises UserError for a name that no structure target has."""
    if name not in EDGE_TARGETS:
        raise UserError("loss.edge_target", "is unknown", name, nearest_name(name, EDGE_TARGETS))


def edge_target(
    image: Tensor, size: tuple[int, int], name: str = "sobel", downsampling: str = "area"
) -> Tensor:
    """The map that the edge head should predict.

    Args:
        image: (B, 3, H, W) in [-1, 1], as the VAE takes it.
        size: (h, w) of the latents.
        name: a key of `EDGE_TARGETS`.
        downsampling: a latent cell takes the mean of its pixels (`area`) or their `max`.

    Returns:
        (B, 1, h, w)

    Raises:
        UserError: no target has this name.
    """
    check_edge_target(name)
    pool = F.adaptive_max_pool2d if downsampling == "max" else F.adaptive_avg_pool2d
    # One picture at a time, so that what lies in between fits into a processor's cache.
    return torch.cat([pool(EDGE_TARGETS[name](one[None].add(1).div_(2)), size) for one in image])


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
    """X~_{t-step}: the true latents noised to there (docs/method.md, section 4).

    `noise` (B, C, h, w) is the one in z_t, or another one (`loss.style_noise`).
    """
    return clean if step == "x0" else schedule.add_noise(clean, noise, timesteps - int(step))


def perceptual_loss(vgg: nn.Module, latents: Tensor, reference: Tensor, hole: Tensor) -> Tensor:
    """Mean squared distance of the features of both, the mean over the taps, as heavy for every hole's size.

    Args:
        vgg: gives the list of feature maps of latents, at unit RMS.
        latents: predicted clean ones, (B, C, h, w); known cells are taken from the reference.
        reference: the true ones, (B, C, h, w).
        hole: (B, 1, h, w), 1 = hole.
    """
    predicted, wanted = vgg(hole * latents + (1 - hole) * reference), vgg(reference)
    distances = [
        (alpha - beta).square().mean(dim=(1, 2, 3))  # (B,)
        for alpha, beta in zip(predicted, wanted, strict=True)
    ]
    cells = hole[0].numel()
    share = hole.mean(dim=(1, 2, 3)).clamp(min=1 / cells)
    return (torch.stack(distances).mean(0) / share).mean()


def adversarial_losses(
    critic: nn.Module, vgg: nn.Module, predicted: Tensor, true: Tensor, hole: Tensor, text: Tensor
) -> tuple[Tensor, Tensor]:
    """What a critic makes of predicted latents, as two losses: theirs, and the critic's own (hinge).

    The critic learns to score true latents with their text above 1, and below -1 predicted ones, and true
    ones with the text of the sample before (Reed et al. 2016, arXiv 1605.05396).

    Args:
        critic: `models.critic.LatentCritic`.
        vgg: gives the list of feature maps of latents.
        predicted: clean latents, (B, C, h, w), with the known cells of `true`; no gradient of the second loss
            reaches them, and none of the first the critic.
        true: z_0, (B, C, h, w).
        hole: (B, 1, h, w), 1 = hole.
        text: text encoder states, (B, L, D).
    """
    with _held_still(critic):
        missed = -critic(predicted, vgg(predicted), hole, text).mean()
    drawn = predicted.detach()
    with torch.no_grad():
        features, wanted = vgg(drawn), vgg(true)
    wrong = critic(drawn, features, hole, text), critic(true, wanted, hole, text.roll(1, 0))
    right = critic(true, wanted, hole, text)
    below = torch.stack([F.relu(1 + scores).mean() for scores in wrong]).mean()
    return missed, F.relu(1 - right).mean() + below


@contextlib.contextmanager
def _held_still(network: nn.Module) -> Iterator[None]:
    """Within the block, what is computed sends no gradient to the network's parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def style_loss(
    vgg: nn.Module,
    latents: Tensor,
    reference: Tensor,
    hole: Tensor | None = None,
    gram_normalisation: str = "chw",
) -> tuple[Tensor, Tensor]:
    """L_style = (1/(B N)) sum_b sum_i ||G(alpha_i) - G(beta_i)||^2_F (docs/method.md, section 4).

    Args:
        vgg: gives the list of N feature maps of latents.
        latents: X, (B, C, h, w).
        reference: X~, (B, C, h, w).
        hole: (B, 1, h, w), 1 = hole; known cells of X are then taken from X~. None: the whole latents.
        gram_normalisation: see `gram_matrix`.

    Returns:
        The loss, and the root mean square of the reference's features (a VGG that is trained on its own
        loss can shrink them).
    """
    if hole is not None:
        latents = hole * latents + (1 - hole) * reference
    predicted, wanted = vgg(latents), vgg(reference)
    gram = partial(gram_matrix, normalisation=gram_normalisation)
    distances = [
        (gram(alpha) - gram(beta)).square().sum(dim=(1, 2))  # (B,)
        for alpha, beta in zip(predicted, wanted, strict=True)
    ]
    features_rms = torch.stack([beta.detach().square().mean() for beta in wanted]).mean().sqrt()
    return torch.stack(distances).mean(), features_rms
