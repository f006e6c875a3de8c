"""Hole problems."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.stickers.problems import (
    HoleProblem,
    background_filled,
    hole_around,
    hole_problem,
)
from mtadiffusion.stickers.scenes import achievable_colours, is_held_out
from mtadiffusion.stickers.wording import STYLE_ADJECTIVES, STYLE_NOUNS

COUNT = 40


@pytest.fixture(scope="module")
def problems() -> list[HoleProblem]:
    return [hole_problem("validation", index) for index in range(COUNT)]


def test_a_problem_is_a_pure_function_of_its_name(problems: list[HoleProblem]) -> None:
    again = hole_problem("validation", 5)
    assert again.prompt == problems[5].prompt
    np.testing.assert_array_equal(again.hole, problems[5].hole)
    np.testing.assert_array_equal(again.scene.record.image, problems[5].scene.record.image)


def test_half_the_holes_are_boxes_and_half_outlines(problems: list[HoleProblem]) -> None:
    assert [problem.kind for problem in problems].count("box") == COUNT // 2
    for problem in problems:
        rows, columns = problem.hole.any(1), problem.hole.any(0)
        assert (problem.hole.sum() == rows.sum() * columns.sum()) == (problem.kind == "box")


def test_a_quarter_asks_for_held_out_combinations_in_both_kinds_alike(problems: list[HoleProblem]) -> None:
    held_out = [problem for problem in problems if problem.held_out]
    assert len(held_out) == COUNT // 4
    assert [problem.kind for problem in held_out].count("box") * 2 == len(held_out) - len(held_out) % 2
    for problem in problems:
        assert is_held_out(problem.label, problem.colour, problem.style) == problem.held_out


def test_another_object_of_another_colour_is_asked_for(problems: list[HoleProblem]) -> None:
    for problem in problems:
        main = problem.scene.placements[0].sprite
        assert problem.label != main.label
        assert problem.colour is None or problem.colour != main.colour


def test_what_is_asked_for_can_be_had(problems: list[HoleProblem]) -> None:
    for problem in problems:
        if problem.colour is not None:
            assert problem.colour in achievable_colours(problem.label, problem.style)
    assert 0.4 < np.mean([problem.colour is not None for problem in problems]) < 0.95


def test_the_prompt_names_object_and_colour_but_not_the_style(problems: list[HoleProblem]) -> None:
    styles = [*STYLE_NOUNS.values(), *(word for words in STYLE_ADJECTIVES.values() for word in words)]
    for problem in problems:
        assert problem.label in problem.prompt
        assert (problem.colour or "") in problem.prompt
        assert not any(style in problem.prompt for style in styles)
        assert problem.style == problem.scene.record.attributes["style"]


def test_the_hole_hides_the_object_and_its_shadow_and_leaves_something(problems: list[HoleProblem]) -> None:
    for problem in problems:
        hidden = problem.scene.record.objects[0].mask | problem.scene.shadow
        assert problem.hole.dtype == bool
        assert problem.hole[hidden].all()
        assert (~problem.hole).mean() > 0.05


def test_problems_scale_with_the_picture() -> None:
    small, large = hole_problem("test", 4), hole_problem("test", 4, size=128)
    assert large.hole.shape == (128, 128)
    assert large.prompt == small.prompt
    assert abs(large.hole.mean() - small.hole.mean()) < 0.1


def test_splits_and_seeds_give_other_problems() -> None:
    wishes = [
        hole_problem(split, 0, seed=seed).hole.tobytes()
        for split in ("validation", "test")
        for seed in (0, 1)
    ]
    assert len(set(wishes)) == 4


@pytest.mark.parametrize("kind", ["box", "outline"])
def test_a_wider_margin_makes_a_larger_hole(problems: list[HoleProblem], kind: str) -> None:
    narrow, wide = (hole_around(problems[0].scene, kind, margin) for margin in (0.02, 0.1))
    assert (wide | narrow == wide).all()
    assert wide.sum() > narrow.sum()


def test_a_background_filled_hole_shows_neither_the_main_object_nor_what_lies_in_it(
    problems: list[HoleProblem],
) -> None:
    for problem in problems[:12]:
        filled = background_filled(problem.scene, problem.hole, np.random.default_rng(0))
        difference = np.abs(filled.astype(int) - problem.scene.record.image).mean(-1)
        assert difference[problem.scene.record.objects[0].mask].mean() > 10


def test_a_background_filled_hole_keeps_the_objects_around_it(problems: list[HoleProblem]) -> None:
    problem = next(p for p in problems if len(p.scene.placements) > 1)
    nowhere = np.zeros_like(problem.hole)
    filled = background_filled(problem.scene, nowhere, np.random.default_rng(0))
    last = problem.scene.record.objects[-1].mask
    difference = np.abs(filled.astype(int) - problem.scene.record.image).mean(-1)
    assert (difference[last] < 2).mean() > 0.5


def test_an_outline_has_no_islands_where_another_object_lies_over_the_main_one(
    problems: list[HoleProblem],
) -> None:
    for problem in problems:
        placement = problem.scene.placements[0]
        x0, y0, x1, y1 = placement.box_xyxy
        assert problem.hole[y0:y1, x0:x1][placement.pixels[..., 3] > 127].all()
