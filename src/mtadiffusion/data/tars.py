"""WebDataset tars: samples read in order with the place of each member, images packed, members read again.

Nothing is ever extracted: a member's name is text, so a name that points elsewhere can do no harm.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

import fsspec
from fsspec.core import url_to_fs

_READ = 2**16
"""Bytes that are read at a time, about a picture."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in a tar."""

    offset: int
    """Where its bytes begin, counted from the tar's start."""

    data: bytes
    """Its bytes."""


@dataclass(kw_only=True)
class TarSample:
    """Consecutive members of one name, which differ in what follows its first dot."""

    key: str
    """The common name, folders included."""

    members: dict[str, Member] = field(default_factory=dict)
    """Suffix without its dot, lower case -> member; the first one of a suffix counts."""


def read_samples(file: IO[bytes]) -> Iterator[TarSample]:
    """The samples of a tar, front to back; the file need not be seekable.

    Raises:
        tarfile.TarError: the tar is damaged. Samples before the damage were yielded.
    """
    sample: TarSample | None = None
    with tarfile.open(fileobj=file, mode="r|*", bufsize=_READ) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                continue
            key, suffix = _split(entry.name)
            if sample is not None and sample.key != key:
                yield sample
                sample = None
            sample = sample or TarSample(key=key)
            data = content.read()
            if len(data) != entry.size:
                raise tarfile.ReadError(f"{entry.name} ends early")
            sample.members.setdefault(suffix, Member(offset=entry.offset_data, data=data))
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, suffix.lower()


class Packer:
    """Writes members one after the other and says where each begins."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._file = file

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its bytes."""
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return self._file.tell() - padded

    def close(self) -> None:
        """Write the end of the tar; the file stays open."""
        self._tar.close()


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes at `offset` of the file at a path or fsspec URL, by one request.

    Raises:
        OSError: it cannot be read, or ends before.
    """
    filesystem, path = url_to_fs(url)
    data = filesystem.cat_file(path, start=offset, end=offset + size)
    if len(data) != size:
        raise OSError(f"{url} ends before byte {offset + size}")
    return data


class MemberReader:
    """Reads members again by place. Keeps the last tar open; use as a context."""

    def __init__(self) -> None:
        self._url: str | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> MemberReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, url: str, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the file at a path or fsspec URL."""
        if url != self._url or self._file is None:
            self._close()
            self._file = fsspec.open(url, "rb").open()
            self._url = url
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise OSError(f"{url} ends before byte {offset + size}")
        return data

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = self._url = None
