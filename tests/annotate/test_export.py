"""Datasets as other programs read them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from pycocotools.coco import COCO

from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.caption import Caption
from mtadiffusion.annotate.describe import Describe
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.cli import main
from mtadiffusion.data.export import export
from mtadiffusion.data.tars import read_samples
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import coco_to_mask

from .test_describe import Parrot
from .test_detect import Fixed
from .test_segment import FixedMasks


@pytest.fixture
def dataset(folder, tmp_path, limit):
    """Seven pictures, one of which cannot be read; in each a cat, and a dog without a description."""
    (folder / "p0.jpg").write_bytes(b"no picture")
    (folder / "p2.txt").write_text("a picture with a caption")
    boxes = [("cat", 0.9, (12, 8, 24, 16)), ("dog", 0.8, (30, 10, 40, 20))]
    stages = [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("cat", "dog"))),
        Detect(detector=Fixed(*boxes)),
        Segment(segmenter=FixedMasks("box")),
        Caption(describer=Parrot("A field of colours."), limit=limit),
        Describe(describer=Parrot("A red cat of wood.", "I am sorry, I cannot see it."), limit=limit),
    ]
    annotate(str(folder), tmp_path / "ds", stages, shard_size=4)
    return tmp_path / "ds"


def test_shards_hold_the_images_own_bytes_and_their_objects(dataset, folder, tmp_path):
    assert export(dataset, tmp_path / "out", "webdataset") == 6
    samples = []
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        with shard.open("rb") as file:
            samples += list(read_samples(file))
    assert len({sample.key for sample in samples}) == 6
    for sample in samples:
        facts = json.loads(sample.members["json"].data)
        assert sample.members["jpg"].data == (folder / facts["image_id"]).read_bytes()
        (thing,) = facts["objects"]
        assert (thing["label"], thing["description"]) == ("cat", "A red cat of wood.")
        assert thing["segmentation"]["size"] == list(
            Image.open(io.BytesIO(sample.members["jpg"].data)).size[::-1]
        )
    captions = {
        json.loads(s.members["json"].data)["image_id"]: json.loads(s.members["json"].data)["caption"]
        for s in samples
    }
    assert (captions["inner/p1.jpg"], captions["p2.jpg"]) == (
        "A field of colours.",
        "a picture with a caption",
    )


def test_an_export_that_was_stopped_goes_on(dataset, tmp_path):
    export(dataset, tmp_path / "out", "webdataset")
    (tmp_path / "out/shard-000001.json").unlink()
    first = (tmp_path / "out/shard-000000.tar").stat().st_mtime_ns
    assert export(dataset, tmp_path / "out", "webdataset") == 6
    assert (tmp_path / "out/shard-000000.tar").stat().st_mtime_ns == first


def test_pycocotools_reads_the_coco_file(dataset, tmp_path, capsys):
    assert main(["data", "export", str(dataset), "--out", str(tmp_path / "out"), "--format", "coco"]) == 0
    coco = COCO(tmp_path / "out/annotations.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["cat"]
    (one, *others) = coco.loadAnns(coco.getAnnIds())
    assert len(others) == 5
    mask = coco.annToMask(one)
    assert (mask.shape, mask.sum(), one["bbox"]) == ((64, 96), one["area"], [24.0, 16.0, 24.0, 16.0])
    assert np.flatnonzero(mask.any(0))[[0, -1]].tolist() == [24, 47]


def test_an_unknown_format_is_a_mistake(dataset, tmp_path):
    with pytest.raises(UserError, match="did you mean 'coco'"):
        export(dataset, tmp_path / "out", "cocoo")


def test_datasets_reads_the_parquet_with_pictures(dataset, folder, tmp_path):
    assert export(dataset, tmp_path / "out", "hf") == 6
    assert export(dataset, tmp_path / "out", "hf") == 6
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 6
    for row in rows:
        assert row["image"].size == (96, 64)
        (thing,) = row["objects"]
        assert (thing["label"], thing["description"]) == ("cat", "A red cat of wood.")
        assert coco_to_mask(thing["segmentation"]).sum() == thing["area"]


def test_datasets_reads_the_shards(dataset, tmp_path):
    export(dataset, tmp_path / "out", "webdataset")
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    rows = load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 6
    assert rows[0]["jpg"].size == (96, 64)
    assert rows[0]["json"]["objects"][0]["label"] == "cat"
