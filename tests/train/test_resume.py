"""Which checkpoint a run goes on from, and what is told to a user who names a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.fields import to_dict
from mtadiffusion.train.checkpoint import Checkpoint, list_checkpoints, save_checkpoint
from mtadiffusion.train.resume import checkpoint_to_resume, discard_later
from mtadiffusion.train.trainer import run_training

from .conftest import Shapes, changed


def saved(config: TrainConfig, out: Path, *steps: int, samples: int = 0) -> list[Path]:
    tensors = {"branch": {"w": torch.zeros(1)}}
    for step in steps:
        one = Checkpoint(step=step, config=to_dict(config), tensors=tensors, samples_a_step=samples)
        save_checkpoint(out / "checkpoints", one, keep=9)
    return list_checkpoints(out / "checkpoints")


def step_resumed(config: TrainConfig, out: Path, resume: bool | Path, processes: int = 1) -> int | None:
    checkpoint = checkpoint_to_resume(config, out, resume, processes)
    return checkpoint.step if checkpoint is not None else None


def test_the_newest_checkpoint_or_the_one_named_or_none(config: TrainConfig, tmp_path: Path) -> None:
    assert step_resumed(config, tmp_path, True) is None
    paths = saved(config, tmp_path, 2, 4)
    assert step_resumed(config, tmp_path, True) == 4
    assert step_resumed(config, tmp_path, paths[0]) == 2
    assert step_resumed(config, tmp_path / "other", paths[0]) == 2
    assert step_resumed(config, tmp_path, False) is None


def test_what_comes_after_the_checkpoint_goes(config: TrainConfig, tmp_path: Path) -> None:
    saved(config, tmp_path, 2, 4, 6)
    discard_later(tmp_path, 4)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == [
        "step-00000002",
        "step-00000004",
    ]


def test_a_folder_that_is_no_checkpoint_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--resume must be the folder of a checkpoint, got '.*none'"):
        run_training(config, tmp_path / "run", Shapes(), resume=tmp_path / "none")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_recipe_is_refused_in_one_line(config: TrainConfig, tmp_path: Path) -> None:
    [path] = saved(changed(config, branch={"block": "residual"}, loss={"eta": 0.0}), tmp_path, 3)
    with pytest.raises(UserError, match=r"^--resume holds a run with another configuration.*") as raised:
        checkpoint_to_resume(config, tmp_path, path)
    assert "branch.block, loss.eta" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_many_differing_fields_are_counted(config: TrainConfig, tmp_path: Path) -> None:
    loss = {"gamma": 2.0, "delta": 2.0, "eta": 2.0, "min_snr": 5.0, "noise_offset": 0.1}
    [path] = saved(changed(config, seed=9, loss=loss, optim={"lr": 0.5, "ema": 0.5}), tmp_path, 3)
    with pytest.raises(UserError, match="and 2 more"):
        checkpoint_to_resume(config, tmp_path, path)


def test_a_checkpoint_older_than_a_field_has_its_default(config: TrainConfig, tmp_path: Path) -> None:
    before = to_dict(config)
    del before["tf32"], before["validation"], before["optim"]["kind"]
    old = Checkpoint(step=1, config=before, tensors={"branch": {"w": torch.zeros(1)}})
    save_checkpoint(tmp_path / "checkpoints", old, keep=1)
    assert step_resumed(config, tmp_path, True) == 1
    with pytest.raises(UserError, match=r"optim\.kind"):
        checkpoint_to_resume(changed(config, optim={"kind": "sgd"}), tmp_path, True)


@pytest.mark.parametrize(("batch_size", "accumulate", "processes"), [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_the_samples_a_step_may_be_shared_otherwise(
    config: TrainConfig, tmp_path: Path, batch_size: int, accumulate: int, processes: int
) -> None:
    saved(changed(config, batch_size=4), tmp_path, 3, samples=8)
    other = changed(config, batch_size=batch_size, accumulate=accumulate)
    assert step_resumed(other, tmp_path, True, processes) == 3
    with pytest.raises(UserError, match="holds a run of 8 samples a step"):
        checkpoint_to_resume(other, tmp_path, True, processes + 1)


def test_with_buckets_a_batch_stays_what_it_was(config: TrainConfig, tmp_path: Path) -> None:
    bucketed = changed(config, batch_size=4, data={"max_aspect": 2.0})
    saved(bucketed, tmp_path, 3, samples=8)
    assert step_resumed(changed(bucketed, accumulate=2), tmp_path, True) == 3
    with pytest.raises(UserError, match="another configuration, got 'batch_size'"):
        checkpoint_to_resume(changed(bucketed, batch_size=8), tmp_path, True)
