"""`mta train --dry-run`: what a run would be, before it costs anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mtadiffusion.cli import main
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.registry import load_components, resolve_backbone, resolve_branch


def dry_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: str) -> dict[str, object]:
    assert main(["train", "--out", str(tmp_path / "run"), "--dry-run", "--json", *words]) == 0
    assert not (tmp_path / "run").exists()
    return json.loads(capsys.readouterr().out)


def test_sizes_are_those_of_the_loaded_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = dry_run(capsys, tmp_path, "--recipe", "sticker")
    import torch

    unet = load_components(resolve_backbone("sticker"), torch.float32)["unet"]
    branch = InpaintBranch.from_pretrained(resolve_branch("sticker"))
    for name, network in (("unet", unet), ("branch", branch)):
        parameters = sum(parameter.numel() for parameter in network.parameters())
        assert figures[f"{name}, million parameters"] == round(parameters / 1e6, 1)


def test_visits_follow_from_steps_batch_and_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--set", "steps=100", "--set", "batch_size=8", "--set", "data.records=200"]
    figures = dry_run(capsys, tmp_path, "--recipe", "sticker", *changes)
    assert (figures["samples in all"], figures["visits to each record"]) == (800, 4.0)


def test_data_that_is_not_there_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--recipe", "debug", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    assert main(["train", "--dry-run", *words]) == 2
    assert "data.source is no known record source" in capsys.readouterr().err


def test_it_says_where_everything_comes_from_and_reads_no_weights(
    backbone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(backbone_folder, tmp_path / "own"))
    for file in own.rglob("*.safetensors"):
        file.unlink()
    own_words = ["--recipe", "sd15", "--set", f"backbone={own}", "--set", "style_vgg.weights=vgg.safetensors"]
    fresh = dry_run(capsys, tmp_path, *own_words)
    assert fresh["backbone"] == str(own)
    assert fresh["branch"] == "new, from backbone weights"
    assert fresh["style VGG"] == "folded, vgg.safetensors, which is not there"
    assert fresh["critic"] == "none"
    assert fresh["latent cache"] == "none"
    assert fresh["networks frozen beside the branch"] == "unet, vae, text_encoder"
    cached = dry_run(capsys, tmp_path, *own_words, "--set", "data.cache_dir=cache", "--set", "loss.delta=0")
    assert cached["latent cache"] == "cache"
    assert cached["style VGG"] == "none"
    assert cached["networks frozen beside the branch"] == "unet"


def test_it_names_the_critic_of_the_adversarial_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(capsys, tmp_path, "--recipe", "sticker")["critic"] == "new, 96 channels"


def test_memory_follows_from_how_weights_are_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mtadiffusion.models.single_file import shipped_layout

    words = [
        "--recipe",
        "sd15",
        "--set",
        f"backbone={shipped_layout('sd15')}",
        "--set",
        "data.cache_dir=cache",
    ]
    trained = "GB of the branch, its gradient, moments and average"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtadiffusion.train.plan.resolve_backbone", lambda *_: shipped_layout("sd15"))
        whole = dry_run(capsys, tmp_path, *words)
        half = dry_run(
            capsys, tmp_path, *words, "--set", "frozen_dtype=bfloat16", "--set", "optim.kind=adamw8bit"
        )
    assert (whole["GB of frozen weights"], half["GB of frozen weights"]) == (3.44, 1.72)  # 859.5 M
    assert (whole[trained], half[trained]) == (11.13, 7.79)  # 556.6 M
