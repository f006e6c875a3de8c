"""One safetensors file in the original layout gives the models that its parts were written from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.models.loading import empty_components, load_components
from mtadiffusion.models.registry import load_pipeline, resolve_backbone
from mtadiffusion.models.single_file import clip_tokenizer, shipped_layout

from .original_layout import save_as_one_file


@pytest.fixture(scope="module", params=("backbone_folder", "sdxl_folder"))
def stock_folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def file(stock_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny backbone as one file."""
    return one_file(stock_folder, tmp_path_factory.mktemp("file"))


@pytest.fixture(scope="module")
def _sd15_file(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_file(backbone_folder, tmp_path_factory.mktemp("file"))


@pytest.fixture
def sd15_file(_sd15_file: Path, tmp_path: Path) -> Path:
    """A copy of the simpler kind that a test may damage."""
    return Path(shutil.copytree(_sd15_file.parent, tmp_path / "copy")) / _sd15_file.name


def one_file(folder: Path, to: Path, *marks: str) -> Path:
    """The backbone as one file, its configurations beside it because no shipped ones fit its size."""
    path = to / "fine-tune.safetensors"
    save_as_one_file(load_components(folder, torch.float32), path, marks)
    shutil.copytree(folder, to / "fine-tune", ignore=shutil.ignore_patterns("*.safetensors"))
    return path


def test_every_weight_arrives_where_it_came_from(stock_folder: Path, file: Path) -> None:
    expected = load_components(stock_folder, torch.float32)
    parts = load_components(resolve_backbone(str(file)), torch.float32)
    assert parts.keys() == expected.keys()
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            state, other = part.state_dict(), expected[name].state_dict()
            assert state.keys() == other.keys()
            assert all(torch.equal(state[key], other[key]) for key in state), name
            assert not part.training
    assert dict(parts["scheduler"].config) == dict(expected["scheduler"].config)


def test_the_file_draws_what_the_folder_draws(stock_folder: Path, file: Path) -> None:
    image, hole = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), np.uint8)
    hole[20:40, 20:40] = 255
    results = []
    for pipe in (
        load_pipeline(str(stock_folder), "none"),
        MTAInpaintPipeline.from_backbone(file),
    ):
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        results.append(
            np.asarray(pipe("a cat", image, hole, num_inference_steps=2, generator=generator)[0][0])
        )
    np.testing.assert_array_equal(*results)


def test_sizes_are_known_without_reading_weights(stock_folder: Path, file: Path) -> None:
    sizes = [
        {name: sum(p.numel() for p in part.parameters()) for name, part in empty_components(path).items()}
        for path in (stock_folder, file)
    ]
    assert sizes[0] == sizes[1]


def test_the_shipped_configurations_serve_a_file_whose_sizes_they_fit(
    sdxl_folder: Path, tmp_path: Path
) -> None:
    """The shipped ones but for the sizes, which only a file of several gigabytes would fit."""
    path = tmp_path / "tiny.safetensors"
    save_as_one_file(load_components(sdxl_folder, torch.float32), path)
    beside = Path(shutil.copytree(shipped_layout("sdxl"), tmp_path / "tiny"))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        shutil.copy(sdxl_folder / part / "config.json", beside / part)
    parts = load_components(path, torch.bfloat16)
    assert type(parts["scheduler"]).__name__ == "EulerDiscreteScheduler"
    assert parts["force_zeros_for_empty_prompt"]
    assert [parts[name].pad_token for name in ("tokenizer", "tokenizer_2")] == ["<|endoftext|>", "!"]
    networks = [part for part in parts.values() if isinstance(part, torch.nn.Module)]
    assert {network.dtype for network in networks} == {torch.bfloat16}
    alone = load_components(path, torch.bfloat16, networks=("unet",))
    assert alone.keys() == {
        *("unet", "tokenizer", "tokenizer_2", "scheduler", "force_zeros_for_empty_prompt")
    }


def test_a_size_that_no_shipped_layout_has_asks_for_its_configurations(sd15_file: Path) -> None:
    shutil.rmtree(sd15_file.with_suffix(""))
    with pytest.raises(
        UserError, match=r"--model cannot be loaded .*configurations beside it, in a folder fine-tune"
    ):
        load_components(sd15_file, torch.float32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.diffusion_model.out.2.bias", "--model lacks some of its tensors"),
        (
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias",
            r"--model lacks 1 tensors of its text_encoder, first .*mlp\.fc1\.bias",
        ),
    ],
)
def test_a_missing_tensor_is_not_filled_at_random(sd15_file: Path, name: str, message: str) -> None:
    weights = load_file(sd15_file)
    del weights[name]
    save_file(weights, sd15_file)
    with pytest.raises(UserError, match=message):
        load_components(sd15_file, torch.float32)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("model.diffusion_model.", "this has no UNet"),
        ("first_stage_model.", "this has no VAE"),
        ("cond", "must have a Stable Diffusion's text encoders"),
    ],
)
def test_a_file_that_is_no_whole_backbone_is_refused(sd15_file: Path, without: str, message: str) -> None:
    save_file(
        {name: value for name, value in load_file(sd15_file).items() if not name.startswith(without)},
        sd15_file,
    )
    with pytest.raises(UserError, match=message):
        resolve_backbone(str(sd15_file))


def test_an_inpainting_checkpoint_is_refused(sd15_file: Path) -> None:
    weights: dict[str, Any] = load_file(sd15_file)
    weights["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(16, 9, 3, 3)
    save_file(weights, sd15_file)
    with pytest.raises(UserError, match="must take 4 latent channels, got 9"):
        resolve_backbone(str(sd15_file))


def test_a_fine_tune_marked_as_such_predicts_v_down_to_pure_noise(
    backbone_folder: Path, tmp_path: Path
) -> None:
    marked = one_file(backbone_folder, tmp_path, "v_pred", "ztsnr")
    scheduler = load_components(marked, torch.float32)["scheduler"]
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.alphas_cumprod[-1] == 0


def test_a_2x_file_needs_its_configurations_beside_it(backbone_folder: Path, tmp_path: Path) -> None:
    parts = load_components(backbone_folder, torch.float32)
    save_as_one_file(parts, tmp_path / "sd2.safetensors", sd2=True)
    with pytest.raises(UserError, match=r"Stable Diffusion 2\.x.*beside it, in a folder sd2"):
        resolve_backbone(str(tmp_path / "sd2.safetensors"))
    shutil.copytree(backbone_folder, tmp_path / "sd2", ignore=shutil.ignore_patterns("*.safetensors"))
    encoder = load_components(tmp_path / "sd2.safetensors", torch.float32)["text_encoder"]
    expected = parts["text_encoder"].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())


def test_clips_tokens_are_the_published_ones() -> None:
    tokenizer = clip_tokenizer("<|endoftext|>")
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = clip_tokenizer("!")("A DOG", padding="max_length", max_length=6).input_ids
    assert padded == [49406, 320, 1929, 49407, 0, 0]
