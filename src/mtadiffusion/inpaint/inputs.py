"""What a caller may hand to the pipeline, checked and brought into one form.

Pictures become float (3, H, W) in [0, 1], RGB, on the CPU; masks become bool (H, W), True = hole. The
names in messages are the pipeline's arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.images import to_rgb
from mtadiffusion.imaging.masks import hole_from_array, hole_from_pil
from mtadiffusion.models.conditioning import KNOWN_MODES

MOST_STEPS = 1000
CALLBACK_TENSORS = ("latents", "prompt_embeds", "masked_latents", "known")


def as_pictures(image: Any) -> list[torch.Tensor]:
    """One float tensor (3, H, W) in [0, 1] for each picture of a PIL image, array, tensor, batch or list.

    8-bit values are divided by 255 in float32; floats keep their dtype, so that they come back unchanged.
    """
    return [_picture(one, "image") for one in _as_list(image, "image")]


def as_holes(mask: Any) -> list[torch.Tensor]:
    """One bool tensor (H, W), True = hole, for each mask of a PIL image, array, tensor, batch or list."""
    return [torch.from_numpy(_hole(one)) for one in _as_list(mask, "mask_image")]


def as_prompts(prompt: Any, argument: str) -> list[str]:
    """A prompt or list of prompts as a list."""
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if not prompts:
        raise UserError(argument, "must not be an empty list")
    for one in prompts:
        if not isinstance(one, str):
            raise UserError(argument, "must be text or a list of texts", one)
    return prompts


def broadcast(count: int, **lists: list[Any]) -> list[list[Any]]:
    """Each list at `count` entries, a single entry repeated; lists of other lengths are a mistake."""
    for argument, values in lists.items():
        if len(values) not in (1, count):
            others = ", ".join(f"{name} {len(other)}" for name, other in lists.items())
            raise UserError(
                argument, f"must have 1 entry or {count}", len(values), f"the lengths are: {others}"
            )
    return [values * count if len(values) == 1 else values for values in lists.values()]


def check_same_size(picture: torch.Tensor, hole: torch.Tensor) -> None:
    """A mask has the size of its picture."""
    if picture.shape[-2:] != hole.shape:
        (height, width), (mask_height, mask_width) = picture.shape[-2:], hole.shape
        raise UserError(
            "mask_image",
            f"must have the size of image, {width}x{height}",
            f"{mask_width}x{mask_height}",
            "resize the mask with nearest neighbour",
        )


def check_number(
    argument: str, value: Any, low: float, high: float = math.inf, *, whole: bool = False
) -> None:
    """A finite number (whole: an integer) in [low, high]."""
    kind = "a whole number" if whole else "a number"
    types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    limits = f"between {low:g} and {high:g}" if math.isfinite(high) else f"of at least {low:g}"
    rule = f"must be {kind} {limits}" if math.isfinite(low) else f"must be {kind}"
    if not isinstance(value, types) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(argument, rule, value)
    if not low <= value <= high:
        raise UserError(argument, rule, value)


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> None:
    """One of the named choices."""
    if value not in choices:
        raise UserError(argument, f"must be one of {', '.join(choices)}", value)


def check_generators(generator: Any, samples: int) -> None:
    """None, one CPU generator, or a list with one a sample."""
    generators = generator if isinstance(generator, list) else [] if generator is None else [generator]
    for one in generators:
        if not isinstance(one, torch.Generator):
            raise UserError("generator", "must be a torch.Generator or a list of them", one)
        if one.device.type != "cpu":
            rule = "must be a CPU generator, so that noise is the same on every device"
            raise UserError("generator", rule, str(one.device), "use torch.Generator().manual_seed(seed)")
    if isinstance(generator, list) and len(generator) != samples:
        rule = f"must have one entry for each of the {samples} results"
        raise UserError("generator", rule, len(generator))


def _as_list(value: Any, argument: str) -> list[Any]:
    if isinstance(value, list | tuple):
        values = [one for part in value for one in _as_list(part, argument)]
    elif isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 4:
        values = list(value)
    else:
        values = [value]
    if not values:
        raise UserError(argument, "must not be an empty list")
    return values


def _hole(mask: Any) -> np.ndarray:
    if isinstance(mask, Image.Image):
        return hole_from_pil(mask)
    if (
        isinstance(mask, np.ndarray)
        and mask.dtype == np.uint8
        and mask.ndim == 3
        and mask.shape[-1] in (3, 4)
    ):
        return hole_from_pil(Image.fromarray(mask))
    return hole_from_array(mask)


def _picture(image: Any, argument: str) -> torch.Tensor:
    if isinstance(image, Image.Image):
        return _from_bytes(np.array(to_rgb(image, argument)))
    if isinstance(image, torch.Tensor):
        return _from_planes(image.detach().cpu(), argument)
    if isinstance(image, np.ndarray):
        return _from_array(image, argument)
    raise UserError(argument, "must be a PIL image, array, tensor or a list of them", type(image).__name__)


def _from_bytes(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _from_array(image: np.ndarray, argument: str) -> torch.Tensor:
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
        raise UserError(argument, "must have the shape (height, width, 3)", tuple(image.shape))
    if pixels.shape[-1] == 4 and pixels.dtype == np.uint8:
        return _from_bytes(np.array(to_rgb(Image.fromarray(pixels), argument)))
    return _from_planes(torch.from_numpy(np.array(pixels)).permute(2, 0, 1), argument)


def _from_planes(image: torch.Tensor, argument: str) -> torch.Tensor:
    """uint8 or float (1 or 3, H, W) to float (3, H, W) in [0, 1]."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(argument, "must have three colour channels", f"shape {tuple(image.shape)}")
    if 0 in image.shape:
        raise UserError(argument, "must not be zero-sized", f"{image.shape[2]}x{image.shape[1]}")
    if image.dtype == torch.uint8:
        image = image.float() / 255
    if not image.is_floating_point():
        raise UserError(argument, "must hold 8-bit integers or floats", str(image.dtype))
    if not bool(torch.isfinite(image).all()):
        raise UserError(argument, "must hold finite values", remedy="it holds NaN or infinity")
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        rule, remedy = "must hold floats between 0 and 1", "map [-1, 1] there by x / 2 + 0.5"
        raise UserError(argument, rule, f"{low:g} to {high:g}", remedy)
    return image.expand(3, -1, -1).contiguous()


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How results are sampled, checked."""

    num_inference_steps: int
    """1 to 1000."""

    guidance_scale: float
    """Weight of the prompt against the negative prompt; up to 1 there is no guidance."""

    guidance_rescale: float
    """Share of the guided prediction's spread that is taken back; 0: none."""

    branch_scale: float
    """Weight of the branch's features; 0 = the branch is not run."""

    latent_blending: bool
    """Whether the noised known latents are put back after each step."""

    latent_known: str
    """How the hole reaches latent size."""

    eta: float
    """DDIM's; other schedulers ignore it."""

    callback: Callable[..., dict[str, Any]] | None
    """diffusers' callback_on_step_end."""

    callback_tensors: Sequence[str]
    """What the callback is handed."""

    def __post_init__(self) -> None:
        check_number("num_inference_steps", self.num_inference_steps, 1, MOST_STEPS, whole=True)
        check_number("guidance_scale", self.guidance_scale, 0)
        check_number("guidance_rescale", self.guidance_rescale, 0, 1)
        check_number("branch_scale", self.branch_scale, -math.inf)
        check_choice("latent_known", self.latent_known, KNOWN_MODES)
        check_number("eta", self.eta, 0, 1)
        for name in self.callback_tensors:
            check_choice("callback_on_step_end_tensor_inputs", name, CALLBACK_TENSORS)
