"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mtadiffusion.errors import UserError

_PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(UserError):
    """Nothing more can be written where the user asked for it."""

    def __init__(self, folder: Path) -> None:
        remedy = "free some and run again: what is done stays"
        super().__init__("--out", "has no space left on its disk", str(folder), remedy)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write; it gets the name `path` when the block ends without an error.

    It is flushed to disk before it is renamed, so the name never precedes the content. On an error nothing of
    it is left.

    Raises:
        DiskFullError: the disk is full, or the user's share of it.
    """
    with whole_path(path) as partial, partial.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """A name beside `path` for a library to write a file to, which becomes `path` without an error.

    Raises:
        DiskFullError: the disk is full, or the user's share of it.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with full_disk_told(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turns the system's error for a full disk into the user's.

    Raises:
        DiskFullError: the disk that `folder` lies on is full, or the user's share of it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(folder) from error
        raise


def write_json(path: Path, values: Any) -> None:
    """One JSON document, whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True).encode())


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished. Only while no other process writes here."""
    for left in folder.rglob(f".*{_PARTIAL}"):
        left.unlink(missing_ok=True)
