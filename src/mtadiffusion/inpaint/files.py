"""From files to files: an image, its mask and a prompt to PNGs, everything checked before a model is loaded.

The pipeline itself knows nothing of files; the command line knows nothing of pipelines.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.images import check_output, load_hole, load_image, save_png
from mtadiffusion.seeding import torch_generator

BLENDS = ("paste", "brushnet", "none")
_TOGETHER = 4
"""Results sampled in one batch; each has its own generator, so this changes the time only."""


@dataclass(frozen=True, kw_only=True)
class InpaintFiles:
    """What is to be drawn, from which files to which."""

    image: Path
    """The picture, any size and format that Pillow reads."""

    mask: Path
    """White = hole, of the picture's size or aspect ratio."""

    prompt: str
    """What to draw in the hole."""

    out: Path
    """A PNG; of several results the first is named `NAME-1.png`, and so on."""

    model: str
    """Embedded name, folder, hub id or safetensors file of the backbone."""

    branch: str | None
    """Embedded name, folder, hub id or BrushNet file of the branch; "none" for no branch."""

    negative_prompt: str
    """What to avoid."""

    seed: int
    """Result i draws from the stream (seed, "inpaint", i)."""

    steps: int
    """Denoising steps."""

    guidance: float
    """Weight of the prompt."""

    count: int
    """Results."""

    blend: str
    """One of `BLENDS`."""

    branch_scale: float
    """Weight of the branch's features."""

    dtype: str
    """Of the weights."""

    device: str
    """Where the model runs."""

    def __post_init__(self) -> None:
        if self.blend not in BLENDS:
            raise UserError("--blend", f"must be one of {', '.join(BLENDS)}", self.blend)
        if not self.prompt.strip() and self.guidance > 1:
            remedy = "describe the object, or pass --guidance 1 to fill the hole without a wish"
            raise UserError("--prompt", "must say what to draw in the hole", self.prompt, remedy)
        check_output(self.out)

    @property
    def outputs(self) -> list[Path]:
        """The files that will be written."""
        if self.count == 1:
            return [self.out]
        return [self.out.with_stem(f"{self.out.stem}-{number}") for number in range(1, self.count + 1)]


@dataclass(frozen=True, kw_only=True)
class InpaintedFiles:
    """What was drawn."""

    outputs: list[Path]
    """The files, in the order of their streams."""

    size: tuple[int, int]
    """(width, height) of the input and of each result."""

    seconds: float
    """Wall-clock time of sampling, loading aside."""


def inpaint_files(request: InpaintFiles) -> InpaintedFiles:
    """Draw and write what the request asks for.

    Raises:
        UserError: a file, name or number of the request cannot be used, and nothing is written; or drawing
            fails on the way, and the pictures that were finished before stay.
    """
    picture = load_image(request.image)
    hole = load_hole(request.mask, picture.size)
    outputs = [check_output(path) for path in request.outputs]

    from mtadiffusion.models.registry import load_pipeline

    pipeline: Any = load_pipeline(request.model, request.branch, request.dtype, request.device)
    started = time.perf_counter()
    for first in range(0, len(outputs), _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, len(outputs)))
        drawn = pipeline(
            request.prompt,
            picture,
            hole,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=[torch_generator(request.seed, "inpaint", number) for number in numbers],
            num_images_per_prompt=len(numbers),
            branch_scale=request.branch_scale,
            blend=request.blend,
        ).images
        for number, result in zip(numbers, drawn, strict=True):
            save_png(result, outputs[number])
    return InpaintedFiles(outputs=outputs, size=picture.size, seconds=time.perf_counter() - started)
