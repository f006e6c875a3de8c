"""`mta data import` and `kind = "source"`: annotations that came with the images."""

from __future__ import annotations

import io
import json
import resource
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_masks

from mtadiffusion.annotate import detect, presets
from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.cli import main
from mtadiffusion.data import annotation_files
from mtadiffusion.data import source_objects as source_objects_module
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.files import DiskFullError
from mtadiffusion.data.records import DatasetRecords
from mtadiffusion.data.source_objects import mask_of, rows_of, source_objects
from mtadiffusion.data.understood import understood
from mtadiffusion.data.validate import problems
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import mask_box, mask_to_brushdata
from mtadiffusion.records import ImageRecord

from .conftest import encoded, write_tar

WIDTH, HEIGHT = 96, 64


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


LEFT, RIGHT = rectangle(8, 10, 40, 50), rectangle(50, 4, 90, 60)


@pytest.fixture
def pictures(tmp_path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(3):
        (root / f"{number:012d}.jpg").write_bytes(encoded(number))
    return root


def imported(source: Path, out: Path, *annotations: Path) -> Dataset:
    files = [word for path in annotations for word in ("--annotations", str(path))]
    assert main(["data", "import", str(source), "--out", str(out), "--workers", "0", *files]) == 0
    dataset = Dataset.open(out)
    assert not list(problems(dataset, images=True))
    return dataset


def records(dataset: Dataset) -> dict[str, ImageRecord]:
    found = [DatasetRecords(dataset.root, split) for split in ("train", "validation")]
    return {r.image_id: r for split in found for r in (split.record(i) for i in range(len(split)))}


def coco_file(path: Path, objects: list[dict[str, Any]], **image: str) -> Path:
    content = {
        "images": [{"id": 7, "width": WIDTH, "height": HEIGHT, **image}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "aerosol_can"}],
        "annotations": [{"image_id": 7, **one} for one in objects],
    }
    path.write_text(json.dumps(content))
    return path


def test_coco_polygons_and_rle_become_records(pictures, tmp_path):
    rle = coco_masks.encode(np.asfortranarray(RIGHT.astype(np.uint8)))
    objects = [
        {"category_id": 1, "segmentation": [[8, 10, 40, 10, 40, 50, 8, 50]], "bbox": [8, 10, 32, 40]},
        {"category_id": 2, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}},
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [9, 9]}, "iscrowd": 1},
    ]
    path = coco_file(tmp_path / "instances.json", objects, file_name=f"{0:012d}.jpg")
    found = records(imported(pictures, tmp_path / "dataset", path))
    (record,) = found.values()
    right, left = record.objects
    assert (left.label, right.label) == ("cat", "aerosol can")
    assert right.description == "aerosol can"
    assert (right.mask == RIGHT).all()
    polygon = coco_masks.decode(coco_masks.frPyObjects(objects[0]["segmentation"], HEIGHT, WIDTH))[..., 0]
    assert (left.mask != polygon.astype(bool)).sum() <= LEFT.sum() * 0.06


def test_lvis_names_its_images_by_url(pictures, tmp_path):
    box = {"category_id": 2, "bbox": [8, 10, 32, 40]}
    path = coco_file(tmp_path / "lvis.json", [box], coco_url=f"http://images.example/val/{1:012d}.jpg")
    dataset = imported(pictures, tmp_path / "dataset", path)
    rows = dataset.table("detections").read(0).to_pylist()
    assert [len(row["objects"]) for row in rows] == [0, 1, 0]
    assert rows[1]["objects"][0]["box_xyxy"] == [8, 10, 40, 50]
    (mask,) = dataset.table("masks").read(0).to_pylist()[1]["objects"]
    assert mask["reason"] == "no mask in the source"


def test_coco_captions_become_captions(pictures, tmp_path):
    path = coco_file(tmp_path / "captions.json", [{"caption": "two cats"}], file_name=f"{0:012d}.jpg")
    index = imported(pictures, tmp_path / "dataset", path).table("index").read(0).to_pylist()
    assert [row["caption"] for row in index] == ["two cats", None, None]


def test_openimages_boxes_masks_and_class_names(pictures, tmp_path):
    folder = tmp_path / "openimages"
    folder.mkdir()
    (folder / "names.csv").write_text("/m/1,Tortoise\n/m/2,Coffee cup\n")
    Image.fromarray(LEFT).save(folder / "left.png")
    name = f"{2:012d}"
    masks = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
    (folder / "masks.csv").write_text(f"{masks}\nleft.png,{name},/m/1,b,0.1,0.4,0.1,0.8,0.9,\n")
    boxes = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
    rows = f"{name},verification,/m/2,1,0.5,0.75,0.25,0.5,0,0\n{name},verification,/m/2,1,0,1,0,.9,0,1\n"
    (folder / "boxes.csv").write_text(f"{boxes}\n{rows}")
    files = [folder / f"{kind}.csv" for kind in ("boxes", "names", "masks")]
    dataset = imported(pictures, tmp_path / "dataset", *files)
    found = dataset.table("detections").read(0).to_pylist()[2]["objects"]
    assert {one["label"]: one["box_xyxy"] for one in found} == {
        "tortoise": [8, 10, 40, 50],
        "coffee cup": [48, 16, 72, 32],
    }
    (record,) = records(dataset).values()
    assert [(one.label, (one.mask == LEFT).all()) for one in record.objects] == [("tortoise", True)]


def test_brushdata_tars_with_missing_and_broken_fields(tmp_path):
    runs = [mask_to_brushdata(mask) for mask in (LEFT, RIGHT)]
    segmentations = [json.dumps({"mask": runs}), None, "{broken", json.dumps({"mask": [[0, 5]]})]
    members = []
    for number, segmentation in enumerate(segmentations):
        members.append((f"{number}.image", encoded(number)))
        members.append((f"{number}.caption", b"a cup and a plate"))
        if segmentation is not None:
            members.append((f"{number}.segmentation", segmentation.encode()))
    source = write_tar(tmp_path / "00000.tar", members)
    dataset = imported(source, tmp_path / "dataset")
    masks = dataset.table("masks").read(0).to_pylist()
    assert [len(row["objects"]) for row in masks] == [2, 0, 0, 0]
    assert [one["area"] for one in masks[0]["objects"]] == [RIGHT.sum(), LEFT.sum()]
    texts = dataset.table("descriptions").read(0).to_pylist()[0]["objects"]
    assert {one["reason"] for one in texts} == {"no text in the source"}
    taken = {one.field: one.meaning for one in understood(dataset)}
    assert taken["segmentation"] == "objects"
    assert taken["object.mask"] == "mask"


@pytest.mark.parametrize("by_object", [True, False], ids=["a line an object", "a line an image"])
def test_lines_of_json_with_descriptions(pictures, tmp_path, by_object):
    image = f"{0:012d}.jpg"
    objects = [
        {"phrase": "cup", "box": [0, 0, 1, 1], "mask": mask_to_brushdata(LEFT), "llava": "A glossy red cup."},
        {"phrase": "plate", "box": [0, 0, 1, 1], "mask": mask_to_brushdata(RIGHT), "llava": "A flat plate."},
    ]
    columns = {f"{name}s": [one[name] for one in objects] for name in ("phrase", "mask")}
    columns |= {"boxes": [one["box"] for one in objects], "llava_results": [one["llava"] for one in objects]}
    lines = [{"image_path": image, **one} for one in objects] if by_object else [{"image": image, **columns}]
    path = tmp_path / "mta.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    (record,) = records(imported(pictures, tmp_path / "dataset", path)).values()
    assert [one.description for one in record.objects] == ["A flat plate.", "A glossy red cup."]
    assert (record.objects[1].mask == LEFT).all()


def test_mask_files_outside_of_the_annotations_folder_are_not_read(pictures, tmp_path):
    (tmp_path / "inner").mkdir()
    Image.fromarray(LEFT).save(tmp_path / "secret.png")
    Image.fromarray(LEFT).save(tmp_path / "inner/own.png")
    lines = [
        {"image": f"{n:012d}.jpg", "label": "cup", "box": [8, 10, 40, 50], "mask": mask}
        for n, mask in enumerate(["../secret.png", str(tmp_path / "secret.png"), "own.png"])
    ]
    path = tmp_path / "inner/lines.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    masks = imported(pictures, tmp_path / "dataset", path).table("masks").read(0).to_pylist()
    assert [row["objects"][0]["status"] for row in masks] == ["rejected", "rejected", "kept"]


def test_a_name_that_several_folders_have_is_matched_by_its_path_alone(tmp_path):
    root = tmp_path / "pictures"
    for number, folder in enumerate(("a", "b")):
        (root / folder).mkdir(parents=True)
        (root / folder / "same.jpg").write_bytes(encoded(number))
    lines = [{"image": f"{f}/same.jpg", "label": f, "box": [8, 10, 40, 50]} for f in ("a", "b")]
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = imported(root, tmp_path / "dataset", path).table("detections").read(0).to_pylist()
    assert [[one["label"] for one in row["objects"]] for row in rows] == [["a"], ["b"]]


def test_the_sources_boxes_go_on_to_a_segmenter(pictures, tmp_path, sam):
    path = coco_file(
        tmp_path / "c.json", [{"category_id": 1, "bbox": [8, 10, 32, 40]}], file_name=f"{0:012d}"
    )
    settings = presets.changed(
        presets.grounded_sam_llava(),
        {
            "filters": {"min_resolution": 0},
            "detect": {"kind": "source"},
            "segment": {"model": str(sam), "min_fit": 0.0},
        },
    )
    stages = presets.build_stages(settings, ["index", "filters", "detect", "segment"])
    annotate(str(pictures), tmp_path / "dataset", stages, annotations=[path])
    masks = Dataset.open(tmp_path / "dataset").table("masks").read(0).to_pylist()
    assert [len(row["objects"]) for row in masks] == [1, 0, 0]
    assert masks[0]["objects"][0]["quality"] is not None


def test_the_sources_masks_need_its_boxes():
    settings = presets.changed(presets.grounded_sam_llava(), {"segment": {"kind": "source"}})
    with pytest.raises(UserError, match=r"segment\.kind needs the source's boxes"):
        presets.build_stages(settings)


def test_a_dataset_keeps_the_annotations_it_began_with(pictures, tmp_path):
    box = {"category_id": 1, "bbox": [8, 10, 32, 40]}
    first = coco_file(tmp_path / "first.json", [box], file_name=f"{0:012d}.jpg")
    other = coco_file(tmp_path / "other.json", [box], file_name=f"{1:012d}.jpg")
    imported(pictures, tmp_path / "dataset", first)
    imported(pictures, tmp_path / "dataset")  # goes on with its own
    with pytest.raises(UserError, match=r"has its annotations from .*first\.json"):
        annotate(str(pictures), tmp_path / "dataset", [], annotations=[other])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1, 2]", "must have COCO's keys images and annotations"),
        ("a.json", "{", "cannot be understood"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 3, "bbox": []}]}', "KeyError: 3"),
        ("a.jsonl", '{"label": "cup"}', "a line names no image"),
        ("a.jsonl", "7", "cannot be understood"),
        ("a.csv", "ImageID,LabelName,XMin\nx,y,left\n", "cannot be understood"),
        ("a.csv", "/m/01,café\n", "cannot be understood"),  # not UTF-8
        ("a.xml", "<a/>", "must be one of .json, .jsonl, .csv"),
    ],
)
def test_annotations_that_cannot_be_understood_leave_nothing_behind(
    pictures, tmp_path, capsys, name, text, message
):
    (tmp_path / name).write_text(text, encoding="latin-1")
    out = tmp_path / "dataset"
    command = ["data", "import", pictures, "--out", out, "--annotations", tmp_path / name]
    assert main([str(word) for word in command]) == 2
    assert message in capsys.readouterr().err
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob("*.sqlite*"))


def test_a_full_disk_while_annotations_are_read_leaves_nothing_behind(pictures, tmp_path, monkeypatch):
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*arguments, **options)
        database.execute("PRAGMA max_page_count = 4")
        return database

    lines = tmp_path / "facts.jsonl"
    lines.write_text("".join(f'{{"image": "{n}.jpg", "caption": "{"x" * 500}"}}\n' for n in range(99)))
    monkeypatch.setattr(annotation_files.sqlite3, "connect", small)
    with pytest.raises(DiskFullError):
        annotation_files.gather([lines], tmp_path / "store" / "facts.sqlite")
    assert not list((tmp_path / "store").iterdir())


def test_a_quota_that_is_used_up_is_one_line_and_leaves_nothing_behind(pictures, tmp_path, capsys):
    lines, out = tmp_path / "facts.jsonl", tmp_path / "dataset"
    lines.write_text("".join(f'{{"image": "{n}.jpg", "caption": "{"x" * 500}"}}\n' for n in range(99)))
    command = ["data", "import", pictures, "--out", out, "--annotations", lines]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert main([str(word) for word in command]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "--out cannot be written (disk I/O error)" in capsys.readouterr().err
    assert not list(out.rglob("*.sqlite*"))


def test_the_store_of_annotations_is_opened_once_a_shard(pictures, tmp_path, monkeypatch):
    path = coco_file(
        tmp_path / "c.json", [{"category_id": 1, "bbox": [8, 10, 32, 40]}], file_name=f"{0:012d}"
    )
    opened, connect = [], sqlite3.connect

    def counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(arguments[0])
        return connect(*arguments, **options)

    monkeypatch.setattr(annotation_files.sqlite3, "connect", counted)
    imported(pictures, tmp_path / "dataset", path)
    assert len([one for one in opened if "mode=ro" in str(one)]) == 1


def test_masks_are_read_for_boxes_and_masks_and_never_for_texts(pictures, tmp_path, monkeypatch):
    rle = coco_masks.encode(np.asfortranarray(LEFT.astype(np.uint8)))
    objects = [{"category_id": 1, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}]
    path = coco_file(tmp_path / "c.json", objects, file_name=f"{0:012d}")
    read, calls = source_objects_module._mask, []
    monkeypatch.setattr(source_objects_module, "_mask", lambda *a: calls.append(1) or read(*a))
    counts = []
    for last in ("detect", "segment", "describe"):
        stages = presets.build_stages(presets.source(), ["index", "filters", "detect", "segment", "describe"])
        wanted = ["index", "filters", "detect", "segment", "describe"].index(last) + 1
        annotate(str(pictures), tmp_path / "dataset", stages[:wanted], annotations=[path])
        counts.append(len(calls))
    assert counts == [1, 2, 2]


def test_texts_of_the_source_need_its_boxes(pictures, tmp_path):
    path = coco_file(
        tmp_path / "c.json", [{"category_id": 1, "bbox": [8, 10, 32, 40]}], file_name=f"{0:012d}"
    )
    dataset = imported(pictures, tmp_path / "dataset", path)
    table = dataset.table("detections")
    rows = table.read(0).to_pylist()
    for row in rows:
        for one in row["objects"]:
            del one["number"]
    table.write(0, pa.Table.from_pylist(rows, schema=detect.SCHEMA))
    dataset.table("masks").path(0).unlink()
    stages = presets.build_stages(presets.source(), ["segment"])
    (report,) = annotate(str(pictures), tmp_path / "dataset", stages)
    assert "was not made from the source's annotations" in report.failed[0]


def test_parquet_lists_are_understood(tmp_path):
    import pyarrow.parquet as pq

    rows = {
        "jpg": [encoded(0)],
        "labels": [["cup", "plate"]],
        "boxes": [[[8.0, 10.0, 40.0, 50.0], [50.0, 4.0, 90.0, 60.0]]],
        "scores": [[0.9, 0.4]],
        "embedding": [[0.0] * 4],
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    dataset = imported(tmp_path / "rows.parquet", tmp_path / "dataset")
    (row,) = dataset.table("detections").read(0).to_pylist()
    assert [(one["label"], round(one["score"], 3)) for one in row["objects"]] == [
        ("cup", 0.9),
        ("plate", 0.4),
    ]


def test_import_says_what_it_understood(pictures, tmp_path, capsys):
    path = coco_file(
        tmp_path / "c.json", [{"category_id": 1, "bbox": [8, 10, 32, 40]}], file_name=f"{0:012d}"
    )
    imported(pictures, tmp_path / "dataset", path)
    printed = capsys.readouterr().out
    assert "object.bbox   box        1" in printed
    assert "no mask in the source" in printed


@given(arrays(bool, (9, 7)))
def test_any_mask_survives_brushdata(mask):
    fields = {"segmentation": json.dumps({"mask": [mask_to_brushdata(mask)]})}
    found = source_objects(fields, mask.shape)
    assert len(found) == bool(mask.any())
    for one in found:
        read = mask_of(rows_of(fields)[one.number], mask.shape)
        assert read is not None
        assert (read.pixels() == mask).all()
        assert one.box_xyxy == mask_box(mask)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text("a7[{", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["objects", "mask", "box", "bbox", "label", "segmentation", "counts", "size", "score"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["objects", "segmentation", "masks", "boxes", "labels"]), JSON))
def test_no_field_can_make_the_reader_fail(fields):
    for one in source_objects(fields, (9, 7)):
        assert np.isfinite(one.box_xyxy).all()


def test_a_picture_of_another_size_is_no_mask(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (5, 5), 255).save(buffer, "PNG")
    (tmp_path / "mask.png").write_bytes(buffer.getvalue())
    row = {"label": "cup", "box": [1, 1, 5, 5], "mask": {"path": str(tmp_path / "mask.png")}}
    assert mask_of(row, (9, 7)) is None
    assert len(source_objects({"objects": [row]}, (9, 7))) == 1
