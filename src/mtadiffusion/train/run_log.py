"""The log of a run: one JSON object a line, which a resumed run goes on with; and what is averaged in it.

What is written there goes to the run's trackers too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mtadiffusion.train.step import StepLosses
from mtadiffusion.train.trackers import Tracker, flat


class RunLog:
    """Appends to `path`; lines of steps after `resumed_step` are dropped, for they will be written again."""

    def __init__(self, path: Path, resumed_step: int = 0, trackers: Sequence[Tracker] = ()) -> None:
        self.path, self.trackers = path, trackers
        kept = [line for line in read_log(path) if line["step"] <= resumed_step] if resumed_step else []
        temporary = path.with_name(f".{path.name}")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)

    def write(self, step: int, **values: Any) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for tracker in self.trackers:
            tracker.scalars(step, dict(flat(values)))

    def show(self, step: int, name: str, picture: Path) -> None:
        """Hand an image file to the trackers."""
        for tracker in self.trackers:
            tracker.picture(step, name, picture)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self.trackers:
            tracker.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log's lines; the last one is left out if a kill cut it short."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def console_line(figures: Mapping[str, float]) -> str:
    """What the progress bar shows of a log line, beside the rate and the time left."""
    losses = ("loss", "noise", "style", "perceptual", "adversarial", "critic", "structure")
    names = (*losses, "vgg_features_rms", "lr", "lr_vgg", "lr_critic")
    shown = [f"{name}={figures[name]:.3g}" for name in names if name in figures]
    speed, share, memory = (figures[name] for name in ("samples_per_second", "peak_share", "memory_gb"))
    return " ".join([*shown, f"{speed:.3g} images/s", f"{share:.0%} of peak", f"{memory:.2g} GB"])


class Meter:
    """Means of the losses, and the speed, since the last reading."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._restart()

    def _restart(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps, self._clock = 0, time.perf_counter()

    def restart_clock(self) -> None:
        """Leave out of the speed what was done since the last step."""
        self._restart()

    def add(self, losses: StepLosses) -> None:
        """Count one step; nothing is read from the device yet."""
        values = {"loss": losses.total, **losses.terms}
        if losses.vgg_features_rms is not None:
            values["vgg_features_rms"] = losses.vgg_features_rms
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._steps += 1

    def read_out(self) -> dict[str, float]:
        """The means since the last reading and `samples_per_second`; starts anew."""
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        speed = self._steps * self.batch_size / (time.perf_counter() - self._clock)
        self._restart()
        return {**means, "samples_per_second": speed}
