"""A run from anywhere: a folder with `items.jsonl` and a PNG per item.

Each line of `items.jsonl` is an object with `item_id`, `prompt` and `masked`, the path in the folder of the
picture with its hole; the result is `ITEM_ID.png`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.images import load_image
from mtadiffusion.study.run import Run, RunItem, inside

ITEMS = "items.jsonl"
_FIELDS = ("item_id", "prompt", "masked")


def read_plain(method: str, folder: Path) -> Run:
    """The run of a plain folder; its pictures are decoded later.

    Raises:
        UserError: no `items.jsonl`, a line that is no such object, a picture missing or outside the folder.
    """
    try:
        lines = (folder / ITEMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        remedy = "a plain folder has one line a picture there: item_id, prompt, masked"
        raise UserError("--runs", f"must be a folder with a readable {ITEMS}", str(folder), remedy) from None
    items: dict[str, RunItem] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line, f"{folder / ITEMS}, line {number}")
            if row["item_id"] in items:
                raise UserError("--runs", f"must have each item once in {folder / ITEMS}", row["item_id"])
            items[row["item_id"]] = _item(folder, row)
    return Run(method=method, source=str(folder), items=items)


def _row(line: str, where: str) -> dict[str, str]:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in _FIELDS):
        raise UserError("--runs", f"must hold objects with the texts {', '.join(_FIELDS)}", where)
    return row


def _item(folder: Path, row: dict[str, str]) -> RunItem:
    masked, result = (inside(folder, name) for name in (row["masked"], f"{row['item_id']}.png"))
    return RunItem(
        prompt=row["prompt"],
        masked=partial(load_image, masked, "--runs"),
        result=partial(load_image, result, "--runs"),
    )
