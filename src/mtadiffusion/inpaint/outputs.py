"""Results on their way out: the forms a caller may ask for, and the check that nothing broke on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from PIL import Image

from mtadiffusion.errors import UserError

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class InpaintOutput(StableDiffusionPipelineOutput):
    """What the pipeline gives: diffusers' output, and where the branch expects edges."""

    edges: list[torch.Tensor | None] | None = None
    """None unless they were asked for; else one a result: float32 (h, w) on the CPU, about 0 to 1, a value a
    latent cell of the region (`regions.find_region`), from the last step that ran; None where none did."""


def check_finite(values: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise a UserError where a model's output holds NaN or infinity; a black picture is never the answer."""
    if not bool(torch.isfinite(values).all()):
        remedy = "load the model with torch_dtype=torch.float32 or torch.bfloat16"
        raise UserError("the result", "must not hold NaN or infinity", f"NaN in {dtype}", remedy)


def as_pil(picture: torch.Tensor) -> Image.Image:
    """A float picture (3, H, W) in [0, 1] as 8-bit RGB; what came from 8 bits comes back unchanged."""
    pixels = (picture.float() * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def as_output(results: list[torch.Tensor], output_type: str) -> Any:
    """Pictures (3, H, W) or latents as a list of PIL images, or stacked where they have one shape."""
    if output_type == "pil":
        return [as_pil(picture) for picture in results]
    alike = len({tuple(result.shape) for result in results}) == 1
    if output_type == "np":
        # numpy has no bfloat16
        floats = [one.float() if one.dtype == torch.bfloat16 else one for one in results]
        arrays = [one.permute(1, 2, 0).numpy() for one in floats]
        return np.stack(arrays) if alike else arrays
    return torch.stack(results) if alike else results
