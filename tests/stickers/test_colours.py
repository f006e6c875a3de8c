"""Colour words and hue turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.stickers.colours import COLOURS, COVERAGE, colour_word, rgb_to_lab, rotate_hue

_COLOUR = st.tuples(*[st.integers(0, 255)] * 3)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_agrees_with_published_values(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    np.testing.assert_allclose(rgb_to_lab(np.array(rgb, dtype=np.uint8)), lab, atol=0.05)


@pytest.mark.parametrize("name", COLOURS)
def test_a_reference_colour_is_called_by_its_name(name: str) -> None:
    assert colour_word(np.full((10, 3), COLOURS[name], dtype=np.uint8)) == name


@pytest.mark.parametrize("grey", range(0, 256, 15))
def test_greys_have_no_colour_word(grey: int) -> None:
    assert colour_word(np.full((10, 3), grey, dtype=np.uint8)) is None


@pytest.mark.parametrize("tinted", [(170, 190, 195), (128, 118, 108), (200, 210, 215)])
def test_a_tinted_grey_has_no_colour_word(tinted: tuple[int, int, int]) -> None:
    assert colour_word(np.full((10, 3), tinted, dtype=np.uint8)) is None


def test_no_pixels_have_no_colour_word() -> None:
    assert colour_word(np.zeros((0, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize(("share", "word"), [(COVERAGE, "red"), (COVERAGE - 0.01, None)])
def test_a_colour_names_what_it_covers_enough_of(share: float, word: str | None) -> None:
    pixels = np.zeros((100, 3), dtype=np.uint8)
    pixels[: round(share * 100)] = COLOURS["red"]
    assert colour_word(pixels) == word


@pytest.mark.parametrize(
    ("turn", "turned"), [(0, (255, 0, 0)), (1 / 3, (0, 255, 0)), (2 / 3, (0, 0, 255)), (1 / 6, (255, 255, 0))]
)
def test_hue_turns_round_the_circle(turn: float, turned: tuple[int, ...]) -> None:
    assert tuple(rotate_hue(np.array([255, 0, 0], dtype=np.uint8), turn)) == turned


@given(colour=_COLOUR, step=st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_turning_the_hue_keeps_value_and_saturation(colour: tuple[int, ...], step: int) -> None:
    turned = rotate_hue(np.array(colour, dtype=np.uint8), step / 12)
    assert (turned.max(), turned.min()) == (max(colour), min(colour))


@given(colour=_COLOUR)
@settings(max_examples=60, deadline=None)
def test_no_turn_changes_nothing(colour: tuple[int, ...]) -> None:
    assert tuple(rotate_hue(np.array(colour, dtype=np.uint8), 0.0)) == colour
