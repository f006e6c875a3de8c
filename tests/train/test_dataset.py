"""Samples: which hole goes with which text, and that a sample depends on nothing but its names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mtadiffusion.config import DataConfig, HoleConfig
from mtadiffusion.errors import UserError
from mtadiffusion.records import ImageRecord
from mtadiffusion.train.dataset import RecordSamples, TrainingSamples, record_source

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
    return dataclasses.replace(source.record(index), objects=())


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
    place = made.order.place(3)[0]
    again = next(number for number in range(12, 24) if made.order.place(number)[0] == place)
    first, second = made.batch([3]), made.batch([again])
    assert (first.hole != second.hole).any()


def test_foreign_holes_borrow_from_the_other_objects_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    lent = []

    def watched(rng, mask, box, config, silhouettes, shape):  # type: ignore[no-untyped-def]
        lent.append((mask, list(silhouettes)))
        return mask

    monkeypatch.setattr("mtadiffusion.train.dataset.object_hole", watched)
    made = samples(holes=HoleConfig(brush_probability=0.0))
    for record in (0, 1):  # of one object and of two
        made.record_samples(record, (0,))
    assert lent[0][1] == []
    mask, (other,) = lent[1]
    assert (mask != other).any()


@pytest.mark.parametrize(("height", "width"), [(64, 150), (200, 70), (40, 50)])
def test_crops_of_other_shapes_keep_masks_on_their_objects(height: int, width: int) -> None:
    exact = HoleConfig(brush_probability=0.0, dilated=0, boxed=0, roughened=0)
    source = Shapes(count=8, height=height, width=width)
    made = TrainingSamples(source, DataConfig(source="shapes", holes=exact, holes_per_image=4), seed=1)
    for record in range(8):
        sample = made.record_samples(record)
        assert sample.image.shape == (64, 64, 3)
        for hole in sample.holes:
            inner = sample.image[hole].astype(int)
            assert np.median(inner.max(axis=1) - inner.min(axis=1)) > 100  # saturated, unlike the gradient


def test_a_crop_of_the_right_size_is_the_picture_itself() -> None:
    assert (samples().record_samples(1).image == Shapes(count=12).record(1).image).all()


def test_of_every_object_the_mask_itself_and_looser_ones_are_kept() -> None:
    made = samples(holes_per_image=2, holes_per_object=3)
    for record in range(6):
        objects = Shapes().record(record).objects
        sample = made.record_samples(record)
        assert sample.kinds == ("brush",) * 2 + ("object",) * (3 * len(objects))
        for place, item in enumerate(objects):
            first, *others = sample.holes[2 + 3 * place : 5 + 3 * place]
            assert (first == item.mask).all()
            assert all((hole | ~item.mask).sum() >= hole.size - 1 for hole in others)
            assert sample.prompts[2 + 3 * place] == item.description


def test_a_share_of_the_object_holes_has_a_plain_text() -> None:
    def made(share: float) -> list[RecordSamples]:
        objects_only = HoleConfig(brush_probability=0.0)
        source = samples(holes_per_image=4, holes=objects_only, plain_texts=share)
        return [source.record_samples(record) for record in range(9)]

    described, short, mixed = made(0.0), made(1.0), made(0.5)
    chosen = []
    for ours, theirs, either in zip(described, short, mixed, strict=True):
        assert (ours.holes == theirs.holes).all()
        for description, plain, text in zip(ours.prompts, theirs.prompts, either.prompts, strict=True):
            assert plain == "a block" != description
            assert text in (description, plain)
            chosen.append(text == plain)
    assert 0.3 < np.mean(chosen) < 0.7


def test_brush_and_object_variants_are_chosen_as_often_as_configured() -> None:
    made = samples(holes_per_image=1, holes_per_object=5, holes=HoleConfig(brush_probability=0.25))
    kinds = ("brush",) + ("object",) * 10
    chosen = [made.chosen_variant(number, kinds) for number in range(2000)]
    assert np.mean([variant == 0 for variant in chosen]) == pytest.approx(0.25, abs=0.03)
    assert set(chosen) == set(range(11))


@dataclasses.dataclass(frozen=True)
class Altered:
    """Shapes of which some records are something else."""

    special: dict[int, ImageRecord | Exception]
    count: int = 12

    def __len__(self) -> int:
        return self.count

    def record(self, index: int) -> ImageRecord:
        found = self.special.get(index)
        if isinstance(found, Exception):
            raise found
        return found or Shapes().record(index)


def test_a_mask_that_is_out_of_sight_gives_way_to_another_object_and_is_counted() -> None:
    record = Shapes().record(1)
    hidden = dataclasses.replace(record.objects[0], mask=np.zeros((64, 64), bool), description="hidden")
    both = dataclasses.replace(record, objects=(hidden, record.objects[1]))
    alone = dataclasses.replace(record, objects=(hidden,))
    source = Altered({0: both, 1: alone})
    objects_only = DataConfig(
        source="shapes", holes_per_image=8, holes=HoleConfig(brush_probability=0.0), max_damaged=0
    )
    made = TrainingSamples(source, objects_only, seed=0)
    with_other = made.record_samples(0)
    assert set(with_other.prompts) == {record.objects[1].description}
    assert 0 < with_other.resampled < 8
    without = made.record_samples(1)
    assert set(without.prompts) == {record.caption}
    assert without.resampled == 8


def test_a_record_that_cannot_be_read_is_named_and_another_takes_its_place() -> None:
    source = Altered({4: OSError("no such disk")})
    made = TrainingSamples(source, DataConfig(source="shapes"), seed=3)
    number = next(n for n in range(12) if made.order.place(n)[0] == 4)
    batch = made.batch([number])
    assert batch.damaged == ((4, "record 4 cannot be read (no such disk)"),)
    again = made.batch([number, number + 12])
    assert torch.equal(again.pixels[0], batch.pixels[0])


def test_a_source_of_which_nothing_can_be_read_is_refused() -> None:
    source = Altered({index: OSError("gone") for index in range(12)})
    with pytest.raises(UserError, match=r"too many damaged records.*gone"):
        TrainingSamples(source, DataConfig(source="shapes"), seed=3).batch([0])


def test_unknown_source_offers_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'sticker'"):
        record_source("stickers", "train", 0, 64)


def test_empty_source_is_refused() -> None:
    with pytest.raises(UserError, match="holds no records"):
        TrainingSamples(Shapes(count=0), DataConfig(source="shapes"), seed=0)


def test_buckets_need_a_source_that_knows_its_sizes() -> None:
    with pytest.raises(UserError, match=r"data\.max_aspect needs a dataset"):
        samples(max_aspect=2.0, bucket_step=16)


def test_a_source_with_too_many_damaged_shards_is_refused() -> None:
    source = Shapes(count=12)
    object.__setattr__(source, "damaged_share", 0.5)
    with pytest.raises(UserError, match=r"more than data\.max_damaged=0\.25 of its shards damaged.*50% are"):
        TrainingSamples(source, DataConfig(source="shapes"), seed=0)


def test_a_sample_tells_the_sizes_of_its_crop() -> None:
    wide = TrainingSamples(Shapes(count=3, height=100, width=320), DataConfig(source="shapes"), seed=0)
    sizes = [wide.record_samples(record).sizes for record in range(3)]
    for height, width, top, left, *target in sizes:
        assert (height, width, top, target) == (100, 320, 0, [64, 64])
        assert 0 <= left <= 205 - 64
    assert len({size[3] for size in sizes}) > 1
    records = [next(wide.order.candidates(number))[0] for number in (0, 1)]
    assert wide.batch([0, 1]).sizes.tolist() == [list(sizes[record]) for record in records]
