"""Putting generated pixels into a picture: inside the hole alone, by BrushNet's formula, or raw.

Pictures are float (3, H, W) in [0, 1], RGB; holes are bool (H, W), True = generated. Where pixels are
blended inside the hole, they are blended with a continuation of the known surroundings and never with
what was in the hole before: no ring of the old object can show.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F

from mtadiffusion.errors import UserError

Blend = Literal["paste", "brushnet", "none"]
BLENDS: tuple[str, ...] = get_args(Blend)


def blend_pictures(
    original: torch.Tensor, generated: torch.Tensor, hole: torch.Tensor, blend: Blend, feather: int = 0
) -> torch.Tensor:
    """The original (3, H, W) with the hole (H, W) filled from generated (3, H, W), in original's dtype.

    Args:
        original: the picture; its values inside the hole are used by no blend.
        generated: the model's picture.
        hole: bool, True = to be filled.
        blend: `paste` changes no pixel outside the hole, `brushnet` is BrushNet's soft edge (which
            reaches ten pixels out of the hole), `none` is the generated picture as it is.
        feather: for `paste`, over how many pixels inside the hole's edge generated content fades in.
    """
    if blend == "none":
        return generated.to(original.dtype)
    if blend == "brushnet":
        soft = brushnet_soft_hole(hole).to(generated.dtype)  # (H, W)
        return (original.to(generated.dtype) * (1 - soft) + generated * soft).to(original.dtype)
    if blend == "paste":
        backdrop = fill_from_known(original.to(generated.dtype), hole)
        alpha = feather_alpha(hole, feather).to(generated.dtype)
        mixed = torch.lerp(backdrop, generated, alpha.expand_as(generated))
        return torch.where(hole, mixed.to(original.dtype), original)
    raise UserError("blend", f"must be one of {', '.join(BLENDS)}", blend)


def feather_alpha(hole: torch.Tensor, width: int) -> torch.Tensor:
    """The share of generated content, float32 (H, W): 0 outside the hole, rising inside it over `width`
    pixels from its edge in equal steps, then 1. The picture's border is no edge."""
    known = (~hole).float()[None]
    depth = hole.float()
    for _ in range(width):
        known = F.max_pool2d(known, 3, stride=1, padding=1)
        depth += 1 - known[0]
    return depth / (width + 1)


def fill_from_known(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """The image (3, H, W) with its hole (H, W) filled by a smooth continuation of the known pixels.

    Averages of known pixels over cells of doubling size (push-pull); grey if nothing is known.
    """
    weight = (~hole).to(image.dtype)[None]
    return _pull(torch.where(hole, 0, image), weight)


def _pull(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if bool((weight > 0).all()):
        return image
    if max(image.shape[-2:]) == 1:
        return torch.full_like(image, 0.5)
    mass = F.avg_pool2d(weight, 2, ceil_mode=True)
    mean = F.avg_pool2d(image * weight, 2, ceil_mode=True) / mass.clamp_min(1e-12)
    coarse = _pull(mean, (mass > 0).to(image.dtype))
    fine = F.interpolate(coarse[None], size=image.shape[-2:], mode="bilinear", align_corners=False)[0]
    return torch.where(weight > 0, image, fine)


def brushnet_soft_hole(hole: torch.Tensor) -> torch.Tensor:
    """BrushNet's soft hole m (H, W) float64: 1 - (1 - m)(1 - GaussianBlur(m, 21x21, sigma 0)).

    Source: TencentARC/BrushNet, its evaluation script.
    """
    mask = hole.double()
    return 1 - (1 - mask) * (1 - gaussian_blur(mask, 21))


def gaussian_blur(plane: torch.Tensor, size: int) -> torch.Tensor:
    """OpenCV's GaussianBlur(plane, (size, size), 0) of an (H, W) plane: sigma from the kernel's size,
    border reflected without repeating the edge pixel (reflect-101)."""
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    offsets = torch.arange(size, dtype=plane.dtype, device=plane.device) - (size - 1) / 2
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    rows = _reflected(plane.shape[0], size // 2).to(plane.device)
    columns = _reflected(plane.shape[1], size // 2).to(plane.device)
    padded = plane[rows][:, columns][None, None]
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return blurred[0, 0]


def _reflected(length: int, margin: int) -> torch.Tensor:
    """Indices of `length` pixels with a reflect-101 margin, for any length (torch's padding needs
    length > margin)."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(-margin, length + margin) % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)
