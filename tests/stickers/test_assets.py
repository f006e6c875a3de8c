"""The sprite pack."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from mtadiffusion.stickers.assets import STYLES, labels, sprite, sprite_pixels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.wording import DETAILS, STYLE_ADJECTIVES, STYLE_NOUNS

LARGEST_MB = 4


def test_there_are_at_least_sixty_objects_in_four_styles() -> None:
    assert len(STYLES) == 4
    assert len(set(labels())) == len(labels()) >= 60
    for label in labels():
        for style in STYLES:
            assert sprite_pixels(label, style, 0, 16).any()


def test_the_pack_is_small() -> None:
    size = sum(len(path.read_bytes()) for path in files("mtadiffusion.stickers").joinpath("assets").iterdir())
    assert size <= LARGEST_MB * 1e6


def test_the_licences_of_all_four_sets_are_shipped() -> None:
    text = files("mtadiffusion.stickers").joinpath("assets/LICENCES.md").read_text(encoding="utf-8").lower()
    for name in ("fluent", "noto", "twemoji", "mit", "apache", "cc-by-4.0"):
        assert name in text, name


def test_there_are_words_for_every_object_and_style() -> None:
    assert set(DETAILS) == set(labels())
    assert set(STYLE_ADJECTIVES) == set(STYLE_NOUNS) == set(STYLES)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("side", [20, 64, 100])
def test_pixels_are_premultiplied_and_as_large_as_asked(style: str, side: int) -> None:
    pixels = sprite_pixels("banana", style, 3, side)
    assert pixels.dtype == np.uint8
    assert max(pixels.shape[:2]) == side
    assert (pixels[..., :3] <= pixels[..., 3:]).all()
    assert (pixels[..., 3] > 127).mean() > 0.15


def test_the_same_object_differs_from_style_to_style() -> None:
    drawings = [np.resize(sprite_pixels("apple", style, 0, 32), (32, 32, 4)).astype(int) for style in STYLES]
    for i, one in enumerate(drawings):
        for other in drawings[:i]:
            assert np.abs(one - other).mean() > 1


def test_hue_steps_change_the_colour_word() -> None:
    words = [sprite("apple", "twemoji", hue).colour for hue in range(12)]
    assert words[0] == "red"
    assert len(set(words)) >= 4
    assert set(words) <= {*COLOURS, None}


@pytest.mark.parametrize(("label", "style"), [("zeppelin", "noto"), ("apple", "baroque")])
def test_an_unknown_sprite_is_a_key_error(label: str, style: str) -> None:
    with pytest.raises(KeyError):
        sprite(label, style)
