"""A tiny random backbone in the Stable Diffusion layout, a branch for it, and pictures with holes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.models.branch import InpaintBranch


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows single letters only."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def tiny_unet(**changes: object) -> UNet2DConditionModel:
    settings = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**settings, **changes}).eval()


def talking_branch(unet: UNet2DConditionModel) -> InpaintBranch:
    """A branch whose zero convolutions are not zero, so that it has a say."""
    torch.manual_seed(1)
    branch = InpaintBranch.from_unet(unet).eval()
    for conv in branch.zero_convs():
        torch.nn.init.normal_(conv.weight, std=0.05)
    return branch


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., UNet2DConditionModel]:
    return tiny_unet


@pytest.fixture(scope="session")
def make_branch() -> Callable[[UNet2DConditionModel], InpaintBranch]:
    return talking_branch


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The components of a pipeline: 64-px pictures, 16x16x4 latents."""
    unet = tiny_unet()
    torch.manual_seed(2)
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=2,
    ).eval()
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("parts") / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=188, eos_token_id=189,
    )  # fmt: skip
    return {
        "vae": vae,
        "text_encoder": CLIPTextModel(text).eval(),
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": DDIMScheduler(),
        "branch": talking_branch(unet),
    }


@pytest.fixture
def pipe(parts: dict[str, object]) -> MTAInpaintPipeline:
    pipe = MTAInpaintPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def stock_folder(parts: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone as stock Stable Diffusion saves it."""
    folder = tmp_path_factory.mktemp("stock")
    stock = {name: part for name, part in parts.items() if name != "branch"}
    pipe = StableDiffusionPipeline(
        **stock, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 (96, 112, 3), noise on a gradient, so that a shift by one pixel cannot go unseen."""
    rows, columns = np.mgrid[0:96, 0:112]
    gradient = np.stack([rows * 2, columns * 2, rows + columns], axis=-1)
    noise = np.random.default_rng(0).integers(0, 40, gradient.shape)
    return (gradient + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def hole() -> np.ndarray:
    """bool (96, 112), an ellipse."""
    rows, columns = np.mgrid[0:96, 0:112]
    return ((rows - 40) / 12) ** 2 + ((columns - 70) / 16) ** 2 < 1
