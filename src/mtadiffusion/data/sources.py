"""Where images come from: folders of files, WebDataset tars, Parquet files; local paths or fsspec URLs.

A source is planned once into shards, each a small JSON object that says what to read; `read_shard` reads one.
What a source knows of an image besides its pixels (captions, scores, flags) is understood by the field names
of img2dataset, LAION and BrushData, and kept whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from mtadiffusion.data.source_objects import may_be_objects
from mtadiffusion.data.tars import TarSample, read_samples
from mtadiffusion.errors import UserError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
CAPTION_FIELDS = ("caption", "TEXT", "text", "prompt", "alt", "txt")
AESTHETIC_FIELDS = ("aesthetic", "aesthetic_score", "AESTHETIC_SCORE", "aesthetics")
NSFW_FIELDS = ("NSFW", "nsfw")
UNSAFE_FIELDS = ("punsafe",)
UNSAFE = 0.5
"""The probability of being unsafe from which an image counts as flagged."""

BYTES_COLUMNS = ("jpg", "image", "jpeg", "png", "webp", "bytes")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "local_path", "image_path")

Spec = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Bytes of a file that stays where it is."""

    url: str
    """Path or fsspec URL."""

    offset: int
    """The first byte."""


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """An image as its source gave it, undecoded."""

    key: str
    """Unique in the dataset if the source keeps its own keys unique."""

    data: bytes | None
    """The encoded image, None where the source has none; `fault` says why."""

    caption: str | None = None
    """The source's text about the image."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """All else that the source says, JSON-ready."""

    place: Place | None = None
    """Where the bytes lie for good; None: they have to be packed."""

    fault: str | None = None
    """What was wrong with the image's part of the source, a caption in another encoding included."""


def plan(source: str, shard_size: int) -> list[Spec]:
    """Split a source into shards of about `shard_size` images; a tar stays one shard.

    Args:
        source: a folder of images, of tars or of Parquet files; one tar or Parquet file; or a glob of them.

    Raises:
        UserError: there is nothing there that could be read.
    """
    filesystem, path = url_to_fs(source)
    paths = filesystem.glob(path) if any(c in path for c in "*?[") else _listed(filesystem, path)
    urls = sorted(filesystem.unstrip_protocol(p) if "://" in source else p for p in paths)
    by_suffix: dict[str, list[str]] = {}
    for url in urls:
        by_suffix.setdefault(PurePosixPath(url).suffix.lower().lstrip("."), []).append(url)
    if "tar" in by_suffix:
        return [{"kind": "tar", "url": url} for url in by_suffix["tar"]]
    if "parquet" in by_suffix:
        return [spec for url in by_suffix["parquet"] for spec in _plan_parquet(url, shard_size)]
    images = [url for suffix in IMAGE_SUFFIXES for url in by_suffix.get(suffix, [])]
    if not images:
        remedy = "name a folder of images, tars or Parquet files, one such file, or a glob"
        raise UserError("SOURCE", "must hold images", source, remedy)
    root = source if "://" in source else path
    return _plan_files(root.rstrip("/"), sorted(images), shard_size)


def _listed(filesystem: Any, path: str) -> list[str]:
    if filesystem.isdir(path):
        return filesystem.find(path)
    if not filesystem.exists(path):
        raise UserError("SOURCE", "must be there", path, "there is no such file or folder")
    return [path]


def _plan_files(root: str, urls: list[str], shard_size: int) -> list[Spec]:
    count = math.ceil(len(urls) / shard_size)
    size = math.ceil(len(urls) / count)  # even shards: none much smaller than the others
    return [{"kind": "files", "root": root, "urls": urls[i : i + size]} for i in range(0, len(urls), size)]


def _plan_parquet(url: str, shard_size: int) -> list[Spec]:
    with fsspec.open(url, "rb") as file:
        rows = pq.ParquetFile(file).metadata.num_rows
    return [
        {"kind": "parquet", "url": url, "first": first, "count": min(shard_size, rows - first)}
        for first in range(0, rows, shard_size)
    ]


def read_shard(spec: Spec) -> Iterator[RawImage]:
    """The images of a planned shard, in a fixed order."""
    return _READERS[spec["kind"]](spec)


def _read_files(spec: Spec) -> Iterator[RawImage]:
    for url in spec["urls"]:
        key = url.removeprefix(spec["root"]).lstrip("/")
        beside = url.rpartition(".")[0]
        try:
            data = _bytes_of(url)
        except OSError as error:
            yield RawImage(key=key, data=None, fault=f"unreadable file: {error.strerror or error}")
            continue
        texts = {suffix: text for suffix in ("txt", "json") if (text := _optional(f"{beside}.{suffix}"))}
        yield _raw_image(key, data, texts, None)


def _bytes_of(url: str) -> bytes:
    with fsspec.open(url, "rb") as file:
        return file.read()


def _optional(url: str) -> bytes | None:
    filesystem, path = url_to_fs(url)
    return filesystem.cat_file(path) if filesystem.exists(path) else None


def _read_tar(spec: Spec) -> Iterator[RawImage]:
    prefix = PurePosixPath(spec["url"]).stem
    with fsspec.open(spec["url"], "rb") as file:
        for sample in read_samples(file):
            yield _from_tar(sample, f"{prefix}/{sample.key}", spec["url"])


def _from_tar(sample: TarSample, key: str, url: str) -> RawImage:
    found = next((suffix for suffix in (*IMAGE_SUFFIXES, "image") if suffix in sample.members), None)
    texts = {suffix: m.data for suffix, m in sample.members.items() if suffix not in IMAGE_SUFFIXES}
    if found is None:
        return RawImage(key=key, data=None, fault="no image")
    member = sample.members[found]
    return _raw_image(key, member.data, texts, Place(url=url, offset=member.offset))


def _read_parquet(spec: Spec) -> Iterator[RawImage]:
    with fsspec.open(spec["url"], "rb") as file:
        rows = _rows(pq.ParquetFile(file), spec["first"], spec["count"])
        for number, row in enumerate(rows, start=spec["first"]):
            yield _from_row(row, f"{PurePosixPath(spec['url']).stem}/{number:09d}", spec["url"])


def _rows(file: pq.ParquetFile, first: int, count: int) -> Iterator[dict[str, Any]]:
    seen = 0
    for batch in file.iter_batches(batch_size=256):
        if seen >= first + count:
            return
        low, high = max(first - seen, 0), min(first + count - seen, batch.num_rows)
        seen += batch.num_rows
        if low < high:
            yield from batch.slice(low, high - low).to_pylist()


def _from_row(row: dict[str, Any], key: str, url: str) -> RawImage:
    key = str(row.get("key") or key)
    data, fault = _image_of_row(row, url)
    fields = {k: v for k, v in row.items() if isinstance(v, str | int | float | bool) or may_be_objects(k, v)}
    if data is None:
        return RawImage(key=key, data=None, fields=fields, fault=fault)
    return RawImage(key=key, data=data, caption=caption_of(fields), fields=fields)


def _image_of_row(row: dict[str, Any], url: str) -> tuple[bytes | None, str | None]:
    for column in BYTES_COLUMNS:
        value = row.get(column)
        value = value.get("bytes") if isinstance(value, dict) else value  # Hugging Face's Image feature
        if isinstance(value, bytes) and value:
            return value, None
    path = _first(row, PATH_COLUMNS)
    if path is None:
        return None, "no image"
    beside = path if "://" in path or path.startswith("/") else f"{url.rpartition('/')[0]}/{path}"
    try:
        return _bytes_of(beside), None
    except OSError as error:
        return None, f"unreadable file: {error.strerror or error}"


def _raw_image(key: str, data: bytes, texts: Mapping[str, bytes], place: Place | None) -> RawImage:
    """An image and the small files beside it: JSON objects are fields, other texts are named by suffix."""
    fields: dict[str, Any] = {}
    faults = []
    for suffix, content in texts.items():
        text = content.decode("utf-8", errors="replace")
        if "\ufffd" in text:
            faults.append(f"{suffix} is not UTF-8")
        if suffix == "json":
            try:
                parsed = json.loads(text)
            except ValueError:
                faults.append("json cannot be parsed")
                continue
            fields |= parsed if isinstance(parsed, dict) else {"json": parsed}
        else:
            fields[suffix] = text.strip()
    caption = _first(fields, ("txt", *CAPTION_FIELDS))
    return RawImage(
        key=key,
        data=data,
        caption=caption,
        fields=fields,
        place=place,
        fault="; ".join(faults) or None,
    )


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    found = (fields[name] for name in names if isinstance(fields.get(name), str) and fields[name].strip())
    return next((value.strip() for value in found), None)


def caption_of(fields: Mapping[str, Any]) -> str | None:
    """The source's text about the image, if it has one under a known name."""
    return _first(fields, CAPTION_FIELDS)


def aesthetic_score(fields: Mapping[str, Any]) -> float | None:
    """The source's aesthetic score, if it has one under a known name."""
    return _number(fields, AESTHETIC_FIELDS)


def flagged_unsafe(fields: Mapping[str, Any]) -> bool:
    """Whether the source calls the image unsafe: by LAION's NSFW (not its UNLIKELY, UNSURE) or by punsafe."""
    probability = _number(fields, UNSAFE_FIELDS)
    if probability is not None and probability >= UNSAFE:
        return True
    values = [fields[name] for name in NSFW_FIELDS if name in fields]
    return any(v is True or (isinstance(v, str) and v.strip().upper() in ("NSFW", "TRUE")) for v in values)


def _number(fields: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        try:
            value = float(fields[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return None


_READERS: dict[str, Callable[[Spec], Iterator[RawImage]]] = {
    "files": _read_files,
    "tar": _read_tar,
    "parquet": _read_parquet,
}
