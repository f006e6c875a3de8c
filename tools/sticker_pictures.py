"""Render sticker scenes to PNG files, without a word of what they show: something to annotate.

python tools/sticker_pictures.py runs/pictures --scenes 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from mtadiffusion.stickers.scenes import SPLITS, SceneWorld

SEED = 4
"""Of the world of these pictures; no recipe of weights uses it."""


def render(folder: Path, *, scenes: int, size: int, split: str) -> None:
    """Write the scenes that are not there yet, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    world = SceneWorld(split=split, seed=SEED, size=size)
    for index in tqdm(range(scenes), desc="pictures", unit="scene"):
        path = folder / f"{index:06d}.png"
        if not path.exists():
            partial = path.with_suffix(".partial")
            Image.fromarray(world.record(index).image).save(partial, "PNG")
            partial.replace(path)


def main() -> None:
    """Parse and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--split", choices=SPLITS, default="train")
    arguments = vars(parser.parse_args())
    render(arguments.pop("folder"), **arguments)


if __name__ == "__main__":
    main()
