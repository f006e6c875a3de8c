"""SDXL from end to end: a run, its branch at work, and what its steps are told."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mtadiffusion.cli import main
from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.recipes import RECIPES, debug
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.batches import CachedBatches, EncodedBatches
from mtadiffusion.train.dataset import TrainingSamples
from mtadiffusion.train.encoding import build_encoders
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.latent_cache import LatentCache, cache_facts, filled_cache
from mtadiffusion.train.noise_schedule import NoiseSchedule
from mtadiffusion.train.step import LatentBatch

from .conftest import Shapes, changed


@pytest.fixture
def config(sdxl_folder: Path) -> TrainConfig:
    return changed(debug(), backbone=str(sdxl_folder), data={"source": "shapes", "cache_dtype": "float32"})


def test_a_run_trains_a_branch_that_fills_holes(sdxl_folder: Path, tmp_path: Path) -> None:
    words = ["--set", f"backbone={sdxl_folder}", "--set", "data.source=shapes"]
    words += ["--set", "steps=2", "--set", "validation.every=2", "--set", "loss.delta=0"]
    assert main(["train", "--recipe", "debug", "--out", str(tmp_path / "run"), *words]) == 0
    assert list((tmp_path / "run" / "sheets").glob("*.png"))
    branch = InpaintBranch.from_pretrained(tmp_path / "run" / "branch")
    assert branch.config.addition_embed_type == "text_time"
    assert any(conv.weight.any() for conv in branch.zero_convs())

    pixels, hole = np.full((64, 64, 3), 80, np.uint8), np.zeros((64, 64), np.uint8)
    hole[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    files = ["--image", str(tmp_path / "image.png"), "--mask", str(tmp_path / "mask.png")]
    models = ["--model", str(sdxl_folder), "--branch", str(tmp_path / "run" / "branch")]
    out = tmp_path / "out.png"
    assert main(["inpaint", *files, *models, "--prompt", "a cat", "--steps", "2", "--out", str(out)]) == 0
    filled = np.asarray(Image.open(out))
    assert (filled[hole == 0] == 80).all()
    assert (filled[hole > 0] != 80).any()


def test_cached_and_uncached_batches_tell_sdxl_the_same(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, data={"cache_dir": str(tmp_path), "records": 0})
    samples = TrainingSamples(Shapes(count=5, height=70, width=90), config.data, 5)
    encoders = partial(build_encoders, Backbone(config, "cpu"), config)
    one = CachedBatches(samples, filled_cache(config, samples, tmp_path, encoders), 0.3).batch([0, 1, 7])
    other = EncodedBatches(samples, *encoders(Faults(5, 0)), 0.3).batch([0, 1, 7])
    for batch in (one, other):
        assert batch.text.shape == (3, 77, 16 + 24)
        assert batch.pooled_text is not None
        assert batch.pooled_text.shape == (3, 12)
    assert one.added_cond_kwargs is not None
    assert other.added_cond_kwargs is not None
    for name in ("text_embeds", "time_ids"):
        torch.testing.assert_close(one.added_cond_kwargs[name], other.added_cond_kwargs[name])
    assert one.added_cond_kwargs["time_ids"][:, :2].tolist() == [[70.0, 90.0]] * 3


def test_another_idea_of_the_empty_prompt_is_another_cache(
    config: TrainConfig, sdxl_folder: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(sdxl_folder, tmp_path / "sdxl"))
    config = changed(config, backbone=str(own))
    samples = TrainingSamples(Shapes(count=2), config.data, 5)
    LatentCache(tmp_path / "cache", samples, cache_facts(config, samples))
    index = json.loads((own / "model_index.json").read_text())
    index["force_zeros_for_empty_prompt"] = False
    (own / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"empty prompt \(all zeros True there, False here\)"):
        LatentCache(tmp_path / "cache", samples, cache_facts(config, samples))


def test_other_backbones_are_told_no_sizes() -> None:
    empty = torch.zeros(1, 4, 2, 2)
    batch = LatentBatch(
        latents=empty, masked_latents=empty, known=empty, edge=empty, text=empty, sizes=torch.zeros(1, 6)
    )
    assert batch.added_cond_kwargs is None
    assert batch.to("cpu").pooled_text is None


@pytest.mark.parametrize(("name", "size"), [("sdxl", 347.0), ("sdxl-brushnet", 373.3)])
def test_the_recipes_train_a_branch_of_sdxls_size(
    name: str,
    size: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mtadiffusion.models.single_file import shipped_layout

    layout = shipped_layout("sdxl")
    monkeypatch.setattr("mtadiffusion.train.plan.resolve_backbone", lambda *_: layout)
    assert main(["train", "--recipe", name, "--out", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["branch, million parameters"] == size
    assert figures["text encoder 2, million parameters"] == 694.7
    assert figures["resolution"] == "1024x1024"
    assert RECIPES[name]().samples_a_step == RECIPES["sd15"]().samples_a_step


def test_epsilon_down_to_pure_noise_is_refused() -> None:
    levels = torch.tensor([0.9, 0.5, 0.0])
    with pytest.raises(UserError, match="must predict v where its schedule ends in nothing but noise"):
        NoiseSchedule(alphas_cumprod=levels, prediction_type="epsilon")
    schedule = NoiseSchedule(alphas_cumprod=levels, prediction_type="v_prediction")
    clean, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 2.0)
    last = torch.tensor([2])
    assert torch.equal(schedule.add_noise(clean, noise, last), noise)
    assert torch.equal(schedule.target(clean, noise, last), -clean)
