"""Reading a published benchmark's folder: its lists, its paths, its pictures, each checked before it is used.

What others wrote is not trusted: a path that leads out of the folder is refused, and so is a list that says
two things of one item. Masks' codecs are in `imaging.masks`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.images import image_size

DOWNLOAD = "docs/evaluation-benchmarks.md says where to get it"
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_TAIL = 4096
_NAMED, _LONGEST = 3, 80


def read_text(path: Path, benchmark: str) -> str:
    """A list's text, UTF-8 with or without a byte order mark.

    Raises:
        UserError: the folder or the file is missing or cannot be read, or it is not UTF-8.
    """
    if not path.parent.is_dir():
        raise UserError("--path", f"must be the folder of {benchmark}", str(path.parent), DOWNLOAD)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        rule = f"must hold {path.name}, as {benchmark} does"
        raise UserError("--path", rule, str(path.parent), DOWNLOAD) from None
    except OSError as error:
        raise UserError("--path", f"cannot be read ({error.strerror})", str(path)) from None
    except UnicodeDecodeError as error:
        rule = f"must be UTF-8, byte {error.start} is not"
        raise UserError(str(path), rule, remedy="download it again, or save it as UTF-8") from None


def read_mapping(path: Path, benchmark: str) -> dict[str, Any]:
    """A JSON file whose document is an object that is not empty.

    Raises:
        UserError: as `read_text`; no JSON, no object, an empty one, or one with a key that stands twice.
    """
    text, file = read_text(path, benchmark), str(path)
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, file))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(file, f"is not JSON ({error})", remedy="download it again") from None
    if not isinstance(document, dict) or not document:
        rule = "must be an object with an entry an item"
        raise UserError(file, rule, type(document).__name__, f"is it the file of {benchmark}?")
    return document


def _unique(pairs: list[tuple[str, Any]], file: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(file, f"has the key {twice!r} twice", remedy="leave one of them")
    return found


def read_rows(path: Path, benchmark: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file by its header's names, cells without surrounding blanks.

    Raises:
        UserError: as `read_text`; columns are missing, a row is shorter or longer than the header, no rows.
    """
    file = str(path)
    lines = csv.reader(io.StringIO(read_text(path, benchmark), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        rows = [(lines.line_num, [cell.strip() for cell in line]) for line in lines if line]
    except csv.Error as error:
        raise UserError(
            file, f"is not CSV (line {lines.line_num}: {error})", remedy="download it again"
        ) from None
    missing = [name for name in columns if name not in header]
    if missing:
        rule = f"must have the columns {', '.join(columns)}"
        raise UserError(file, rule, ", ".join(header), f"missing: {', '.join(missing)}")
    for number, cells in rows:
        if len(cells) != len(header):
            rule = f"line {number}: must have {len(header)} cells like the header"
            raise UserError(file, rule, len(cells), "quote cells that hold commas")
    if not rows:
        raise UserError(file, "has no rows", remedy="download it again")
    return [dict(zip(header, cells, strict=True)) for _, cells in rows]


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file that a list names, which must lie in the list's folder by its own words.

    Args:
        folder: of the benchmark.
        name: relative path with forward slashes, as the list has it.
        where: file and item, for the message.
    """
    parts = name.split("/")
    if not name.strip() or "\0" in name or "\\" in name or ":" in parts[0] or {"", ".."} & set(parts):
        rule = "must name a picture by a path inside the benchmark's folder"
        raise UserError(where, rule, name, "use a relative path without '..'")
    return folder / name


def check_id(item_id: str, where: str) -> str:
    """The id, if it can serve as a file's name: letters, digits, `-`, `_`, `.`, at most 120."""
    if not _SAFE_ID.fullmatch(item_id):
        rule = "must have an id of letters, digits, '-', '_' and '.' that can name a file"
        raise UserError(where, rule, item_id, "rename the item")
    return item_id


def absent(folder: Path, names: Iterable[str], *, allowed: bool) -> list[str]:
    """Those of the files that are not there, in their order.

    Raises:
        UserError: there are some and that is not `allowed`, or none is there at all.
    """
    names = list(names)
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing and (not allowed or len(missing) == len(names)):
        rule = f"must hold all pictures, {len(missing)} of {len(names)} are missing"
        first = ", ".join(name[:_LONGEST] for name in missing[:_NAMED]) + (
            ", …" if len(missing) > _NAMED else ""
        )
        remedy = f"download {first}"
        raise UserError(str(folder), rule, remedy=remedy if allowed else f"{remedy}, or set allow_missing")
    return missing


def check_size(path: Path, size: tuple[int, int], where: str) -> None:
    """Refuse a picture that is not (width, height) large by its header."""
    found = image_size(path, where)
    if found != size:
        rule = f"must have a picture of {size[0]}x{size[1]} like its mask"
        raise UserError(where, rule, f"{path.name} of {found[0]}x{found[1]}", "download it again")


def digest(facts: Mapping[str, Any], files: Iterable[Path]) -> str:
    """A hex digest of JSON-ready facts and of files, by their sizes and last four kilobytes.

    Names, dates and places of a copy differ, so they do not count. Reading every picture whole takes minutes
    from a network disk, and is not needed: a PNG ends in checksums of its pixels, a JPEG in bits whose place
    depends on all that went before, and either hardly keeps its length when it is encoded anew.
    """
    sum_ = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for path in files:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL))
            sum_.update(size.to_bytes(8, "little") + file.read())
    return sum_.hexdigest()
