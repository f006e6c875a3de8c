"""The annotators that come with the package: small networks in the places of GroundingDINO, SAM and LLaVA.

They see pixels only and know the sticker world's objects, styles and colours. `tools/train_annotators.py`
trains them; their weights are in `weights/instances` and `weights/attributes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mtadiffusion.annotate.detect import Detection, box_iou
from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.models.registry import resolve_attributes, resolve_instances
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers import wording
from mtadiffusion.stickers.attributes import AttributeNet
from mtadiffusion.stickers.instances import Instance, InstanceNet

_LEAST = 0.05
"""Confidence of what a box may mean when it is segmented."""


@dataclass(kw_only=True)
class _Networks:
    model: str = "sticker"
    """Embedded name, or a folder with the network's weights."""

    device: str = "cpu"
    """Where it runs."""

    longest: int = 512
    """Pictures are shrunk to the network's side; nothing larger than this is decoded."""

    _network: Any = field(default=None, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The model; its device changes nothing but rounding."""
        return {"kind": type(self).__name__, "model": self.model}

    def _loaded(self, kind: Any, folder: Path) -> Any:
        return kind.from_pretrained(folder, torch_dtype=torch.float32).to(self.device).eval()


@dataclass(kw_only=True)
class StickerDetector(_Networks):
    """Boxes around the masks of the network's instances."""

    def load(self) -> None:
        """Load the weights."""
        self._network = self._loaded(InstanceNet, resolve_instances(self.model))

    def detect(
        self, images: Sequence[Image.Image], labels: Sequence[Sequence[str]], min_score: float
    ) -> list[list[Detection]]:
        """For each image the boxes above `min_score` that show one of its labels."""
        found = self._network.find(_pixels(images, self._network.config.side, self.device), min_score)
        return [
            [_detection(one, image.size) for one in instances if one.label in wanted]
            for image, instances, wanted in zip(images, found, labels, strict=True)
        ]


@dataclass(kw_only=True)
class StickerSegmenter(_Networks):
    """The mask of the instance that fits a box best."""

    def load(self) -> None:
        """Load the weights."""
        self._network = self._loaded(InstanceNet, resolve_instances(self.model))

    def segment(
        self, image: Image.Image, boxes_xyxy: Sequence[Sequence[float]], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool (N, H, W) at `size` (width, height), and their qualities (N,), of boxes in `image`."""
        (instances,) = self._network.find(_pixels([image], self._network.config.side, self.device), _LEAST)
        masks, qualities = np.zeros((len(boxes_xyxy), size[1], size[0]), bool), np.zeros(len(boxes_xyxy))
        boxes = [_detection(one, image.size).box_xyxy for one in instances]
        for number, wanted in enumerate(boxes_xyxy):
            overlaps = [box_iou(box, wanted) for box in boxes]
            if overlaps and max(overlaps) > 0:
                best = instances[int(np.argmax(overlaps))]
                masks[number], qualities[number] = best.mask(size), best.quality
        return masks, qualities


@dataclass(kw_only=True)
class StickerDescriber(_Networks):
    """Puts an object's style and colour into words; the prompt is the object's label and nothing else."""

    def load(self) -> None:
        """Load the weights."""
        self._network = self._loaded(AttributeNet, resolve_attributes(self.model))

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One description a crop, in wording that follows from its pixels."""
        answers = self._network.answers(images)
        return [
            wording.describe(_rng(image), label, colour, style)
            for image, label, (style, colour) in zip(images, prompts, answers, strict=True)
        ]


@dataclass(kw_only=True)
class StickerCaptioner(_Networks):
    """Names the objects of a whole picture."""

    min_score: float = 0.5
    """The least confidence of an object that is named."""

    def load(self) -> None:
        """Load the weights."""
        self._network = self._loaded(InstanceNet, resolve_instances(self.model))

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One caption a picture, whatever the prompt; empty where nothing is made out."""
        found = self._network.find(_pixels(images, self._network.config.side, self.device), self.min_score)
        return [wording.listing([one.label for one in instances]) for instances in found]


def _pixels(images: Sequence[Image.Image], side: int, device: str) -> Tensor:
    small = [np.asarray(image.resize((side, side), Image.Resampling.BOX)) for image in images]
    return torch.from_numpy(np.stack(small)).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _detection(instance: Instance, size: tuple[int, int]) -> Detection:
    mask = instance.mask(size)
    box = mask_box(mask) if mask.any() else (0, 0, 0, 0)
    x0, y0, x1, y1 = map(float, box)
    return Detection(label=instance.label, score=instance.score, box_xyxy=(x0, y0, x1, y1))


def _rng(image: Image.Image) -> np.random.Generator:
    digest = hashlib.blake2b(image.tobytes(), digest_size=4).digest()
    return numpy_generator(0, "sticker-describer", int.from_bytes(digest, "little"))
