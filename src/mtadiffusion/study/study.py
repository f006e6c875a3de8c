"""A study's folder: what is asked of which pictures, fixed when it is created.

`study.json` and `pictures/` never change afterwards; `answers.sqlite3` (store.py) is all that does.
Pictures are named by the hash of their content, so a picture that was exchanged is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtadiffusion.data.files import write_json
from mtadiffusion.errors import UserError

FORMAT = 1
DESCRIPTION = "study.json"
PICTURES = "pictures"
ANSWERS = "answers.sqlite3"

_PICTURE_NAME = re.compile(r"[0-9a-f]{64}\.png")
_REMEDY = "name a folder that `mta study create` made"


@dataclass(frozen=True, kw_only=True)
class StudyItem:
    """A picture with a hole, and what each method put there."""

    item_id: str
    """The benchmark's, or `check:N` for an attention check."""

    prompt: str
    """What was asked for in the hole."""

    masked: str
    """File name in `pictures/` of the picture with its hole."""

    results: Mapping[str, str]
    """Method to file name in `pictures/`."""

    def files(self) -> Iterator[str]:
        """Every picture's file name."""
        yield self.masked
        yield from self.results.values()


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is asked, of which pictures, and under which terms."""

    root: Path = field(compare=False)
    """The study's folder."""

    created: str
    """When, ISO 8601 in UTC."""

    seed: int
    """Decides the choice of items and every participant's orders."""

    questions: tuple[str, ...]
    """Names, in the order asked."""

    methods: tuple[str, ...]
    """What is compared; participants never see these names."""

    consent: str
    """Shown first; blank lines part paragraphs."""

    items: tuple[StudyItem, ...]
    """What is judged."""

    checks: tuple[StudyItem, ...]
    """Attention checks: pictures with an instruction instead of a question."""

    @property
    def answers_each(self) -> int:
        """How many answers a participant gives in all, checks included."""
        return len(self.questions) * (len(self.items) + len(self.checks))

    def save(self) -> None:
        """Write `study.json`."""
        values = {name: value for name, value in asdict(self).items() if name != "root"}
        write_json(self.root / DESCRIPTION, values | {"format": FORMAT})

    @classmethod
    def open(cls, root: Path) -> Study:
        """Read a study's description.

        Raises:
            UserError: no study, one of another format, or a description that is damaged.
        """
        try:
            values = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))
        except OSError:
            raise UserError("STUDY", "must be a study's folder", str(root), _REMEDY) from None
        except ValueError:
            values = {}
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            rule = f"must hold a {DESCRIPTION} of format {FORMAT}"
            raise UserError("STUDY", rule, str(root), _REMEDY)
        try:
            return _study(root, values)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError("STUDY", f"has a damaged {DESCRIPTION} ({error})", str(root), _REMEDY) from None

    def check_pictures(self) -> None:
        """Raise UserError unless every picture is there with the content that it had at first."""
        for name in {name for item in (*self.items, *self.checks) for name in item.files()}:
            path = self.root / PICTURES / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != path.stem:
                rule = f"has lost or changed the picture {name}"
                raise UserError("STUDY", rule, str(self.root), "copy the study's folder anew")


def _study(root: Path, values: dict[str, Any]) -> Study:
    for name in ("items", "checks"):
        values[name] = tuple(StudyItem(**one) for one in values[name])
    for name in ("questions", "methods"):
        values[name] = tuple(values[name])
    study = Study(root=root, **values)
    for item in (*study.items, *study.checks):
        _check_item(item, study.methods)
    return study


def _check_item(item: StudyItem, methods: tuple[str, ...]) -> None:
    """An item has every method and only plain names of files."""
    if set(item.results) != set(methods):
        raise ValueError(f"item {item.item_id} has other methods")
    if not all(_PICTURE_NAME.fullmatch(name) for name in item.files()):
        raise ValueError(f"item {item.item_id} names no picture")
