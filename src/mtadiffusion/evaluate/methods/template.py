"""What all methods share: options, identity, the way of a picture through the canvas, a diffusers pipeline.

A method is a dataclass; its fields are the options of its specification (`registry`). It holds no weights
before `setup`, so that it can be sent to another process.
"""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.benchmark import Settings
from mtadiffusion.evaluate.methods.canvas import Canvas, prepare
from mtadiffusion.evaluate.methods.weights import check_named
from mtadiffusion.models.hub import weights_digest

if TYPE_CHECKING:
    import torch

BACKBONE_PARTS = (
    "model_index.json",
    "unet",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "scheduler",
)
"""What is loaded of a Stable Diffusion backbone's folder; the second ones are SDXL's."""

_LABEL = re.compile(r"[A-Za-z0-9][\w.+-]*")
_MOST_STEPS = 1000
_MOST_GUIDANCE = 100.0


@dataclass(kw_only=True)
class CanvasMethod(abc.ABC):
    """A method that fills the canvas; cutting, resizing and blending are done here for all alike."""

    kind: ClassVar[str]
    """Its name in the registry."""

    label: str = ""
    """The row's name in tables, where it is not the kind."""

    name: str = field(init=False)
    _settings: Settings | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.label and not _LABEL.fullmatch(self.label):
            rule = "must start with a letter or digit and hold only these, `-`, `_`, `+` and `.`"
            raise UserError(f"{self.kind}:label", rule, self.label)
        self.name = self.label or self.kind

    def options(self) -> dict[str, Any]:
        """The options that decide the results."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init and one.name != "label"}

    def identity(self) -> Mapping[str, Any]:
        """Kind, options, and digests of the weights that they name."""
        sources = self.sources()
        digests = {option: weights_digest(path, parts) for option, (path, parts) in sources.items()}
        return {"kind": self.kind, **self.options(), "weights": digests}

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """For each option that names weights: its folder or file, and the parts of it that are loaded."""
        return {}

    def setup(self, settings: Settings, device: str, dtype: str) -> None:
        """Load the weights and take over the settings."""
        self._settings = settings

    def generate(self, image: np.ndarray, hole: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """The filled picture, uint8 (H, W, 3), RGB; a copy where there is no hole.

        Args:
            image: uint8 (H, W, 3), RGB; what lies in the hole is not looked at.
            hole: bool (H, W), True = to be generated.
            prompt: what to draw there.
            seed: of the noise.
        """
        canvas = prepare(image, hole, self.settings.size)
        if not hole.any():
            return image.copy()
        return canvas.finish(self.fill(canvas, prompt, seed), self.settings.blend)

    @property
    def settings(self) -> Settings:
        """Those that `setup` took over."""
        if self._settings is None:
            raise RuntimeError(f"{self.name}: setup() comes before generate()")
        return self._settings

    @abc.abstractmethod
    def fill(self, canvas: Canvas, prompt: str, seed: int) -> torch.Tensor:
        """What the method draws: float (3, h, w) in [0, 1], the whole of the canvas."""


@dataclass(kw_only=True)
class DiffusionMethod(CanvasMethod):
    """A method that runs a diffusers pipeline."""

    steps: int | None = None
    """Denoising steps; the benchmark's by default."""

    guidance: float | None = None
    """Weight of the prompt; the benchmark's by default."""

    scheduler: str | None = None
    """A diffusers scheduler's class name; the benchmark's by default."""

    models: ClassVar[tuple[str, ...]] = ("model",)
    """The options that name weights."""

    _pipe: Any = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and not 1 <= self.steps <= _MOST_STEPS:
            raise UserError(f"{self.kind}:steps", f"must be between 1 and {_MOST_STEPS}", self.steps)
        check_span(self.guidance, _MOST_GUIDANCE, f"{self.kind}:guidance")
        for option in self.models:
            name = getattr(self, option)
            if name is not None:
                check_named(name, f"{self.kind}:{option}")

    def setup(self, settings: Settings, device: str, dtype: str) -> None:
        """Load the weights and take over the settings.

        Raises:
            UserError: weights that are missing or of another kind, no such device, dtype or scheduler.
        """
        from mtadiffusion.models.loading import torch_device, torch_dtype

        place = torch_device(device)
        pipe = self.load(place, torch_dtype(dtype, place))
        pipe.scheduler = self.make_scheduler(pipe.scheduler, settings)
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe.to(place)
        super().setup(settings, device, dtype)

    @abc.abstractmethod
    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """The pipeline, with its own scheduler and no safety checker."""

    def make_scheduler(self, own: Any, settings: Settings) -> Any:
        """The scheduler that is asked for, configured as the weights' own."""
        import diffusers

        wanted = self.scheduler or settings.scheduler
        known = [name for name in dir(diffusers) if name.endswith("Scheduler")]
        if wanted not in known:
            rule = "must be the name of one of diffusers' schedulers"
            raise UserError(f"{self.kind}:scheduler", rule, wanted, nearest_name(wanted, known))
        return getattr(diffusers, wanted).from_config(own.config)

    def fill(self, canvas: Canvas, prompt: str, seed: int) -> torch.Tensor:
        """What the pipeline draws: float (3, h, w) in [0, 1]."""
        drawn: torch.Tensor = self._pipe(
            prompt=self.wording(prompt),
            generator=generator_of(seed),
            **self.inputs(canvas),
            **self.sampling(),
        ).images[0]
        return drawn

    def sampling(self) -> dict[str, Any]:
        """How the pipeline samples, by the names of its arguments."""
        settings = self.settings
        return {
            "num_inference_steps": self.steps or settings.steps,
            "guidance_scale": settings.guidance_scale if self.guidance is None else self.guidance,
            "output_type": "pt",
        }

    def wording(self, prompt: str) -> str:
        """The prompt as the model was trained to read it."""
        return prompt

    def inputs(self, canvas: Canvas) -> dict[str, Any]:
        """The picture and its hole, and what else the pipeline takes, by the names of its arguments."""
        height, width = canvas.size
        return {
            "image": canvas.picture[None],
            "mask_image": canvas.work_hole[None, None].float(),
            "height": height,
            "width": width,
        }


def generator_of(seed: int) -> torch.Generator:
    """A fresh CPU generator: a published seed is its own, so that it is not led through a named stream."""
    import torch

    return torch.Generator().manual_seed(seed)


def check_span(value: float | None, most: float, argument: str) -> None:
    """Raise a UserError for a number that is given and not from 0 to `most`."""
    if value is not None and not (math.isfinite(value) and 0 <= value <= most):
        raise UserError(argument, f"must be a number between 0 and {most:g}", value)
