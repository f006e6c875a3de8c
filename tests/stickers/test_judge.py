"""The judge: what it sees, what it answers, and how far the shipped one can be trusted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mtadiffusion.errors import UserError
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.controls import judge_report
from mtadiffusion.stickers.judge import (
    NONE,
    WEIGHTS,
    Judge,
    JudgeConfig,
    hole_views,
    load_judge,
    save_judge,
)
from mtadiffusion.stickers.problems import hole_problem

UNSEEN = 200


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Random weights, the shipped shape."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Judge(JudgeConfig(labels=labels(), styles=STYLES, colours=tuple(COLOURS))).eval()


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(6, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def holes() -> np.ndarray:
    holes = np.zeros((6, 64, 64), dtype=bool)
    for index in range(6):
        holes[index, 5 + index : 40, 10 : 60 - 3 * index] = True
    return holes


def test_the_judge_sees_nothing_outside_the_hole(pictures: np.ndarray, holes: np.ndarray) -> None:
    changed = np.where(holes[..., None], pictures, 255 - pictures)
    torch.testing.assert_close(
        hole_views(pictures, holes, 48), hole_views(changed, holes, 48), rtol=0, atol=0
    )


def test_what_is_not_hole_is_grey(pictures: np.ndarray) -> None:
    hole = np.zeros((1, 64, 64), dtype=bool)
    hole[:, 16:48, 24:40] = True  # upright: the square view has grey at both sides
    view = hole_views(pictures[:1], hole, 32)
    assert (view[..., :8] == 0).all()
    assert (view[..., 24:] == 0).all()
    expected = torch.from_numpy(pictures[:1, 16:48, 24:40].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(view[..., 8:24], expected)


def test_a_whole_picture_is_seen_whole(pictures: np.ndarray) -> None:
    views = hole_views(pictures, np.ones((6, 64, 64), dtype=bool), 64)
    torch.testing.assert_close(views, torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)


def test_an_empty_hole_is_a_grey_view(pictures: np.ndarray) -> None:
    assert (hole_views(pictures, np.zeros((6, 64, 64), dtype=bool), 48) == 0).all()


@pytest.mark.parametrize("size", [32, 100, 256])
def test_views_have_one_size_whatever_the_picture(size: int) -> None:
    views = hole_views(np.zeros((2, size, size, 3), dtype=np.uint8), np.ones((2, size, size), dtype=bool), 48)
    assert views.shape == (2, 3, 48, 48)
    torch.testing.assert_close(views, -torch.ones(2, 3, 48, 48))


def test_holes_of_another_shape_are_the_users_mistake(pictures: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"holes must have the shape \(6, 64, 64\) of the images"):
        hole_views(pictures, np.ones((6, 32, 32), dtype=bool), 48)


def test_verdicts_are_words_of_the_world(judge: Judge, pictures: np.ndarray, holes: np.ndarray) -> None:
    verdicts = judge.verdicts(pictures, holes)
    assert len(verdicts) == len(pictures)
    for verdict in verdicts:
        assert verdict.category in (*labels(), NONE)
        assert verdict.style in STYLES
        assert verdict.colour in (*COLOURS, None)
        assert set(verdict.confidences) == {"category", "style", "colour"}
        assert all(0 < confidence <= 1 for confidence in verdict.confidences.values())


def test_a_batch_is_judged_as_its_members(judge: Judge, pictures: np.ndarray, holes: np.ndarray) -> None:
    together = judge.verdicts(pictures, holes)
    for index, verdict in enumerate(together):
        (alone,) = judge.verdicts(pictures[index : index + 1], holes[index : index + 1])
        assert (alone.category, alone.style, alone.colour) == (
            verdict.category,
            verdict.style,
            verdict.colour,
        )
        assert alone.confidences == pytest.approx(verdict.confidences, abs=1e-5)


def test_a_picture_and_its_mirror_image_get_one_verdict(
    judge: Judge, pictures: np.ndarray, holes: np.ndarray
) -> None:
    mirrored = judge.verdicts(pictures[:, :, ::-1], holes[:, :, ::-1])
    for verdict, other in zip(judge.verdicts(pictures, holes), mirrored, strict=True):
        assert verdict.confidences == pytest.approx(other.confidences, abs=1e-4)


def test_no_pictures_give_no_verdicts(judge: Judge) -> None:
    assert judge.verdicts(np.zeros((0, 64, 64, 3), dtype=np.uint8), np.zeros((0, 64, 64), dtype=bool)) == []


def test_saved_and_loaded_it_judges_alike(
    judge: Judge, pictures: np.ndarray, holes: np.ndarray, tmp_path: Path
) -> None:
    save_judge(judge, tmp_path)
    loaded = load_judge(tmp_path)
    assert loaded.config == judge.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for verdict, other in zip(judge.verdicts(pictures, holes), loaded.verdicts(pictures, holes), strict=True):
        assert verdict.confidences == pytest.approx(other.confidences, abs=1e-2)


def test_a_folder_without_a_judge_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge has no config.json.*train it with tools/train_judge.py"):
        load_judge(tmp_path)


def test_as_many_strides_as_widths() -> None:
    with pytest.raises(UserError, match="widths must be as many as strides"):
        JudgeConfig(labels=("a",), styles=("b",), colours=("c",), widths=(8,), strides=(1, 2))


def test_the_judge_is_small(judge: Judge) -> None:
    assert sum(parameter.numel() for parameter in judge.parameters()) <= 500_000


def test_the_shipped_judge_knows_this_world_and_is_small() -> None:
    config = load_judge().config
    assert (config.labels, config.styles, config.colours) == (labels(), STYLES, tuple(COLOURS))
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 1e6
    assert "side" in json.loads((WEIGHTS / "config.json").read_text(encoding="utf-8"))
    assert dataclasses.asdict(config)["side"] == config.side


@pytest.mark.slow
def test_the_shipped_judge_is_right_on_unseen_renders_and_refuses_the_controls() -> None:
    problems = [hole_problem("validation", 10_000 + index) for index in range(UNSEEN)]
    report = judge_report(load_judge(), problems, split="validation")
    assert report["category"] >= 0.97
    assert report["style"] >= 0.97
    assert report["whole_category"] >= 0.97
    for control in ("unfilled", "background", "blurred", "other_style"):
        assert report[control] >= 0.95, control
