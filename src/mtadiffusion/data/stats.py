"""What a dataset holds, in figures: images and objects by status and reason, labels, words, areas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.tables import DECODED, KEPT, SKIPPED


@dataclass(kw_only=True)
class Stats:
    """Figures of the tables in use."""

    images: Counter[str] = field(default_factory=Counter)
    """"kept", or the reason of the rejection -> images."""

    objects: dict[str, Counter[str]] = field(default_factory=dict)
    """Table -> ("kept", "skipped", or the reason of the rejection -> objects)."""

    objects_per_image: Counter[int] = field(default_factory=Counter)
    """How many objects the last table of objects kept in an image -> images that were kept with so many."""

    labels: Counter[str] = field(default_factory=Counter)
    """Label -> objects that the last table of objects kept."""

    words: list[int] = field(default_factory=list)
    """Words of each description that was kept."""

    areas: list[float] = field(default_factory=list)
    """Share of its image of each mask that was kept."""

    similarities: list[float] = field(default_factory=list)
    """Cosine of each verified description with its crop."""

    failed: dict[str, int] = field(default_factory=dict)
    """Table -> shards in quarantine."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: counts, and means instead of lists."""
        kept = self.images[KEPT]
        return {
            "images": dict(self.images),
            "objects": {name: dict(counts) for name, counts in self.objects.items()},
            "objects_per_kept_image": round(sum(self.labels.values()) / kept, 3) if kept else None,
            "labels": dict(self.labels.most_common()),
            "words_per_description": _mean(self.words),
            "area_share": _mean(self.areas),
            "crop_similarity": _mean(self.similarities),
            "failed_shards": self.failed,
        }


def dataset_stats(dataset: Dataset) -> Stats:
    """The figures of the tables in use, read shard by shard."""
    stats = Stats()
    tables = {name: dataset.table(name) for name in dataset.manifest.tables}
    stats.failed = {name: len(failed) for name, t in tables.items() if (failed := t.quarantined())}
    for shard in range(dataset.manifest.shards):
        rows = {name: t.read(shard).to_pylist() for name, t in tables.items() if t.has(shard)}
        for row in rows.get("filters", rows.get("index", [])):
            stats.images[KEPT if row["status"] in (KEPT, DECODED) else row["reason"]] += 1
        made = [name for name in ("detections", "masks", "descriptions") if name in rows]
        for name in made:
            _count_objects(stats, name, rows)
        if made:
            _count_images(stats, rows[made[-1]], rows.get("filters"))
        verified = (one for row in rows.get("alignment", []) for one in row["objects"])
        stats.similarities += [one["crop_similarity"] for one in verified if one["status"] == KEPT]
    return stats


def _count_objects(stats: Stats, name: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    counts = stats.objects.setdefault(name, Counter())
    last = [table for table in ("detections", "masks", "descriptions") if table in rows][-1]
    for row, one, image in _objects(name, rows):
        counts[one["status"] if one["status"] in (KEPT, SKIPPED) else one["reason"]] += 1
        if one["status"] != KEPT:
            continue
        if name == last:
            stats.labels[row["label"]] += 1
        if name == "masks":
            stats.areas.append(one["area"] / (image["width"] * image["height"]))
        if name == "descriptions":
            stats.words.append(len(one["text"].split()))


def _count_images(
    stats: Stats, annotated: list[dict[str, Any]], filtered: list[dict[str, Any]] | None
) -> None:
    for number, row in enumerate(annotated):
        if filtered is None or filtered[number]["status"] == KEPT:
            stats.objects_per_image[sum(one["status"] == KEPT for one in row["objects"])] += 1


def _objects(
    name: str, rows: dict[str, list[dict[str, Any]]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(its detection, the object, its index row) of every object of a table."""
    for image, found, row in zip(rows["index"], rows["detections"], rows[name], strict=True):
        for detection, one in zip(found["objects"], row["objects"], strict=True):
            yield detection, one, image


def _mean(values: list[Any]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
