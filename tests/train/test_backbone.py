"""Which parts of a backbone a run has in memory, and which it does without."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.train import trainer
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.latent_cache import cache_facts
from mtadiffusion.train.make_cache import make_cache
from mtadiffusion.train.trainer import train

from .conftest import changed


@pytest.fixture
def own_backbone(backbone_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(backbone_folder, tmp_path / "backbone"))


@pytest.fixture
def config(config: TrainConfig, own_backbone: Path, tmp_path: Path) -> TrainConfig:
    return changed(
        config, backbone=str(own_backbone), steps=2, data={"cache_dir": str(tmp_path / "cache"), "records": 4}
    )


def without(folder: Path, *parts: str) -> None:
    for part in parts:
        for file in (folder / part).glob("*.safetensors"):
            file.unlink()


def encoders_in_memory() -> list[Any]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in (AutoencoderKL, CLIPTextModel)]


def test_a_run_on_a_cache_needs_the_unet_alone_and_what_makes_one_needs_all_but_that(
    config: TrainConfig, own_backbone: Path, tmp_path: Path
) -> None:
    unet = shutil.move(own_backbone / "unet", tmp_path / "unet")
    (own_backbone / "unet").mkdir()
    shutil.copy(Path(unet) / "config.json", own_backbone / "unet")
    make_cache(config, tmp_path / "cache")
    shutil.rmtree(own_backbone / "unet")
    shutil.move(unet, own_backbone / "unet")
    whole = train(config, tmp_path / "whole")
    without(own_backbone, "vae", "text_encoder")
    alone = train(config, tmp_path / "alone")
    assert whole is not None
    assert alone is not None
    one, other = ((path / "diffusion_pytorch_model.safetensors").read_bytes() for path in (whole, alone))
    assert one == other


def test_a_run_that_draws_or_encodes_says_at_once_what_it_lacks(
    config: TrainConfig, own_backbone: Path, tmp_path: Path
) -> None:
    make_cache(config, tmp_path / "cache")
    without(own_backbone, "vae")
    drawing = changed(config, validation={"every": 2, "samples": 0, "images": 1})
    for needy in (drawing, changed(config, data={"cache_dir": "", "cache": False})):
        with pytest.raises(UserError, match=r"backbone lacks diffusion_pytorch_model\.safetensors.*vae"):
            train(needy, tmp_path / "run")


def test_encoders_are_in_memory_only_while_pictures_are_drawn(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[str, list[int]] = {"step": [], "drawing": []}

    class Watched(trainer.TrainingRun):
        def advance(self, *arguments: Any, **options: Any) -> Any:
            held["step"].append(len(encoders_in_memory()))
            return super().advance(*arguments, **options)

        def _pipeline(self, *arguments: Any) -> Any:
            pipeline = super()._pipeline(*arguments)
            held["drawing"].append(len(encoders_in_memory()))
            return pipeline

    before = len(encoders_in_memory())
    monkeypatch.setattr(trainer, "TrainingRun", Watched)
    own_cache = changed(config, data={"cache_dir": ""})
    train(changed(own_cache, validation={"every": 1, "samples": 2, "images": 1}), tmp_path / "run")
    assert held == {"step": [before] * 2, "drawing": [before + 2] * 2}


def test_the_facts_of_a_cache_do_not_depend_on_where_weights_are_absent(
    config: TrainConfig, own_backbone: Path
) -> None:
    source = trainer.record_source("shapes", "train", 0, 64)
    samples = trainer.TrainingSamples(source, config.data, config.seed)
    before = cache_facts(config, samples)
    assert before["empty prompt"] == {"all zeros": False}
    (own_backbone / "vae" / "README.md").write_text("about it")
    assert cache_facts(config, samples) == before
    without(own_backbone, "text_encoder")
    assert cache_facts(config, samples) == {**before, "text encoder": None}


def test_frozen_parts_are_held_as_configured(config: TrainConfig) -> None:
    backbone = Backbone(changed(config, precision="bf16", frozen_dtype="bfloat16"), "cpu")
    assert "encoders" not in vars(backbone)
    assert backbone.unet.dtype == backbone.encoders.text_encoder.dtype == torch.bfloat16
    assert backbone.encoders.vae.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in backbone.unet.parameters())
    assert (backbone.latent_factor, backbone.picture_factor) == (4, 8)
    backbone.let_encoders_go()
    assert "encoders" not in vars(backbone)
