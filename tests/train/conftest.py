"""A tiny random backbone folder, records of plain shapes, and a run's configuration over both."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mtadiffusion.config import TrainConfig
from mtadiffusion.recipes import debug
from mtadiffusion.records import ImageRecord, ObjectRecord
from mtadiffusion.train.dataset import register_source

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, so that runs can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Records of one or two coloured rectangles on a gradient; `height` x `width` pixels."""

    count: int = 8
    height: int = 64
    width: int = 64

    def __len__(self) -> int:
        return self.count

    def record(self, index: int) -> ImageRecord:
        rng = np.random.default_rng(index)
        rows, columns = np.mgrid[0 : self.height, 0 : self.width]
        image = np.stack([rows * 2 % 256, columns * 2 % 256, (rows + columns) % 256], axis=-1).astype(
            np.uint8
        )
        objects = tuple(self._object(rng, image) for _ in range(1 + index % 2))
        return ImageRecord(
            image_id=f"shapes-{index}", image=image, caption=f"picture {index}", objects=objects
        )

    def _object(self, rng: np.random.Generator, image: np.ndarray) -> ObjectRecord:
        side = min(self.height, self.width) // 3
        top, left = int(rng.integers(self.height - side)), int(rng.integers(self.width - side))
        colour = str(rng.choice(sorted(COLOURS)))
        mask = np.zeros(image.shape[:2], dtype=bool)
        mask[top : top + side, left : left + side] = True
        image[mask] = COLOURS[colour]
        box = (left, top, left + side, top + side)
        return ObjectRecord(label="block", mask=mask, box_xyxy=box, description=f"a flat {colour} block")


def make_shapes(split: str, seed: int, size: int) -> Shapes:
    """The factory behind the registered name `shapes`."""
    return Shapes(count=8, height=size, width=size)


register_source("shapes", make_shapes)


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        scaling_factor=0.7,
    )


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows single letters only."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=24)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock Stable Diffusion folder: 64-pixel pictures, 16x16x4 latents, v-prediction."""
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokens") / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=24, bos_token_id=188, eos_token_id=189,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=make_vae(),
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=make_unet(),
            scheduler=DDIMScheduler(prediction_type="v_prediction"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    folder = tmp_path_factory.mktemp("backbone")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def config(backbone_folder: Path) -> TrainConfig:
    """The `debug` recipe on the shapes, without validation."""
    return changed(debug(), backbone=str(backbone_folder), data={"source": "shapes"}, validation={"every": 0})


def changed(config: Any, **changes: Any) -> Any:
    """`config` with fields replaced; a dictionary changes fields of the group of that name."""
    flat = {
        name: changed(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **flat)
