"""Weights that others publish, named by hub id, URL or path: where they lie on this machine, and their hash.

They are fetched once where there is a network. Where there is none, the error says what to fetch elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtadiffusion.errors import UserError
from mtadiffusion.models.hub import cached_folder, fetched_folder, file_digest, joint_digest


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
            cached = cached_folder(self.name, self._wanted())
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
        return fetched_folder(self.name, self._wanted(), self.argument)

    def digest(self) -> str | None:
        """Hex digest of the files' contents; None where they are not on this machine."""
        folder = self.present()
        if folder is None:
            return None
        paths = sorted({path for pattern in self.files for path in folder.glob(pattern)})
        return joint_digest(file_digest(path) for path in paths)

    def _wanted(self) -> list[str]:
        return [*self.files, *self.also]

    def _missing(self, folder: Path) -> str | None:
        return next((pattern for pattern in self.files if not any(folder.glob(pattern))), None)


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
