"""Which checkpoint a run goes on from, and whether it may: the run before must have been configured alike."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.fields import merged, to_dict
from mtadiffusion.train.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    discard_folder,
    is_checkpoint,
    list_checkpoints,
    load_checkpoint,
    step_of,
)

_MAY_CHANGE = frozenset(
    (
        *("steps", "device", "log_every", "checkpoint_every", "keep_checkpoints", "keep_every"),
        *("max_skipped", "validation", "batch_size", "accumulate", "compile", "tf32"),
        *("data.cache_dir", "data.workers", "data.encode_batch", "data.shard_records", "data.max_damaged"),
    )
)
"""Fields that a resumed run may have other values of; of the batch, the samples a step must stay."""

_MOST_NAMED = 6


@contextlib.contextmanager
def prepared_folder(out_dir: Path) -> Iterator[None]:
    """Makes the run's folder. If the block ends in an error, no empty folder is left.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("--out", "must be a folder that can be made", str(out_dir), error.strerror) from error
    if not os.access(out_dir, os.W_OK):
        raise UserError("--out", "must be writable", str(out_dir), "choose another folder")
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            out_dir.rmdir()
        raise


def checkpoint_to_resume(
    config: TrainConfig, out_dir: Path, resume: bool | Path, processes: int = 1
) -> Checkpoint | None:
    """The checkpoint to go on from: the newest in `out_dir`, that in the folder `resume`, or none.

    Raises:
        UserError: it is no checkpoint, a damaged one, or that of a run with another configuration.
    """
    if resume is False:
        return None
    if resume is True:
        present = list_checkpoints(out_dir / "checkpoints")
        return _checked(config, present[-1], processes, "--out") if present else None
    if not is_checkpoint(resume):
        remedy = "name a folder such as RUN/checkpoints/step-00000500, or auto"
        raise UserError("--resume", "must be the folder of a checkpoint", str(resume), remedy)
    return _checked(config, resume, processes, "--resume")


def discard_later(out_dir: Path, step: int) -> None:
    """Delete the checkpoints of a run that come after `step`: its steps from there on are done anew."""
    for path in list_checkpoints(out_dir / "checkpoints"):
        if step_of(path) > step:
            discard_folder(path)


def _checked(config: TrainConfig, path: Path, processes: int, argument: str) -> Checkpoint:
    try:
        checkpoint = load_checkpoint(path)
    except DamagedCheckpointError as error:
        remedy = "go on from an earlier one with --resume CHECKPOINT, or start afresh"
        raise UserError(
            argument, f"has a checkpoint that cannot be read ({error})", str(path), remedy
        ) from error
    before = merged(to_dict(TrainConfig()), checkpoint.config)  # fields that are newer than the checkpoint
    differing = _differing_fields(json.loads(json.dumps(to_dict(config))), json.loads(json.dumps(before)))
    if config.data.max_aspect > 1 and config.batch_size != before["batch_size"]:
        differing.append("batch_size")  # a batch is of one bucket: another size shows other samples
    if differing:
        remedy = "choose another folder, start afresh without resuming, or restore the fields"
        raise UserError(argument, "holds a run with another configuration", _listed(differing), remedy)
    now, then = config.samples_a_step * processes, checkpoint.samples_a_step or _samples_of(before)
    if now != then:
        remedy = f"change batch_size or accumulate: {processes} processes x {config.batch_size} x "
        remedy += f"{config.accumulate} = {now}"
        raise UserError(argument, f"holds a run of {then} samples a step", now, remedy)
    return checkpoint


def _samples_of(config: dict[str, Any]) -> int:
    return int(config["batch_size"] * config["accumulate"])


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _differing_fields(present: dict[str, Any], before: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name in sorted(present.keys() | before.keys()):
        new, old, path = present.get(name), before.get(name), f"{prefix}{name}"
        if path in _MAY_CHANGE or new == old:
            continue
        if isinstance(new, dict) and isinstance(old, dict):
            names += _differing_fields(new, old, f"{path}.")
        else:
            names.append(path)
    return names
