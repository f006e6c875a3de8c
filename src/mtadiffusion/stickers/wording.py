"""The words of sticker scenes: captions of the whole image, descriptions of one object, in varied wording.

A description names content AND style ("a glossy 3D-rendered red apple with a small leaf"); a part of them
leaves the style out, so that a model can be asked for an object alone and take the style from around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtadiffusion.phrases import with_article

STYLE_ADJECTIVES = {
    "fluent-3d": ("glossy 3D-rendered", "soft 3D clay", "shiny 3D"),
    "fluent-flat": ("flat vector", "clean flat-colour", "modern flat"),
    "noto": ("softly shaded cartoon", "shaded cartoon", "detailed cartoon"),
    "twemoji": ("bold sticker", "simple two-tone sticker", "plain icon-like"),
}
STYLE_NOUNS = {
    "fluent-3d": "a glossy 3D render",
    "fluent-flat": "a clean flat vector style",
    "noto": "a shaded cartoon style",
    "twemoji": "a bold sticker style",
}
PLACES = {
    "gradient": "a smooth floor", "bokeh": "soft lights", "room": "a round stage",
    "hills": "rolling hills", "circles": "large pale circles", "waves": "layered waves",
    "paper": "speckled paper", "dots": "a dotted wall", "meadow": "a hazy meadow",
    "stripes": "bold stripes", "checks": "a checkered board", "rays": "sun rays",
}  # fmt: skip
DETAILS = {
    "apple": "with a short stem and a leaf", "banana": "half peeled", "watermelon": "in a slice with seeds",
    "strawberry": "with tiny seeds", "eggplant": "with a curved body", "pineapple": "with a leafy top",
    "mushroom": "with a spotted cap", "broccoli": "with a bushy head", "avocado": "cut in half with its pit",
    "grapes": "in a hanging bunch", "burger": "with lettuce between the buns", "pizza": "with toppings",
    "fries": "in a paper box", "popcorn": "in a striped bucket", "donut": "with icing and sprinkles",
    "cupcake": "with swirled frosting", "cheese": "with round holes", "beer mug": "with foam on top",
    "cat": "with pointed ears and whiskers", "dog": "with floppy ears", "fox": "with pointed ears",
    "panda": "with dark eye patches", "frog": "with bulging eyes", "pig": "with a round snout",
    "lion": "with a thick mane", "penguin": "with a pale belly", "owl": "with big round eyes",
    "fish": "with fins and a tail", "whale": "spouting water", "octopus": "with curling arms",
    "crab": "with raised claws", "ladybug": "with round spots", "butterfly": "with spread wings",
    "car": "with four wheels and windows", "bus": "with a row of windows", "rocket": "with fins and a window",
    "house": "with a door and a roof", "castle": "with towers", "tree": "with a round crown",
    "cactus": "with two arms", "sunflower": "with many petals", "tulip": "on a stem",
    "maple leaf": "with jagged lobes", "heart": "with rounded lobes", "star": "with five points",
    "gift": "tied with a ribbon", "crown": "set with jewels", "hat": "with a brim and a band",
    "shirt": "with short sleeves", "dress": "with a narrow waist", "backpack": "with pockets and straps",
    "umbrella": "with a curved handle", "bell": "with a clapper", "alarm clock": "with two bells on top",
    "soccer ball": "with pentagon patches", "basketball": "with curved seams", "robot": "with square eyes",
    "pumpkin": "carved with a grin", "trophy": "with two handles", "gem": "with cut facets",
}  # fmt: skip

STYLED = 0.6
"""The share of descriptions and captions that name the style."""


def describe(rng: np.random.Generator, label: str, colour: str | None, style: str) -> str:
    """A description of one object, one to twenty words."""
    name = f"{colour} {label}" if colour else label
    detail = f" {DETAILS[label]}" if rng.random() < 0.5 else ""
    if rng.random() >= STYLED:
        return with_article(name) + detail
    if rng.random() < 0.3:
        return f"{with_article(name)}{detail} in {STYLE_NOUNS[style]}"
    return with_article(f"{_pick(rng, STYLE_ADJECTIVES[style])} {name}") + detail


def caption(rng: np.random.Generator, names: Sequence[str], style: str, backdrop: str) -> str:
    """A caption of the whole image from the objects' short names ("red apple", "car")."""
    things = _joined([with_article(name) for name in names])
    place = f" in front of {PLACES[backdrop]}" if rng.random() < 0.5 else ""
    if rng.random() >= STYLED:
        return things + place
    if rng.random() < 0.3:
        return f"{things}{place} in {STYLE_NOUNS[style]}"
    return f"{with_article(_pick(rng, STYLE_ADJECTIVES[style]))} scene with {things}{place}"


def listing(labels: Sequence[str]) -> str:
    """What someone says who knows the objects' names only: "an apple and a car"; nothing of nothing."""
    return _joined([with_article(label) for label in labels]) if labels else ""


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _joined(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
