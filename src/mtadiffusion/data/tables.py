"""The tables of a dataset: one folder a table, one Parquet file a shard, each complete or absent.

A table's folder is named `NAME-FINGERPRINT`: the fingerprint stands for the settings that made it and for the
tables that it was made from, so other settings make another table and nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtadiffusion.data.files import whole_file, write_json

KEPT, REJECTED, SKIPPED = "kept", "rejected", "skipped"
"""The status of an image or object in a table: it goes on, it does not and `reason` says why, or an earlier
table left it out."""

DECODED, UNREADABLE = "decoded", "unreadable"
"""The status of an image in the index."""

_DIGITS = 10


def fingerprint(provenance: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that name what a table was made by and from (JSON-ready)."""
    text = json.dumps(provenance, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=_DIGITS // 2).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the dataset in `root`; it may be empty still."""

    root: Path
    """The dataset's folder."""

    name: str
    """What it holds, e.g. "detections"."""

    fingerprint: str
    """See `fingerprint`."""

    @property
    def key(self) -> str:
        """`NAME-FINGERPRINT`, also the folder's name."""
        return f"{self.name}-{self.fingerprint}"

    @property
    def folder(self) -> Path:
        """Where the shards lie."""
        return self.root / self.key

    @property
    def failures(self) -> Path:
        """Where shards that could not be made leave their errors."""
        return self.root / f"failed-{self.key}"

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{shard_name(shard)}.parquet"

    def has(self, shard: int) -> bool:
        """Whether the shard is done."""
        return self.path(shard).is_file()

    def absent(self, shards: int) -> list[int]:
        """The shards in [0, `shards`) that are not done."""
        present = {path.name for path in self.folder.glob("shard-*.parquet")}
        return [shard for shard in range(shards) if self.path(shard).name not in present]

    def describe(self, provenance: Mapping[str, Any]) -> None:
        """Say in `made_by.json` what the fingerprint stands for."""
        path = self.folder / "made_by.json"
        if not path.exists():
            write_json(path, provenance)

    def write(self, shard: int, rows: pa.Table) -> None:
        """Write a shard, whole or not at all; an error it left earlier goes."""
        with whole_file(self.path(shard)) as file:
            pq.write_table(rows, file, compression="zstd")
        self.failure_path(shard).unlink(missing_ok=True)

    def read(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard's rows."""
        with pq.ParquetFile(
            self.path(shard)
        ) as file:  # cheaper than `read_table`, which looks for partitions
            return file.read(columns=list(columns) if columns else None, use_threads=False)

    def failure_path(self, shard: int) -> Path:
        """Where the error of a shard would be."""
        return self.failures / f"{shard_name(shard)}.json"

    def quarantine(self, shard: int, error: str, attempts: int) -> None:
        """Say why a shard could not be made."""
        write_json(self.failure_path(shard), {"error": error, "attempts": attempts})

    def quarantined(self) -> dict[int, str]:
        """Shard -> error, of the shards that could not be made."""
        paths = sorted(self.failures.glob("shard-*.json"))
        return {shard_number(path): json.loads(path.read_text())["error"] for path in paths}


def shard_name(shard: int) -> str:
    """`shard-000042`."""
    return f"shard-{shard:06d}"


def shard_number(path: Path) -> int:
    """The inverse of `shard_name`, whatever the suffix."""
    return int(path.name.split(".")[0].removeprefix("shard-"))
