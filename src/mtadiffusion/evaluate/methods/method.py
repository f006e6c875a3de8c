"""What a method is: something that fills holes, one or several at a time, the same way for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

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


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a method makes of a request."""

    picture: np.ndarray
    """uint8 (H, W, 3), RGB: the filled picture."""

    edges: np.ndarray | None = None
    """float (h, w) in [0, 1]: how strong the method expected edges to be in each cell of a grid over the
    whole picture, in the terms of docs/method.md, section 3; None where it says nothing of them."""


class BatchMethod(Method, Protocol):
    """A method that is faster with several pictures at once. Optional: others are asked one by one."""

    def generate_batch(self, requests: Sequence[Request]) -> Sequence[np.ndarray]:
        """What `generate` gives for each request, to rounding. Sizes may differ."""


class EdgeMethod(Method, Protocol):
    """A method that may hand over the edges that it expected with its pictures. Optional."""

    def generate_with_edges(self, requests: Sequence[Request]) -> Sequence[Drawn]:
        """As `BatchMethod.generate_batch`, with the edges where there are some."""


def draws_together(method: Method) -> bool:
    """Whether a method takes several requests at once."""
    return hasattr(method, "generate_batch") or hands_over_edges(method)


def hands_over_edges(method: Method) -> bool:
    """Whether a method may say where it expected edges."""
    return hasattr(method, "generate_with_edges")


def draw(method: Method, requests: Sequence[Request]) -> Sequence[Drawn]:
    """What a method makes of one request, or of several where it `draws_together`."""
    if hands_over_edges(method):
        return cast(EdgeMethod, method).generate_with_edges(requests)
    if len(requests) > 1:
        pictures = cast(BatchMethod, method).generate_batch(requests)
    else:
        pictures = [method.generate(one.image, one.hole, one.prompt, one.seed) for one in requests]
    return [Drawn(picture=picture) for picture in pictures]
