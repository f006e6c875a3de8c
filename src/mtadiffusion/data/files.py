"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write; it gets the name `path` when the block ends without an error.

    It is flushed to disk before it is renamed, so the name never precedes the content. On an error, a full
    disk included, nothing of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """One JSON document, whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True).encode())


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished. Only while no other process writes here."""
    for left in folder.rglob(f".*{_PARTIAL}"):
        left.unlink(missing_ok=True)
