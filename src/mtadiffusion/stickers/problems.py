"""Hole problems: a scene, a hole around its main object, and a wish for another object of another colour.

The wish does not name the style, which has to come from the surroundings. A quarter of the problems ask for a
combination that training never shows. Answers are judged by `judge`; nothing here draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.phrases import plain_prompt
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers.assets import Sprite, labels
from mtadiffusion.stickers.backdrops import BACKDROPS
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.scenes import Placement, Scene, SceneWorld, achievable_colours, is_held_out
from mtadiffusion.train.holes import dilate

KINDS = ("box", "outline")
BOX_MARGIN = 1 / 32
"""How far a box hole reaches beyond the object and its shadow, as a share of the picture."""

OUTLINE_MARGIN = 1 / 16
"""How far an outline hole reaches beyond the object and its shadow, as a share of the picture."""

COLOURED = 0.7
"""The share of requests with a colour word, among those that may have one."""

_HELD_OUT_REMAINDERS = (3, 6)
"""Indices with these remainders modulo 8 ask for held-out combinations: a quarter, both kinds alike."""


@dataclass(frozen=True, kw_only=True)
class HoleProblem:
    """Fill this hole as the prompt asks, in the style of the picture."""

    index: int
    """Number of the problem in its split."""

    scene: Scene
    """The whole truth; its record's image is the input (what lies in the hole is the original)."""

    hole: np.ndarray
    """bool (size, size), True = to be generated."""

    kind: str
    """`box` or `outline`."""

    prompt: str
    """What the user asks for; the style is not named."""

    label: str
    """The category asked for; never the main object's."""

    colour: str | None
    """The colour word asked for; never the main object's."""

    style: str
    """The style of the scene, which the filled object should have."""

    held_out: bool
    """Whether training never shows this (label, colour, style)."""


def hole_problem(split: str, index: int, *, seed: int = 0, size: int = 64) -> HoleProblem:
    """Problem `index` of a split; a pure function of its arguments."""
    scene = SceneWorld(split=split, seed=seed, size=size).scene(index)
    rng = numpy_generator(seed, f"stickers/problems/{split}", index)
    style, kind = scene.record.attributes["style"], KINDS[index % 2]
    held_out = index % 8 in _HELD_OUT_REMAINDERS
    ask = _held_out_request if held_out else _common_request
    label, colour = ask(rng, scene.placements[0].sprite, style)
    return HoleProblem(
        index=index,
        scene=scene,
        hole=hole_around(scene, kind),
        kind=kind,
        prompt=plain_prompt(label, colour),
        label=label,
        colour=colour,
        style=style,
        held_out=held_out,
    )


def hole_around(scene: Scene, kind: str, margin: float | None = None) -> np.ndarray:
    """The hole about a scene's main object, hidden parts included, and its shadow.

    Args:
        scene: the main object is the first.
        kind: `box` or `outline`.
        margin: how far the hole reaches beyond them, as a share of the picture; None: the problems' own.

    Returns:
        bool (size, size), True = to be generated.
    """
    thing = silhouette(scene.placements[0], scene.shadow.shape) | scene.shadow
    reach = (BOX_MARGIN if kind == "box" else OUTLINE_MARGIN) if margin is None else margin
    pixels = max(1, round(reach * thing.shape[0]))
    if kind == "outline":
        return dilate(thing, pixels)
    x0, y0, x1, y1 = mask_box(thing)
    hole = np.zeros_like(thing)
    hole[max(0, y0 - pixels) : y1 + pixels, max(0, x0 - pixels) : x1 + pixels] = True
    return hole


def background_filled(scene: Scene, hole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a scene looks like through a hole that shows just a backdrop of its style.

    Args:
        scene: gives the style and the objects around the hole.
        hole: bool (size, size), True = to be seen; objects that are mostly in it are left out.
        rng: draws a fresh backdrop.

    Returns:
        uint8 (size, size, 3) RGB.
    """
    families = BACKDROPS[scene.record.attributes["style"]]
    backdrop = families[int(rng.integers(len(families)))]
    silhouettes = [(other, silhouette(other, hole.shape)) for other in scene.placements[1:]]
    around = [other for other, whole in silhouettes if (whole & hole).sum() < 0.5 * whole.sum()]
    return pasted(backdrop(rng, scene.record.image.shape[0]), around)


def pasted(canvas: np.ndarray, placements: Sequence[Placement]) -> np.ndarray:
    """Sprites laid over a picture in their order, without shadows.

    Args:
        canvas: float (H, W, 3) RGB in [0, 1]; left as it is.
        placements: inside the picture.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    painted = np.array(canvas, dtype=np.float32)
    for placement in placements:
        x0, y0, x1, y1 = placement.box_xyxy
        pixels = placement.pixels.astype(np.float32) / 255
        painted[y0:y1, x0:x1] = painted[y0:y1, x0:x1] * (1 - pixels[..., 3:]) + pixels[..., :3]
    return np.rint(np.clip(painted, 0, 1) * 255).astype(np.uint8)


def silhouette(placement: Placement, shape: tuple[int, ...]) -> np.ndarray:
    """bool (H, W), True where the object is or would be if nothing lay over it."""
    x0, y0, x1, y1 = placement.box_xyxy
    whole = np.zeros(shape, dtype=bool)
    whole[y0:y1, x0:x1] = placement.pixels[..., 3] > 127
    return whole


def _common_request(rng: np.random.Generator, main: Sprite, style: str) -> tuple[str, str | None]:
    """Any other object, often with a colour that training shows for it in this style."""
    label = str(rng.choice([name for name in labels() if name != main.label]))
    colours = [
        colour
        for colour in achievable_colours(label, style)
        if colour != main.colour and not is_held_out(label, colour, style)
    ]
    if not colours or rng.random() >= COLOURED:
        return label, None
    return label, str(rng.choice(colours))


def _held_out_request(rng: np.random.Generator, main: Sprite, style: str) -> tuple[str, str | None]:
    """A held-out combination that the sprites can show; every style has some."""
    combinations = [(label, colour) for label, colour in product(labels(), COLOURS) if label != main.label]
    for order in rng.permutation(len(combinations)):
        label, colour = combinations[order]
        if (
            colour != main.colour
            and is_held_out(label, colour, style)
            and colour in achievable_colours(label, style)
        ):
            return label, colour
    raise LookupError(f"no held-out combination in the style {style!r}")
