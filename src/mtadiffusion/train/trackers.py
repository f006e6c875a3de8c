"""Where a run can be watched beside its log: TensorBoard always, Weights & Biases where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter


class Tracker(Protocol):
    """Takes a run's figures and pictures."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after `step` steps, by names with slashes between groups."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """An image file made after `step` steps."""

    def close(self) -> None:
        """Write out what is waiting."""


class TensorBoard:
    """Event files in `folder`; those of steps after `resumed_step` are hidden, for they come again."""

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, step: int, name: str, path: Path) -> None:
        """See `Tracker`."""
        pixels = np.asarray(Image.open(path).convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases in `folder`, which leaves the machine only if WANDB_MODE=online is set."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mtadiffusion"),
            dir=str(folder),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """See `Tracker`."""
        self._run.log({name: self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def open_trackers(folder: Path, config: Mapping[str, Any], resumed_step: int = 0) -> list[Tracker]:
    """The trackers of the run in `folder`."""
    trackers: list[Tracker] = [TensorBoard(folder / "tensorboard", resumed_step)]
    if importlib.util.find_spec("wandb") is not None:
        trackers.append(WeightsAndBiases(folder, config))
    return trackers


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dictionaries by names such as `grad_norm/noise`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", float(value)
