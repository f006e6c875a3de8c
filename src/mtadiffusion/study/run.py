"""What a study is made of: runs, each of them one method's results for items with a prompt and a hole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.study.questions import TIE

Loader = Callable[[], Image.Image]
"""Reads one picture, RGB, when it is needed; raises UserError where it cannot."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class RunItem:
    """One item of a run."""

    prompt: str
    """What was asked for in the hole."""

    masked: Loader
    """The picture with its hole shown as one."""

    result: Loader
    """What the method made of it, of the same size."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method's results."""

    method: str
    """Its name in reports; participants never see it."""

    source: str
    """Where it was read from, for messages."""

    items: Mapping[str, RunItem]
    """By item id."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.method) or self.method == TIE:
            rule = f"must name methods by letters, digits and ._+-, and none {TIE!r}"
            raise UserError("--runs", rule, self.method, "write NAME=DIR")
        for item_id in self.items:
            if not _NAME.fullmatch(item_id):
                rule = f"of {self.source} must name items by letters, digits and ._+-"
                raise UserError("--runs", rule, item_id)


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a run's own files name, which must lie in the run's folder.

    Raises:
        UserError: it lies elsewhere, or is not there.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError("--runs", f"must name pictures inside {folder}", name)
    if not path.is_file():
        raise UserError("--runs", "lacks a picture", str(folder / name))
    return path
