"""A page to look at a dataset: masks drawn over the images, label and description on each object."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.files import whole_file
from mtadiffusion.data.records import DatasetRecords
from mtadiffusion.pages import data_url, page
from mtadiffusion.records import ImageRecord

SHOWN_SIDE = 384
"""The pictures' shorter side on the page, in pixels."""

_OPACITY = 0.2
_GOLDEN_ANGLE = 0.618


@dataclass(frozen=True, kw_only=True)
class Colour:
    """An object's colour on the page."""

    rgb: tuple[int, int, int]
    """8 bit sRGB."""

    @property
    def css(self) -> str:
        """For style sheets."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


def write_preview(root: Path, out: Path, count: int) -> int:
    """Write a page of the first `count` annotated images; everything is in the one file.

    Returns:
        How many images it shows.

    Raises:
        UserError: no dataset, or no descriptions in it.
    """
    source = DatasetRecords(root, size=SHOWN_SIDE)
    records = [source.record(i) for i in islice(range(len(source)), count)]
    labels = sorted({one.label for record in records for one in record.objects})
    facts = f"{len(records)} of {len(source)} annotated images of {Dataset.open(root).manifest.source}"
    text = page("preview.html", facts=facts, labels=labels, images=[_shown(record) for record in records])
    with whole_file(out) as file:
        file.write(text.encode())
    return len(records)


def _shown(record: ImageRecord) -> dict[str, Any]:
    colours = [_colour(number) for number in range(len(record.objects))]
    return {
        "id": record.image_id,
        "caption": record.caption,
        "plain": data_url(record.image, "jpeg"),
        "masked": data_url(overlaid(record, [colour.rgb for colour in colours]), "jpeg"),
        "objects": [
            {"label": one.label, "text": one.description, "score": f"{one.score:.2f}", "colour": colour.css}
            for one, colour in zip(record.objects, colours, strict=True)
        ],
    }


def overlaid(record: ImageRecord, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """uint8 (H, W, 3): the image with each object's mask tinted and outlined in its colour."""
    drawn = record.image.astype(np.float32)
    for one, colour in zip(record.objects, colours, strict=True):
        drawn[one.mask] = (1 - _OPACITY) * drawn[one.mask] + _OPACITY * np.array(colour)
        drawn[one.mask & ~ndimage.binary_erosion(one.mask, iterations=2)] = colour
    return np.rint(drawn).astype(np.uint8)


def _colour(number: int) -> Colour:
    """Colours far from one another, however many there are."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_ANGLE % 1, 0.75, 0.95)
    return Colour(rgb=(round(red * 255), round(green * 255), round(blue * 255)))
