"""What is measured on held-out samples: the same every time, by timestep and by kind of hole."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadiffusion.config import TrainConfig
from mtadiffusion.train import trainer
from mtadiffusion.train.run_log import read_log
from mtadiffusion.train.validation import noise_by_timestep

from .conftest import changed


@pytest.fixture
def run(config: TrainConfig, tmp_path: Path) -> trainer.TrainingRun:
    config = changed(config, validation={"every": 1, "samples": 12, "images": 1, "timesteps": (100, 900)})
    source = trainer.record_source("shapes", "train", 0, 64)
    return trainer.TrainingRun(config, tmp_path, source, source)


def test_noise_is_told_apart_by_timestep_and_kind(run: trainer.TrainingRun) -> None:
    validation = run._validation()
    assert validation is not None
    figures = validation.figures(run.models)
    by = figures["validation_noise"]
    assert set(by) == {"t100", "t900", "brush", "object"}
    assert validation.figures(run.models) == figures
    assert figures["validation"].keys() == {"noise", "style", "structure"}


def test_the_size_of_a_batch_changes_no_figure(run: trainer.TrainingRun) -> None:
    validation = run._validation()
    assert validation is not None
    kinds = ["brush"] * 5 + ["object"] * 3
    one, other = (
        noise_by_timestep(run.models, validation._batches, kinds, changed(run.config, batch_size=size))
        for size in (1, 4)
    )
    assert one == pytest.approx(other, rel=1e-4)


def test_a_sheet_is_drawn_and_the_log_has_the_figures(run: trainer.TrainingRun, tmp_path: Path) -> None:
    validation = run._validation()
    assert validation is not None
    with run._logging():
        run.validate(validation)
    [line] = read_log(tmp_path / "log.jsonl")
    assert line.keys() == {"step", "validation", "validation_noise"}
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["step-00000000.png"]
