"""Samples for metrics: noisy pictures with a hole, filled with something else."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from mtadiffusion.evaluate.benchmark import Item
from mtadiffusion.evaluate.metrics.metric import Batch, Sample
from mtadiffusion.seeding import numpy_generator


def picture(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """uint8 (H, W, 3), coarse noise; another number is another picture."""
    coarse = numpy_generator(0, "metrics/picture", number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def box(size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A hole of the middle ninth."""
    hole = np.zeros(size, bool)
    hole[size[0] // 3 : 2 * size[0] // 3, size[1] // 3 : 2 * size[1] // 3] = True
    return hole


def sample(number: int = 0, size: tuple[int, int] = (48, 64), **changes: Any) -> Sample:
    """One picture whose hole shows another; `label`, `facts` and `prompt` go to its item."""
    known = {name: changes.pop(name) for name in ("label", "facts", "prompt") if name in changes}
    item = Item(item_id=f"{number:03d}", **{"prompt": ("red apple", "a cat")[number % 2], **known})
    original, hole = picture(number, size), box(size)
    filled = np.where(hole[..., None], picture(number + 100, size), original)
    return Sample(**{"item": item, "original": original, "hole": hole, "result": filled, **changes})


def batch(*samples: Sample) -> Batch:
    """A batch of these, or of three different ones."""
    return Batch(samples=samples or tuple(sample(number) for number in range(3)))
