"""What a benchmark is: items that ask for something in a hole, and settings under which they are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

ASKS_FOR_ORIGINAL = {"reference": "original"}
"""The fact of items whose prompts ask for what lay in the hole before: results can be held against it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every method fills the holes of a benchmark, unless the user says otherwise."""

    size: int
    """Side of the square pictures in pixels."""

    steps: int
    """Denoising steps."""

    guidance_scale: float
    """Weight of the prompt."""

    scheduler: str
    """A diffusers scheduler's class name."""

    seed: int
    """Of each item's own generator: the same for every item where `seed_per_item` is false."""

    seed_per_item: bool = False
    """Whether an item's seed is derived from `seed` and the item's id."""

    blend: str = "paste"
    """How results are laid over the original: `paste`, `brushnet` or `none` (imaging/blending.py)."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to be done: fill this hole of this picture as the prompt asks."""

    item_id: str
    """Unique in the benchmark; letters, digits, `-`, `_` and `.`, so that it serves as a file's name."""

    prompt: str
    """What is asked for."""

    group: str = "all"
    """Part of the benchmark that the item is reported in: kind of mask or of prompt."""

    label: str | None = None
    """Name of the object asked for, where the benchmark says it."""

    facts: Mapping[str, str | float | bool] = field(default_factory=dict)
    """What else the benchmark says of the item, for reports and metrics of its own: its style, its colour."""


class Benchmark(Protocol):
    """Items with their pictures. An instance is picklable and reads its files when asked for them."""

    name: str
    """As the command line has it."""

    title: str
    """As a table's heading."""

    settings: Settings
    """The published protocol, or the benchmark's own."""

    def items(self) -> Sequence[Item]:
        """All items, always in the same order. Raises UserError where the folder is not this benchmark."""

    def picture(self, item: Item) -> np.ndarray:
        """uint8 (size, size, 3), RGB: what lies in the hole is the original, which methods never see."""

    def hole(self, item: Item) -> np.ndarray:
        """bool (size, size), True = to be generated."""

    def fingerprint(self) -> str:
        """Hex digest of all that decides the items' contents, without reading every picture twice."""
