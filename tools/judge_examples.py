"""What the judge learns from: holes in scenes, sprites laid over backdrops, and holes without an object.

Everything comes from the train split. Sprites meet backdrops of all styles, so that the style is read from
the object and not from what is left of its surroundings. A batch is a pure function of (seed, step).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from mtadiffusion.seeding import numpy_generator, torch_generator
from mtadiffusion.stickers.assets import HUES, STYLES, labels, sprite, sprite_pixels
from mtadiffusion.stickers.backdrops import BACKDROPS
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.judge import hole_views
from mtadiffusion.stickers.problems import background_filled, hole_around
from mtadiffusion.stickers.scenes import NATURAL_HUE, Scene, SceneWorld, is_held_out

UNKNOWN = -1
"""A target that no loss is taken on."""

SEEN, LOST = 0.7, 0.3
"""An object is to be named if this share of it is in the hole, and is `none` below the second share."""

_BACKDROP_SIDE = 64
_NOTHING = len(labels())
_NO_COLOUR = len(COLOURS)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A batch for the judge."""

    views: Tensor
    """(B, 3, side, side) in [-1, 1], grey (0) outside the hole."""

    category: Tensor
    """(B,) int64, the last class is `none`; `UNKNOWN` where it is debatable."""

    style: Tensor
    """(B,) int64 or `UNKNOWN`."""

    colour: Tensor
    """(B,) int64, the last class is `none`; or `UNKNOWN`."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Targets of `count` objects, as numbers."""

    category: Tensor
    style: Tensor
    colour: Tensor

    def __getitem__(self, index: Tensor) -> Answers:
        return Answers(category=self.category[index], style=self.style[index], colour=self.colour[index])


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything that batches are made of, in memory."""

    sprites: Tensor
    """(N, 4, side, side) uint8 premultiplied RGBA, centred, the longer side filling the square."""

    weights: Tensor
    """(N,) how often each sprite is drawn, as in the scenes."""

    answers: Answers
    """Of the sprites."""

    backdrops: Tensor
    """(M, 3, 64, 64) uint8."""

    scenes: np.ndarray
    """(S, 64, 64, 3) uint8."""

    emptied: np.ndarray
    """(S, 64, 64, 3) uint8: the scenes without their main objects."""

    holes: np.ndarray
    """(S, kinds, 64, 64) bool: ways to cut out the main object; where there are other objects, the last
    kind (the whole picture) is empty."""

    scene_answers: Answers
    """Of the scenes' main objects."""

    crowded: np.ndarray
    """(S,) bool: another object could be taken for what the hole is about."""


def gather(*, seed: int, scenes: int, backdrops: int, side: int) -> Material:
    """Render the material."""
    pixels, weights, answers = _sprite_library(side)
    drawn = [
        _backdrop(numpy_generator(seed, "judge/backdrop", i)) for i in tqdm(range(backdrops), unit="backdrop")
    ]
    rendered = [_scene(seed, index) for index in tqdm(range(scenes), unit="scene")]
    return Material(
        sprites=pixels,
        weights=weights,
        answers=answers,
        backdrops=torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous(),
        scenes=np.stack([scene.record.image for scene, _, _ in rendered]),
        emptied=np.stack([emptied for _, emptied, _ in rendered]),
        holes=np.stack([holes for _, _, holes in rendered]),
        scene_answers=_answers(
            [
                (s.placements[0].sprite.label, s.record.attributes["style"], s.placements[0].sprite.colour)
                for s, _, _ in rendered
            ]
        ),
        crowded=np.array([_crowded(scene, holes[0]) for scene, _, holes in rendered]),
    )


def batch(material: Material, *, seed: int, step: int, size: int) -> Examples:
    """Half from rendered scenes, half from sprites on backdrops; of each, a part without an object."""
    rng = numpy_generator(seed, "judge/batch", step)
    generator = torch_generator(seed, "judge/batch", step)
    side = material.sprites.shape[-1]
    real = _from_scenes(material, rng, size // 2)
    made = _from_sprites(material, generator, size - size // 2)
    joined = Examples(
        **{
            name: torch.cat([getattr(real, name), getattr(made, name)])
            for name in ("category", "style", "colour")
        },
        views=torch.cat([real.views, made.views]),
    )
    assert joined.views.shape == (size, 3, side, side)
    return joined


def disturbed(views: Tensor, generator: torch.Generator) -> Tensor:
    """Views as a decoder might have left them: a little blurred, noisy, blocky, brighter or darker."""
    count, _, side, _ = views.shape

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    soft = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = F.interpolate(F.avg_pool2d(views, 2), size=(side, side), mode="bilinear")
    views = torch.lerp(torch.lerp(views, soft, draw(-0.2, 0.8)), coarse, draw(0, 0.7))
    blobs = torch.randn(count, 3, side // 4, side // 4, generator=generator)
    blobs = F.interpolate(blobs, size=(side, side), mode="bilinear")
    grain = torch.randn(views.shape, generator=generator)
    views = views + blobs * draw(0, 0.12) + grain * draw(0, 0.08)
    return (views * draw(0.88, 1.1) + draw(-0.1, 0.1)).clamp(-1, 1)


def _sprite_library(side: int) -> tuple[Tensor, Tensor, Answers]:
    pixels, weights, names = [], [], []
    for label in tqdm(labels(), unit="object"):
        for style in STYLES:
            shown = [
                s
                for s in (sprite(label, style, hue) for hue in range(HUES))
                if not is_held_out(label, s.colour, style)
            ]
            for s in shown:
                small = sprite_pixels(label, style, s.hue, side)
                square = np.zeros((side, side, 4), dtype=np.uint8)
                top, left = ((side - edge) // 2 for edge in small.shape[:2])
                square[top : top + small.shape[0], left : left + small.shape[1]] = small
                pixels.append(square)
                weights.append((1 - NATURAL_HUE) / len(shown) + NATURAL_HUE * (s.hue == 0))
                names.append((label, style, s.colour))
    return (
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(weights),
        _answers(names),
    )


def _answers(names: list[tuple[str, str, str | None]]) -> Answers:
    colours = [*COLOURS, None]
    return Answers(
        category=torch.tensor([labels().index(label) for label, _, _ in names]),
        style=torch.tensor([STYLES.index(style) for _, style, _ in names]),
        colour=torch.tensor([colours.index(colour) for _, _, colour in names]),
    )


def _backdrop(rng: np.random.Generator) -> np.ndarray:
    families = BACKDROPS[STYLES[int(rng.integers(len(STYLES)))]]
    drawn = families[int(rng.integers(len(families)))](rng, _BACKDROP_SIDE)
    return np.rint(np.clip(drawn, 0, 1) * 255).astype(np.uint8)


def _scene(seed: int, index: int) -> tuple[Scene, np.ndarray, np.ndarray]:
    """A scene, the scene without its main object, and ways to cut that out."""
    rng = numpy_generator(seed, "judge/scene", index)
    world = SceneWorld(
        split="train", seed=seed, size=_BACKDROP_SIDE, objects=(1, 1) if rng.random() < 0.3 else (1, 4)
    )
    scene = world.scene(index)
    alone = len(scene.placements) == 1
    holes = [
        hole_around(scene, "box", rng.uniform(0, 0.08)),
        hole_around(scene, "outline", rng.uniform(0.015, 0.09)),
        hole_around(scene, "outline", 1 / 16),
        np.full_like(scene.shadow, alone),
    ]
    return scene, background_filled(scene, holes[0], rng), np.stack(holes)


def _crowded(scene: Scene, hole: np.ndarray) -> bool:
    others = [thing.mask for thing in scene.record.objects[1:]]
    return any((mask & hole).sum() > SEEN * mask.sum() for mask in others)


def _from_scenes(material: Material, rng: np.random.Generator, count: int) -> Examples:
    chosen = rng.integers(len(material.scenes), size=count)
    kinds = rng.choice(4, size=count, p=(0.35, 0.2, 0.25, 0.2))
    kinds = np.where((kinds == 3) & ~material.holes[chosen, 3, 0, 0], 0, kinds)
    empty = (rng.random(count) < 0.12) & ~material.crowded[chosen]
    images = np.where(empty[:, None, None, None], material.emptied[chosen], material.scenes[chosen])
    side = material.sprites.shape[-1]
    holes = material.holes[chosen, kinds]
    views = hole_views(images, holes, side)
    views = views.where(torch.from_numpy(rng.random(count) < 0.5)[:, None, None, None], views.flip(-1))
    seen = (views != 0).any(1, keepdim=True)
    views = disturbed(views, torch.Generator().manual_seed(int(rng.integers(2**62)))) * seen
    answers = material.scene_answers[torch.from_numpy(chosen)]
    return _with_empties(views, answers, torch.from_numpy(empty))


def _from_sprites(material: Material, generator: torch.Generator, count: int) -> Examples:
    """Sprites at random places on random backdrops, seen through holes of their own or of other outlines."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    index = torch.multinomial(material.weights, count, replacement=True, generator=generator)
    other = torch.multinomial(material.weights, count, replacement=True, generator=generator)
    kind = torch.multinomial(torch.tensor([0.2, 0.3, 0.2, 0.3]), count, replacement=True, generator=generator)
    whole, boxed, own, foreign = (kind == k for k in range(4))
    fault = torch.multinomial(
        torch.tensor([0.76, 0.06, 0.04, 0.04, 0.03, 0.03, 0.04]), count, replacement=True, generator=generator
    )  # good, cut off, blurred, mixed, shuffled, no object, unfilled
    scale = uniform(0.45, 0.98).where(~own, uniform(0.7, 0.95))
    place = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale)[:, None] * (~own)[:, None]
    place = place + (fault == 1)[:, None] * torch.sign(place) * uniform(0.2, 1.0)[:, None] * scale[:, None]
    objects = _laid(material.sprites[index], scale, place, uniform(-0.12, 0.12), uniform(0, 1) < 0.5)
    backs = _zoomed(material.backdrops, generator, count, objects.shape[-1])
    views = backs * (1 - objects[:, 3:]) + objects[:, :3]

    outline = _laid(
        material.sprites[other],
        uniform(0.8, 0.95),
        torch.zeros(count, 2),
        torch.zeros(count),
        uniform(0, 1) < 0.5,
    )
    outline = torch.where(foreign[:, None, None, None], outline[:, 3:], objects[:, 3:])
    hole = _grown(outline, int(torch.randint(1, 6, (), generator=generator)))
    hole = torch.where(boxed[:, None, None, None], _boxes(generator, count, hole.shape[-1]), hole)
    hole = torch.where(whole[:, None, None, None], torch.ones_like(hole), hole)

    full = material.sprites[index, 3].sum((1, 2)) / 255 * scale**2
    seen = (objects[:, 3:] * hole).sum((1, 2, 3)) / full
    views = _spoilt(views, backs, fault, generator) * 2 - 1
    views = disturbed(views, generator) * hole
    answers = material.answers[index]
    empty = (fault >= 2) | (seen < LOST)
    examples = _with_empties(views, answers, empty)
    debatable = ~empty & (seen < SEEN)
    return Examples(
        views=views,
        category=examples.category.masked_fill(debatable, UNKNOWN),
        style=examples.style.masked_fill(debatable, UNKNOWN),
        colour=examples.colour.masked_fill(debatable, UNKNOWN),
    )


def _with_empties(views: Tensor, answers: Answers, empty: Tensor) -> Examples:
    return Examples(
        views=views,
        category=answers.category.masked_fill(empty, _NOTHING),
        style=answers.style.masked_fill(empty, UNKNOWN),
        colour=answers.colour.masked_fill(empty, UNKNOWN),
    )


def _laid(sprites: Tensor, scale: Tensor, place: Tensor, stretch: Tensor, flip: Tensor) -> Tensor:
    """Sprites uint8 (B, 4, S, S) scaled and moved by `place` (B, 2), in half sides: floats in [0, 1]."""
    matrix = torch.zeros(len(sprites), 2, 3)
    matrix[:, 0, 0] = torch.where(flip, -1.0, 1.0) / (scale * (1 + stretch.clamp(max=0)))
    matrix[:, 1, 1] = 1 / (scale * (1 - stretch.clamp(min=0)))
    matrix[:, :, 2] = -place * matrix[:, :, :2].diagonal(dim1=1, dim2=2)
    grid = F.affine_grid(matrix, list(sprites.shape), align_corners=False)
    return F.grid_sample(sprites / 255, grid, align_corners=False)


def _zoomed(backdrops: Tensor, generator: torch.Generator, count: int, side: int) -> Tensor:
    """Random square parts of random backdrops: floats (count, 3, side, side) in [0, 1]."""
    index = torch.randint(len(backdrops), (count,), generator=generator)
    zoom = 0.5 + 0.5 * torch.rand(count, generator=generator)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = zoom
    matrix[:, :, 2] = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - zoom)[:, None]
    grid = F.affine_grid(matrix, [count, 3, side, side], align_corners=False)
    return F.grid_sample(backdrops[index] / 255, grid, align_corners=False, padding_mode="border")


def _grown(alpha: Tensor, radius: int) -> Tensor:
    across = F.max_pool2d((alpha > 0.5).float(), (1, 2 * radius + 1), 1, (0, radius))
    return F.max_pool2d(across, (2 * radius + 1, 1), 1, (radius, 0))


def _boxes(generator: torch.Generator, count: int, side: int) -> Tensor:
    """Boxes whose longer side fills the view: floats (count, 1, side, side), 1 = hole."""
    share = 0.5 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    upright = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    distance = ((torch.arange(side) + 0.5) / side * 2 - 1).abs()
    across = torch.where(upright, distance[None, None, None, :], distance[None, None, :, None])
    return (across.expand(count, 1, side, side) <= share).float()


def _spoilt(views: Tensor, backs: Tensor, fault: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures in [0, 1] in which nothing is to be recognised, where `fault` says how."""
    spoilt = views.clone()
    for number, spoil in ((2, _blurred), (3, _mixed), (4, _shuffled), (6, _unfilled)):
        chosen = fault == number
        if chosen.any():
            spoilt[chosen] = spoil(views[chosen], generator)
    return torch.where((fault == 5)[:, None, None, None], backs, spoilt)


def _blurred(views: Tensor, generator: torch.Generator) -> Tensor:
    cells = int(torch.randint(4, 7, (), generator=generator))
    small = F.adaptive_avg_pool2d(views, cells)
    return F.interpolate(small, size=views.shape[-2:], mode="bicubic").clamp(0, 1)


def _mixed(views: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture half and half with another one; noise where there is no other."""
    others = views.roll(1, 0) if len(views) > 1 else torch.rand(views.shape, generator=generator)
    return (views + others) / 2


def _unfilled(views: Tensor, generator: torch.Generator) -> Tensor:
    """Black, grey, white, the picture's mean colour, or noise about it."""
    level, fill = torch.rand(2, len(views), 1, 1, 1, generator=generator)
    mean = views.mean((2, 3), keepdim=True)
    noise = torch.lerp(mean, torch.rand(views.shape, generator=generator), level)
    flat = torch.where(fill < 0.2, 0.0, torch.where(fill < 0.4, 0.5, torch.where(fill < 0.6, 1.0, mean)))
    return torch.where(fill < 0.8, flat, noise)


def _shuffled(views: Tensor, generator: torch.Generator) -> Tensor:
    """The patches of a grid in another order; what does not fill a patch stays."""
    count, channels, side, _ = views.shape
    grid = int(torch.randint(3, 6, (), generator=generator))
    patch = side // grid
    whole = grid * patch
    tiles = views[..., :whole, :whole].unfold(2, patch, patch).unfold(3, patch, patch)
    tiles = tiles.reshape(count, channels, grid * grid, patch, patch)
    tiles = tiles[:, :, torch.randperm(grid * grid, generator=generator)]
    tiles = tiles.reshape(count, channels, grid, grid, patch, patch).permute(0, 1, 2, 4, 3, 5)
    shuffled = views.clone()
    shuffled[..., :whole, :whole] = tiles.reshape(count, channels, whole, whole)
    return shuffled
