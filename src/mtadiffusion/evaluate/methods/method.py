"""What a method is: something that fills holes, one or several at a time, the same way for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtadiffusion.evaluate.benchmark import Settings


class Method(Protocol):
    """Fills holes. An instance is picklable before `setup`, which loads the weights."""

    name: str
    """As the command line and the tables have it."""

    def identity(self) -> Mapping[str, Any]:
        """All that decides the results beside the settings: kind, models, hashes of their weights."""

    def setup(self, settings: Settings, device: str, dtype: str) -> None:
        """Load the weights and take over the settings.

        Raises:
            UserError: weights that are missing or of another kind.
        """

    def generate(self, image: np.ndarray, hole: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """The filled picture, uint8 (H, W, 3), RGB.

        Args:
            image: uint8 (H, W, 3), RGB; what lies in the hole is not looked at.
            hole: bool (H, W), True = to be generated.
            prompt: what to draw there.
            seed: of the noise.
        """


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of one `Method.generate`."""

    image: np.ndarray
    """uint8 (H, W, 3), RGB; what lies in the hole is black."""

    hole: np.ndarray
    """bool (H, W), True = to be generated."""

    prompt: str
    """What to draw there."""

    seed: int
    """Of the noise."""


class BatchMethod(Method, Protocol):
    """A method that is faster with several pictures at once. Optional: others are asked one by one."""

    def generate_batch(self, requests: Sequence[Request]) -> Sequence[np.ndarray]:
        """What `generate` gives for each request, to rounding. Sizes may differ."""
