"""FLUX.1's ControlNets for inpainting: those of diffusers, and those that also see which pixels are known.

The latter's folder has `extra_condition_channels` in its config.json (alimama-creative's release): packed
known-pixel flags lie behind the control image's packed latents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FluxControlNetModel
from safetensors.torch import load_file

from mtadiffusion.errors import UserError

_EXTRA = "extra_condition_channels"
_PATCH = 2
"""Side of the patch of latents that is one token."""


class KnownAware(torch.nn.Linear):
    """A linear layer over control tokens with the known-pixel flags of each token's patch appended."""

    flags: torch.Tensor | None = None
    """(tokens, extra): 1 = known. Set for each picture."""

    def forward(self, control: torch.Tensor) -> torch.Tensor:
        """(B, tokens, channels) to (B, tokens, width)."""
        if self.flags is None:
            raise RuntimeError("show_known() comes before the ControlNet runs")
        flags = self.flags.to(control).expand(*control.shape[:-1], -1)
        return super().forward(torch.cat([control, flags], dim=-1))


def load_controlnet(folder: Path, dtype: torch.dtype, argument: str) -> FluxControlNetModel:
    """The ControlNet of a folder with config.json and one safetensors file.

    Raises:
        UserError: weights that do not fit the configuration.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    extra = config.pop(_EXTRA, 0)
    try:
        with torch.device("meta"):  # its billions of random weights are never made
            model = FluxControlNetModel.from_config(config)
            if extra:
                channels = model.config.in_channels + extra
                model.controlnet_x_embedder = KnownAware(channels, model.inner_dim)
        model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"), assign=True)
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(argument, f"cannot be loaded ({reason})", str(folder)) from error
    return model.to(dtype).eval()


def show_known(pipe: Any, hole: torch.Tensor) -> None:
    """Tell a pipeline's ControlNet which pixels are known, if it looks: hole is bool (h, w), True = not."""
    layer = pipe.controlnet.controlnet_x_embedder
    if isinstance(layer, KnownAware):
        side = pipe.vae_scale_factor
        size = hole.shape[0] // side, hole.shape[1] // side
        known = F.interpolate((~hole).float()[None, None], size=size)[0]  # (1, h', w'), nearest neighbour
        layer.flags = pack(known).to(pipe.device)


def pack(planes: torch.Tensor) -> torch.Tensor:
    """Planes (c, h, w) as FLUX.1's tokens (h/2 * w/2, 4c): each a patch of 2x2."""
    return F.unfold(planes[None], _PATCH, stride=_PATCH)[0].T
