"""Make StickerBench's frozen lists, check them, or show them.

python tools/sticker_bench.py --check               say whether the lists are drawn as they were
python tools/sticker_bench.py --sheet sheet.png     a contact sheet of one list
python tools/sticker_bench.py --write               make the lists anew: figures on the old ones end here

A list has styles, kinds of hole and combinations that training never shows in fixed proportions. Scenes are
taken in their order; one is passed over where its hole leaves too little to see of its surroundings.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from mtadiffusion.data.files import whole_file
from mtadiffusion.imaging.images import save_png
from mtadiffusion.stickers.assets import STYLES
from mtadiffusion.stickers.bench import (
    HOLES,
    LISTS,
    SIDE,
    WORLD,
    Entry,
    agree,
    checksum,
    draw,
    hole_over,
    line_of,
    list_path,
    read_list,
)
from mtadiffusion.stickers.problems import HoleProblem, hole_problem
from mtadiffusion.stickers.scenes import Scene

ITEMS = 200
HELD_OUT_EVERY = 4
"""One block of style and hole in so many asks for combinations that training never shows."""

HOLE_SHARE = (0.1, 0.6)
"""Least and greatest share of the picture that a hole takes."""

LEFT = 0.7
"""The share of every other object that must stay to be seen."""

_TILE, _GAP, _LINE, _COLUMNS = 128, 8, 18, 4
_INK, _PAPER, _EDGE = (29, 29, 31), (246, 245, 241), (255, 0, 160)


def made_list(split: str, items: int = ITEMS) -> list[Entry]:
    """The list of a split: a pure function of its arguments."""
    open_places: dict[tuple[str, str, bool], deque[int]] = defaultdict(deque)
    for number in range(items):
        open_places[cell(number)].append(number)
    made: dict[int, Entry] = {}
    with tqdm(total=items, desc=split, unit="item") as progress:
        for index in count():
            problem = hole_problem(split, index, seed=WORLD, size=SIDE)
            for hole in (*HOLES[index % len(HOLES) :], *HOLES[: index % len(HOLES)]):
                places = open_places[problem.style, hole, problem.held_out]
                if places and fits(problem.scene, mask := hole_over(problem.scene, hole, split, index)):
                    made[places.popleft()] = _entry(split, problem, hole, mask)
                    progress.update()
                    break
            if len(made) == items:
                return [made[number] for number in range(items)]
    raise AssertionError("scenes never end")


def _entry(split: str, problem: HoleProblem, hole: str, mask: np.ndarray) -> Entry:
    return Entry(
        split=split,
        scene=problem.index,
        hole=hole,
        prompt=problem.prompt,
        label=problem.label,
        colour=problem.colour,
        style=problem.style,
        held_out=problem.held_out,
        instead_of=problem.scene.placements[0].sprite.label,
        checksum=checksum(problem.scene.record.image, mask),
    )


def cell(number: int) -> tuple[str, str, bool]:
    """Style, kind of hole, and whether it is held out, of the place `number` in a list."""
    block, place = divmod(number, len(STYLES) * len(HOLES))
    return STYLES[place % len(STYLES)], HOLES[place // len(STYLES)], block % HELD_OUT_EVERY == 2


def fits(scene: Scene, hole: np.ndarray) -> bool:
    """Whether the hole is neither tiny nor all, and the other objects stay to be seen."""
    if not HOLE_SHARE[0] <= hole.mean() <= HOLE_SHARE[1]:
        return False
    return all((thing.mask & ~hole).sum() >= LEFT * thing.mask.sum() for thing in scene.record.objects[1:])


def write_list(split: str) -> None:
    """Make a list and write it, whole or not at all."""
    lines = "".join(f"{line_of(entry)}\n" for entry in made_list(split))
    with whole_file(list_path(split)) as file:
        file.write(lines.encode())


def changed(entries: Sequence[Entry]) -> list[str]:
    """The ids of entries whose picture or hole is not what it was when the list was made."""
    return [
        entry.item_id
        for entry in tqdm(entries, desc="checksums", unit="item")
        if not agree(checksum(*draw(entry.split, entry.scene, entry.hole)), entry.checksum)
    ]


def contact_sheet(entries: Sequence[Entry]) -> Image.Image:
    """RGB: every entry's picture with the hole's edge, the same without the hole, and what is asked for."""
    rows = -(-len(entries) // _COLUMNS)
    width, height = 2 * _TILE + 2 * _GAP, _TILE + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, entry in enumerate(tqdm(entries, desc="sheet", unit="item")):
        x, y = _GAP + number % _COLUMNS * width, _GAP + number // _COLUMNS * height
        picture, hole = draw(entry.split, entry.scene, entry.hole)
        held_out = ", held out" if entry.held_out else ""
        pen.text((x, y), f"{entry.prompt} (instead of {entry.instead_of})", _INK, font)
        pen.text((x, y + _LINE), f"{entry.scene} {entry.hole}, {entry.style}{held_out}", _INK, font)
        for place, tile in enumerate((_edged(picture, hole), np.where(hole[..., None], 128, picture))):
            enlarged = Image.fromarray(tile.astype(np.uint8)).resize((_TILE, _TILE), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (x + place * (_TILE + _GAP // 2), y + 2 * _LINE))
    return sheet


def _edged(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture with the hole's outermost pixels in a colour of their own."""
    padded = np.pad(hole, 1, mode="edge")
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((hole & ~within)[..., None], np.array(_EDGE), picture)


def main() -> None:
    """Parse and do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make both lists anew")
    parser.add_argument("--check", action="store_true", help="compare the drawings with the checksums")
    parser.add_argument("--sheet", type=Path, help="write a PNG of the list")
    parser.add_argument("--split", choices=LISTS, default=LISTS[0], help="of the sheet")
    parser.add_argument("--from", type=int, default=0, dest="first", help="first item of the sheet")
    parser.add_argument("--items", type=int, default=ITEMS, help="items of the sheet")
    arguments = parser.parse_args()
    if arguments.write:
        for split in LISTS:
            write_list(split)
    if arguments.check and (ids := [one for split in LISTS for one in changed(read_list(split))]):
        print(f"drawn otherwise than they were: {', '.join(ids)}", file=sys.stderr)
        raise SystemExit(1)
    if arguments.sheet:
        shown = read_list(arguments.split)[arguments.first :][: arguments.items]
        save_png(contact_sheet(shown), arguments.sheet, "--sheet")


if __name__ == "__main__":
    main()
