"""Tiny random models of the real classes, in the layout of Stable Diffusion 1.5: four levels, attention on
all but the deepest, 28 places for a branch. Nothing here needs a network.

Session fixtures hold what is expensive and must not be changed; the function fixtures hand out copies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mtadiffusion.models.branch import InpaintBranch

torch.set_num_threads(1)
diffusers_logging.set_verbosity_error()

TINY_UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (16, 32, 32, 32),
    "layers_per_block": 2,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
"""Latents of 16x16; images are four times as large, 64x64."""

TINY_SDXL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32, 32),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": 16 + 24,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}
"""What SDXL's layout has otherwise: three levels, two text encoders 16 and 24 wide, 12 pooled channels."""

TINY_VAE = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 64,
}

_WORDS = ("red", "apple", "cat", "a", "glossy", "painting", "of")


def make_unet(seed: int = 0, **overrides: object) -> UNet2DConditionModel:
    """A tiny backbone with random weights, frozen, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**{**TINY_UNET, **overrides})
    return unet.eval().requires_grad_(False)


def make_branch(
    unet: UNet2DConditionModel, *, zero: bool = False, seed: int = 1, **options: object
) -> InpaintBranch:
    """A tiny branch for `unet`; unless `zero`, as if trained: none of its parameters is left at zero."""
    branch = InpaintBranch.from_unet(unet, seed=seed, **options)
    if not zero:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in branch.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return branch.eval()


def make_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """A real CLIPTokenizer that knows all bytes, and a few words as one token each."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in _WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.append(parts[0])
    vocabulary = list(dict.fromkeys([*vocabulary, "<|startoftext|>", "<|endoftext|>"]))
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=list(dict.fromkeys(merges)),
        model_max_length=77,
        pad_token=pad_token,
    )


def make_text_config(tokenizer: CLIPTokenizer, **changes: object) -> CLIPTextConfig:
    """A tiny CLIP text encoder for `tokenizer`."""
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return CLIPTextConfig(**{**settings, **changes})


@pytest.fixture(scope="session")
def unet_factory() -> Callable[..., UNet2DConditionModel]:
    """`make_unet`, for tests that need a backbone of another layout."""
    return make_unet


@pytest.fixture(scope="session")
def sdxl_unet_factory() -> Callable[..., UNet2DConditionModel]:
    """A tiny backbone of SDXL's layout, with other fields on request."""
    return lambda **overrides: make_unet(**{**TINY_SDXL_UNET, **overrides})


@pytest.fixture(scope="session")
def branch_factory() -> Callable[..., InpaintBranch]:
    """`make_branch`, for tests that need a branch of another kind."""
    return make_branch


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock StableDiffusionPipeline of tiny random models, saved."""
    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(**TINY_VAE)
        text_encoder = CLIPTextModel(make_text_config(tokenizer))
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock StableDiffusionXLPipeline of tiny random models, saved."""
    folder = tmp_path_factory.mktemp("sdxl")
    tokenizer = make_tokenizer()
    second = make_text_config(tokenizer, hidden_size=24, projection_dim=12, hidden_act="gelu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(**TINY_VAE, scaling_factor=0.13025, force_upcast=True)
        text_encoder = CLIPTextModel(make_text_config(tokenizer))
        text_encoder_2 = CLIPTextModelWithProjection(second)
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(pad_token="!"),
        unet=make_unet(**TINY_SDXL_UNET),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def branch_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attention branch with an edge head that fits the backbone, as if trained, saved."""
    folder = tmp_path_factory.mktemp("branch")
    make_branch(make_unet()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def _session_unet() -> UNet2DConditionModel:
    return make_unet()


@pytest.fixture
def unet(_session_unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The backbone of `backbone_folder`, a copy to change at will."""
    return copy.deepcopy(_session_unet)


@pytest.fixture
def branch(unet: UNet2DConditionModel) -> InpaintBranch:
    """The branch of `branch_folder`, a copy to change at will."""
    return make_branch(unet)


@pytest.fixture
def tokenizer() -> CLIPTokenizer:
    """The tokenizer of `backbone_folder`."""
    return make_tokenizer()
