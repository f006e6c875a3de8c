"""Tiny random checkpoints in the layouts of the releases, a specification of each method that runs, and what
each draws, once for all tests."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxFillPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from mtadiffusion.evaluate.benchmark import Settings
from mtadiffusion.evaluate.methods.method import Method
from mtadiffusion.evaluate.methods.powerpaint import PARTS, TASKS
from mtadiffusion.evaluate.methods.registry import method

DATA = Path(__file__).parents[2] / "data" / "brushnet-parity"
SETTINGS = Settings(size=64, steps=2, guidance_scale=3.0, scheduler="UniPCMultistepScheduler", seed=1234)
UNSAFE: dict[str, Any] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """What `make` makes, with random weights of its own, none of them left at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = make()
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.fixture(scope="session")
def stock(backbone_folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(backbone_folder, **UNSAFE)


@pytest.fixture(scope="session")
def inpainting_folder(stock: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StableDiffusionInpaintPipeline with a UNet of nine channels, saved."""
    unet = seeded(5, lambda: UNet2DConditionModel(**{**stock.unet.config, "in_channels": 9}))
    folder = tmp_path_factory.mktemp("inpainting")
    parts = {**stock.components, "unet": unet}
    StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def controlnet_folder(stock: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet for the backbone, as if trained, saved."""
    widths = (4, 8, 8)  # as many halvings as the tiny VAE has
    make = lambda: ControlNetModel.from_unet(stock.unet, conditioning_embedding_out_channels=widths)  # noqa: E731
    folder = tmp_path_factory.mktemp("controlnet")
    seeded(6, make).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def brushnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BrushNet under the names that an official checkpoint has."""
    folder = tmp_path_factory.mktemp("brushnet")
    config = json.loads((DATA / "brushnet_config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"_class_name": "BrushNetModel", **config}))
    shutil.copyfile(DATA / "brushnet.safetensors", folder / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def powerpaint_folder(stock: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PowerPaint's release: two files, the text encoder's with its wrapped table and learned tokens."""
    unet = seeded(7, lambda: UNet2DConditionModel(**{**stock.unet.config, "in_channels": 9}))
    text = seeded(8, lambda: CLIPTextModel(stock.text_encoder.config)).state_dict()
    table = text.pop("embeddings.token_embedding.weight")
    text["embeddings.token_embedding.wrapped.weight"] = table
    for number, task in enumerate(TASKS):
        learned = torch.randn(PARTS, table.shape[1], generator=torch.Generator().manual_seed(number))
        text[f"embeddings.token_embedding.trainable_embeddings.{task}"] = learned
    text["embeddings.position_ids"] = torch.arange(77)[None]
    folder = tmp_path_factory.mktemp("powerpaint")
    for part, weights in (("unet", unet.state_dict()), ("text_encoder", text)):
        prefix = "text_model." if part == "text_encoder" else ""
        (folder / part).mkdir()
        named = {prefix + name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(named, folder / part / f"{part}.safetensors")
    return folder


TINY_FLUX = {
    "patch_size": 1,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 16,
    "axes_dims_rope": (2, 2, 4),
    "guidance_embeds": True,
}
FLUX_TOKEN, FLUX_FILL_TOKEN = 16, 96
"""Packed channels: 4 latents in a patch of 2x2; with as many masked ones and 4x4 pixels of the hole each."""


@pytest.fixture(scope="session")
def flux_parts(stock: StableDiffusionPipeline) -> dict[str, Any]:
    """All of a FLUX.1 pipeline but its transformer."""
    letters = [(f"▁{letter}", -2.0) for letter in "abcdeglopr"]
    tokenizer = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0)
    text = CLIPTextConfig(**{**stock.text_encoder.config.to_dict(), "projection_dim": 16})
    t5 = T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    vae = {**stock.vae.config, "shift_factor": 0.1, "use_quant_conv": False, "use_post_quant_conv": False}
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": seeded(9, lambda: AutoencoderKL(**vae)),
        "text_encoder": seeded(10, lambda: CLIPTextModel(text)),
        "tokenizer": stock.tokenizer,
        "text_encoder_2": seeded(11, lambda: T5EncoderModel(t5)),
        "tokenizer_2": tokenizer,
    }


@pytest.fixture(scope="session")
def flux_fill_folder(flux_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FluxFillPipeline, saved."""
    channels = {"in_channels": FLUX_FILL_TOKEN, "out_channels": FLUX_TOKEN}
    transformer = seeded(12, lambda: FluxTransformer2DModel(**TINY_FLUX, **channels))
    folder = tmp_path_factory.mktemp("flux-fill")
    FluxFillPipeline(**flux_parts, transformer=transformer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flux_folder(flux_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FluxPipeline, text to image, saved."""
    transformer = seeded(13, lambda: FluxTransformer2DModel(**TINY_FLUX, in_channels=FLUX_TOKEN))
    folder = tmp_path_factory.mktemp("flux")
    FluxPipeline(**flux_parts, transformer=transformer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flux_union_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A union ControlNet as diffusers knows them, saved."""
    options = {**TINY_FLUX, "in_channels": FLUX_TOKEN, "num_mode": 3}
    folder = tmp_path_factory.mktemp("flux-union")
    seeded(14, lambda: FluxControlNetModel(**options)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flux_controlnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet that also sees which pixels are known, as alimama-creative's release is laid out."""
    model = seeded(15, lambda: FluxControlNetModel(**TINY_FLUX, in_channels=FLUX_TOKEN))
    extra = 4
    model.controlnet_x_embedder = seeded(16, lambda: torch.nn.Linear(FLUX_TOKEN + extra, model.inner_dim))
    folder = tmp_path_factory.mktemp("flux-controlnet")
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["num_mode"], config["conditioning_embedding_channels"]
    (folder / "config.json").write_text(json.dumps({**config, "extra_condition_channels": extra}))
    return folder


@pytest.fixture(scope="session")
def specs(
    backbone_folder: Path,
    branch_folder: Path,
    inpainting_folder: Path,
    controlnet_folder: Path,
    brushnet_folder: Path,
    powerpaint_folder: Path,
    flux_fill_folder: Path,
    flux_folder: Path,
    flux_controlnet_folder: Path,
) -> dict[str, str]:
    """A specification of each method that runs, by its name."""
    options = {
        "mtadiffusion": f"model={backbone_folder},branch={branch_folder}",
        "backbone": f"model={backbone_folder}",
        "blended-latent": f"model={backbone_folder}",
        "brushnet": f"model={backbone_folder},branch={brushnet_folder}",
        "sd-inpainting": f"model={inpainting_folder}",
        "controlnet-inpaint": f"model={backbone_folder},controlnet={controlnet_folder}",
        "powerpaint": f"model={inpainting_folder},weights={powerpaint_folder}",
        "flux-fill": f"model={flux_fill_folder}",
        "flux-controlnet-inpaint": f"model={flux_folder},controlnet={flux_controlnet_folder}",
        "harmonic": "",
    }
    return {name: f"{name}:{text}".rstrip(":") for name, text in options.items()}


@pytest.fixture
def image() -> np.ndarray:
    """uint8 (96, 96, 3): a gradient with noise on it, larger than what methods work at."""
    rows, columns = np.mgrid[0:96, 0:96]
    gradient = np.stack([rows * 2, columns * 2, rows + columns], axis=-1)
    noise = np.random.default_rng(0).integers(0, 40, gradient.shape)
    return (gradient + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def hole() -> np.ndarray:
    """bool (96, 96): an ellipse whose edge falls between the pixels that methods work at."""
    rows, columns = np.mgrid[0:96, 0:96]
    return ((rows - 41) / 19) ** 2 + ((columns - 55) / 23) ** 2 < 1


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What one method drew."""

    first: np.ndarray
    again: np.ndarray
    """The same once more, with other pixels in the hole."""
    other_seed: np.ndarray


@pytest.fixture(scope="session")
def ready() -> Callable[..., Method]:
    """A method from its specification, set up on the CPU; the same one for the same arguments."""

    @functools.cache
    def make(text: str, **changes: Any) -> Method:
        made = method(text)
        made.setup(dataclasses.replace(SETTINGS, **changes), "cpu", "float32")
        return made

    return make


@pytest.fixture(scope="session")
def draw(specs: dict[str, str], ready: Callable[..., Method]) -> Callable[..., Drawn]:
    """What a method draws; each is asked once."""
    cache: dict[str, Drawn] = {}

    def one(name: str, image: np.ndarray, hole: np.ndarray) -> Drawn:
        if name not in cache:
            made = ready(specs[name])
            other = image.copy()
            other[hole] = 255 - other[hole]
            cache[name] = Drawn(
                first=made.generate(image, hole, "a red apple", 1),
                again=made.generate(other, hole, "a red apple", 1),
                other_seed=made.generate(image, hole, "a red apple", 2),
            )
        return cache[name]

    return one
