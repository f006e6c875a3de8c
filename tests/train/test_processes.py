"""Several processes, as copies of the branch and as parts of it, against one process with their samples."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.train import trainer
from mtadiffusion.train.checkpoint import list_checkpoints, load_checkpoint
from mtadiffusion.train.processes import Processes
from mtadiffusion.train.run_log import read_log
from mtadiffusion.train.trainer import train

from .conftest import changed


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return InpaintBranch.from_pretrained(folder).state_dict()


def assert_close_weights(first: Path, second: Path, tolerance: float) -> None:
    one, other = weights(first), weights(second)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) <= tolerance


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def as_rank(rank: int, port: int, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What a launcher does for one of two processes."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    job(*arguments)


def in_two_processes(job: Callable[..., Any], *arguments: Any) -> None:
    """Forked, because a fresh interpreter takes seconds to import torch."""
    context, port = multiprocessing.get_context("fork"), free_port()
    workers = [context.Process(target=as_rank, args=(rank, port, job, arguments)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        worker.kill()
    assert [worker.exitcode for worker in workers] == [0, 0]


needs_fork = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA cannot be used after a fork")


@pytest.fixture
def by_sgd(config: TrainConfig) -> TrainConfig:
    """Plain steps of four samples, every loss on, in which nothing magnifies rounding."""
    optim = {"kind": "sgd", "lr": 1e-3, "warmup": 0, "clip": 0.0, "weight_decay": 0.0, "ema": 0.0}
    return changed(config, steps=6, batch_size=4, log_every=3, checkpoint_every=3, optim=optim)


@needs_fork
def test_two_processes_train_like_one_with_twice_the_batch(by_sgd: TrainConfig, tmp_path: Path) -> None:
    train(by_sgd, tmp_path / "one")
    in_two_processes(train, changed(by_sgd, batch_size=2), tmp_path / "two")
    assert_close_weights(tmp_path / "one/branch", tmp_path / "two/branch", 1e-5)
    for one, two in zip(*(read_log(tmp_path / name / "log.jsonl") for name in ("one", "two")), strict=True):
        for name in ("loss", "noise", "style", "structure"):
            assert two[name] == pytest.approx(one[name], rel=1e-4)
        for name, norm in one["grad_norm"].items():
            assert two["grad_norm"][name] == pytest.approx(norm, rel=1e-3)


@needs_fork
def test_one_process_goes_on_where_two_were_stopped(by_sgd: TrainConfig, tmp_path: Path) -> None:
    in_two_processes(train, changed(by_sgd, steps=3, batch_size=2), tmp_path / "moved")
    assert load_checkpoint(list_checkpoints(tmp_path / "moved/checkpoints")[-1]).samples_a_step == 4
    with pytest.raises(UserError, match="holds a run of 4 samples a step"):
        train(changed(by_sgd, batch_size=2), tmp_path / "moved")
    train(changed(by_sgd, batch_size=2, accumulate=2), tmp_path / "moved")
    train(by_sgd, tmp_path / "whole")
    assert_close_weights(tmp_path / "moved/branch", tmp_path / "whole/branch", 1e-5)


class Sharding(Processes):
    """One process that divides its parameters among all as FSDP2 does."""

    wraps = True  # type: ignore[assignment]

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        before = list(module.parameters())
        sharded: Any = fully_shard(module)
        divided = dict(zip(before, sharded.parameters(), strict=True))
        for group in optimizer.param_groups:
            group["params"] = [divided[parameter] for parameter in group["params"]]
        return sharded, optimizer


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_divided_branch_trains_and_resumes_like_a_whole_one(
    by_sgd: TrainConfig, tmp_path: Path, process_group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(by_sgd, steps=4, log_every=2, checkpoint_every=2, optim={"kind": "adamw", "ema": 0.9})
    train(config, tmp_path / "whole")
    monkeypatch.setattr(trainer, "Processes", Sharding)
    train(changed(config, steps=2), tmp_path / "divided")
    train(config, tmp_path / "divided")
    assert_close_weights(tmp_path / "whole/branch", tmp_path / "divided/branch", 1e-5)
    run = trainer.TrainingRun(config, tmp_path, trainer.record_source("shapes", "train", 0, 64), None)
    assert all(isinstance(parameter, DTensor) for parameter in run.models.branch.parameters())
    assert all(isinstance(value, DTensor) for value in run.ema.weights.values())
    assert not any(isinstance(parameter, DTensor) for parameter in run.models.unet.parameters())


@pytest.mark.slow
def test_accelerate_launches_two_processes_on_a_cpu(tmp_path: Path) -> None:
    settings = ("steps=2", "batch_size=2", "validation.every=0", "data.records=4", "loss.delta=0")
    changes = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
    command += ["--main_process_port", str(free_port()), "-m", "mtadiffusion", "train", "--recipe", "debug"]
    done = subprocess.run([*command, "--out", str(tmp_path), *changes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(tmp_path / "branch")  # of the first process alone
    (saved,) = list_checkpoints(tmp_path / "checkpoints")
    assert load_checkpoint(saved).samples_a_step == 4


def test_a_launcher_that_started_one_of_several_processes_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    Processes("cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # as `accelerate launch --cpu --num_processes 2` does
    with pytest.raises(UserError, match="--cpu starts one process of those asked for; use torchrun"):
        Processes("cpu")


def test_a_process_alone_is_not_wrapped() -> None:
    PartialState()
    processes = Processes("cpu")
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters())
    assert not processes.wraps
    assert processes.prepare(layer, optimizer) == (layer, optimizer)
    assert processes.mean({"loss": 2.0}) == {"loss": 2.0}
    assert processes.any(True)
    assert not processes.any(False)
