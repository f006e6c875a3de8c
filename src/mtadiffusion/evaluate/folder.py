"""An evaluation on disk: one folder a method and setting, whose name says what made its pictures.

    OUT/evaluation.json                     the benchmark that this folder is about
    OUT/METHOD-FINGERPRINT/made_by.json     what the fingerprint stands for, and the versions at the start
    OUT/METHOD-FINGERPRINT/images.jsonl     a line for each picture: its hash, or why there is none
    OUT/METHOD-FINGERPRINT/images/ITEM.png
    OUT/METHOD-FINGERPRINT/edges/ITEM.png   the edges that the method expected, where it says so
    OUT/METHOD-FINGERPRINT/scores/METRIC-FINGERPRINT.jsonl

A picture counts where its line is there and its hash is right, and that of its edges; a score where it is of
that very picture.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtadiffusion.data.files import write_json
from mtadiffusion.data.tables import fingerprint
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Benchmark, Item
from mtadiffusion.evaluate.journal import Journal

ABOUT = "evaluation.json"
FORMAT = 1
_ITEM_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class MethodFolder:
    """What one method made under one set of settings."""

    out: Path
    """The evaluation's folder."""

    key: str
    """Name of the method's part of it: method and fingerprint."""

    @property
    def path(self) -> Path:
        """Where everything of it lies."""
        return self.out / self.key

    @property
    def pictures(self) -> Journal:
        """Of the pictures: `item`, `asked`, and either `sha256`, `seconds` and, where there are some, `edges`
        (their file's hash), or `error`."""
        return Journal(self.path / "images.jsonl")

    def picture(self, item_id: str) -> Path:
        """The result for an item."""
        return self.path / "images" / f"{item_id}.png"

    def edges(self, item_id: str) -> Path:
        """The edges that the method expected in an item's result."""
        return self.path / "edges" / f"{item_id}.png"

    def scores(self, metric_key: str) -> Journal:
        """Of one metric: `item`, `sha256` of the picture, and `score` (null: does not apply) or `error`."""
        return Journal(self.path / "scores" / f"{metric_key}.jsonl")

    def whole_pictures(self, items: Iterable[Item]) -> dict[str, str]:
        """Item -> hash, of the pictures that are there as they were written."""
        rows = self.pictures.latest()
        found = {}
        for item in items:
            row = rows.get(item.item_id, {})
            if "sha256" in row and self._is_whole(row):
                found[item.item_id] = row["sha256"]
        return found

    def _is_whole(self, row: Mapping[str, Any]) -> bool:
        files = {"sha256": self.picture(row["item"]), "edges": self.edges(row["item"])}
        return all(file_hash(path) == row[name] for name, path in files.items() if name in row)

    def describe(self, provenance: Mapping[str, Any]) -> None:
        """Say what the fingerprint stands for, once."""
        path = self.path / "made_by.json"
        if not path.exists():
            write_json(path, provenance)

    def made_by(self) -> dict[str, Any]:
        """What `describe` wrote."""
        made_by: dict[str, Any] = json.loads((self.path / "made_by.json").read_text(encoding="utf-8"))
        return made_by


def key_of(name: str, identity: Mapping[str, Any]) -> str:
    """`NAME-FINGERPRINT`, safe as a file's name; `identity` is JSON-ready."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")[:_LONGEST_NAME]
    return f"{safe or 'unnamed'}-{fingerprint(identity)}"


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file in hexadecimal digits; None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def check_items(items: Iterable[Item]) -> None:
    """Ids that serve as files' names, each of them once, and prompts that can be written down.

    Raises:
        UserError: one that does not, or that comes twice.
    """
    seen: set[str] = set()
    for item in items:
        if not _ITEM_ID.fullmatch(item.item_id):
            rule = "must have ids of letters, digits, -, _ and ., not starting with a ."
            raise UserError("--benchmark", rule, item.item_id)
        if item.item_id.lower() in seen:
            raise UserError("--benchmark", "must have different ids, whatever their case", item.item_id)
        seen.add(item.item_id.lower())
        if not _is_text(item.prompt):
            raise UserError("--benchmark", "must have prompts that UTF-8 can hold", item.item_id)
    if not seen:
        raise UserError("--benchmark", "has no items", remedy="is --path the right folder?")


def _is_text(text: str) -> bool:
    """Whether it has none of the lone surrogates that JSON's escapes can smuggle in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_usable(out: Path) -> None:
    """An evaluation's folder, or one with nothing in it yet.

    Raises:
        UserError: it holds something else.
    """
    if (out / ABOUT).exists() or not out.exists():
        return
    if any(not entry.name.startswith(".") for entry in out.iterdir()):
        remedy = "name a new or empty folder, or that of an earlier evaluation"
        raise UserError("--out", "holds something that is not an evaluation", str(out), remedy)


def claim(out: Path, benchmark: Benchmark) -> None:
    """Make the folder that of this benchmark, if it is not yet. The caller holds its lock.

    Raises:
        UserError: it is another benchmark's.
    """
    path = out / ABOUT
    about = {"format": FORMAT, "benchmark": benchmark.name, "fingerprint": benchmark.fingerprint()}
    if not path.exists():
        write_json(path, about)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError("--out", "has a damaged evaluation.json", str(out), "choose another folder") from None
    if found != about:
        rule = f"already holds an evaluation on {found.get('benchmark')} {found.get('fingerprint', '')[:10]}"
        wanted = f"{about['benchmark']} {str(about['fingerprint'])[:10]}"
        raise UserError("--out", rule, wanted, "choose another folder for another benchmark")
