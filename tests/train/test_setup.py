"""From a configuration to the networks of a run: each field reaches the network that it speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from mtadiffusion.config import BranchConfig, StyleVGGConfig, TrainConfig
from mtadiffusion.train.setup import build_branch, build_style_vgg

from .conftest import changed

SHAPE = {"widths": ((6, 6), (8,)), "pools": (True,), "taps": (None, 0)}


@pytest.mark.parametrize(
    "fields",
    [
        {"block": "residual", "edge_head": False, "hole_fill": "grey"},
        {"position": "sincos", "time_conditioning": "none", "feed_forward": False},
        {"initialise": "fresh"},
    ],
)
def test_the_branch_is_the_configured_one(unet: UNet2DConditionModel, fields: dict[str, object]) -> None:
    config = TrainConfig(loss=changed(TrainConfig().loss, eta=0.0), branch=BranchConfig(**fields))
    branch = build_branch(config, unet)
    assert all(branch.config.get(name, value) == value for name, value in fields.items())
    copied = torch.equal(branch.conv_in.weight[:, :4], unet.conv_in.weight)
    assert copied == (config.branch.initialise == "backbone")


@pytest.mark.parametrize("initialise", ["mean", "folded", "random"])
def test_the_style_vgg_has_the_configured_shape(tmp_path: Path, initialise: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for index, (wide, narrow) in enumerate(((6, 3), (6, 6), (8, 6))):
        weights[f"features.{index}.weight"] = torch.randn(wide, narrow, 3, 3, generator=generator)
        weights[f"features.{index}.bias"] = torch.randn(wide, generator=generator)
    save_file(weights, tmp_path / "vgg.safetensors")
    config = StyleVGGConfig(initialise=initialise, weights=str(tmp_path / "vgg.safetensors"), **SHAPE)
    latents, images = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 32, 32) * 2 - 1
    vgg = build_style_vgg(config, 0, latents, images)
    (feature,) = vgg(latents)
    assert feature.shape == (2, 8, 4, 4)
    assert feature.square().mean().sqrt().item() == pytest.approx(1.0, rel=1e-4)
    from_rgb = torch.equal(vgg.convolutions()[1].weight, weights["features.1.weight"])
    assert from_rgb == (initialise != "random")
