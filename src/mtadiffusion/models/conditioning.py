"""What the branch sees: the masked image, the known mask on the latent grid, and both joined with the
noisy latents (`docs/method.md`, section 1). Training and inference build the branch's input here.

Inside the code a mask is a `hole`, 1 = to be generated. `known` = 1 - hole exists only as the last channel
of the branch's input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtadiffusion.errors import UserError, nearest_name

HOLE_FILLS = {"black": -1.0, "grey": 0.0}
"""What the pixels of a hole are set to before the VAE, in the [-1, 1] range."""

KNOWN_MODES = ("nearest", "any")


def masked_image(image: Tensor, hole: Tensor, fill: str = "black") -> Tensor:
    """The image with its hole filled, as the VAE sees it.

    Args:
        image: (B, 3, H, W) in [-1, 1].
        hole: (B, 1, H, W) in {0, 1}, 1 = to be generated.
        fill: "black" (-1; BrushNet multiplies the 8-bit image) or "grey" (0).

    Returns:
        (B, 3, H, W): `image` where known, the fill in the hole, whatever the hole held (NaN too).
    """
    if fill not in HOLE_FILLS:
        remedy = nearest_name(fill, HOLE_FILLS)
        raise UserError("hole_fill", f"must be one of {sorted(HOLE_FILLS)}", fill, remedy)
    return image.masked_fill(hole > 0.5, HOLE_FILLS[fill])


def latent_known(hole: Tensor, size: tuple[int, int], mode: str = "nearest") -> Tensor:
    """The known mask on the latent grid.

    Args:
        hole: (B, 1, H, W) in {0, 1}, 1 = to be generated.
        size: (h, w) of the latents.
        mode: "nearest" samples one pixel a cell (training, and parity with BrushNet); "any" makes a cell
            a hole when any of its pixels is, so that thin holes do not vanish (inference).

    Returns:
        (B, 1, h, w) in {0, 1}, float, 1 = KNOWN.
    """
    hole = hole if hole.is_floating_point() else hole.float()
    if mode == "nearest":
        return F.interpolate(1.0 - hole, size=size, mode="nearest")
    if mode == "any":
        return 1.0 - F.adaptive_max_pool2d(hole, size)
    remedy = nearest_name(mode, KNOWN_MODES)
    raise UserError("known_mode", f"must be one of {list(KNOWN_MODES)}", mode, remedy)


def branch_input(noisy_latents: Tensor, masked_latents: Tensor, known: Tensor) -> Tensor:
    """cat[z_t, z_m, known] along the channels.

    Args:
        noisy_latents: (B, C, h, w), z_t.
        masked_latents: (B, C, h, w), VAE latents of the masked image times the scaling factor, z_m.
        known: (B, 1, h, w), 1 = known.

    Returns:
        (B, 2C + 1, h, w)
    """
    return torch.cat([noisy_latents, masked_latents, known.to(noisy_latents.dtype)], dim=1)
