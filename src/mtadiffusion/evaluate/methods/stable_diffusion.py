"""Baselines that stock diffusers pipelines of the Stable Diffusion family run: SD-Inpainting, ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.canvas import Canvas
from mtadiffusion.evaluate.methods.controlnet import ControlNetMethod
from mtadiffusion.evaluate.methods.template import BACKBONE_PARTS, DiffusionMethod
from mtadiffusion.models.loading import load_components
from mtadiffusion.models.registry import resolve_backbone

if TYPE_CHECKING:
    import torch

INPAINTING_CHANNELS = 9
"""Of a UNet that takes noisy latents (4), the hole (1) and the masked picture's latents (4)."""

_UNGUARDED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
_PARTS = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}


@dataclass(kw_only=True)
class BackboneMethod(DiffusionMethod):
    """A row whose `model` is a backbone of Stable Diffusion."""

    model: str
    """A folder or hub id."""

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """The backbone."""
        return {"model": (resolve_backbone(self.model, f"{self.kind}:model"), BACKBONE_PARTS)}


@dataclass(kw_only=True)
class SDInpainting(BackboneMethod):
    """Stable Diffusion fine-tuned for inpainting: its UNet sees the hole and the masked picture."""

    kind: ClassVar[str] = "sd-inpainting"

    model: str = "stable-diffusion-v1-5/stable-diffusion-inpainting"
    """A folder or hub id with a UNet of nine channels."""

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """diffusers' StableDiffusionInpaintPipeline."""
        from diffusers import StableDiffusionInpaintPipeline

        return StableDiffusionInpaintPipeline(**self.components(dtype), **_UNGUARDED)

    def components(self, dtype: torch.dtype) -> dict[str, Any]:
        """The backbone's parts. Raises UserError where the UNet is not one for inpainting."""
        argument = f"{self.kind}:model"
        parts = load_parts(self.model, dtype, argument)
        channels = parts["unet"].config.in_channels
        if channels != INPAINTING_CHANNELS:
            rule = f"must have a UNet of {INPAINTING_CHANNELS} channels, made for inpainting"
            remedy = "for a text-to-image backbone there are backbone and blended-latent"
            raise UserError(argument, rule, f"{channels} in {self.model}", remedy)
        return parts


@dataclass(kw_only=True)
class ControlNetInpaint(ControlNetMethod, BackboneMethod):
    """A text-to-image backbone steered by the inpainting ControlNet, known latents put back at each step."""

    kind: ClassVar[str] = "controlnet-inpaint"

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    """A backbone: a folder or hub id."""

    controlnet: str = "lllyasviel/control_v11p_sd15_inpaint"
    """A folder or hub id."""

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """diffusers' StableDiffusionControlNetInpaintPipeline."""
        from diffusers import StableDiffusionControlNetInpaintPipeline

        parts = load_parts(self.model, dtype, f"{self.kind}:model")
        controlnet = load_controlnet(self.controlnet_folder(), dtype, f"{self.kind}:controlnet")
        return StableDiffusionControlNetInpaintPipeline(**parts, controlnet=controlnet, **_UNGUARDED)

    def inputs(self, canvas: Canvas) -> dict[str, Any]:
        """The picture, its hole, and the control image: the known pixels in [0, 1], -1 in the hole."""
        control = {
            "control_image": canvas.masked(-1)[None],
            "controlnet_conditioning_scale": self.control_scale,
        }
        return {**super().inputs(canvas), **control}


def load_parts(model: str, dtype: torch.dtype, argument: str) -> dict[str, Any]:
    """The parts of a backbone of Stable Diffusion 1.x or 2.x, by the names of the pipelines' arguments.

    Raises:
        UserError: no such backbone, or one with other parts.
    """
    parts = load_components(resolve_backbone(model, argument), dtype, argument)
    if parts.keys() != _PARTS:
        rule = "must be a Stable Diffusion 1.x or 2.x"
        raise UserError(argument, rule, model, f"it has {', '.join(sorted(parts))}")
    return parts


def load_controlnet(folder: Path, dtype: torch.dtype, argument: str) -> Any:
    """diffusers' ControlNetModel of a folder, every one of its weights from there.

    Raises:
        UserError: weights that are damaged or do not fit the folder's config.json.
    """
    from diffusers import ControlNetModel

    try:
        model, report = ControlNetModel.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, output_loading_info=True, local_files_only=True
        )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(argument, f"cannot be loaded ({reason})", str(folder)) from error
    absent = [*map(str, report["missing_keys"]), *map(str, report["mismatched_keys"])]
    if absent:
        raise UserError(argument, f"lacks weights, first {min(absent)}", str(folder), "copy it again")
    return model.eval()
