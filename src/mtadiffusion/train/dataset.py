"""From records to training samples: a crop, a hole and the text that belongs to it, all from named streams.

A sample depends only on (seed, record, variant), never on the batch, the worker or the order of visits.
Nothing here encodes anything (`latent_cache`). The mask mix is docs/method.md, section 5.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from mtadiffusion.config import DataConfig
from mtadiffusion.data.dataset import MANIFEST
from mtadiffusion.data.records import DatasetRecords
from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.records import ImageRecord, ObjectRecord
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.train.holes import object_hole, random_brush_hole


class RecordSource(Protocol):
    """Anything that counts its records and makes each of them by its index."""

    def __len__(self) -> int:
        """How many records there are."""

    def record(self, index: int) -> ImageRecord:
        """The record at `index`, the same at every call."""


SourceFactory = Callable[..., RecordSource]

_SOURCES: dict[str, str | SourceFactory] = {
    "sticker": "mtadiffusion.stickers.scenes:SceneWorld",
    "sticker-unstyled": "mtadiffusion.stickers.scenes:unstyled_world",
}


def register_source(name: str, factory: str | SourceFactory) -> None:
    """Make `factory(split=…, seed=…, size=…)`, or the text "module:attribute" of one, known by name."""
    _SOURCES[name] = factory


def record_source(name: str, split: str, seed: int, size: int) -> RecordSource:
    """The records called `name`, or those of the annotated dataset in the folder `name`.

    Args:
        split: train, validation or test; a dataset has the first two.
        seed: of sources that draw their records.
        size: the picture's side wanted, in pixels.
    """
    if (Path(name) / MANIFEST).is_file():
        return DatasetRecords(Path(name), split, size)
    if name not in _SOURCES:
        raise UserError("data.source", "is no known record source", name, nearest_name(name, _SOURCES))
    factory = _SOURCES[name]
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    return factory(split=split, seed=seed, size=size)


@dataclass(frozen=True, kw_only=True)
class RecordSamples:
    """One cropped image with the K variants that training asks of it."""

    image: np.ndarray
    """uint8 (H, W, 3), RGB."""

    holes: np.ndarray
    """bool (K, H, W), True = to be generated."""

    prompts: tuple[str, ...]
    """K texts: the caption for a brush hole, the object's description for an object hole."""

    kinds: tuple[str, ...]
    """K times `brush` or `object`."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples in pixels."""

    image: torch.Tensor
    """float (B, 3, H, W) in [-1, 1], RGB."""

    hole: torch.Tensor
    """float (B, 1, H, W) in {0, 1}, 1 = to be generated."""

    prompts: list[str]
    """B texts."""


class TrainingSamples:
    """The samples of a record source under one configuration and seed."""

    def __init__(self, source: RecordSource, config: DataConfig, seed: int) -> None:
        count = min(len(source), config.records) if config.records else len(source)
        if count == 0:
            raise UserError("data.source", "holds no records", config.source)
        self.source, self.config, self.seed, self.count = source, config, seed, count

    def identity(self, number: int) -> tuple[int, int]:
        """(record, variant) of the run's sample `number`: each epoch visits every record once, shuffled."""
        epoch, place = divmod(number, self.count)
        record = int(self._order(epoch)[place])
        variants = self.config.holes_per_image
        if variants == 0:
            return record, epoch
        return record, int(numpy_generator(self.seed, "variant", number).integers(variants))

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_ordered_epoch", None) != epoch:
            self._permutation = numpy_generator(self.seed, "order", epoch).permutation(self.count)
            self._ordered_epoch = epoch
        return self._permutation

    def record_samples(self, record: int, variants: Sequence[int] | None = None) -> RecordSamples:
        """The image of `record` and its `variants` (all of them by default)."""
        chosen = range(self.config.holes_per_image) if variants is None else variants
        view = 0 if self.config.holes_per_image else chosen[0]  # fresh holes come with a fresh crop
        crop_rng = numpy_generator(self.seed, f"crop/{view}", record)
        cropped = cropped_record(
            self.source.record(record), self.config.size, crop_rng, self.config.holes.min_visible
        )
        made = [self._variant(cropped, record, variant) for variant in chosen]
        holes, prompts, kinds = zip(*made, strict=True)
        return RecordSamples(image=cropped.image, holes=np.stack(holes), prompts=prompts, kinds=kinds)

    def _variant(self, cropped: ImageRecord, record: int, variant: int) -> tuple[np.ndarray, str, str]:
        rng = numpy_generator(self.seed, f"hole/{variant}", record)
        height, width = cropped.image.shape[:2]
        if not cropped.objects or self._takes_brush(record, variant):
            hole = random_brush_hole(rng, height, width, self.config.holes)
            return hole, cropped.caption, "brush"
        target = cropped.objects[rng.integers(len(cropped.objects))]
        others = [item.mask for item in cropped.objects if item is not target]
        hole = object_hole(rng, target.mask, target.box_xyxy, self.config.holes, others)
        return hole, target.description, "object"

    def _takes_brush(self, record: int, variant: int) -> bool:
        """Systematic sampling over a record's variants, so that two variants are one of each kind."""
        share = self.config.holes.brush_probability
        start = numpy_generator(self.seed, "kind", record).uniform()
        return int(start + (variant + 1) * share) > int(start + variant * share)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The samples `numbers` as one batch in pixels."""
        made = [self.record_samples(record, (variant,)) for record, variant in map(self.identity, numbers)]
        return Batch(
            image=images_to_tensor(np.stack([sample.image for sample in made])),
            hole=holes_to_tensor(np.concatenate([sample.holes for sample in made])),
            prompts=[sample.prompts[0] for sample in made],
        )


def images_to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def holes_to_tensor(holes: np.ndarray) -> torch.Tensor:
    """bool (B, H, W) -> float (B, 1, H, W) in {0, 1}."""
    return torch.from_numpy(holes).float().unsqueeze(1)


def cropped_record(
    record: ImageRecord, size: int, rng: np.random.Generator, min_visible: float
) -> ImageRecord:
    """The record scaled to a short side of `size` and cropped to a random square of it.

    Objects of which less than `min_visible` stays inside are left out of the crop's list.
    """
    height, width = record.image.shape[:2]
    scale = size / min(height, width)
    scaled = (max(size, round(width * scale)), max(size, round(height * scale)))
    left, top = (int(rng.integers(extent - size + 1)) for extent in scaled)
    window = (slice(top, top + size), slice(left, left + size))
    image = _resized(record.image, scaled, Image.Resampling.LANCZOS)[window]
    objects = (_cropped_object(item, scaled, window, min_visible) for item in record.objects)
    return ImageRecord(
        image_id=record.image_id,
        image=np.ascontiguousarray(image),
        caption=record.caption,
        objects=tuple(item for item in objects if item is not None),
        attributes=record.attributes,
    )


def _resized(array: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    if array.shape[1::-1] == size:
        return array
    return np.asarray(Image.fromarray(array).resize(size, how))


def _cropped_object(
    item: ObjectRecord, scaled: tuple[int, int], window: tuple[slice, slice], min_visible: float
) -> ObjectRecord | None:
    whole = _resized(item.mask.astype(np.uint8), scaled, Image.Resampling.NEAREST) > 0
    mask = whole[window]
    if not mask.any() or mask.sum() < min_visible * whole.sum():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return ObjectRecord(
        label=item.label,
        mask=np.ascontiguousarray(mask),
        box_xyxy=box,
        description=item.description,
        score=item.score,
        attributes=item.attributes,
    )
