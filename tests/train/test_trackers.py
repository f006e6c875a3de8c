"""What a run leaves for TensorBoard and Weights & Biases, and on the console."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from mtadiffusion.train.run_log import RunLog, console_line
from mtadiffusion.train.trackers import TensorBoard, WeightsAndBiases, flat, open_trackers


def events(folder: Path) -> list[Any]:
    """The events in a folder's files: a length of 8 bytes, 4 of checksum, the event, 4 of checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            found.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += 16 + length
    return found


def test_figures_and_pictures_reach_tensorboard(tmp_path: Path) -> None:
    tracker = TensorBoard(tmp_path / "tensorboard", resumed_step=4)
    log = RunLog(tmp_path / "log.jsonl", trackers=[tracker])
    log.write(5, loss=0.5, grad_norm={"noise": 2.0})
    Image.new("RGB", (8, 4), "red").save(tmp_path / "sheet.png")
    log.show(5, "sheet", tmp_path / "sheet.png")
    log.close()
    written = events(tmp_path / "tensorboard")
    values = {value.tag: value for event in written for value in event.summary.value}
    assert values["loss"].simple_value == 0.5
    assert values["grad_norm/noise"].simple_value == 2.0
    assert (values["sheet"].image.width, values["sheet"].image.height) == (8, 4)
    assert {event.step for event in written if event.summary.value} == {5}
    assert any(event.session_log.status and event.step == 5 for event in written)


def test_names_of_groups_are_joined() -> None:
    assert dict(flat({"a": 1, "b": {"c": {"d": 2}}})) == {"a": 1.0, "b/c/d": 2.0}


def test_weights_and_biases_stays_offline_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(log=lambda *args, **kwargs: calls.append((args, kwargs)), finish=lambda: None)

    def init(**settings: Any) -> Any:
        calls.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    WeightsAndBiases(tmp_path, {"seed": 1}).scalars(3, {"loss": 0.5})
    assert calls[0]["mode"] == "offline"
    assert calls[1] == (({"loss": 0.5},), {"step": 3})


def test_tensorboard_alone_is_there_without_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    [tracker] = open_trackers(tmp_path, {})
    assert isinstance(tracker, TensorBoard)


def test_the_console_shows_the_losses_apart() -> None:
    figures = {"loss": 1.0, "noise": 0.25, "structure": 7.5, "lr": 1e-5, "samples_per_second": 12.0}
    line = console_line({**figures, "peak_share": 0.31, "memory_gb": 2.5})
    assert line == "loss=1 noise=0.25 structure=7.5 lr=1e-05 12 images/s 31% of peak 2.5 GB"
