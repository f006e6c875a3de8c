"""How well the embedded annotators see sticker scenes that they never saw, against the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mtadiffusion.annotate.describe import Describe, object_crop
from mtadiffusion.annotate.detect import Detect, Detection, box_iou
from mtadiffusion.annotate.presets import build_stages, preset
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.imaging.cleaning import cleaned
from mtadiffusion.imaging.runs import Runs
from mtadiffusion.models.registry import resolve_attributes
from mtadiffusion.records import ImageRecord, ObjectRecord
from mtadiffusion.stickers.assets import labels
from mtadiffusion.stickers.attributes import AttributeNet
from mtadiffusion.stickers.scenes import SceneWorld

MATCH = 0.5
"""The least intersection over union of boxes that show the same object."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the annotators say of one object."""

    label: str
    box_xyxy: tuple[float, float, float, float]
    mask: np.ndarray
    style: str
    colour: str | None


def annotation_quality(split: str, scenes: int, *, seed: int = 0, size: int = 64) -> dict[str, float]:
    """Shares in [0, 1] over scenes of a held-out split, with the preset `sticker` and its thresholds.

    Returns:
        `detection_f1` of boxes with the right label at an IoU of `MATCH`; `mask_iou`, `style` and `colour`
        (none included) of the objects found.
    """
    world = SceneWorld(split=split, seed=seed, size=size)
    annotators = _Annotators()
    counts: Counter[str] = Counter()
    overlap = 0.0
    for index in tqdm(range(scenes), desc="annotating", unit="scene"):
        record = world.record(index)
        seen = annotators.seen(record)
        pairs = _matched(record.objects, seen)
        counts += Counter(true=len(record.objects), seen=len(seen), both=len(pairs))
        for thing, one in pairs:
            overlap += float((thing.mask & one.mask).sum() / (thing.mask | one.mask).sum())
            counts["style"] += one.style == thing.attributes["style"]
            counts["colour"] += one.colour == thing.attributes.get("colour")
    found = max(1, counts["both"])
    return {
        "detection_f1": 2 * counts["both"] / max(1, counts["true"] + counts["seen"]),
        "mask_iou": overlap / found,
        "style": counts["style"] / found,
        "colour": counts["colour"] / found,
    }


class _Annotators:
    """The models and rules of the preset, without tables."""

    def __init__(self) -> None:
        detect, segment, describe = build_stages(preset("sticker"), ["detect", "segment", "describe"])
        assert isinstance(detect, Detect)
        assert isinstance(segment, Segment)
        assert isinstance(describe, Describe)
        self._detect, self._segment, self._describe = detect, segment, describe
        detect.detector.load()
        segment.segmenter.load()
        self._attributes = AttributeNet.from_pretrained(resolve_attributes()).float().eval()

    def seen(self, record: ImageRecord) -> list[_Seen]:
        """The objects that the stages would keep."""
        image, rules = Image.fromarray(record.image), self._describe
        (boxes,) = self._detect.detector.detect([image], [labels()], self._detect.min_score)
        kept = [box for box, reason in self._detect.judged(boxes, image.size) if reason is None]
        if not kept:
            return []
        masks, _ = self._segment.segmenter.segment(image, [box.box_xyxy for box in kept], image.size)
        clean = [cleaned(Runs.of(mask), self._segment.island) for mask in masks]
        crops = [object_crop(image, mask, margin=rules.margin, masked=rules.masked) for mask in clean]
        answers = self._attributes.answers(crops)
        return [_seen(*parts) for parts in zip(kept, clean, answers, strict=True)]


def _seen(box: Detection, mask: Runs, answer: tuple[str, str | None]) -> _Seen:
    style, colour = answer
    return _Seen(label=box.label, box_xyxy=box.box_xyxy, mask=mask.pixels(), style=style, colour=colour)


def _matched(things: Sequence[ObjectRecord], seen: Sequence[_Seen]) -> list[tuple[ObjectRecord, _Seen]]:
    """Pairs of the same label and place; each object and each answer once, the best overlaps first."""
    overlaps = [
        (box_iou(thing.box_xyxy, one.box_xyxy), i, j)
        for i, thing in enumerate(things)
        for j, one in enumerate(seen)
        if thing.label == one.label
    ]
    pairs, used_things, used_seen = [], set[int](), set[int]()
    for overlap, i, j in sorted(overlaps, reverse=True):
        if overlap >= MATCH and i not in used_things and j not in used_seen:
            pairs.append((things[i], seen[j]))
            used_things.add(i)
            used_seen.add(j)
    return pairs
