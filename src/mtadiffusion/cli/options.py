"""Options that several commands share, and the checks that need no model. Nothing here imports torch."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from mtadiffusion.errors import UserError
from mtadiffusion.stickers.sampling import BRANCH_GUIDANCE

EMBEDDED = "sticker"
"""The backbone that comes with the package."""

STEPS = 20
USUAL_GUIDANCE = 7.5
"""Sampling settings where the user names none; the embedded model has a guidance of its own."""

T = TypeVar("T")

LARGEST_SEED = 2**63 - 1
MOST_STEPS = 1000
MOST_COUNT = 100
MOST_GUIDANCE = 100.0
MOST_WORKERS = 1024
MOST_IMAGES = 1_000_000

Seed = Annotated[int, typer.Option(help="Names the random streams; the same seed gives the same pictures.")]
Steps = Annotated[int, typer.Option(help=f"Denoising steps, 1 to {MOST_STEPS}.")]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Weight of the prompt; up to 1 there is no guidance. Default: 7.5, with the embedded model what "
        "suits it."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")]
Executor = Annotated[str, typer.Option(help="local, or ray for a cluster.")]
RayAddress = Annotated[
    str | None, typer.Option(help="The cluster. Default: RAY_ADDRESS, else Ray starts on this machine.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Annotations = Annotated[
    list[Path] | None,
    typer.Option(
        help="File with the images' own boxes, masks or texts: COCO or LVIS .json, .jsonl, OpenImages .csv; "
        "may be given several times."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="Backbone: a name of `mta models`, a folder in the diffusers layout, a hub id, or one "
        ".safetensors file of SD1.5 or SDXL."
    ),
]
Branch = Annotated[
    str | None,
    typer.Option(
        help="Branch: a name, a folder, a hub id, a BrushNet's .safetensors file, or `none`. Default: the "
        "one that goes with the backbone."
    ),
]


def needed(option: str, value: T | None) -> T:
    """The value of an option that must be given."""
    if value is None:
        raise UserError(option, "is missing", remedy="see --help")
    return value


def check_seed(seed: int) -> None:
    """A seed is a whole number from 0 to 2^63 - 1."""
    _check_span("--seed", seed, 0, LARGEST_SEED, "pass a smaller one")


def check_steps(steps: int) -> None:
    """Steps of the sampler."""
    _check_span("--steps", steps, 1, MOST_STEPS, "20 to 50 are usual")


def check_count(count: int, most: int = MOST_COUNT) -> None:
    """How many results are asked for."""
    _check_span("--count", count, 1, most, "ask for fewer and change --seed for more")


def check_number_of(argument: str, count: int, most: int) -> None:
    """A whole number of things, at least one."""
    _check_span(argument, count, 1, most, "pass a number in that range")


def check_guidance(guidance: float | None) -> None:
    """A finite guidance scale, or none."""
    if guidance is not None:
        _check_span("--guidance", guidance, 0, MOST_GUIDANCE, "3 to 10 are usual, 1 switches guidance off")


def guidance_for(model: str, guidance: float | None) -> float:
    """The guidance scale that was asked for, or else the one that suits the model."""
    if guidance is not None:
        return guidance
    return BRANCH_GUIDANCE if model == EMBEDDED else USUAL_GUIDANCE


def check_branch_scale(scale: float) -> None:
    """A finite weight of the branch."""
    _check_span("--branch-scale", scale, 0, 10, "1 is the trained weight, 0 leaves the branch out")


def check_workers(workers: int) -> None:
    """Processes that share work."""
    _check_span("--workers", workers, 0, MOST_WORKERS, "as many as there are cores or GPUs")


def check_shard_size(size: int) -> None:
    """Images a shard."""
    _check_span("--shard-size", size, 1, MOST_IMAGES, "1000 is usual")


def check_annotations(paths: list[Path] | None) -> None:
    """Files that are there."""
    for path in paths or ():
        if not path.is_file():
            raise UserError("--annotations", "must be a file", str(path), "there is no such file")


def check_held_out(split: str) -> None:
    """A split that training never sees."""
    if split not in ("validation", "test"):
        raise UserError("--split", "must be validation or test", split, "training scenes are not held out")


def check_page(path: Path, argument: str = "--out") -> None:
    """An HTML file that can be written; the folders that it lies in are made."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(argument, "must end in .html", str(path))
    if path.is_dir():
        raise UserError(argument, "must be a file", str(path), "this is a folder")
    check_folder(path.absolute().parent, argument)


def check_folder(path: Path, argument: str = "--out") -> None:
    """A folder that can be written, or created with those that it lies in."""
    nearest = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise UserError(argument, "must be a folder", str(path), f"{nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise UserError(argument, "must be a writable folder", str(path), "choose another folder")


def _check_span(argument: str, value: float, low: float, high: float, remedy: str) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        kind = "a whole number" if isinstance(value, int) else "a number"
        raise UserError(argument, f"must be {kind} between {low:g} and {_shown(high)}", value, remedy)


def _shown(limit: float) -> str:
    return "2^63 - 1" if limit == LARGEST_SEED else f"{limit:g}"
