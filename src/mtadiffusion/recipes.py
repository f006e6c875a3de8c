"""Named training configurations as functions. `mta train --recipe NAME` starts from one of them.

`debug` runs offline on a CPU in seconds, `sticker` trains the embedded branch, `sd15` is the paper's setting
(docs/method.md, section 5), `sd15-brushnet` its baseline; `sdxl` and `sdxl-brushnet` are both on SDXL.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtadiffusion.config import (
    BranchConfig,
    DataConfig,
    HoleConfig,
    LossConfig,
    OptimConfig,
    StyleVGGConfig,
    TrainConfig,
    ValidationConfig,
)
from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.fields import from_dict, merged, to_dict


def debug() -> TrainConfig:
    """A few steps on a handful of records, every part of the objective switched on."""
    return TrainConfig(
        steps=8,
        batch_size=4,
        log_every=2,
        checkpoint_every=4,
        data=DataConfig(records=8, size=64, encode_batch=8),
        loss=LossConfig(style_step=50),
        style_vgg=StyleVGGConfig.narrow(calibration_images=8),
        optim=OptimConfig(lr=1e-3, warmup=2, ema=0.9),
        validation=ValidationConfig(every=8, samples=4, images=2, steps=2),
    )


def sticker() -> TrainConfig:
    """The embedded branch: 64-pixel sticker scenes on a two-core CPU."""
    return TrainConfig(
        backbone="sticker",
        steps=4000,
        batch_size=16,
        channels_last=True,
        log_every=50,
        checkpoint_every=500,
        branch=BranchConfig(block="attention", position="dwconv"),
        data=DataConfig(
            source="sticker",
            size=64,
            records=12000,
            holes_per_image=2,
            holes=HoleConfig(foreign=1.0),
            plain_texts=0.7,
        ),
        # At the paper's eta and step the structure's gradient drowns the noise's, and the style's vanishes:
        # docs/method.md, "What the losses pull with".
        loss=LossConfig(
            delta=12.5,
            eta=0.005,
            edge_reduction="sum",
            style_step=100,
            perceptual=0.3,
            adversarial=0.15,
            hole_weight=4.0,
            timestep_power=0.6,
        ),
        style_vgg=StyleVGGConfig(initialise="trained", weights="sticker"),
        optim=OptimConfig(lr=3e-4, warmup=100, schedule="constant", decay_share=0.3, ema=0.998),
        validation=ValidationConfig(every=500, samples=64, images=6),
    )


def sd15() -> TrainConfig:
    """The paper's setting at 512 pixels: a batch of 2 here, of 8 GPUs there."""
    return TrainConfig(
        backbone="stable-diffusion-v1-5/stable-diffusion-v1-5",
        steps=200_000,
        batch_size=2,
        device="cuda",
        precision="bf16",
        checkpoint_every=5000,
        branch=BranchConfig(block="attention", gradient_checkpointing=True),
        data=DataConfig(source="sticker", size=512, holes_per_image=0, cache=False),
        loss=LossConfig(gamma=1.0, delta=100.0, eta=0.1, style_step=1),
        style_vgg=StyleVGGConfig(initialise="folded", weights="vgg16.safetensors", lr=1e-7),
        optim=OptimConfig(lr=1e-5, warmup=500, ema=0.9999),
        validation=ValidationConfig(every=5000, steps=50, guidance_scale=7.5),
    )


def sd15_brushnet() -> TrainConfig:
    """The baseline at the paper's setting: BrushNet's residual branch, trained on the noise loss alone."""
    paper = sd15()
    return replace(
        paper,
        branch=BranchConfig(block="residual", edge_head=False, gradient_checkpointing=True),
        loss=LossConfig(delta=0.0, eta=0.0),
        style_vgg=StyleVGGConfig.narrow(),
    )


def sdxl() -> TrainConfig:
    """The paper's objective on SDXL at 1024 pixels: a batch of 1 here, the rest of it accumulated."""
    paper = sd15()
    return replace(
        paper,
        backbone="stabilityai/stable-diffusion-xl-base-1.0",
        batch_size=1,
        accumulate=2,
        data=replace(paper.data, size=1024),
        validation=replace(paper.validation, guidance_scale=5.0, images=4),
    )


def sdxl_brushnet() -> TrainConfig:
    """Its baseline: BrushNet's residual branch on SDXL, trained on the noise loss alone."""
    paper, baseline = sdxl(), sd15_brushnet()
    return replace(paper, branch=baseline.branch, loss=baseline.loss, style_vgg=baseline.style_vgg)


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "debug": debug,
    "sd15": sd15,
    "sd15-brushnet": sd15_brushnet,
    "sdxl": sdxl,
    "sdxl-brushnet": sdxl_brushnet,
    "sticker": sticker,
}
"""Every recipe by the name that the command line takes."""


def recipe(name: str) -> TrainConfig:
    """The configuration called `name`, or that of a TOML or JSON file.

    A file's fields take the place of those of the recipe that it names as `base`, else of the defaults; the
    `config.json` of a run is such a file.

    Raises:
        UserError: an unknown name, a file that cannot be read, an unknown field or a wrong value.
    """
    if Path(name).suffix in _PARSERS:
        return _from_file(Path(name))
    return _named(name, "recipe")


def _named(name: str, argument: str) -> TrainConfig:
    if name not in RECIPES:
        raise UserError(argument, "is unknown", name, nearest_name(name, RECIPES))
    return RECIPES[name]()


def _from_file(path: Path) -> TrainConfig:
    try:
        values = _PARSERS[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("recipe", f"cannot be read ({error.strerror})", str(path)) from error
    except ValueError as error:
        raise UserError("recipe", f"must be {path.suffix[1:].upper()} ({error})", str(path)) from error
    if not isinstance(values, dict):
        raise UserError("recipe", "must be a table of fields", str(path))
    base = values.pop("base", None)
    config = TrainConfig() if base is None else _named(base, f"{path}: base")
    return from_dict(TrainConfig, merged(to_dict(config), values))


_PARSERS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
