"""A journal: a file of JSON lines that says what is done, one line an item, only ever appended to.

One process writes it. A line that a killed process left unfinished counts as not written and is cut off
before the next one; of several lines about an item the last holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mtadiffusion.data.files import full_disk_told

Row = Mapping[str, Any]
"""A line: `item`, and what is to be known of it; JSON-ready."""


@dataclass(frozen=True)
class Journal:
    """The journal in the file `path`, which need not exist yet."""

    path: Path

    def latest(self) -> dict[str, dict[str, Any]]:
        """Item -> its last row. Damaged lines are passed over: what they said is done again."""
        rows: dict[str, dict[str, Any]] = {}
        for line in self._whole_lines():
            try:
                row = json.loads(line)
                rows[row["item"]] = row
            except (ValueError, KeyError, TypeError):
                continue
        return rows

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows to the disk before anything else happens.

        Raises:
            DiskFullError: there is no space left.
        """
        lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        if not lines:
            return
        with full_disk_told(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                _cut_torn_line(file)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        *lines, _ = self.path.read_bytes().split(b"\n")
        return lines


def _cut_torn_line(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
