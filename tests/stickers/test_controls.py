"""Pictures whose right verdict is known."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.stickers.assets import sprite
from mtadiffusion.stickers.controls import FITTING, answered_picture, asked_for, fitted
from mtadiffusion.stickers.judge import load_judge
from mtadiffusion.stickers.problems import HoleProblem, hole_problem


@pytest.fixture(scope="module")
def problems() -> list[HoleProblem]:
    return [hole_problem("validation", index) for index in range(64)]


def test_an_answer_changes_the_hole_alone(problems: list[HoleProblem]) -> None:
    for problem in problems:
        changed = (answered_picture(problem) != problem.scene.record.image).any(-1)
        assert changed.any()
        assert not (changed & ~problem.hole).any()


def test_answers_show_what_is_asked_for_in_the_scene_s_style(problems: list[HoleProblem]) -> None:
    pictures = np.stack([answered_picture(problem) for problem in problems])
    verdicts = load_judge().verdicts(pictures, np.stack([problem.hole for problem in problems]))
    right = [(v.category == p.label, v.style == p.style) for v, p in zip(verdicts, problems, strict=True)]
    assert (np.mean(right, axis=0) > 0.85).all()


def test_what_is_asked_for_has_the_colour_that_the_prompt_names(problems: list[HoleProblem]) -> None:
    for problem in problems:
        assert problem.colour in (None, asked_for(problem).colour)


def test_a_fitted_object_lies_in_the_hole_and_not_beyond_the_picture(problems: list[HoleProblem]) -> None:
    for problem in problems:
        placement = fitted(problem.hole, sprite("apple", problem.style))
        x0, y0, x1, y1 = placement.box_xyxy
        solid = placement.pixels[..., 3] > 127
        assert (x1 - x0, y1 - y0) == solid.shape[::-1]
        assert (solid & problem.hole[y0:y1, x0:x1]).sum() >= 0.9 * FITTING * solid.sum()
