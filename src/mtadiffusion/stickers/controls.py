"""How far the judge can be trusted: its accuracy on renders it never saw, and controls that it must refuse.

No model draws here: every picture is rendered, so the right verdict is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers.assets import HUES, STYLES, Sprite, sprite, sprite_pixels
from mtadiffusion.stickers.judge import NONE, Judge, Verdict
from mtadiffusion.stickers.problems import HoleProblem, background_filled, pasted
from mtadiffusion.stickers.scenes import Placement, SceneWorld

FITTING = 0.9
"""The share of a pasted object's pixels that must lie in the hole."""

BLUR = 1 / 8
"""Radius of the blur that makes an object unrecognisable, as a share of the hole's longer side."""


def judge_report(judge: Judge, problems: Sequence[HoleProblem], *, split: str) -> dict[str, float]:
    """Shares of right verdicts, each in [0, 1].

    `category`, `style`, `colour` (of objects with a colour word): the original objects in the problems'
    holes. `whole_*`: pictures of one object, seen whole. `pasted_*`: the object asked for, pasted into the
    hole in the right style. Controls: `unfilled`, `background` and `blurred` holes called `none`, and
    `other_style`: the object asked for in another style, whose style verdict differs from the scene's.
    """
    images = [problem.scene.record.image for problem in problems]
    holes = np.stack([problem.hole for problem in problems])
    rngs = [numpy_generator(0, f"stickers/controls/{split}", problem.index) for problem in problems]
    mains = [problem.scene.placements[0].sprite for problem in problems]
    asked = [asked_for(problem) for problem in problems]
    foreign = [replace(s, style=STYLES[(STYLES.index(s.style) + 1 + i % 3) % 4]) for i, s in enumerate(asked)]
    backgrounds = [background_filled(p.scene, p.hole, rng) for p, rng in zip(problems, rngs, strict=True)]
    singles = SceneWorld(split=split, seed=1, size=holes.shape[1], objects=(1, 1))
    whole = [singles.scene(problem.index) for problem in problems]

    def look(pictures: Iterable[np.ndarray], where: np.ndarray = holes) -> list[Verdict]:
        return judge.verdicts(np.stack(list(pictures)), where)

    def paste(sprites: list[Sprite]) -> list[np.ndarray]:
        return [paste_object(b, p.hole, s) for b, p, s in zip(backgrounds, problems, sprites, strict=True)]

    unfilled = [_unfilled(i, h, rng) for i, h, rng in zip(images, holes, rngs, strict=True)]
    refused = {
        "unfilled": look(unfilled),
        "background": look(backgrounds),
        "blurred": look(blurred(image, hole) for image, hole in zip(images, holes, strict=True)),
    }
    styles = [verdict.style for verdict in look(paste(foreign))]
    return {
        **_shares(look(images), mains),
        **_shares(
            look((s.record.image for s in whole), np.ones_like(holes)),
            [s.placements[0].sprite for s in whole],
            "whole_",
        ),
        **_shares(look(paste(asked)), asked, "pasted_"),
        **{name: _share(v.category == NONE for v in verdicts) for name, verdicts in refused.items()},
        "other_style": _share(style != p.style for style, p in zip(styles, problems, strict=True)),
    }


def _shares(verdicts: list[Verdict], truth: list[Sprite], prefix: str = "") -> dict[str, float]:
    pairs = list(zip(verdicts, truth, strict=True))
    return {
        f"{prefix}category": _share(v.category == s.label for v, s in pairs),
        f"{prefix}style": _share(v.style == s.style for v, s in pairs),
        f"{prefix}colour": _share(v.colour == s.colour for v, s in pairs if s.colour is not None),
    }


def _share(answers: Iterable[bool]) -> float:
    return float(np.mean(list(answers)))


def asked_for(problem: HoleProblem) -> Sprite:
    """A sprite of what a problem asks for, in its scene's style."""
    hues = [sprite(problem.label, problem.style, hue) for hue in range(HUES)]
    return next((s for s in hues if problem.colour in (None, s.colour)), hues[0])


def paste_object(picture: np.ndarray, hole: np.ndarray, chosen: Sprite) -> np.ndarray:
    """uint8 (H, W, 3): a picture with an object as large as the hole lets it be, cut at the hole's edge."""
    left, top, right, bottom = mask_box(hole)
    height, width = bottom - top, right - left
    original = Image.fromarray(sprite_pixels(chosen.label, chosen.style, chosen.hue, max(hole.shape)), "RGBa")
    for scale in np.geomspace(1.0, 0.4, 8) * min(width / original.width, height / original.height):
        w, h = (max(2, round(edge * scale)) for edge in original.size)
        pixels = np.asarray(original.resize((w, h), Image.Resampling.BILINEAR))
        x, y = left + (width - w) // 2, top + (height - h) // 2
        solid = pixels[..., 3] > 127
        if (solid & hole[y : y + h, x : x + w]).sum() >= FITTING * solid.sum():
            break
    placement = Placement(sprite=chosen, flip=False, box_xyxy=(x, y, x + w, y + h), pixels=pixels)
    return np.where(hole[..., None], pasted(picture / 255, [placement]), picture)


def _unfilled(image: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3): the hole black, grey, in the picture's mean colour, or noise."""
    fills = (0, 128, image[~hole].mean(0), rng.integers(0, 256, size=image.shape))
    return np.where(hole[..., None], fills[int(rng.integers(len(fills)))], image).astype(np.uint8)


def blurred(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): nothing in the hole can be made out."""
    extent = max(hole.any(0).sum(), hole.any(1).sum())
    soft = Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(BLUR * extent)))
    return np.where(hole[..., None], np.asarray(soft), image)
