"""Runs in other precisions and with frozen parts compiled: near full precision, resumable to the bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.train import trainer
from mtadiffusion.train.checkpoint import list_checkpoints, load_checkpoint
from mtadiffusion.train.trainer import train

from .conftest import changed


def started(config: TrainConfig, out: Path) -> trainer.TrainingRun:
    source = trainer.record_source("shapes", "train", 0, 64)
    run = trainer.TrainingRun(changed(config, data={"records": 2}), out, source, source)
    if config.precision == "fp16":
        run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": 2.0**4})
    return run


def first_step(run: trainer.TrainingRun) -> trainer.StepDone:
    done = run.advance(run._batches(run.samples), apart=True)
    assert done is not None
    return done


@pytest.mark.parametrize(("precision", "frozen"), [("bf16", "bfloat16"), ("fp16", "float32")])
def test_lower_precision_is_near_full_precision(
    config: TrainConfig, tmp_path: Path, precision: str, frozen: str
) -> None:
    full = first_step(started(config, tmp_path))
    run = started(changed(config, precision=precision, frozen_dtype=frozen), tmp_path)
    less = first_step(run)
    assert float(less.parts[0].terms["noise"]) == pytest.approx(float(full.parts[0].terms["noise"]), rel=0.05)
    assert less.norms == pytest.approx(full.norms, rel=0.1)
    assert {parameter.dtype for parameter in run.models.branch.parameters()} == {torch.float32}


def test_a_sheet_is_drawn_by_parts_in_different_precisions(config: TrainConfig, tmp_path: Path) -> None:
    seen = {"every": 1, "samples": 1, "images": 1, "steps": 1}
    run = started(changed(config, precision="bf16", frozen_dtype="bfloat16", validation=seen), tmp_path)
    validation = run._validation()
    assert validation is not None
    run.validate(validation)
    assert (tmp_path / "sheets" / "step-00000000.png").is_file()


def test_fp16_goes_on_with_its_loss_scale(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, precision="fp16", steps=2, checkpoint_every=1, log_every=9, data={"records": 2})
    train(changed(config, steps=1), tmp_path / "resumed")
    state = load_checkpoint(list_checkpoints(tmp_path / "resumed/checkpoints")[-1]).loss_scale
    assert state["scale"] > 0
    train(config, tmp_path / "resumed")
    train(config, tmp_path / "whole")
    one, other = (
        InpaintBranch.from_pretrained(tmp_path / name / "branch").state_dict()
        for name in ("resumed", "whole")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_overflow_lowers_the_scale_and_is_no_fault(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = started(changed(config, precision="fp16"), tmp_path)
    run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": 2.0**60})
    with caplog.at_level(logging.WARNING):
        assert run.advance(run._batches(run.samples), apart=False) is None
    assert (run.step, run.skipped, run.scaler.get_scale()) == (1, 0, 2.0**59)
    assert not caplog.records


def test_frozen_parts_in_less_need_autocast(config: TrainConfig) -> None:
    with pytest.raises(UserError, match="frozen_dtype needs autocast, got 'bfloat16'; set precision=bf16"):
        changed(config, frozen_dtype="bfloat16")


def test_eight_bit_moments_need_their_package(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"optim\.kind needs the package bitsandbytes"):
        train(changed(config, optim={"kind": "adamw8bit"}), tmp_path)


def test_only_the_frozen_unets_blocks_are_compiled(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(UNet2DConditionModel, "compile_repeated_blocks", lambda unet: compiled.append(unet))
    source = trainer.record_source("shapes", "train", 0, 64)
    run = trainer.TrainingRun(changed(config, compile=True), tmp_path, source, None)
    assert compiled == [run.backbone.unet]


def test_the_frozen_backbone_keeps_less_than_a_trained_one(config: TrainConfig, tmp_path: Path) -> None:
    source = trainer.record_source("shapes", "train", 0, 64)
    run = trainer.TrainingRun(changed(config, loss={"delta": 0.0, "eta": 0.0}), tmp_path, source, None)
    batches = run._batches(run.samples)
    frozen = kept_bytes(lambda: run.gradients.forward(batches, 0, 0))
    run.models.unet.requires_grad_(True)
    assert frozen < 0.95 * kept_bytes(lambda: run.gradients.forward(batches, 0, 0))


def kept_bytes(job: Any) -> int:
    """What autograd keeps for the backward pass of `job`, parameters left out."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = job()
    assert held is not None
    return sum(kept.values())
