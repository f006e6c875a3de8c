"""From records to training samples: a crop, a hole and the text that belongs to it, all from named streams.

A sample depends only on (seed, record, variant), never on the batch, the worker or the order of visits.
Where a crop lies is the business of `crops`, what it is encoded to that of `encoding`. The mask mix is
docs/method.md, section 5.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mtadiffusion.config import DataConfig, TrainConfig
from mtadiffusion.data.dataset import MANIFEST
from mtadiffusion.data.exported import ExportedRecords, exported_shards
from mtadiffusion.data.records import DatasetRecords
from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.imaging.windows import Window
from mtadiffusion.records import ImageRecord
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.train.crops import (
    DescribedObject,
    PartialRecord,
    bucket_shapes,
    choose_window,
    nearest_buckets,
    partial_record,
)
from mtadiffusion.train.holes import object_hole, random_brush_hole
from mtadiffusion.train.order import SampleOrder


class RecordSource(Protocol):
    """Anything that counts its records and makes each of them by its index.

    A source may also have `coded(index)`, the record to be decoded in part; `sizes()`, (height, width) of all
    pictures, which buckets need; `fingerprint()`, a name of its content; and `damaged_share`, of its shards.
    """

    def __len__(self) -> int:
        """How many records there are."""

    def record(self, index: int) -> ImageRecord:
        """The record at `index`, the same at every call."""


SourceFactory = Callable[..., RecordSource]

_SOURCES: dict[str, str | SourceFactory] = {"sticker": "mtadiffusion.stickers.scenes:SceneWorld"}


def register_source(name: str, factory: str | SourceFactory) -> None:
    """Make `factory(split=…, seed=…, size=…)`, or the text "module:attribute" of one, known by name."""
    _SOURCES[name] = factory


def record_source(name: str, split: str, seed: int, size: int) -> RecordSource:
    """The records called `name`, or those of the annotated dataset or of the exported shards that lie there.

    Args:
        split: train, validation or test; a dataset and its export have the first two.
        seed: of sources that draw their records.
        size: the picture's side wanted, in pixels.
    """
    if (Path(name) / MANIFEST).is_file():
        return DatasetRecords(Path(name), split, size)
    if name not in _SOURCES and exported_shards(name):
        return ExportedRecords(name, split, size)
    if name not in _SOURCES and name and Path(name).is_dir():
        remedy = "make the one with `mta annotate`, the other with `mta data export`"
        raise UserError("data.source", "must be a dataset, or a folder of exported shards", name, remedy)
    if name not in _SOURCES:
        raise UserError("data.source", "is no known record source", name, nearest_name(name, _SOURCES))
    factory = _SOURCES[name]
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    return factory(split=split, seed=seed, size=size)


BRUSH, OBJECT = "brush", "object"
"""The two kinds of hole."""

_ROUNDING = 0.98
"""What scaling a mask may cost it of its area without that counting as out of sight."""


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
    """K times `brush` or `object`, as planned before the masks were looked at."""

    sizes: tuple[int, ...]
    """What SDXL is told of a picture: height and width before scaling, top and left of the crop in the scaled
    picture, height and width of the crop."""

    resampled: int = 0
    """Objects of which the crop showed too little after all, so that others took their place."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples in pixels."""

    pixels: torch.Tensor
    """uint8 (B, H, W, 3), RGB."""

    holes: torch.Tensor
    """bool (B, H, W), True = to be generated."""

    prompts: list[str]
    """B texts."""

    sizes: torch.Tensor
    """int32 (B, 6), as in `RecordSamples`."""

    damaged: tuple[tuple[int, str], ...] = ()
    """Records that could not be read, each with the reason; others are in their places."""

    resampled: int = 0
    """See `RecordSamples`."""

    @property
    def image(self) -> torch.Tensor:
        """float (B, 3, H, W) in [-1, 1], RGB."""
        return images_to_tensor(self.pixels)

    @property
    def hole(self) -> torch.Tensor:
        """float (B, 1, H, W) in {0, 1}, 1 = to be generated."""
        return holes_to_tensor(self.holes)


@dataclass(frozen=True, kw_only=True)
class _Crop:
    """A window of a record and the objects whose boxes it shows enough of."""

    record: PartialRecord
    window: Window
    shown: list[int]

    @property
    def sizes(self) -> tuple[int, ...]:
        """As in `RecordSamples`."""
        window = self.window
        return (*self.record.size, window.top, window.left, window.height, window.width)


class TrainingSamples:
    """The samples of a record source under one configuration and seed.

    Args:
        source: the records.
        config: how they become samples.
        seed: the run's.
        group: samples a batch; all of them are of one bucket.

    Raises:
        UserError: there are no records, too many damaged shards, or buckets of a source without sizes.
    """

    def __init__(self, source: RecordSource, config: DataConfig, seed: int, group: int = 1) -> None:
        count = min(len(source), config.records) if config.records else len(source)
        _check_damage(source, config)
        if count == 0:
            remedy = "it needs images with described objects: annotate more of them"
            raise UserError("data.source", "holds no records", config.source, remedy)
        self.source, self.config, self.seed, self.count = source, config, seed, count
        self.shapes = bucket_shapes(config)
        self.order = SampleOrder(count, seed, self._buckets(), group)

    def _buckets(self) -> np.ndarray | None:
        if len(self.shapes) == 1:
            return None
        if not hasattr(self.source, "sizes"):
            rule = "needs a dataset or exported shards, which know their pictures' sizes"
            raise UserError("data.max_aspect", rule, self.config.max_aspect, "set it to 1")
        return nearest_buckets(self.source.sizes()[: self.count], self.shapes)

    def shape(self, record: int) -> tuple[int, int]:
        """(height, width) of the record's crops."""
        return self.shapes[self.order.buckets[record]]

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The run's samples `numbers` as one batch in pixels."""
        damaged: dict[int, str] = {}
        made = [self._sample(number, damaged) for number in numbers]
        return Batch(
            pixels=torch.from_numpy(np.stack([sample.image for sample in made])),
            holes=torch.from_numpy(np.concatenate([sample.holes for sample in made])),
            prompts=[sample.prompts[0] for sample in made],
            sizes=torch.tensor([sample.sizes for sample in made], dtype=torch.int32),
            damaged=tuple(damaged.items()),
            resampled=sum(sample.resampled for sample in made),
        )

    def _sample(self, number: int, damaged: dict[int, str]) -> RecordSamples:
        """The sample, or one of another record of its bucket where the record cannot be read."""
        for record, epoch in self.order.candidates(number):
            try:
                if self.config.holes_per_image == 0:
                    return self.record_samples(record, (epoch,))
                crop = self._crop(record, 0)
                return self._samples(crop, record, (self.chosen_variant(number, self._kinds(crop, record)),))
            except (OSError, ValueError) as error:  # of readers and decoders
                damaged[record] = _unreadable(record, error)
        raise UserError("data.source", "has too many damaged records", self.config.source, damaged[record])

    def chosen_variant(self, number: int, kinds: Sequence[str]) -> int:
        """Which of a record's kept variants, of these kinds, the sample `number` shows."""
        rng, among = numpy_generator(self.seed, "variant", number), range(len(kinds))
        if not self.config.holes_per_object:
            return int(rng.integers(len(among)))
        kind = BRUSH if rng.uniform() < self.config.holes.brush_probability else OBJECT
        alike = [variant for variant in among if kinds[variant] == kind] or among
        return alike[int(rng.integers(len(alike)))]

    def record_samples(self, record: int, variants: Sequence[int] | None = None) -> RecordSamples:
        """The crop of `record` and its `variants` (all that are kept of it by default).

        Raises:
            OSError: the picture cannot be read.
            ValueError: it or a mask cannot be decoded.
        """
        view = 0 if self.config.holes_per_image else (variants or (0,))[0]  # fresh holes, a fresh crop
        return self._samples(self._crop(record, view), record, variants)

    def kept_samples(self, record: int) -> RecordSamples | str:
        """`record_samples` of all that is kept of the record, or why it cannot be read."""
        try:
            return self.record_samples(record)
        except (OSError, ValueError) as error:
            return _unreadable(record, error)

    def _crop(self, record: int, view: int) -> _Crop:
        whole = partial_record(self.source, record)
        rng = numpy_generator(self.seed, f"crop/{view}", record)
        window = choose_window(whole.size, self.shape(record), rng, self._focus(whole, record, view, rng))
        least = self.config.holes.min_visible
        shares = [window.share(item.box_xyxy, whole.size) for item in whole.objects]
        shown = [number for number, share in enumerate(shares) if share >= max(least, 1e-6)]
        return _Crop(record=whole, window=window, shown=shown)

    def _focus(
        self, whole: PartialRecord, record: int, view: int, rng: np.random.Generator
    ) -> tuple[float, float, float, float] | None:
        """The box of the object that a crop is drawn around; none where a fresh crop is for a brush hole."""
        if not whole.objects or (self.config.holes_per_image == 0 and self._takes_brush(record, view)):
            return None
        return whole.objects[int(rng.integers(len(whole.objects)))].box_xyxy

    def _kinds(self, crop: _Crop, record: int) -> tuple[str, ...]:
        """Of all variants that are kept of the record."""
        kept = self.config.holes_per_image + self.config.holes_per_object * len(crop.shown)
        return tuple(self._kind(crop, record, variant) for variant in range(kept))

    def _kind(self, crop: _Crop, record: int, variant: int) -> str:
        if self.config.holes_per_object:
            return BRUSH if variant < self.config.holes_per_image else OBJECT
        return BRUSH if not crop.shown or self._takes_brush(record, variant) else OBJECT

    def _takes_brush(self, record: int, variant: int) -> bool:
        """Systematic sampling over a record's variants, so that two variants are one of each kind."""
        share = self.config.holes.brush_probability
        start = numpy_generator(self.seed, "kind", record).uniform()
        return int(start + (variant + 1) * share) > int(start + variant * share)

    def _samples(self, crop: _Crop, record: int, variants: Sequence[int] | None) -> RecordSamples:
        chosen = range(len(self._kinds(crop, record))) if variants is None else variants
        kinds = tuple(self._kind(crop, record, variant) for variant in chosen)
        image = crop.record.pixels(crop.window)
        made = [self._variant(crop, record, *each) for each in zip(chosen, kinds, strict=True)]
        holes, prompts, passed = zip(*made, strict=True)
        return RecordSamples(
            image=image,
            holes=np.stack(holes),
            prompts=prompts,
            kinds=kinds,
            sizes=crop.sizes,
            resampled=sum(passed),
        )

    def _variant(self, crop: _Crop, record: int, variant: int, kind: str) -> tuple[np.ndarray, str, int]:
        """Hole, prompt, and how many objects were passed over because their masks are out of sight."""
        rng = numpy_generator(self.seed, f"hole/{variant}", record)
        passed = 0
        if kind == OBJECT:
            first, shape = self._target(crop, rng, variant)
            for number in crop.shown[first:] + crop.shown[:first]:
                mask = crop.record.mask(number, crop.window)
                if self._is_shown(crop, number, mask):
                    hole = self._object_hole(crop, rng, number, mask, shape)
                    return hole, self._text(crop.record.objects[number], rng), passed
                passed += 1
        height, width = crop.window.height, crop.window.width
        return random_brush_hole(rng, height, width, self.config.holes), crop.record.caption, passed

    def _text(self, chosen: DescribedObject, rng: np.random.Generator) -> str:
        return chosen.plain_prompt if rng.random() < self.config.plain_texts else chosen.description

    def _target(self, crop: _Crop, rng: np.random.Generator, variant: int) -> tuple[int, str | None]:
        """The place in `shown` of the variant's object, and the hole's shape if it is not to be drawn."""
        each = self.config.holes_per_object
        if not each:
            return int(rng.integers(len(crop.shown))), None
        place, version = divmod(variant - self.config.holes_per_image, each)
        return place, None if version else "exact"

    def _is_shown(self, crop: _Crop, number: int, mask: np.ndarray) -> bool:
        """Whether the crop's part of an object's mask is enough of it."""
        whole = crop.record.area(number) * crop.window.scaled[0] * crop.window.scaled[1]
        return bool(mask.any() and mask.sum() >= _ROUNDING * self.config.holes.min_visible * whole)

    def _object_hole(
        self, crop: _Crop, rng: np.random.Generator, number: int, mask: np.ndarray, shape: str | None
    ) -> np.ndarray:
        others = (crop.record.mask(other, crop.window) for other in crop.shown if other != number)
        return object_hole(rng, mask, mask_box(mask), self.config.holes, others, shape)


def held_out_samples(config: TrainConfig, source: RecordSource) -> TrainingSamples:
    """The samples of a held-out source whose losses are measured, with holes of both kinds."""
    holes = max(2, config.data.holes_per_image)
    data = replace(config.data, records=config.validation.samples, holes_per_image=holes)
    return TrainingSamples(source, data, config.seed, config.batch_size)


def _unreadable(record: int, error: Exception) -> str:
    return f"record {record} cannot be read ({error or type(error).__name__})"


def _check_damage(source: RecordSource, config: DataConfig) -> None:
    share = getattr(source, "damaged_share", 0.0)
    if share > config.max_damaged:
        rule = f"has more than data.max_damaged={config.max_damaged:g} of its shards damaged"
        raise UserError("data.source", rule, config.source, f"{share:.0%} are; mend them, or allow more")


def images_to_tensor(images: torch.Tensor | np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1]."""
    planes = torch.as_tensor(images).permute(0, 3, 1, 2)
    tensor = torch.empty(planes.shape)
    for whole, one in zip(tensor, planes, strict=True):  # a copy of one at a time is soon in the same memory
        whole.copy_(one.contiguous()).div_(127.5).sub_(1.0)
    return tensor


def holes_to_tensor(holes: torch.Tensor | np.ndarray) -> torch.Tensor:
    """bool (B, H, W) -> float (B, 1, H, W) in {0, 1}."""
    return torch.as_tensor(holes).float().unsqueeze(1)
