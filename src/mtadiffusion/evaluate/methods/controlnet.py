"""What the rows with a ControlNet share: which one it is, its weight, and where its files lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mtadiffusion.evaluate.methods.template import DiffusionMethod, check_span
from mtadiffusion.evaluate.methods.weights import check_files, find_folder

_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_MOST_SCALE = 10.0


@dataclass(kw_only=True)
class ControlNetMethod(DiffusionMethod):
    """A backbone steered by an inpainting ControlNet."""

    models: ClassVar[tuple[str, ...]] = ("model", "controlnet")

    controlnet: str
    """A folder or hub id."""

    control_scale: float = 1.0
    """Weight of the ControlNet's features."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_span(self.control_scale, _MOST_SCALE, f"{self.kind}:control_scale")

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """The backbone's, and the ControlNet."""
        return {**super().sources(), "controlnet": (self.controlnet_folder(), (".",))}

    def controlnet_folder(self) -> Path:
        """The ControlNet's folder, its layout checked."""
        argument = f"{self.kind}:controlnet"
        folder = find_folder(self.controlnet, argument, _FILES)
        check_files(folder, _FILES, argument)
        return folder
