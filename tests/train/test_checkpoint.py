"""Checkpoints: complete or absent, whatever moment the process dies at."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtadiffusion.train import checkpoint
from mtadiffusion.train.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def made(step: int) -> Checkpoint:
    tensors = {
        "branch": {"w": torch.full((3, 4), float(step)).T},
        "ema": {"w": torch.full((2,), float(step))},
    }
    return Checkpoint(step=step, config={"seed": step}, tensors=tensors)


def assert_loads(folder: Path, allowed: set[int]) -> None:
    present = list_checkpoints(folder)
    assert {load_checkpoint(path).step for path in present} <= allowed
    newest = load_checkpoint(present[-1])
    assert torch.equal(newest.tensors["branch"]["w"], made(newest.step).tensors["branch"]["w"])


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, made(7), keep=2)
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.config) == (7, {"seed": 7})
    assert torch.equal(loaded.tensors["branch"]["w"], made(7).tensors["branch"]["w"])
    assert {item.suffix for item in path.iterdir()} == {".safetensors", ".json"}


def test_newest_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, made(step), keep=2)
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [3, 10]
    assert len(list(tmp_path.iterdir())) == 2


def calls_of_a_save(folder: Path, monkeypatch: pytest.MonkeyPatch, die_at: int) -> int:
    """Save step 3 over steps 1 and 2, dying before the `die_at`-th change of the disk; the calls made."""
    calls = 0

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == die_at:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", counting(checkpoint.save_file))
        patched.setattr(checkpoint.shutil, "rmtree", counting(checkpoint.shutil.rmtree))
        patched.setattr(checkpoint.os, "fsync", counting(checkpoint.os.fsync))
        for name in ("mkdir", "rename", "write_text"):
            patched.setattr(Path, name, counting(getattr(Path, name)))
        with contextlib.suppress(Killed):
            save_checkpoint(folder, made(3), keep=2)
    return calls


def test_a_kill_at_any_moment_leaves_what_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for die_at in itertools.count(1):
        folder = tmp_path / str(die_at)
        save_checkpoint(folder, made(1), keep=2)
        save_checkpoint(folder, made(2), keep=2)
        calls = calls_of_a_save(folder, monkeypatch, die_at)
        assert_loads(folder, {1, 2, 3})
        save_checkpoint(folder, made(4), keep=2)
        assert_loads(folder, {2, 3, 4})
        assert all(path.name.startswith("step-") for path in folder.iterdir())
        if calls < die_at:
            break
    assert die_at > 8


def test_a_half_written_file_is_never_under_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, made(1), keep=2)

    def half(tensors: dict[str, torch.Tensor], path: Path) -> None:
        Path(path).write_bytes(b"\x00" * 5)
        raise Killed

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(Killed):
        save_checkpoint(tmp_path, made(2), keep=2)
    assert_loads(tmp_path, {1})


def test_optimizer_state_survives_the_trip() -> None:
    def fresh() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        layer(torch.arange(3.0)).square().sum().backward()
        optimizer.step()

    layer, optimizer = fresh()
    step(layer, optimizer)
    other, other_optimizer = fresh()
    other.load_state_dict(layer.state_dict())
    load_optimizer_tensors(other_optimizer, {k: v.clone() for k, v in optimizer_tensors(optimizer).items()})
    for _ in range(3):
        step(layer, optimizer)
        step(other, other_optimizer)
    assert torch.equal(layer.weight, other.weight)
