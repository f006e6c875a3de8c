"""What a metric is: a number for each result, with its range, direction and the pixels that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from mtadiffusion.evaluate.benchmark import Item

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One result beside what it was made from."""

    item: Item
    """What was asked."""

    original: np.ndarray
    """uint8 (H, W, 3), RGB: the picture before."""

    hole: np.ndarray
    """bool (H, W), True = was generated."""

    result: np.ndarray
    """uint8 (H, W, 3), RGB: the picture filled and blended."""

    edges: np.ndarray | None = None
    """float32 (h, w) in [0, 1]: where the method expected edges, on a grid over the whole picture; None
    where it says nothing of them."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples that are scored together, and what metrics have computed of them for each other."""

    samples: Sequence[Sample]
    """Those of one method."""

    shared: dict[Hashable, Any] = field(default_factory=dict)
    """Features that several metrics need (CLIP's of the results, of the prompts), computed by the first."""

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, computed by the first metric that asks for this key."""
        if key not in self.shared:
            self.shared[key] = compute()
        return self.shared[key]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a reader of a table has to know of a metric."""

    name: str
    """As the command line has it: `clip_similarity`."""

    title: str
    """As a table's heading has it, without the scale: `CLIP`."""

    better: Literal["higher", "lower"]
    """Which way is good."""

    bounds: tuple[float, float]
    """Least and greatest value possible; infinities where there is none."""

    region: Literal["image", "hole", "known"]
    """The pixels that decide it."""

    resize: str
    """How pictures reach the size that it is computed at: `224, bicubic, short side, centre crop`; `none`."""

    scale: float = 1.0
    """What tables multiply its mean by, as the papers do: 10 for ImageReward."""

    source: str = ""
    """The paper or code that defines it."""

    equal: float | None = None
    """The score of known pixels that are just as they were. Where a method has no other, tables say `equal`:
    its results were pasted over the original, and the figure says nothing of how good they are."""


class Metric(Protocol):
    """A number for each sample. An instance is picklable before `setup`, which loads the weights."""

    definition: Definition
    """Its name, range and direction."""

    def identity(self) -> Mapping[str, Any]:
        """All that decides the scores: models and hashes of their weights."""

    def setup(self, device: str) -> None:
        """Load the weights.

        Raises:
            UserError: they cannot be had; the report names the reason and has no figure for this metric.
        """

    def score(self, batch: Batch) -> list[float | None]:
        """One number a sample; None where the metric does not apply (no label, an empty hole)."""
