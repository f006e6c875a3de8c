"""Render the corpus that the embedded weights are trained on: pictures and prompts, once, to a folder.

    python tools/sticker_corpus.py runs/corpus --scenes 80000

Six scenes in ten hold a single object (prompt: its description), the rest one to four (prompt: the caption).
Every scene carries `PROMPTS` wordings; training draws one of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers import wording
from mtadiffusion.stickers.scenes import Scene, SceneWorld

PROMPTS = 4
SINGLE = 0.6


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A rendered corpus in memory."""

    images: np.ndarray
    """uint8 (N, H, W, 3) RGB, memory-mapped."""

    prompts: list[list[str]]
    """`PROMPTS` wordings a picture."""


def load_corpus(folder: Path) -> Corpus:
    """The corpus of a folder that this script wrote."""
    prompts = json.loads((folder / "prompts.json").read_text())
    return Corpus(images=np.load(folder / "images.npy", mmap_mode="r"), prompts=prompts)


def render(folder: Path, *, scenes: int, size: int, split: str, seed: int, workers: int) -> None:
    """Write `images.npy` and, last, `prompts.json`; a finished folder is left alone."""
    if (folder / "prompts.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(scenes, size, size, 3)
    )
    prompts = []
    draw = partial(_draw, split=split, seed=seed, size=size)
    with Pool(workers) as pool:
        drawn = pool.imap(draw, range(scenes), chunksize=256)
        for index, (image, wordings) in enumerate(tqdm(drawn, total=scenes, unit="scene")):
            images[index] = image
            prompts.append(wordings)
    images.flush()
    (folder / "prompts.json").write_text(json.dumps(prompts))


def _draw(index: int, *, split: str, seed: int, size: int) -> tuple[np.ndarray, list[str]]:
    rng = numpy_generator(seed, f"corpus/{split}", index)
    single = rng.random() < SINGLE
    scene = SceneWorld(split=split, seed=seed, size=size, objects=(1, 1) if single else (1, 4)).scene(index)
    return scene.record.image, list(_wordings(rng, scene))


def _wordings(rng: np.random.Generator, scene: Scene) -> Iterator[str]:
    sprites = [p.sprite for p in scene.placements]
    names = [f"{s.colour} {s.label}" if s.colour else s.label for s in sprites]
    style, backdrop = scene.record.attributes["style"], scene.record.attributes["backdrop"]
    for variant in range(PROMPTS):
        if len(sprites) == 1 and variant > 0:
            yield wording.describe(rng, sprites[0].label, sprites[0].colour, style)
        else:
            yield wording.caption(rng, names, style, backdrop)


def main() -> None:
    """Parse and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=80_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--split", default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = vars(parser.parse_args())
    render(arguments.pop("folder"), **arguments)


if __name__ == "__main__":
    main()
