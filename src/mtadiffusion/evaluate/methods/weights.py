"""Where the weights of a method lie, and digests of their contents, so that results are never taken for those
of other weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mtadiffusion.errors import UserError

DECIDING = {".safetensors", ".json", ".txt", ".model"}
"""Suffixes of the files that decide what a folder of weights does."""

_CHUNK = 1 << 22


def check_named(name: str, argument: str) -> None:
    """Raise a UserError if `name` can only be a path, and nothing is there. Needs no network."""
    path = Path(name).expanduser()
    only_a_path = name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1
    if not name or (only_a_path and not path.exists()):
        raise UserError(argument, "must be an existing folder", name, "there is no such folder")


def find_folder(name: str, argument: str, files: Sequence[str]) -> Path:
    """The folder called `name`, else the snapshot of the hub id, fetched where it is not in the cache.

    Args:
        name: a folder or a hub id.
        argument: as the user typed it, for messages.
        files: patterns of what is fetched from the hub.

    Raises:
        UserError: neither, or the hub is out of reach.
    """
    check_named(name, argument)
    path = Path(name).expanduser()
    if path.is_dir():
        return path

    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the client raises whatever its transport does
        rule = "is neither a folder here nor a model of the hub that can be reached"
        remedy = f"where there is a network, run `hf download {name} --local-dir FOLDER`, then pass FOLDER"
        raise UserError(argument, rule, name, remedy) from error


def check_files(folder: Path, files: Iterable[str], argument: str) -> None:
    """Raise a UserError that names the first of these files that the folder lacks."""
    for file in files:
        if not (folder / file).is_file():
            raise UserError(argument, f"lacks {file}", str(folder), "it is another layout, or incomplete")


def digest(path: Path, parts: Sequence[str] = (".",)) -> str:
    """Hex digest of a weights file, or of parts of a folder: files, or folders with what lies right in them.

    Names count as well as contents. Parts that are not there do not count, nor do variants of weights
    (`model.fp16.safetensors`) beside the plain ones, which are not loaded then.
    """
    if path.is_file():
        return _file_digest(path)
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        for file in _deciding(path / part):
            total.update(f"{part}/{file.name}\0{_file_digest(file)}\n".encode())
    return total.hexdigest()


def _deciding(part: Path) -> list[Path]:
    if part.is_file():
        return [part]
    files = sorted(part.iterdir()) if part.is_dir() else []
    deciding = [file for file in files if file.suffix in DECIDING]
    plain = [file for file in deciding if not _is_variant(file)]
    return plain if any(file.suffix == ".safetensors" for file in plain) else deciding


def _is_variant(file: Path) -> bool:
    return file.suffix == ".safetensors" and "." in file.stem


def _file_digest(path: Path) -> str:
    about = path.stat()
    return _content_digest(path.resolve(), about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _content_digest(path: Path, _size: int, _mtime_ns: int) -> str:
    """Of a file's content, read once in a process as long as it does not change."""
    total = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()
