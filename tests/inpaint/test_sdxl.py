"""An SDXL backbone in the pipeline: with nothing known and no branch it is the stock text-to-image one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.guidance import guided
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.registry import load_pipeline

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PURE_NOISE = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.fixture(scope="module")
def stock(sdxl_folder: Path) -> StableDiffusionXLPipeline:
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def sdxl_branch(
    stock: StableDiffusionXLPipeline, make_branch: Callable[..., InpaintBranch], tmp_path: Path
) -> Path:
    make_branch(stock.unet).save_pretrained(tmp_path / "branch")
    return tmp_path / "branch"


@pytest.mark.parametrize(
    ("scheduler", "rescale"),
    [
        (EulerDiscreteScheduler(**BETAS), 0.0),
        (DDIMScheduler(**BETAS, **PURE_NOISE, timestep_spacing="trailing", clip_sample=False), 0.7),
    ],
    ids=["epsilon", "v-prediction down to pure noise"],
)
def test_a_whole_hole_without_a_branch_is_the_stock_pipelines_picture(
    stock: StableDiffusionXLPipeline, scheduler: object, rescale: float
) -> None:
    kinds = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "unet")
    pipe = MTAInpaintPipeline(
        **{name: getattr(stock, name) for name in kinds},
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
    )
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 3, "guidance_scale": 5.0, "guidance_rescale": rescale}
    image, hole = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8)
    made = pipe(
        "a red cat", image, hole, generator=torch.Generator().manual_seed(3), output_type="latent", **settings
    ).images
    stock.scheduler = scheduler
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    expected = stock("a red cat", height=64, width=64, latents=noise, output_type="latent", **settings).images
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_a_folder_and_a_branch_fill_a_hole_and_leave_the_rest(
    sdxl_folder: Path, sdxl_branch: Path, picture: np.ndarray, hole: np.ndarray
) -> None:
    results = []
    for pipe in (
        load_pipeline(str(sdxl_folder), str(sdxl_branch)),
        MTAInpaintPipeline.from_backbone(sdxl_folder, sdxl_branch),
    ):
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        made = pipe("a cat", picture, hole, num_inference_steps=2, generator=generator).images[0]
        results.append(np.asarray(made))
        np.testing.assert_array_equal(results[-1][~hole], picture[~hole])
        assert (results[-1][hole] != picture[hole]).any()
    np.testing.assert_array_equal(*results)


def test_of_a_branch_that_runs_for_both_halves_of_guidance_the_prompts_edges_count(
    sdxl_folder: Path, sdxl_branch: Path, picture: np.ndarray, hole: np.ndarray
) -> None:
    pipe = load_pipeline(str(sdxl_folder), str(sdxl_branch))
    pipe.set_progress_bar_config(disable=True)
    for parameter in pipe.branch.parameters():
        if not parameter.any():  # untrained, the branch does not hear the prompt yet
            torch.nn.init.normal_(parameter, std=0.1)
    put_out: list[torch.Tensor] = []
    pipe.branch.register_forward_hook(lambda _module, _args, made: put_out.append(made.edge))
    made = pipe("a cat", picture, hole, num_inference_steps=2, output_edges=True)
    negative, asked = put_out[-1][:, 0]
    assert torch.equal(made.edges[0], asked)
    assert not torch.equal(negative, asked)


def test_a_saved_sdxl_pipeline_keeps_its_second_encoder(
    sdxl_folder: Path, sdxl_branch: Path, tmp_path: Path
) -> None:
    load_pipeline(str(sdxl_folder), str(sdxl_branch)).save_pretrained(tmp_path / "saved")
    loaded = MTAInpaintPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.text_encoder_2.config.projection_dim == 12
    assert loaded.text_encoders.force_zeros_for_empty_prompt


def test_a_refiner_is_refused(stock: StableDiffusionXLPipeline, sdxl_unet_factory: Callable) -> None:
    five = sdxl_unet_factory(projection_class_embeddings_input_dim=12 + 5 * 8)
    parts = {name: getattr(stock, name) for name in ("vae", "text_encoder", "tokenizer", "text_encoder_2")}
    with pytest.raises(UserError, match=r"unet must take the 12 pooled channels and 6 sizes.*not a refiner"):
        MTAInpaintPipeline(**parts, unet=five, scheduler=stock.scheduler, tokenizer_2=stock.tokenizer_2)


def test_an_sdxl_branch_does_not_fit_another_backbone(backbone_folder: Path, sdxl_branch: Path) -> None:
    with pytest.raises(UserError, match="branch must have the backbone's widths"):
        load_pipeline(str(backbone_folder), str(sdxl_branch))


def test_rescaled_guidance_has_the_prompts_own_spread() -> None:
    prediction = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    full = guided(prediction, 7.0, 1.0)
    torch.testing.assert_close(full.std(), prediction[1:].std())
    plain = guided(prediction, 7.0)
    torch.testing.assert_close(guided(prediction, 7.0, 0.3), 0.3 * full + 0.7 * plain)
