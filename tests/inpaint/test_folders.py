"""Saving and loading pipelines, and building them from stock Stable Diffusion folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline


def fill(pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return np.asarray(pipe("a cat", picture, hole, num_inference_steps=2, generator=generator).images[0])


def test_a_saved_pipeline_loads_and_draws_the_same(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, tmp_path: Path
) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = MTAInpaintPipeline.from_pretrained(tmp_path)
    assert type(loaded.branch) is type(pipe.branch)
    np.testing.assert_array_equal(fill(loaded, picture, hole), fill(pipe, picture, hole))
    assert not list(tmp_path.rglob("*.bin"))


def test_a_stock_folder_and_a_branch_folder_make_a_pipeline(
    pipe: MTAInpaintPipeline, stock_folder: Path, picture: np.ndarray, hole: np.ndarray, tmp_path: Path
) -> None:
    pipe.branch.save_pretrained(tmp_path / "branch")
    expected = fill(pipe, picture, hole)
    for branch in (tmp_path / "branch", str(tmp_path / "branch"), pipe.branch):
        built = MTAInpaintPipeline.from_backbone(stock_folder, branch)
        np.testing.assert_array_equal(fill(built, picture, hole), expected)


def test_a_stock_folder_alone_makes_the_baseline(
    stock_folder: Path, picture: np.ndarray, hole: np.ndarray
) -> None:
    pipe = MTAInpaintPipeline.from_backbone(stock_folder)
    assert pipe.branch is None
    np.testing.assert_array_equal(fill(pipe, picture, hole)[~hole], picture[~hole])


def test_the_dtype_reaches_backbone_and_branch(
    stock_folder: Path, pipe: MTAInpaintPipeline, tmp_path: Path
) -> None:
    pipe.branch.save_pretrained(tmp_path)
    built = MTAInpaintPipeline.from_backbone(stock_folder, tmp_path, torch_dtype=torch.bfloat16)
    assert {built.unet.dtype, built.branch.dtype, built.vae.dtype} == {torch.bfloat16}


def test_the_backbone_still_serves_the_stock_pipeline(stock_folder: Path) -> None:
    stock = StableDiffusionPipeline.from_pretrained(stock_folder)
    pipe = MTAInpaintPipeline(**{name: getattr(stock, name) for name in
                                 ("vae", "text_encoder", "tokenizer", "unet", "scheduler")})  # fmt: skip
    assert pipe.resolution == 64


def test_a_pickle_is_not_read_for_a_branch(
    stock_folder: Path, pipe: MTAInpaintPipeline, tmp_path: Path
) -> None:
    pipe.branch.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(UserError, match="must hold safetensors, not the pickle"):
        MTAInpaintPipeline.from_backbone(stock_folder, tmp_path)


def test_a_branch_of_another_width_is_refused_with_both_widths(
    parts: dict, make_unet: Callable, make_branch: Callable
) -> None:
    branch = make_branch(make_unet(block_out_channels=(8, 24)))
    with pytest.raises(UserError) as error:
        MTAInpaintPipeline(**{**parts, "branch": branch})
    assert "(8, 16)" in str(error.value)
    assert "(8, 24)" in str(error.value)


def test_an_inpainting_unet_is_refused(parts: dict, make_unet: Callable) -> None:
    with pytest.raises(
        UserError, match="unet must take the VAE's 4 latent channels, got 9; use a text-to-image"
    ):
        MTAInpaintPipeline(**{**parts, "unet": make_unet(in_channels=9), "branch": None})
