"""Baselines on FLUX.1, a flow-matching transformer whose guidance is an input: they keep their own scheduler
and their own guidance, and take size and steps from the benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Settings
from mtadiffusion.evaluate.methods.canvas import Canvas
from mtadiffusion.evaluate.methods.controlnet import ControlNetMethod
from mtadiffusion.evaluate.methods.template import DiffusionMethod
from mtadiffusion.evaluate.methods.weights import check_files, find_folder

if TYPE_CHECKING:
    import torch

FLUX_PARTS = (
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "scheduler",
)
"""The folders of a FLUX.1 backbone."""


@dataclass(kw_only=True)
class FluxMethod(DiffusionMethod):
    """What the FLUX.1 rows share."""

    model: str
    """A folder or hub id in diffusers' FLUX.1 layout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheduler is not None:
            rule = "is not a choice: FLUX.1 is sampled by the flow-matching scheduler of its folder"
            raise UserError(f"{self.kind}:scheduler", rule, self.scheduler)

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """The backbone."""
        return {"model": (self.folder(), FLUX_PARTS)}

    def setup(self, settings: Settings, device: str, dtype: str) -> None:
        """As of every method; `auto` is bfloat16 on CUDA, where float16 overflows."""
        from mtadiffusion.models.loading import torch_device

        if dtype == "auto" and torch_device(device).type == "cuda":
            dtype = "bfloat16"
        super().setup(settings, device, dtype)

    def make_scheduler(self, own: Any, settings: Settings) -> Any:
        """The folder's own."""
        return own

    def folder(self) -> Path:
        """The backbone's folder, its layout checked."""
        argument = f"{self.kind}:model"
        wanted = ("model_index.json", *(f"{part}/*" for part in FLUX_PARTS))
        folder = find_folder(self.model, argument, wanted)
        check_files(folder, ("model_index.json", "transformer/config.json"), argument)
        return folder


@dataclass(kw_only=True)
class FluxFill(FluxMethod):
    """FLUX.1 Fill: the transformer sees the hole and the masked picture's latents."""

    kind: ClassVar[str] = "flux-fill"

    model: str = "black-forest-labs/FLUX.1-Fill-dev"
    """A folder or hub id in diffusers' FLUX.1 layout."""

    guidance: float | None = 30.0
    """What the transformer is told; its model card's value."""

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """diffusers' FluxFillPipeline."""
        from diffusers import FluxFillPipeline

        return load_flux(FluxFillPipeline, self.folder(), dtype, f"{self.kind}:model")


@dataclass(kw_only=True)
class FluxControlNetInpaint(ControlNetMethod, FluxMethod):
    """FLUX.1 steered by an inpainting ControlNet, known latents put back at each step."""

    kind: ClassVar[str] = "flux-controlnet-inpaint"

    model: str = "black-forest-labs/FLUX.1-dev"
    """A folder or hub id in diffusers' FLUX.1 layout."""

    controlnet: str = "alimama-creative/FLUX.1-dev-Controlnet-Inpainting-Beta"
    """A folder or hub id; one that takes the known pixels' mask beside the control image, or not."""

    guidance: float | None = 3.5
    """What the transformer is told; the ControlNet's model card's value."""

    control_scale: float = 0.9
    """Weight of the ControlNet's features; its model card's value."""

    control_mode: int | None = None
    """Of a union ControlNet: which of its controls the masked picture is taken for."""

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """diffusers' FluxControlNetInpaintPipeline."""
        from diffusers import FluxControlNetInpaintPipeline

        from mtadiffusion.evaluate.methods.flux_controlnet import load_controlnet

        controlnet = load_controlnet(self.controlnet_folder(), dtype, f"{self.kind}:controlnet")
        argument = f"{self.kind}:model"
        return load_flux(FluxControlNetInpaintPipeline, self.folder(), dtype, argument, controlnet=controlnet)

    def inputs(self, canvas: Canvas) -> dict[str, Any]:
        """The picture, its hole, and the control image: the known pixels in [-1, 1], -1 in the hole."""
        from mtadiffusion.evaluate.methods.flux_controlnet import show_known

        show_known(self._pipe, canvas.work_hole)
        control = {
            "strength": 1.0,
            "control_image": canvas.masked(0)[None] * 2 - 1,
            "controlnet_conditioning_scale": self.control_scale,
            "control_mode": self.control_mode,
        }
        return {**super().inputs(canvas), **control}


def load_flux(pipeline: Any, folder: Path, dtype: torch.dtype, argument: str, **parts: Any) -> Any:
    """A diffusers pipeline of a FLUX.1 folder, read from safetensors.

    Raises:
        UserError: a transformer that this pipeline does not drive, or a folder that cannot be read.
    """
    fills = pipeline.__name__ == "FluxFillPipeline"
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    if fills != (config.get("in_channels") != (config.get("out_channels") or config.get("in_channels"))):
        rule = "must be FLUX.1 Fill" if fills else "must be a text-to-image FLUX.1"
        raise UserError(argument, rule, str(folder), "see docs/baselines.md")
    try:
        return pipeline.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **parts
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(argument, f"cannot be loaded ({reason})", str(folder)) from error
