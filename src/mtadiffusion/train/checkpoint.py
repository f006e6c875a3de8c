"""Checkpoints of a run: folders of safetensors and one JSON file, complete or not there at all.

A folder is written under a temporary name, flushed to disk and renamed; old ones are renamed away before they
are deleted. So whatever moment a run dies at, every `step-*` folder can be loaded. There is no generator
state to keep: each sample's randomness is derived from its number (`mtadiffusion.seeding`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtadiffusion.train.processes import split_like, whole

_UNFINISHED, _DISCARDED = ".unfinished-", ".discarded-"
_MODEL = "branch"


class DamagedCheckpointError(ValueError):
    """A checkpoint cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What resuming needs."""

    step: int
    """Steps done."""

    config: dict[str, Any]
    """The run's configuration as JSON-ready dictionaries."""

    tensors: dict[str, dict[str, Tensor]]
    """Named groups of tensors: branch, ema, vgg, critic, optimizer."""

    skipped: int = 0
    """Steps among those done that were skipped."""

    samples_a_step: int = 0
    """Samples that each of the steps averaged over, of all processes together; 0: not known."""

    loss_scale: dict[str, Any] = field(default_factory=dict)
    """State of the gradient scaler; empty without one."""

    branch_config: str = ""
    """The branch's config.json, which makes a folder `branch` of the group `ema`; empty: there is none."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int, keep_every: int = 0) -> Path:
    """Write `folder/step-NNNNNNNN`, then let go of all but the newest `keep`. Returns its path.

    Multiples of `keep_every` stay too; 0: none do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    final = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f"{_UNFINISHED}{final.name}"
    temporary.mkdir()
    if checkpoint.branch_config:
        (temporary / _MODEL).mkdir()
        (temporary / _MODEL / "config.json").write_text(checkpoint.branch_config, encoding="utf-8")
    for name, tensors in checkpoint.tensors.items():
        saved = {key: value.contiguous() for key, value in tensors.items()}
        save_file(saved, _file_of(temporary, name))
    state = {
        "step": checkpoint.step,
        "skipped": checkpoint.skipped,
        "samples_a_step": checkpoint.samples_a_step,
        "loss_scale": checkpoint.loss_scale,
        "config": checkpoint.config,
        "groups": sorted(checkpoint.tensors),
    }
    (temporary / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    publish_folder(temporary, final)
    for old in list_checkpoints(folder)[:-keep]:
        if not keep_every or step_of(old) % keep_every:
            discard_folder(old)
    return final


def publish_folder(temporary: Path, final: Path) -> None:
    """Flush a finished folder to disk and give it its name; an older folder of that name goes."""
    _flush(temporary)
    if final.exists():
        discard_folder(final)
    temporary.rename(final)


def discard_folder(path: Path) -> None:
    """Delete a folder; it loses its name before it loses its files."""
    away = path.with_name(f"{_DISCARDED}{path.name}")
    path.rename(away)
    shutil.rmtree(away)


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if is_checkpoint(path))


def is_checkpoint(path: Path) -> bool:
    """Whether the folder was written by `save_checkpoint`."""
    return (path / "state.json").is_file()


def step_of(path: Path) -> int:
    """The number in a checkpoint folder's name."""
    return int(path.name.removeprefix("step-"))


def _file_of(folder: Path, group: str) -> Path:
    """Where a checkpoint holds a group of tensors: the average in a folder that a pipeline can load."""
    if group == "ema" and (folder / _MODEL).is_dir():
        return folder / _MODEL / SAFETENSORS_WEIGHTS_NAME
    return folder / f"{group}.safetensors"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder onto the CPU.

    Raises:
        DamagedCheckpointError: a file of it is missing, or not what was written.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(
            step=state["step"],
            config=dict(state["config"]),
            tensors={name: load_file(_file_of(path, name)) for name in state["groups"]},
            skipped=state.get("skipped", 0),
            samples_a_step=state.get("samples_a_step", 0),
            loss_scale=state.get("loss_scale", {}),
        )
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{type(error).__name__}: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's whole state as tensors named `{parameter's number}.{quantity}`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": whole(torch.as_tensor(value)).contiguous()
        for number, quantities in state.items()
        for name, value in quantities.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; groups and their settings stay as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = _as_state(value, parameters[int(number)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _as_state(value: Tensor, parameter: Tensor) -> Any:
    """A saved quantity as an optimiser keeps it: as its parameter is divided, or a whole number."""
    if value.shape == parameter.shape:
        return split_like(value, parameter)
    return value.item() if value.ndim == 0 and value.dtype == torch.int64 else value


def _sweep(folder: Path) -> None:
    for left in (*folder.glob(f"{_UNFINISHED}*"), *folder.glob(f"{_DISCARDED}*")):
        shutil.rmtree(left)


def _flush(folder: Path) -> None:
    """Force the folder's files and its entries to disk, so that the rename never precedes the content."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
