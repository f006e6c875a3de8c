"""FLUX.1 Fill and FLUX.1 with ControlNets, on tiny random checkpoints in their releases' layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetInpaintPipeline
from safetensors.torch import load_file, save_file

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.canvas import prepare
from mtadiffusion.evaluate.methods.flux_controlnet import KnownAware, load_controlnet, pack
from mtadiffusion.evaluate.methods.registry import method

Ready = Callable[..., Any]


def test_flux_keeps_its_own_scheduler_and_guidance(ready: Ready, specs: dict[str, str]) -> None:
    fill = ready(specs["flux-fill"])
    assert type(fill._pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert fill.sampling() == {"num_inference_steps": 2, "guidance_scale": 30.0, "output_type": "pt"}
    other = method(f"{specs['flux-fill']},guidance=7.5")
    assert other.options()["guidance"] == 7.5  # type: ignore[attr-defined]


def test_each_row_takes_its_own_kind_of_transformer(
    ready: Ready, flux_folder: Path, flux_fill_folder: Path, flux_union_folder: Path
) -> None:
    with pytest.raises(UserError, match=r"flux-fill:model must be FLUX\.1 Fill"):
        ready(f"flux-fill:model={flux_folder}")
    with pytest.raises(UserError, match=r"flux-controlnet-inpaint:model must be a text-to-image FLUX\.1"):
        ready(f"flux-controlnet-inpaint:model={flux_fill_folder},controlnet={flux_union_folder}")


def test_a_stable_diffusion_folder_is_no_flux(backbone_folder: Path) -> None:
    with pytest.raises(UserError, match=r"flux-fill:model lacks transformer/config\.json"):
        method(f"flux-fill:model={backbone_folder}").identity()


def test_a_folder_without_its_text_encoder_is_named(
    ready: Ready, flux_fill_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "flux"
    shutil.copytree(flux_fill_folder, folder)
    shutil.rmtree(folder / "text_encoder_2")
    with pytest.raises(UserError, match="flux-fill:model cannot be loaded"):
        ready(f"flux-fill:model={folder}")


def test_flags_are_packed_as_the_pipeline_packs_latents() -> None:
    planes = torch.rand(3, 8, 6)
    expected = FluxControlNetInpaintPipeline._pack_latents(planes[None], 1, 3, 8, 6)[0]
    assert torch.equal(pack(planes), expected)


def test_the_controlnet_sees_the_known_pixels_behind_the_masked_picture(
    ready: Ready, specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    made = ready(specs["flux-controlnet-inpaint"])
    layer = made._pipe.controlnet.controlnet_x_embedder
    assert isinstance(layer, KnownAware)
    made.generate(image, hole, "a cat", 0)
    canvas = prepare(image, hole, 64)
    flags = layer.flags
    assert flags is not None
    assert flags.shape == (64, 4)
    grid = FluxControlNetInpaintPipeline._unpack_latents(flags[None], 64, 64, 4)[0, 0]
    assert torch.equal(grid, (~canvas.work_hole[::4, ::4]).float())


def test_the_known_pixels_change_what_the_controlnet_says(flux_controlnet_folder: Path) -> None:
    layer = load_controlnet(flux_controlnet_folder, torch.float32, "x").controlnet_x_embedder
    control = torch.rand(1, 64, 16)
    layer.flags = torch.zeros(64, 4)
    nothing = layer(control)
    layer.flags = torch.ones(64, 4)
    assert not torch.allclose(layer(control), nothing)
    weights = load_file(flux_controlnet_folder / "diffusion_pytorch_model.safetensors")
    matrix, bias = (weights[f"controlnet_x_embedder.{name}"] for name in ("weight", "bias"))
    by_hand = torch.cat([control, torch.ones(1, 64, 4)], dim=-1) @ matrix.T + bias
    torch.testing.assert_close(layer(control), by_hand)


def test_a_union_controlnet_of_diffusers_serves_too(
    ready: Ready, flux_folder: Path, flux_union_folder: Path, image: np.ndarray, hole: np.ndarray
) -> None:
    spec = f"flux-controlnet-inpaint:model={flux_folder},controlnet={flux_union_folder},control_mode="
    one, two = (ready(f"{spec}{mode}").generate(image, hole, "a cat", 0) for mode in (0, 2))
    assert np.array_equal(one[~hole], image[~hole])
    assert not np.array_equal(one, two)


def test_a_controlnet_that_was_not_told_the_hole_says_so(flux_controlnet_folder: Path) -> None:
    layer = load_controlnet(flux_controlnet_folder, torch.float32, "x").controlnet_x_embedder
    with pytest.raises(RuntimeError, match=r"show_known\(\)"):
        layer(torch.rand(1, 64, 16))


def test_weights_that_do_not_fit_are_named(flux_controlnet_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "controlnet"
    shutil.copytree(flux_controlnet_folder, folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["x_embedder.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"flux:controlnet cannot be loaded .*x_embedder\.weight"):
        load_controlnet(folder, torch.float32, "flux:controlnet")
