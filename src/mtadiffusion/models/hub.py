"""Folders of the Hugging Face hub, found in the local cache or fetched, and digests of weights.

Which files a model needs is the business of `model_files` and `published`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from mtadiffusion.errors import UserError, nearest_name

_DECIDING = {".safetensors", ".json", ".txt", ".model"}
"""Suffixes of the files that decide what a folder of weights does."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_PATTERNS = 8
"""More are not spelt out to the user, who then fetches the whole repository."""


def cached_folder(name: str, files: Sequence[str]) -> Path | None:
    """The folder of a hub id in the local cache, complete or not; None where there is none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
    except (OSError, ValueError):
        return None


def fetched_folder(
    name: str, files: Sequence[str], argument: str, known: Collection[str] = (), otherwise: str = ""
) -> Path:
    """The folder of a hub id, with what was absent of it fetched.

    Args:
        name: the hub id.
        files: patterns of what is fetched.
        argument: what the user would pass a folder to: `--model`.
        known: names that a misspelt one may have meant.
        otherwise: what else could be done without a network, in the middle of a sentence.

    Raises:
        UserError: no such repository, or the hub is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (RepositoryNotFoundError, HFValidationError):
        remedy = nearest_name(name, known) if known else "see https://huggingface.co/models"
        rule = "is neither a folder here nor a public model of the hub"
        raise UserError(argument, rule, name, remedy) from None
    except Exception as error:  # the client raises whatever its transport does
        rule = "is not on this machine, and the hub is out of reach"
        by_hand, meant = _by_hand(name, files, argument) + otherwise, _meant(name, known)
        remedy = f"{meant} {by_hand[0].upper()}{by_hand[1:]}" if meant else by_hand
        raise UserError(argument, rule, name, remedy) from error


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, [one for one in known if one != name], n=1, cutoff=0.8)
    return f"did you mean {close[0]!r}?" if close else ""


def _by_hand(name: str, files: Sequence[str], argument: str) -> str:
    few = files if len(files) <= _MOST_PATTERNS else ()
    command = " ".join(["hf download", name, *(f"--include '{one}'" for one in few), "--local-dir FOLDER"])
    return f"where there is a network, fetch it once with `{command}`, then pass {argument} FOLDER"


def file_digest(path: Path) -> str:
    """Hex digest (SHA-256) of a file's content, computed once as long as the file stays as it is.

    The hub's cache names a large file by this very digest, which is then taken instead.
    """
    place = path.resolve()
    if place.parent.name == "blobs" and _SHA256.fullmatch(place.name):
        return place.name
    facts = place.stat()
    return _content_digest(place, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1024)
def _content_digest(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_digest(lines: Iterable[str]) -> str:
    """One hex digest of several lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def weights_digest(path: Path, parts: Sequence[str] = (".",)) -> str:
    """Hex digest of a weights file, or of parts of a folder: files, or folders with what lies right in them.

    Names count as well as contents. Parts that are not there do not count, nor do variants of weights
    (`model.fp16.safetensors`) beside the plain ones, which are not loaded then.
    """
    if path.is_file():
        return file_digest(path)
    named = ((f"{part}/{file.name}", file) for part in parts for file in _deciding(path / part))
    return joint_digest(f"{name} {file_digest(file)}" for name, file in named)


def _deciding(part: Path) -> list[Path]:
    if part.is_file():
        return [part]
    files = sorted(part.iterdir()) if part.is_dir() else []
    deciding = [file for file in files if file.suffix in _DECIDING]
    plain = [file for file in deciding if not is_variant(file)]
    return plain if any(file.suffix == ".safetensors" for file in plain) else deciding


def is_variant(file: Path) -> bool:
    """Whether weights, or the index of their files, are a second form of a folder's, such as
    `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`, `model.safetensors.index.fp16.json`."""
    if file.suffix == ".safetensors":
        return "." in file.stem
    return ".safetensors.index." in file.name and not file.name.endswith(".index.json")
