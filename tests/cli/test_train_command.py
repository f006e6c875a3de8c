"""`mta train --dry-run`: what a run would be, before it costs anything."""

from __future__ import annotations

import json
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
