"""StickerBench: the frozen lists, the holes, and what tells that something is drawn otherwise."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmarks import benchmark
from mtadiffusion.stickers import bench, problems
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.bench import HOLES, LISTS, Entry, agree, checksum, draw, read_list
from mtadiffusion.stickers.scenes import achievable_colours, is_held_out

SAMPLED = 5
"""Every fifth item is drawn; `tools/sticker_bench.py --check` looks at all of them."""


@pytest.fixture(scope="module")
def entries() -> dict[str, list[Entry]]:
    return {split: read_list(split) for split in LISTS}


@pytest.mark.parametrize("split", LISTS)
def test_a_list_has_200_items_in_its_proportions(entries: dict[str, list[Entry]], split: str) -> None:
    listed = entries[split]
    assert len({entry.item_id for entry in listed}) == len({entry.scene for entry in listed}) == 200
    assert {entry.split for entry in listed} == {split}
    assert set(Counter(entry.style for entry in listed).values()) == {50}
    cells = Counter((entry.style, entry.hole) for entry in listed)
    assert set(cells) == set(product(STYLES, HOLES))
    assert max(cells.values()) - min(cells.values()) <= 1
    held_out = Counter(entry.hole for entry in listed if entry.held_out)
    assert set(held_out) == set(HOLES)
    assert 0.2 < held_out.total() / 200 < 0.3


@pytest.mark.parametrize("split", LISTS)
def test_another_object_is_asked_for_that_sprites_can_show(
    entries: dict[str, list[Entry]], split: str
) -> None:
    for entry in entries[split]:
        assert entry.label in labels()
        assert entry.label != entry.instead_of
        assert entry.label in entry.prompt
        assert entry.held_out == is_held_out(entry.label, entry.colour, entry.style)
        assert (entry.colour or "") in entry.prompt
    for entry in entries[split][::20]:
        assert entry.colour is None or entry.colour in achievable_colours(entry.label, entry.style)


@pytest.mark.parametrize("split", LISTS)
def test_scenes_and_holes_are_drawn_as_they_were_for_the_list(
    entries: dict[str, list[Entry]], split: str
) -> None:
    for entry in entries[split][::SAMPLED]:
        assert agree(checksum(*draw(split, entry.scene, entry.hole)), entry.checksum), entry.item_id


def test_a_list_says_of_its_scenes_what_the_problems_say(entries: dict[str, list[Entry]]) -> None:
    for entry in entries["test"][::25]:
        problem = problems.hole_problem("test", entry.scene, seed=bench.WORLD)
        for name in ("prompt", "label", "colour", "style", "held_out"):
            assert getattr(problem, name) == getattr(entry, name)
        assert problem.scene.placements[0].sprite.label == entry.instead_of


def test_holes_cover_the_main_object_and_leave_its_surroundings(entries: dict[str, list[Entry]]) -> None:
    for entry in entries["validation"][5::SAMPLED]:
        world = bench.SceneWorld(split="validation", seed=bench.WORLD, size=bench.SIDE)
        scene = world.scene(entry.scene)
        _, hole = draw(entry.split, entry.scene, entry.hole)
        assert hole[scene.record.objects[0].mask | scene.shadow].all()
        assert 0.1 <= hole.mean() <= 0.6


def test_the_benchmark_hands_out_its_list(entries: dict[str, list[Entry]]) -> None:
    for split in LISTS:
        bench_of_split = benchmark("stickerbench", split=split)
        items = bench_of_split.items()
        assert [item.item_id for item in items] == [entry.item_id for entry in entries[split]]
        assert {item.group for item in items} == set(HOLES)
        for item, entry in zip(items, entries[split], strict=True):
            assert item.facts["style"] == entry.style
            assert item.facts["held_out"] == entry.held_out
            assert item.facts.get("colour") == entry.colour
    there = pickle.loads(pickle.dumps(bench_of_split))
    picture, hole = there.picture(items[3]), there.hole(items[3])
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    assert (hole.shape, hole.dtype) == ((64, 64), np.dtype(bool))


def test_the_two_lists_share_no_fingerprint_and_each_keeps_its_own() -> None:
    validation, test = (benchmark("stickerbench", split=split) for split in LISTS)
    assert validation.fingerprint() == benchmark("stickerbench").fingerprint() != test.fingerprint()


def test_settings_are_those_of_the_shipped_model() -> None:
    settings = benchmark("stickerbench").settings
    folder = Path(bench.__file__).parent / "weights" / "base"
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert settings.scheduler == scheduler["_class_name"]
    assert settings.blend == "paste"
    assert settings.seed_per_item


def test_documents_name_the_settings_and_the_guidance() -> None:
    settings, root = benchmark("stickerbench").settings, Path(__file__).parents[2]
    rows = (root / "docs" / "evaluation-benchmarks.md").read_text(encoding="utf-8").splitlines()
    (documented,) = (row for row in rows if row.startswith("| `stickerbench` | 64"))
    shown = f"| `stickerbench` | {settings.size} | {settings.steps} | {settings.guidance_scale:g} |"
    assert documented.startswith(shown)
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert f"guidance_scale={settings.guidance_scale}," in readme


def test_another_drawing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shadow that is a little stronger is enough."""
    from mtadiffusion.stickers import scenes

    changed = benchmark("stickerbench")
    item = next(item for item in changed.items() if item.facts["style"] == "fluent-3d")
    bench._drawn.cache_clear()
    monkeypatch.setitem(scenes.SHADOWED, "fluent-3d", 0.9)
    with pytest.raises(UserError, match=f"stickerbench {item.item_id} is drawn otherwise than it was"):
        changed.picture(item)


def test_a_checksum_forgives_rounding_but_no_other_hole() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(1, 255, (64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), dtype=bool)
    hole[20:40, 10:40] = True
    rounded = picture + rng.integers(-1, 2, picture.shape).astype(np.uint8)
    assert agree(checksum(picture, hole), checksum(rounded, hole))
    hole[20:40, 40] = True
    assert not agree(checksum(picture, hole), checksum(picture, np.roll(hole, 1)))
