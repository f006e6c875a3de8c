"""The measurement, on tiny random models and a judge whose answers are known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.stickers import measure
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.judge import Judge, JudgeConfig, Verdict
from mtadiffusion.stickers.problems import HoleProblem, hole_problem

KEYS = {
    "split", "holes", "category", "style", "colour", "backbone_category", "text_to_image_category",
    "vae_psnr", "vae_psnr_objects", "known_max_difference", "seconds_per_image", "judge_category",
    "judge_style", "judge_controls", "scenes_per_second", "weights_mb", "tree_mb",
}  # fmt: skip


class Oracle:
    """Gives out prepared verdicts."""

    def __init__(self, verdicts: list[Verdict]) -> None:
        self._verdicts = verdicts

    def verdicts(self, images: np.ndarray, holes: np.ndarray) -> list[Verdict]:
        assert images.shape[:3] == holes.shape
        return self._verdicts[: len(images)]


@pytest.fixture(scope="module")
def problems() -> list[HoleProblem]:
    return [hole_problem("validation", index) for index in range(8)]


@pytest.fixture
def originals(problems: list[HoleProblem]) -> np.ndarray:
    return np.stack([problem.scene.record.image for problem in problems])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, backbone_folder: Path, branch_folder: Path) -> None:
    """Measure tiny random models, few pictures and few steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(JudgeConfig(labels=labels(), styles=STYLES, colours=tuple(COLOURS))).eval()

    def load(model: str, branch: str | None, device: str = "auto") -> MTAInpaintPipeline:
        return MTAInpaintPipeline.from_backbone(backbone_folder, branch_folder)

    monkeypatch.setattr(measure, "load_judge", lambda: judge)
    monkeypatch.setattr(measure, "load_pipeline", load)
    monkeypatch.setattr(measure, "TEXT_IMAGES", 4)
    monkeypatch.setattr(measure, "VAE_SCENES", 4)
    monkeypatch.setattr(measure, "RENDERED", 4)
    monkeypatch.setattr(measure, "_TIMED", 1)
    monkeypatch.setattr(measure, "GUIDANCES", (1.0, 3.0))


def _truth(problem: HoleProblem) -> Verdict:
    return Verdict(category=problem.label, style=problem.style, colour=problem.colour, confidences={})


def test_the_right_answers_are_counted(problems: list[HoleProblem], originals: np.ndarray) -> None:
    verdicts = [_truth(problem) for problem in problems]
    verdicts[0] = replace(verdicts[0], category="none")
    verdicts[1] = replace(verdicts[1], style="baroque")
    verdicts[2] = replace(verdicts[2], style="baroque")
    scored = measure.answers(Oracle(verdicts), problems, originals)  # type: ignore[arg-type]
    assert scored == pytest.approx({"category": 7 / 8, "style": 6 / 8, "colour": 1})


def test_colour_counts_only_where_one_was_asked_for(
    problems: list[HoleProblem], originals: np.ndarray
) -> None:
    plain = [i for i, problem in enumerate(problems) if problem.colour is None]
    coloured = [i for i, problem in enumerate(problems) if problem.colour is not None]
    verdicts = [_truth(problem) for problem in problems]
    for index in [*plain, coloured[0]]:
        verdicts[index] = replace(verdicts[index], colour="plaid")
    scored = measure.answers(Oracle(verdicts), problems, originals)  # type: ignore[arg-type]
    assert scored["colour"] == pytest.approx(1 - 1 / len(coloured))


def test_a_changed_known_pixel_is_noticed(problems: list[HoleProblem], originals: np.ndarray) -> None:
    changed = originals.copy()
    changed[3][problems[3].hole] ^= 255
    assert measure._known_difference(problems, changed) == 0
    row, column = np.argwhere(~problems[3].hole)[0]
    changed[3, row, column, 1] ^= 4
    assert measure._known_difference(problems, changed) == 4


def test_the_autoencoders_error_is_in_decibels() -> None:
    class Darkening:
        dtype = torch.float32

        def encode(self, pictures: torch.Tensor) -> Any:
            return SimpleNamespace(latents=pictures)

        def decode(self, latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
            return ((latents + 1) * 0.9 - 1,)

    pipeline: Any = SimpleNamespace(vae=Darkening(), resolution=64, device=torch.device("cpu"))
    quality = measure.vae_quality(pipeline, split="validation", count=3)
    assert 20 < quality["vae_psnr"] < 30
    assert 20 < quality["vae_psnr_objects"] < 30
    assert quality["vae_psnr"] != quality["vae_psnr_objects"]


def test_the_tree_and_the_weights_have_a_size(tmp_path: Path) -> None:
    assert measure.weights_mb() >= 0
    assert measure.tree_mb() is None or measure.tree_mb() >= 0


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_everything_is_measured_and_known_pixels_stay(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    figures = measure.measure("validation", 8, sampling=measure.Sampling(steps=1), sheet=sheet)
    assert set(figures) >= KEYS
    assert figures["known_max_difference"] == 0
    assert figures["holes"] == 8
    assert 0 <= figures["judge_style"] <= 1
    assert figures["seconds_per_image"] > 0
    assert set(figures["judge_controls"]) >= {"unfilled", "background", "other_style"}
    assert json.loads(json.dumps(figures)) == figures
    with Image.open(sheet) as image:
        assert image.height > 8 * 64


@pytest.mark.usefixtures("tiny")
def test_guidance_is_compared_for_both_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "Sampling", partial(measure.Sampling, steps=1))
    rows = measure.tune_guidance(8)
    assert [row["guidance"] for row in rows] == [1.0, 3.0]
    assert {"category", "backbone_category", "text_to_image_category", "mean", "backbone_mean"} <= set(
        rows[0]
    )


@pytest.mark.parametrize(
    ("split", "holes", "message"),
    [
        ("train", 400, "--split must be validation or test, got 'train'; training scenes are not held out"),
        ("tests", 400, "--split must be validation or test, got 'tests'; did you mean 'test'?"),
        ("test", 0, "--holes must be between 8 and 100000, got 0"),
    ],
)
def test_an_impossible_measurement_is_the_users_mistake(split: str, holes: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        measure.measure(split, holes)
    assert str(caught.value).startswith(message)


def test_the_last_line_is_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(split: str, holes: int, **options: Any) -> dict[str, Any]:
        return {"split": split, "holes": holes}

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(sys, "argv", ["measure", "--split", "test", "--holes", "9"])
    measure.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"split": "test", "holes": 9}


def test_a_mistake_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure", "--split", "train"])
    with pytest.raises(SystemExit) as caught:
        measure.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: --split must be validation or test")
