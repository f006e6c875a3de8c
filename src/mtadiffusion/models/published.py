"""Weights that others publish, named by hub id, URL or path: where they lie on this machine, and their hash.

They are fetched once where there is a network. Where there is none, the error says what to fetch elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mtadiffusion.errors import UserError


@dataclass(frozen=True, kw_only=True)
class HubFolder:
    """Files of one repository of the Hugging Face hub, or of a folder that holds the same."""

    name: str
    """Hub id or folder."""

    files: tuple[str, ...]
    """Patterns of the files needed; each is matched by one at least."""

    argument: str
    """What the user would pass another folder to: `hps.weights`."""

    also: tuple[str, ...] = ()
    """Patterns of files that are fetched with them where the repository has any."""

    def present(self) -> Path | None:
        """The folder, where all files are on this machine."""
        folder = Path(self.name).expanduser() if self.name else Path()
        if not (self.name and folder.is_dir()):
            cached = self._cached()
            if cached is None:
                return None
            folder = cached
        return folder if self._missing(folder) is None else None

    def fetched(self) -> Path:
        """The folder, fetched from the hub if need be.

        Raises:
            UserError: an incomplete folder, no such repository, or the hub out of reach.
        """
        folder = self.present()
        if folder is not None:
            return folder
        given = Path(self.name).expanduser()
        if self.name and given.exists():
            lacking = self._missing(given) if given.is_dir() else self.files[0]
            raise UserError(self.argument, f"must be a folder that holds {lacking}", self.name)
        return self._download()

    def digest(self) -> str | None:
        """Hex digest of the files' contents; None where they are not on this machine."""
        folder = self.present()
        if folder is None:
            return None
        paths = sorted({path for pattern in self.files for path in folder.glob(pattern)})
        return _joint_digest(tuple(file_digest(path) for path in paths))

    def _wanted(self) -> list[str]:
        return [*self.files, *self.also]

    def _missing(self, folder: Path) -> str | None:
        return next((pattern for pattern in self.files if not any(folder.glob(pattern))), None)

    def _cached(self) -> Path | None:
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.name, allow_patterns=self._wanted(), local_files_only=True))
        except (OSError, ValueError):
            return None

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

        try:
            return Path(snapshot_download(self.name, allow_patterns=self._wanted()))
        except (RepositoryNotFoundError, HFValidationError):
            rule = "is neither a folder here nor a public model of the hub"
            raise UserError(self.argument, rule, self.name) from None
        except Exception as error:  # the client raises whatever its transport does
            wanted = " ".join(f"--include '{pattern}'" for pattern in self._wanted())
            remedy = (
                f"where there is a network, fetch it once with `hf download {self.name} {wanted} "
                f"--local-dir FOLDER`, then pass FOLDER as {self.argument}"
            )
            rule = "is not on this machine, and the hub is out of reach"
            raise UserError(self.argument, rule, self.name, remedy) from error


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """One file at an address, or the same file at a path of the user's."""

    url: str
    """Where it is published."""

    saved_as: str
    """Its name in torch.hub's folder of checkpoints."""

    path: str | None
    """The user's own copy; None: the one in torch.hub's folder."""

    argument: str
    """What the user would pass a path to."""

    def present(self) -> Path | None:
        """The file, where it is on this machine."""
        place = self._place()
        return place if place.is_file() else None

    def fetched(self) -> Path:
        """The file, fetched if need be.

        Raises:
            UserError: no file at the user's path, or the address out of reach.
        """
        place = self._place()
        if place.is_file():
            return place
        if self.path is not None:
            raise UserError(self.argument, "must be a file", self.path, f"it is published at {self.url}")
        import torch

        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(place))
        except Exception as error:  # urllib's, the disk's
            remedy = f"download {self.url} where there is a network, then pass its path as {self.argument}"
            rule = "is not on this machine, and its address is out of reach"
            raise UserError(self.argument, rule, self.saved_as, remedy) from error
        return place

    def digest(self) -> str | None:
        """Hex digest of the file's content; None where it is not on this machine."""
        place = self.present()
        return None if place is None else file_digest(place)

    def _place(self) -> Path:
        if self.path is not None:
            return Path(self.path).expanduser()
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / self.saved_as


def file_digest(path: Path) -> str:
    """Hex digest of a file's content, computed once as long as the file stays as it is.

    The hub's cache names a file by the hash of its content, which is then taken instead.
    """
    place = path.resolve()
    if place.parent.name == "blobs":
        return place.name
    facts = place.stat()
    return _content_digest(place, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=256)
def _content_digest(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joint_digest(digests: tuple[str, ...]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
