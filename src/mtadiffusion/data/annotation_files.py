"""Annotations that lie in files of their own beside the images: COCO, LVIS, OpenImages, lines of JSON.

The files are read once into a small database by image, which the first stage looks things up in, so that no
worker holds a whole corpus's annotations. An image is known by its path in the source; a file that names it
otherwise (OpenImages' ids, LVIS's URLs) is matched by the name without folder and suffix, where that is
unique.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mtadiffusion.data.files import DiskFullError, whole_path
from mtadiffusion.data.source_objects import MEANINGS, is_object
from mtadiffusion.errors import UserError

IMAGE_NAMES = ("file_name", "filename", "image_path", "image", "path", "img", "image_id", "key", "id")
"""Fields of a line of JSON that name its image, the likeliest first."""

OBJECT, FIELDS = "object", "fields"
"""What a fact is: one object of an image, or fields of the whole image."""

Fact = tuple[str, str, Mapping[str, Any]]
"""(the image's name, `OBJECT` or `FIELDS`, JSON-ready)"""

Known = Callable[[str], dict[str, Any]]
"""An image's path in the source -> its fields, its objects among them as `objects`; empty where nothing is
known of it."""

_MASK_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def gather(paths: Sequence[Path], store: Path) -> None:
    """Read annotation files into the database `store`, which appears whole or not at all.

    Raises:
        UserError: a file cannot be read, or is of no known form; or `store` cannot be written.
        DiskFullError: the disk is full.
    """
    with (
        whole_path(store) as unfinished,
        _told_what_cannot_be_written(store.parent),
        closing(sqlite3.connect(unfinished)) as database,
    ):
        _write(database, paths)


@contextmanager
def _told_what_cannot_be_written(folder: Path) -> Iterator[None]:
    """Turns SQLite's errors of the disk into the user's; a quota's is a plain I/O error to it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise DiskFullError(folder) from error
        raise UserError("--out", f"cannot be written ({error})", str(folder)) from error


def _write(database: sqlite3.Connection, paths: Sequence[Path]) -> None:
    database.execute("CREATE TABLE facts (image TEXT, stem TEXT, kind TEXT, value TEXT)")
    rows = (
        (image, _stem(image), kind, json.dumps(value, ensure_ascii=False))
        for image, kind, value in tqdm(_facts(paths), desc="annotations", unit="fact")
    )
    database.executemany("INSERT INTO facts VALUES (?, ?, ?, ?)", rows)
    database.execute("CREATE INDEX by_stem ON facts (stem)")
    database.commit()


@contextmanager
def known_facts(store: Path) -> Iterator[Known]:
    """Looks images up in `store`, which `gather` wrote, as long as the block lasts."""
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        yield partial(_known_of, database)


def _known_of(database: sqlite3.Connection, key: str) -> dict[str, Any]:
    found = database.execute(
        "SELECT image, kind, value FROM facts WHERE stem = ? ORDER BY rowid", (_stem(key),)
    ).fetchall()
    names = {image for image, _, _ in found}
    wanted = key if key in names else names.pop() if len(names) == 1 else None
    facts = [(kind, json.loads(value)) for image, kind, value in found if image == wanted]
    fields: dict[str, Any] = {}
    for kind, value in facts:
        if kind == FIELDS:
            fields |= value
    objects = [value for kind, value in facts if kind == OBJECT]
    return fields | ({"objects": objects} if objects else {})


def _stem(image: str) -> str:
    return PurePosixPath(image).stem


def _facts(paths: Sequence[Path]) -> Iterator[Fact]:
    names: dict[str, str] = {}
    for path in paths:
        if path.suffix not in _READERS:
            raise UserError("--annotations", f"must be one of {', '.join(_READERS)}", str(path))
        if path.suffix == ".csv":
            with _understanding(path):
                names |= _class_names(path)
    for path in paths:
        with _understanding(path):
            yield from _READERS[path.suffix](path, names)


@contextmanager
def _understanding(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError("--annotations", "cannot be understood", str(path), reason) from error


def _from_json(path: Path, _: Mapping[str, str]) -> Iterator[Fact]:
    """COCO and LVIS: `images`, `categories` and `annotations`; crowds are no objects."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        rule = "must have COCO's keys images and annotations"
        raise UserError("--annotations", rule, str(path), "lines of JSON belong in a .jsonl file")
    images = {image["id"]: image.get("file_name") or image["coco_url"] for image in content["images"]}
    labels = {category["id"]: _words(category["name"]) for category in content.get("categories", ())}
    for one in content["annotations"]:
        image = images[one["image_id"]]
        if "caption" in one:
            yield image, FIELDS, {"caption": one["caption"]}
        elif not one.get("iscrowd"):
            known = {name: one[name] for name in ("bbox", "segmentation", "score") if name in one}
            yield image, OBJECT, {"label": labels.get(one.get("category_id"))} | known


def _words(name: str) -> str:
    """LVIS writes `aerosol_can` and `bow_(weapon)`."""
    return name.replace("_", " ").partition(" (")[0]


def _from_jsonl(path: Path, _: Mapping[str, str]) -> Iterator[Fact]:
    """A mapping a line, of an image or of one object; masks may be files in the same folder or below it."""
    with path.open(encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            row = json.loads(line)
            named = next((name for name in IMAGE_NAMES if isinstance(row.get(name), str | int)), None)
            if named is None:
                raise ValueError(f"a line names no image; looked for {', '.join(IMAGE_NAMES)}")
            image, row = str(row.pop(named)), _with_masks(row, path.parent)
            yield image, OBJECT if is_object(row) else FIELDS, row


def _with_masks(value: Any, folder: Path, in_mask: bool = False) -> Any:
    """The same with names of mask files made paths; a name that leads out of `folder` is left a name."""
    if isinstance(value, dict):
        return {k: _with_masks(v, folder, in_mask or k in MEANINGS["mask"]) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_masks(one, folder, in_mask) for one in value]
    if in_mask and isinstance(value, str) and value.lower().endswith(_MASK_SUFFIXES):
        path = (folder / value).resolve()
        return {"path": str(path)} if path.is_relative_to(folder.resolve()) else value
    return value


def _from_csv(path: Path, names: Mapping[str, str]) -> Iterator[Fact]:
    """OpenImages' boxes or masks; the masks' pictures in the same folder or below it."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        if not {"ImageID", "LabelName"} <= columns:
            return  # names of classes, which `_class_names` reads
        for row in rows:
            prefix = "Box" if "BoxXMin" in columns else ""
            known: dict[str, Any] = {
                "label": names.get(row["LabelName"], row["LabelName"]),
                "box": [float(row[f"{prefix}{side}"]) for side in ("XMin", "YMin", "XMax", "YMax")],
            }
            if row.get("Confidence"):
                known["score"] = float(row["Confidence"])
            if "MaskPath" in columns:
                known |= _with_masks({"mask": row["MaskPath"]}, path.parent)
            if row.get("IsGroupOf") != "1":
                yield row["ImageID"], OBJECT, known


def _class_names(path: Path) -> dict[str, str]:
    """OpenImages' `/m/011k07` -> `tortoise`, of a file with two columns; nothing of another."""
    with path.open(encoding="utf-8", newline="") as file:
        if file.readline().count(",") != 1:
            return {}
        file.seek(0)
        return {row[0]: row[1].lower() for row in csv.reader(file) if len(row) == 2}


_READERS: dict[str, Callable[[Path, Mapping[str, str]], Iterator[Fact]]] = {
    ".json": _from_json,
    ".jsonl": _from_jsonl,
    ".csv": _from_csv,
}
