"""Runs of the whole loop on a tiny backbone: learning, logs, resume, export."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.registry import load_pipeline
from mtadiffusion.train import trainer
from mtadiffusion.train.batches import BatchSource
from mtadiffusion.train.checkpoint import list_checkpoints, load_checkpoint
from mtadiffusion.train.gradients import StepGradients
from mtadiffusion.train.run_log import read_log
from mtadiffusion.train.step import StepLosses
from mtadiffusion.train.trainer import train

from .conftest import changed


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return InpaintBranch.from_pretrained(folder).state_dict()


def assert_equal_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_debug_run_logs_validates_and_exports(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, validation={"every": 8})
    folder = train(config, tmp_path / "run")
    lines = read_log(tmp_path / "run" / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    for line in steps:
        total = line["noise"] + 100 * line["style"] + 0.1 * line["structure"]
        assert line["loss"] == pytest.approx(total, rel=1e-4)
        assert set(line["grad_norm"]) == {"noise", "style", "structure", "total"}
        assert line["samples_per_second"] > 0
        assert line["vgg_features_rms"] > 0
    assert set(lines[-1]["validation"]) == {"noise", "style", "structure"}
    assert len(list((tmp_path / "run" / "sheets").glob("*.png"))) == 1
    assert folder == tmp_path / "run" / "branch"
    assert InpaintBranch.from_pretrained(folder).config.block == "attention"


def test_loss_falls_on_a_tiny_problem(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(
        config, steps=24, batch_size=2, log_every=6, checkpoint_every=0, optim={"lr": 5e-3},
        loss={"delta": 0.0},
    )  # fmt: skip
    train(config, tmp_path)
    lines = read_log(tmp_path / "log.jsonl")
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert lines[-1]["structure"] < 0.5 * lines[0]["structure"]
    assert "style" not in lines[0]


def test_only_the_branch_and_the_vgg_change(config: TrainConfig, tmp_path: Path) -> None:
    source = trainer.record_source("shapes", "train", 0, 64)
    run = trainer.TrainingRun(config, tmp_path, source, None)
    encoders = run.backbone.encoders
    frozen = (run.backbone.unet, encoders.vae, encoders.text_encoder)
    before = [value.clone() for part in frozen for value in part.state_dict().values()]
    branch = [value.clone() for value in run.models.branch.parameters()]
    batches = run._batches(run.samples)
    run.advance(batches, apart=False)
    run.advance(batches, apart=True)
    after = [value for part in frozen for value in part.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert any(not torch.equal(*pair) for pair in zip(branch, run.models.branch.parameters(), strict=True))


@pytest.mark.parametrize(("cache", "adversarial"), [(True, 0.0), (False, 0.0), (True, 0.3)])
def test_resumed_run_equals_an_uninterrupted_one(
    config: TrainConfig, tmp_path: Path, cache: bool, adversarial: float
) -> None:
    data, loss = {"cache": cache, "records": 4}, {"adversarial": adversarial}
    config = changed(config, batch_size=2, data=data, loss=loss)
    whole = train(config, tmp_path / "whole")
    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        train_until(config, half, 6)
    assert [path.name for path in list_checkpoints(half / "checkpoints")] == ["step-00000004"]
    assert_equal_weights(whole, train(config, half))
    kept = [line["step"] for line in read_log(half / "log.jsonl")]
    assert kept == [2, 4, 6, 8]
    states = [
        load_checkpoint(list_checkpoints(path / "checkpoints")[-1]) for path in (tmp_path / "whole", half)
    ]
    for group in states[0].tensors:
        for name, value in states[0].tensors[group].items():
            assert torch.equal(value, states[1].tensors[group][name]), (group, name)


def train_until(config: TrainConfig, out: Path, step: int) -> None:
    """Run until just before `step` is done, and die there."""

    class Dying(trainer.TrainingRun):
        def advance(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if self.step == step:
                raise KeyboardInterrupt
            return super().advance(*args, **kwargs)

    original, trainer.TrainingRun = trainer.TrainingRun, Dying  # type: ignore[misc]
    try:
        train(config, out)
    finally:
        trainer.TrainingRun = original  # type: ignore[misc]


def test_finished_run_is_only_exported_again(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, steps=2)
    train(config, tmp_path)
    before = weights(tmp_path / "branch")
    assert all(map(torch.equal, before.values(), weights(train(config, tmp_path)).values()))


def test_another_configuration_in_a_used_folder_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    train(changed(config, steps=1), tmp_path)
    with pytest.raises(UserError, match=r"another configuration.*'optim\.lr'"):
        train(changed(config, steps=1, optim={"lr": 0.5}), tmp_path)
    train(changed(config, steps=1, optim={"lr": 0.5}), tmp_path, resume=False)


def test_more_steps_go_on_from_a_finished_run(config: TrainConfig, tmp_path: Path) -> None:
    train(changed(config, steps=2), tmp_path)
    train(dataclasses.replace(config, steps=3), tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")][-1] == "step-00000003"


BROKEN = {"loss": {"gamma": 1e38}, "optim": {"lr": 1.0, "clip": 0.0}}
"""Settings with which loss and gradients soon are infinite."""


def test_too_many_skipped_steps_end_the_run_and_name_the_last_good_checkpoint(
    config: TrainConfig, tmp_path: Path
) -> None:
    train(changed(config, steps=1, **BROKEN), tmp_path)
    good = list_checkpoints(tmp_path / "checkpoints")[-1]
    broken = changed(config, steps=40, max_skipped=2, checkpoint_every=0, **BROKEN)
    with pytest.raises(UserError, match=f"must leave the loss finite.*3 steps.*{good}"):
        train(broken, tmp_path)


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(StepGradients):
        def forward(self, batches: BatchSource, step: int, part: int) -> StepLosses:
            losses = super().forward(batches, step, part)
            nothing = dict.fromkeys(losses.terms, math.nan)
            return losses if step != 1 else dataclasses.replace(losses, weights=nothing)

    monkeypatch.setattr(trainer, "StepGradients", Faulty)
    run = trainer.TrainingRun(config, tmp_path, trainer.record_source("shapes", "train", 0, 64), None)
    batches = run._batches(run.samples)
    run.advance(batches, apart=False)
    before = [value.clone() for value in run.models.branch.parameters()]
    assert run.advance(batches, apart=True) is None
    assert (run.step, run.skipped) == (2, 1)
    assert all(map(torch.equal, before, run.models.branch.parameters()))
    run.save()
    assert load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1]).skipped == 1
    assert run.advance(batches, apart=True) is not None


def test_sigterm_saves_and_the_resumed_run_ends_like_an_undisturbed_one(
    config: TrainConfig, tmp_path: Path
) -> None:
    class Preempted(trainer.TrainingRun):
        def advance(self, batches: BatchSource, *, apart: bool) -> trainer.StepDone | None:
            if self.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().advance(batches, apart=apart)

    config, handler = changed(config, steps=5, checkpoint_every=0), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "TrainingRun", Preempted)
        assert train(config, tmp_path / "stopped") is None
    assert [path.name for path in list_checkpoints(tmp_path / "stopped/checkpoints")] == ["step-00000003"]
    assert signal.getsignal(signal.SIGTERM) is handler
    resumed, whole = train(config, tmp_path / "stopped"), train(config, tmp_path / "whole")
    assert_equal_weights(resumed, whole)


def test_accumulated_batches_are_one_large_batch(config: TrainConfig, tmp_path: Path) -> None:
    gradients, logged = [], []
    for batch_size, accumulate in ((4, 1), (2, 2)):
        out = tmp_path / f"{accumulate}"
        one = changed(config, steps=2, log_every=1, batch_size=batch_size, accumulate=accumulate)
        train(one, out)
        logged.append([line for line in read_log(out / "log.jsonl") if "loss" in line])
        run = trainer.TrainingRun(one, out, trainer.record_source("shapes", "train", 0, 64), None)
        run.optimizer.zero_grad = lambda *_: None  # type: ignore[method-assign]
        run.advance(run._batches(run.samples), apart=True)
        gradients.append([p.grad.clone() for p in run.models.branch.parameters() if p.grad is not None])
    for large, small in zip(*gradients, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-5)
    for large, small in zip(*logged, strict=True):
        assert small["loss"] == pytest.approx(large["loss"], rel=1e-3)
        assert small["grad_norm"]["total"] == pytest.approx(large["grad_norm"]["total"], rel=1e-2)


def test_checkpoints_at_multiples_stay(config: TrainConfig, tmp_path: Path) -> None:
    train(changed(config, steps=7, checkpoint_every=1, keep_checkpoints=1, keep_every=3), tmp_path)
    steps = [load_checkpoint(path).step for path in list_checkpoints(tmp_path / "checkpoints")]
    assert steps == [3, 6, 7]


def test_a_checkpoints_branch_folder_loads_in_the_pipeline(config: TrainConfig, tmp_path: Path) -> None:
    train(changed(config, steps=2, checkpoint_every=1), tmp_path)
    first, last = (path / "branch" for path in list_checkpoints(tmp_path / "checkpoints"))
    assert_equal_weights(last, tmp_path / "branch")
    pipeline = load_pipeline(config.backbone, str(first))
    assert all(map(torch.equal, weights(first).values(), pipeline.branch.state_dict().values()))


def test_unwritable_folder_is_the_users_mistake(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out must be a folder"):
        train(config, tmp_path / "file" / "run")


@pytest.mark.parametrize("block", ["attention", "residual"])
def test_both_blocks_train(config: TrainConfig, tmp_path: Path, block: str) -> None:
    config = changed(config, steps=1, branch={"block": block}, loss={"delta": 0.0})
    assert InpaintBranch.from_pretrained(train(config, tmp_path)).config.block == block


def test_the_perceptual_loss_needs_no_style_loss(config: TrainConfig, tmp_path: Path) -> None:
    train(changed(config, steps=1, loss={"delta": 0.0, "perceptual": 1.0}), tmp_path)
    (logged,) = (line for line in read_log(tmp_path / "log.jsonl") if "loss" in line)
    assert logged["perceptual"] > 0
    assert "style" not in logged


def test_the_critic_of_the_adversarial_loss_is_trained_along_at_its_own_rate(
    config: TrainConfig, tmp_path: Path
) -> None:
    loss = {"delta": 0.0, "adversarial": 0.2}
    config = changed(config, steps=2, log_every=1, loss=loss, critic={"lr": 1e-2}, optim={"warmup": 0})
    train(config, tmp_path)
    first, second = (line for line in read_log(tmp_path / "log.jsonl") if "loss" in line)
    assert first["lr_critic"] == pytest.approx(1e-2)
    assert first["critic"] != second["critic"]
    assert first["grad_norm"]["critic"] == 0.0
    saved = load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1])
    assert "whole.parametrizations.weight.original" in saved.tensors["critic"]


def test_run_goes_on_from_a_given_branch(config: TrainConfig, tmp_path: Path) -> None:
    first = train(changed(config, steps=1), tmp_path / "first")
    changes = {"steps": 1, "branch": {"start_from": str(first)}, "optim": {"lr": 0.0, "weight_decay": 0.0}}
    assert_equal_weights(first, train(changed(config, **changes), tmp_path / "second"))


def test_branch_without_edge_head_needs_no_structure_loss(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss\.eta needs branch\.edge_head"):
        changed(config, branch={"edge_head": False})
    config = changed(config, steps=1, loss={"eta": 0.0})
    config = changed(config, branch={"edge_head": False})
    train(config, tmp_path)
    assert "structure" not in read_log(tmp_path / "log.jsonl")[0]
