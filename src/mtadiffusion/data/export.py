"""Annotated datasets for other programs: WebDataset shards, Parquet for Hugging Face, or one COCO file.

Images leave as the bytes that they came as; only images that have a described object leave at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.files import whole_file, write_json
from mtadiffusion.data.tables import KEPT, Table, shard_name
from mtadiffusion.data.tars import MemberReader, Packer
from mtadiffusion.errors import UserError, nearest_name

FORMATS = ("webdataset", "hf", "coco")
_TABLES = ("index", "detections", "masks", "descriptions")
_HF_OBJECT = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float32()),
        ("box_xyxy", pa.list_(pa.float32())),
        ("segmentation", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
        ("area", pa.int64()),
        ("description", pa.string()),
    ]
)
_HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _hf_feature(kind: pa.DataType) -> dict[str, Any]:
    """What `datasets` calls an Arrow type."""
    if kind == _HF_IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _hf_feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _hf_feature(kind.value_type)}
    return {"_type": "Value", "dtype": {"float": "float32"}.get(str(kind), str(kind))}


_HF_FIELDS = pa.schema(
    [
        ("image", _HF_IMAGE),
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("objects", pa.list_(_HF_OBJECT)),
    ]
)
_HF_FEATURES = {field.name: _hf_feature(field.type) for field in _HF_FIELDS}
_HF_SCHEMA = _HF_FIELDS.with_metadata({"huggingface": json.dumps({"info": {"features": _HF_FEATURES}})})


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image and its described objects, as the tables have them."""

    row: dict[str, Any]
    """Of the index."""

    caption: str
    """Of the captions table where it has one, else the source's, else empty."""

    objects: list[dict[str, Any]]
    """label, score, box_xyxy, segmentation (COCO RLE at the image's size), area, description."""


def export(root: Path, out: Path, form: str) -> int:
    """Write a dataset as `form`, one of `FORMATS`, into the folder `out`; shards that are there already stay.

    Returns:
        How many images were exported or had been.

    Raises:
        UserError: no dataset, tables that are missing, or an unknown form.
    """
    if form not in FORMATS:
        raise UserError("--format", "is no format", form, nearest_name(form, FORMATS))
    dataset = Dataset.open(root)
    tables = _tables(dataset)
    return {"webdataset": _webdataset, "hf": _hf, "coco": _coco}[form](dataset, tables, out)


def _tables(dataset: Dataset) -> dict[str, Table]:
    optional = [name for name in ("captions",) if name in dataset.manifest.tables]
    return {name: dataset.table(name) for name in (*_TABLES, *optional)}


def _shards(dataset: Dataset, tables: dict[str, Table]) -> Iterator[int]:
    yield from (n for n in range(dataset.manifest.shards) if all(t.has(n) for t in tables.values()))


def annotated_images(tables: dict[str, Table], shard: int) -> Iterator[AnnotatedImage]:
    """The images of a shard that have a described object."""
    rows = {name: table.read(shard).to_pylist() for name, table in tables.items()}
    captions = (
        [row["text"] for row in rows["captions"]] if "captions" in rows else [None] * len(rows["index"])
    )
    for row, caption, *objects in zip(rows["index"], captions, *(rows[n] for n in _TABLES[1:]), strict=True):
        described = list(_described(row, *(one["objects"] for one in objects)))
        if described:
            yield AnnotatedImage(row=row, caption=caption or row["caption"] or "", objects=described)


def _described(
    row: dict[str, Any],
    detections: list[dict[str, Any]],
    masks: list[dict[str, Any]],
    descriptions: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    for detection, mask, description in zip(detections, masks, descriptions, strict=True):
        if description["status"] == KEPT:
            yield {
                "label": detection["label"],
                "score": round(detection["score"], 4),
                "box_xyxy": [round(value, 2) for value in detection["box_xyxy"]],
                "segmentation": {"size": [row["height"], row["width"]], "counts": mask["counts"]},
                "area": mask["area"],
                "description": description["text"],
            }


def _webdataset(dataset: Dataset, tables: dict[str, Table], out: Path) -> int:
    """`shard-000000.tar`: KEY.jpg (or what it is) and KEY.json; its count lies beside it, written last."""
    count = 0
    for shard in _shards(dataset, tables):
        done = out / f"{shard_name(shard)}.json"
        if not done.exists():
            with whole_file(out / f"{shard_name(shard)}.tar") as file, MemberReader() as reader:
                packer, packed = Packer(file), 0
                for packed, image in enumerate(annotated_images(tables, shard), start=1):
                    _pack(dataset, packer, reader, image, f"{shard:06d}{packed:06d}")
                packer.close()
            write_json(done, {"images": packed})
        count += json.loads(done.read_text())["images"]
    return count


def _pack(dataset: Dataset, packer: Packer, reader: MemberReader, image: AnnotatedImage, key: str) -> None:
    row = image.row
    suffix = "jpg" if row["format"] == "jpeg" else row["format"]
    packer.add(f"{key}.{suffix}", reader.read(dataset.resolved(row["url"]), row["offset"], row["size"]))
    facts = {"image_id": row["image_id"], "caption": image.caption, "objects": image.objects}
    packer.add(f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())


def _hf(dataset: Dataset, tables: dict[str, Table], out: Path) -> int:
    """`data/shard-000000.parquet`, which `datasets.load_dataset(FOLDER)` reads, images decoded."""
    count = 0
    for shard in _shards(dataset, tables):
        path = out / "data" / f"{shard_name(shard)}.parquet"
        if not path.exists():
            with whole_file(path) as file, MemberReader() as reader:
                rows = [_hf_row(dataset, reader, image) for image in annotated_images(tables, shard)]
                pq.write_table(pa.Table.from_pylist(rows, schema=_HF_SCHEMA), file, compression="zstd")
        count += pq.read_metadata(path).num_rows
    return count


def _hf_row(dataset: Dataset, reader: MemberReader, image: AnnotatedImage) -> dict[str, Any]:
    row = image.row
    data = reader.read(dataset.resolved(row["url"]), row["offset"], row["size"])
    facts = {"image_id": row["image_id"], "caption": image.caption, "objects": image.objects}
    return {"image": {"bytes": data, "path": row["image_id"]}} | facts


def _coco(dataset: Dataset, tables: dict[str, Table], out: Path) -> int:
    """`annotations.json`, whose file names are the images' ids; categories in the order of their names."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for shard in _shards(dataset, tables):
        for image in annotated_images(tables, shard):
            row = image.row
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": row["image_id"],
                    "width": row["width"],
                    "height": row["height"],
                    "caption": image.caption,
                }
            )
            annotations += [_annotation(one, len(images)) for one in image.objects]
    names = sorted({one["category"] for one in annotations})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    for number, one in enumerate(annotations, start=1):
        one |= {"id": number, "category_id": numbers[one.pop("category")]}
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write_json(out / "annotations.json", document)
    return len(images)


def _annotation(one: dict[str, Any], image: int) -> dict[str, Any]:
    x0, y0, x1, y1 = one["box_xyxy"]
    return {
        "image_id": image,
        "category": one["label"],
        "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
        "segmentation": one["segmentation"],
        "area": one["area"],
        "iscrowd": 0,
        "score": one["score"],
        "description": one["description"],
    }
