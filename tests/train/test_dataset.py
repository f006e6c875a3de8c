"""Samples: which hole goes with which text, and that a sample depends on nothing but its names."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.config import DataConfig, HoleConfig
from mtadiffusion.errors import UserError
from mtadiffusion.train.dataset import TrainingSamples, cropped_record, record_source

from .conftest import Shapes


def samples(**changes: object) -> TrainingSamples:
    return TrainingSamples(Shapes(count=12), DataConfig(**{"source": "shapes", **changes}), seed=3)


def test_two_variants_are_one_brush_and_one_object_hole() -> None:
    for record in range(12):
        made = samples().record_samples(record)
        assert sorted(made.kinds) == ["brush", "object"]
        for kind, prompt, hole in zip(made.kinds, made.prompts, made.holes, strict=True):
            assert prompt.startswith("picture" if kind == "brush" else "a flat")
            assert hole.shape == (64, 64)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_brush_share_is_as_configured(share: float) -> None:
    made = samples(holes_per_image=8, holes=HoleConfig(brush_probability=share))
    kinds = [kind for record in range(12) for kind in made.record_samples(record).kinds]
    assert kinds.count("brush") / len(kinds) == pytest.approx(share)


def test_a_record_without_objects_takes_the_brush() -> None:
    source = Shapes(count=2)
    bare = type("Bare", (), {"__len__": lambda self: 2, "record": lambda self, index: _bare(source, index)})()
    made = TrainingSamples(bare, DataConfig(source="shapes"), seed=0).record_samples(0)
    assert made.kinds == ("brush", "brush")
    assert not (made.holes[0] == made.holes[1]).all()


def _bare(source: Shapes, index: int):  # type: ignore[no-untyped-def]
    import dataclasses

    return dataclasses.replace(source.record(index), objects=())


def test_each_epoch_visits_every_record_once_in_another_order() -> None:
    made = samples()
    epochs = [[made.identity(12 * epoch + place)[0] for place in range(12)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    assert made.identity(5) == samples().identity(5)


def test_a_batch_equals_its_members() -> None:
    made = samples()
    batch = made.batch(range(4, 8))
    assert batch.image.shape == (4, 3, 64, 64)
    assert batch.hole.shape == (4, 1, 64, 64)
    assert batch.image.min() >= -1
    assert batch.image.max() <= 1
    for place, number in enumerate(range(4, 8)):
        single = samples().batch([number])
        assert (single.image[0] == batch.image[place]).all()
        assert (single.hole[0] == batch.hole[place]).all()
        assert single.prompts == batch.prompts[place : place + 1]


def test_fresh_holes_at_every_visit_when_none_are_kept() -> None:
    made = samples(holes_per_image=0, cache=False)
    place = made.identity(3)[0]
    again = next(number for number in range(12, 24) if made.identity(number)[0] == place)
    first, second = made.batch([3]), made.batch([again])
    assert (first.hole != second.hole).any()


def test_foreign_holes_borrow_from_the_other_objects_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    lent = []

    def watched(rng, mask, box, config, silhouettes):  # type: ignore[no-untyped-def]
        lent.append((mask, silhouettes))
        return mask

    monkeypatch.setattr("mtadiffusion.train.dataset.object_hole", watched)
    made = samples(holes=HoleConfig(brush_probability=0.0))
    for record in (0, 1):  # of one object and of two
        made.record_samples(record, (0,))
    assert lent[0][1] == []
    mask, (other,) = lent[1]
    assert (mask != other).any()


@pytest.mark.parametrize(("height", "width"), [(64, 150), (200, 70), (40, 50)])
def test_crop_of_another_shape_keeps_masks_on_their_objects(height: int, width: int) -> None:
    source = Shapes(count=4, height=height, width=width)
    for index in range(4):
        crop = cropped_record(source.record(index), 64, np.random.default_rng(index), 0.5)
        assert crop.image.shape == (64, 64, 3)
        for item in crop.objects:
            x0, y0, x1, y1 = item.box_xyxy
            assert item.mask.shape == (64, 64)
            assert item.mask[y0:y1, x0:x1].any(axis=0).all()
            assert item.mask.sum() == item.mask[y0:y1, x0:x1].sum()
            inner = crop.image[item.mask].astype(int)
            assert np.median(inner.max(axis=1) - inner.min(axis=1)) > 100  # saturated, unlike the gradient


def test_a_crop_of_the_right_size_is_the_picture_itself() -> None:
    record = Shapes().record(1)
    crop = cropped_record(record, 64, np.random.default_rng(0), 0.5)
    assert (crop.image == record.image).all()
    assert [item.box_xyxy for item in crop.objects] == [item.box_xyxy for item in record.objects]


def test_unknown_source_offers_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'sticker'"):
        record_source("stickers", "train", 0, 64)


def test_empty_source_is_refused() -> None:
    with pytest.raises(UserError, match="holds no records"):
        TrainingSamples(Shapes(count=0), DataConfig(source="shapes"), seed=0)
