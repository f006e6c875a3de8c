"""Rendered scenes and their truth."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.backdrops import BACKDROPS
from mtadiffusion.stickers.scenes import (
    MOST_OBJECTS,
    SHADOWED,
    SPLITS,
    VISIBLE,
    Scene,
    SceneWorld,
    achievable_colours,
    choose_sprite,
    is_held_out,
)

COUNT = 60


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    world = SceneWorld(split="validation")
    return [world.scene(index) for index in range(COUNT)]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_scene_is_a_pure_function_of_its_name(size: int) -> None:
    one, other = (SceneWorld(split="test", seed=3, size=size).scene(7) for _ in range(2))
    assert one.record.image.tobytes() == other.record.image.tobytes()
    assert one.record.image.shape == (size, size, 3)
    assert one.record.image.dtype == np.uint8
    assert one.placements == other.placements
    assert one.record.caption == other.record.caption


def test_splits_seeds_and_indices_give_other_scenes() -> None:
    pictures = [SceneWorld(split=split).record(0).image.tobytes() for split in SPLITS]
    pictures += [SceneWorld(seed=1).record(0).image.tobytes(), SceneWorld().record(1).image.tobytes()]
    assert len(set(pictures)) == len(pictures)


def test_a_scene_has_one_style_and_a_backdrop_of_it(scenes: list[Scene]) -> None:
    for scene in scenes:
        style = scene.record.attributes["style"]
        assert {thing.attributes["style"] for thing in scene.record.objects} == {style}
        assert scene.record.attributes["backdrop"] in [backdrop.__name__ for backdrop in BACKDROPS[style]]
    assert {scene.record.attributes["style"] for scene in scenes} == set(STYLES)


def test_scenes_have_one_to_four_objects(scenes: list[Scene]) -> None:
    assert {len(scene.record.objects) for scene in scenes} == set(range(1, MOST_OBJECTS + 1))


def test_every_listed_object_is_mostly_visible(scenes: list[Scene]) -> None:
    for scene in scenes:
        for placement, thing in zip(scene.placements, scene.record.objects, strict=True):
            whole = (placement.pixels[..., 3] > 127).sum()
            assert thing.mask.sum() >= VISIBLE * whole


def test_masks_do_not_overlap_and_fill_their_boxes(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert sum(thing.mask.astype(int) for thing in scene.record.objects).max() == 1
        for thing in scene.record.objects:
            x0, y0, x1, y1 = thing.box_xyxy
            inside = thing.mask[y0:y1, x0:x1]
            assert inside.sum() == thing.mask.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_the_main_object_is_large(scenes: list[Scene]) -> None:
    for scene in scenes:
        x0, y0, x1, y1 = scene.placements[0].box_xyxy
        assert min(x1 - x0, y1 - y0) >= 3 / 8 * 64


def test_only_styles_with_shadows_have_a_shadow(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.shadow.any() == (scene.record.attributes["style"] in SHADOWED)


def test_descriptions_name_the_object_and_its_colour(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.record.objects:
            assert thing.label in thing.description
            assert thing.attributes.get("colour", "") in thing.description
            assert thing.label in scene.record.caption


def test_training_never_shows_a_held_out_combination() -> None:
    world = SceneWorld(split="train")
    for index in range(COUNT):
        for placement in world.scene(index).placements:
            s = placement.sprite
            assert not is_held_out(s.label, s.colour, s.style)


def test_a_held_out_sprite_can_be_asked_for() -> None:
    rng = np.random.default_rng(0)
    label, colour = next(
        (label, colour)
        for label in labels()
        for colour in achievable_colours(label, "fluent-flat")
        if is_held_out(label, colour, "fluent-flat")
    )
    assert is_held_out(label, choose_sprite(rng, label, "fluent-flat", held_out=True).colour, "fluent-flat")
    assert not is_held_out(
        label, choose_sprite(rng, label, "fluent-flat", held_out=False).colour, "fluent-flat"
    )
    assert colour in achievable_colours(label, "fluent-flat")


@pytest.mark.parametrize("family", [backdrop for style in STYLES for backdrop in BACKDROPS[style]])
def test_backdrops_are_not_flat_and_stay_in_range(family: object) -> None:
    drawn = family(np.random.default_rng(0), 48)  # type: ignore[operator]
    assert drawn.shape == (48, 48, 3)
    assert drawn.min() >= -1e-5
    assert drawn.max() <= 1 + 1e-5
    assert drawn.std(axis=(0, 1)).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"split": "validaton"},
            "split must be a split of the sticker world, got 'validaton'; did you mean 'validation'",
        ),
        ({"size": 8}, "size must be at least 16 pixels, got 8"),
        ({"objects": (2, 1)}, "objects must be a range within 1 to 4"),
        ({"objects": (1, 9)}, "objects must be a range within 1 to 4"),
    ],
)
def test_a_world_that_cannot_be_is_the_users_mistake(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SceneWorld(**arguments)
