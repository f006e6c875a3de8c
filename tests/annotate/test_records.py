"""An annotated dataset as what training reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.describe import Describe
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.data import records
from mtadiffusion.data.records import DatasetRecords
from mtadiffusion.errors import UserError
from mtadiffusion.recipes import debug
from mtadiffusion.train.dataset import TrainingSamples, record_source

from .test_describe import Parrot
from .test_detect import Fixed
from .test_segment import FixedMasks


@pytest.fixture
def dataset(folder, tmp_path, limit):
    """Seven pictures of 96x64, one of which cannot be read; two described objects each."""
    (folder / "p0.jpg").write_bytes(b"no picture")
    boxes = [("cat", 0.9, (12, 8, 24, 16)), ("dog", 0.8, (30, 10, 40, 20))]
    stages = [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("cat", "dog"))),
        Detect(detector=Fixed(*boxes)),
        Segment(segmenter=FixedMasks("box")),
        Describe(describer=Parrot("A red cat of wood.", "I am sorry, I cannot see it."), limit=limit),
    ]
    annotate(str(folder), tmp_path / "ds", stages, shard_size=4)
    return tmp_path / "ds"


def test_records_are_the_images_with_described_objects(dataset, monkeypatch):
    monkeypatch.setattr(records, "VALIDATION", 0.0)
    source = DatasetRecords(dataset)
    assert len(source) == 6
    record = source.record(0)
    (thing,) = record.objects
    assert (record.image_id, record.caption) == ("inner/p1.jpg", "a second")
    assert (thing.label, thing.description, thing.box_xyxy) == ("cat", "A red cat of wood.", (24, 16, 48, 32))
    assert record.image.shape == (64, 96, 3)
    assert thing.mask.shape == (64, 96)


def test_records_of_a_smaller_size_shrink_together(dataset, monkeypatch):
    monkeypatch.setattr(records, "VALIDATION", 0.0)
    record = DatasetRecords(dataset, size=32).record(0)
    assert record.image.shape == (32, 48, 3)
    assert record.objects[0].box_xyxy == (12, 8, 24, 16)


def test_splits_share_no_image(dataset, monkeypatch):
    monkeypatch.setattr(records, "VALIDATION", 0.5)
    train, held = (DatasetRecords(dataset, split) for split in records.SPLITS)
    ids = [{source.record(i).image_id for i in range(len(source))} for source in (train, held)]
    assert len(ids[0] | ids[1]) == len(train) + len(held) == 6


def test_training_reads_a_dataset_by_its_folder(dataset, monkeypatch):
    monkeypatch.setattr(records, "VALIDATION", 0.0)
    config = dataclasses.replace(debug().data, source=str(dataset), size=32, records=0)
    source = record_source(str(dataset), "train", 0, 32)
    batch = TrainingSamples(source, config, seed=0).batch(range(6))
    assert batch.image.shape == (6, 3, 32, 32)
    assert set(batch.prompts) <= {"A red cat of wood.", "a second", ""}
    assert np.isfinite(batch.image.numpy()).all()


def test_plain_texts_of_a_dataset_are_its_labels(dataset, monkeypatch):
    monkeypatch.setattr(records, "VALIDATION", 0.0)
    config = dataclasses.replace(debug().data, source=str(dataset), size=32, records=0, plain_texts=1.0)
    source = record_source(str(dataset), "train", 0, 32)
    batch = TrainingSamples(source, config, seed=0).batch(range(6))
    assert "a cat" in batch.prompts
    assert set(batch.prompts) <= {"a cat", "a second", ""}


def test_a_split_that_a_dataset_does_not_have_is_a_mistake(dataset):
    with pytest.raises(UserError, match="split must be one of"):
        DatasetRecords(dataset, "test")


def test_a_dataset_without_descriptions_is_a_mistake(folder, tmp_path):
    annotate(str(folder), tmp_path / "half", [Index(), Filters()])
    with pytest.raises(UserError, match="must have a table detections"):
        DatasetRecords(tmp_path / "half")
