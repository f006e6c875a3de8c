"""Where the weights of a method lie, and whether they are all there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mtadiffusion.errors import UserError
from mtadiffusion.models.hub import fetched_folder


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
    return fetched_folder(name, files, argument)


def check_files(folder: Path, files: Iterable[str], argument: str) -> None:
    """Raise a UserError that names the first of these files that the folder lacks."""
    for file in files:
        if not (folder / file).is_file():
            raise UserError(argument, f"lacks {file}", str(folder), "it is another layout, or incomplete")
