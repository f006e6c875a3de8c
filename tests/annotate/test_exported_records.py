"""Exported shards and datasets as what training reads, in any order."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from mtadiffusion.data import exported, records
from mtadiffusion.data.export import export
from mtadiffusion.data.exported import ExportedRecords
from mtadiffusion.data.records import DatasetRecords
from mtadiffusion.data.tars import Packer
from mtadiffusion.errors import UserError
from mtadiffusion.train.dataset import record_source

from .test_export import dataset  # noqa: F401  a fixture


@pytest.fixture(autouse=True)
def everything_is_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "VALIDATION", 0.0)
    exported._facts.cache_clear()


def assert_same(one, other) -> None:  # type: ignore[no-untyped-def]
    assert (one.image_id, one.caption) == (other.image_id, other.caption)
    assert (one.image == other.image).all()
    assert [item.description for item in one.objects] == [item.description for item in other.objects]
    assert all((a.mask == b.mask).all() for a, b in zip(one.objects, other.objects, strict=True))


def test_exported_shards_are_the_datasets_records(dataset, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    export(dataset, tmp_path / "out", "webdataset")
    whole, shards = DatasetRecords(dataset), record_source(str(tmp_path / "out"), "train", 0, 0)
    assert isinstance(shards, ExportedRecords)
    assert len(whole) == len(shards) == 6
    assert (whole.sizes() == shards.sizes()).all()
    assert set(map(tuple, whole.sizes().tolist())) == {(64, 96)}
    for index in (5, 0, 3):
        assert_same(whole.record(index), shards.record(index))
    by_url = ExportedRecords(f"file://{tmp_path}/out")
    assert_same(by_url.record(2), whole.record(2))
    assert (
        by_url.fingerprint()
        == shards.fingerprint()
        != ExportedRecords(str(tmp_path / "out"), "validation").fingerprint()
    )


def test_rows_are_read_again_where_the_dataset_can_and_cannot_be_written(dataset, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    from mtadiffusion.data import rows

    first = DatasetRecords(dataset)
    files = sorted(dataset.glob("rows-*/shard-*.arrow"))
    assert len(files) == 2
    expected = first.record(1)
    assert_same(pickle.loads(pickle.dumps(first)).record(1), expected)
    for path in files:
        path.unlink()

    def read_only(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(rows, "whole_file", read_only)
    rows._rows.cache_clear()
    assert_same(DatasetRecords(dataset).record(1), expected)
    assert not list(dataset.glob("rows-*/shard-*.arrow"))


def test_a_damaged_shard_is_left_out_and_named(dataset, tmp_path: Path, caplog) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    out = tmp_path / "out"
    export(dataset, out, "webdataset")
    first = out / "shard-000000.tar"
    first.write_bytes(first.read_bytes()[:3000])
    table = next(dataset.glob("masks-*/shard-000001.parquet"))
    table.write_bytes(table.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING):
        sources = [ExportedRecords(str(out)), DatasetRecords(dataset)]
    assert [source.damaged_share for source in sources] == [0.5, 0.5]
    assert "shard-000000.tar is damaged" in caplog.text
    assert "shard-000001 is damaged" in caplog.text
    assert sum(len(source) for source in sources) == 6


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        (
            {"jpg": b"x", "txt": b"a text"},
            "must be shards of `mta data export --format webdataset`.*jpg, txt",
        ),
        (
            {"jpg": b"x", "json": b'{"caption": "a", "segmentation": []}'},
            "samples without image_id, objects, got .*fields there: caption, segmentation",
        ),
        (
            {
                "jpg": b"x",
                "json": json.dumps({"image_id": "1", "caption": "", "objects": [{"label": "a"}]}).encode(),
            },
            "samples without area, box_xyxy, description",
        ),
    ],
)
def test_shards_of_something_else_are_refused_by_the_fields_they_lack(
    tmp_path: Path, members: dict[str, bytes], rule: str
) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        packer = Packer(file)
        for suffix, data in members.items():
            packer.add(f"0.{suffix}", data)
        packer.close()
    with pytest.raises(UserError, match=rf"data\.source .*{rule}"):
        ExportedRecords(str(tmp_path))


def test_shards_without_samples_and_places_without_shards(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        Packer(file).close()
    assert len(ExportedRecords(str(tmp_path))) == 0
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="must hold tars"):
        ExportedRecords(str(tmp_path / "none"))
    assert exported.exported_shards("sticker") == []
    assert np.shape(ExportedRecords(str(tmp_path)).sizes()) == (0, 2)


STRANGE = [
    ("description", None),
    ("description", 5),
    ("box_xyxy", [1, 2, 3]),
    ("box_xyxy", [float("nan")] * 4),
    ("segmentation", None),
    ("segmentation", {"size": [-8, -8], "counts": [64]}),
    ("segmentation", {"size": [10**6, 10**6], "counts": [10**12]}),
    ("area", "x"),
]


@pytest.mark.parametrize(("field", "value"), STRANGE)
def test_a_sample_with_a_strange_field_is_refused_before_anything_is_trained(
    tmp_path: Path, field: str, value: object
) -> None:
    item = {"label": "a", "score": 1.0, "box_xyxy": [0, 0, 8, 8], "area": 64, "description": "b"}
    item["segmentation"] = {"size": [8, 8], "counts": [0, 64]}
    facts = {"image_id": "one", "caption": "", "objects": [{**item, field: value}]}
    with (tmp_path / "shard-000000.tar").open("wb") as file:
        packer = Packer(file)
        packer.add("0.png", b"never read")
        packer.add("0.json", json.dumps(facts).encode())
        packer.close()
    with pytest.raises(UserError, match=rf"data\.source has a sample whose {field} is .*, got .*shard-0"):
        ExportedRecords(str(tmp_path))
