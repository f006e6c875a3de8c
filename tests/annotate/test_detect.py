"""Boxes and labels: the real detector's class at a tiny size, and the rules about what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtadiffusion.annotate.detect import Detect, Detection, box_iou
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.grounding_dino import GroundingDino
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError

from .tiny_models import save_grounding_dino


def picture(seed, size=(96, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def detector(grounding_dino):
    detector = GroundingDino(model=str(grounding_dino), longest=96)
    detector.load()
    return detector


LABELS = ["red car", "cats", "tree"]


def test_every_label_is_found_at_its_own_tokens(detector):
    text = "red car. cats. tree."
    tokens = detector._processor.tokenizer(text)
    words = detector._processor.tokenizer.convert_ids_to_tokens(tokens["input_ids"])
    positions = detector._tokens_of(text, tuple(LABELS))
    assert [[words[i] for i in p] for p in positions] == [["red", "car"], ["cat", "##s"], ["tree"]]


def test_scores_and_boxes_are_those_of_the_processor_itself(detector):
    """Independent computation: transformers' own post-processing."""
    image = picture(0)
    (found,) = detector.detect([image], [LABELS], min_score=0.2)
    inputs = detector._processor(images=image, text="red car. cats. tree.", return_tensors="pt")
    with torch.inference_mode():
        outputs = detector._network(**inputs)
    (expected,) = detector._processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=0.2, target_sizes=[(64, 96)]
    )
    by_box = {
        tuple(np.round(b, 3)): s for b, s in zip(expected["boxes"].tolist(), expected["scores"], strict=True)
    }
    assert found
    for one in found:
        # The processor counts the tokens between labels too, so its score is never less.
        assert by_box[tuple(np.round(one.box_xyxy, 3))] >= one.score - 1e-5


def test_a_batch_equals_its_members(detector):
    images = [picture(0), picture(1), picture(2)]
    names = [LABELS, ["dog"], LABELS]
    together = detector.detect(images, names, min_score=0.3)
    for image, labels, found in zip(images, names, together, strict=True):
        (alone,) = detector.detect([image], [labels], min_score=0.3)
        assert [one.label for one in found] == [one.label for one in alone]
        boxes = [[one.box_xyxy for one in answer] for answer in (found, alone)]
        np.testing.assert_allclose(*boxes, atol=1e-2)


def test_a_vocabulary_that_is_too_long_is_asked_in_portions(tmp_path):
    detector = GroundingDino(model=str(save_grounding_dino(tmp_path, text_length=16)), longest=96)
    detector.load()
    names = ["red cat", "red dog", "red car", "tree", "cats"]
    portions = list(detector._prompts(names))
    assert [name for portion in portions for name in portion] == names
    assert len(portions) > 1
    (found,) = detector.detect([picture(0)], [names], min_score=0.0)
    assert len(found) == 12 * len(portions)


class Fixed:
    """A detector that answers what it was told."""

    longest = 48

    def __init__(self, *boxes):
        self.boxes = [Detection(label=b[0], score=b[1], box_xyxy=b[2]) for b in boxes]

    def settings(self):
        return {"kind": "fixed"}

    def load(self):
        """Nothing to load."""

    def detect(self, images, labels, min_score):
        assert all(max(image.size) <= self.longest for image in images)
        return [self.boxes for _ in images]


def judged(*boxes, size=(100, 100), **rules):
    """{box number: reason}, best boxes first."""
    stage = Detect(detector=Fixed(), **rules)
    given = [Detection(label=b[0], score=b[1], box_xyxy=b[2]) for b in boxes]
    return [(box.score, reason) for box, reason in stage.judged(given, size)]


def test_of_overlapping_boxes_of_one_label_the_better_stays():
    a, near, other = (10, 10, 50, 50), (12, 10, 52, 50), (60, 60, 90, 90)
    assert judged(("x", 0.7, near), ("x", 0.9, a), ("x", 0.8, other), ("y", 0.65, a)) == [
        (0.9, None),
        (0.8, None),
        (0.7, "overlap"),
        (0.65, None),
    ]


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        ((0, 0, 100, 100), 0.9, "whole image"),
        ((-40, -40, 140, 140), 0.9, "whole image"),
        ((10, 10, 11, 60), 0.9, "tiny box"),
        ((110, 110, 140, 140), 0.9, "tiny box"),
        ((10, 10, 50, 50), 0.6, "score"),
        ((10, 10, 50, 50), 0.61, None),
    ],
)
def test_boxes_that_cannot_be_right_are_left_out(box, score, reason):
    assert judged(("x", score, box)) == [(score, reason)]


def test_at_most_so_many_of_the_best_stay():
    boxes = [("x", 0.9 - i / 100, (20 * i, 0, 20 * i + 15, 15)) for i in range(4)]
    assert [reason for _, reason in judged(*boxes, max_objects=2)] == [None, None, "too many", "too many"]


@given(boxes=st.lists(st.tuples(*[st.floats(0, 50)] * 4), min_size=2, max_size=2))
def test_overlap_is_symmetric_and_at_most_one(boxes):
    a, b = ((x, y, x + w, y + h) for x, y, w, h in boxes)
    assert box_iou(a, b) == box_iou(b, a)
    assert 0 <= box_iou(a, b) <= 1 + 1e-9


def test_boxes_are_in_pixels_of_the_whole_image_and_rejected_images_have_none(folder, tmp_path):
    (folder / "p0.jpg").write_bytes(b"no picture")
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(folder), 100)
    detect = Detect(detector=Fixed(("cat", 0.9, (12, 8, 24, 16))))
    labels = Labels(source=Vocabulary(names=("cat",)))
    run_stages(dataset, [Index(), Filters(), labels, detect], Local())
    rows = {
        row["image_id"]: row["objects"]
        for row in Dataset.open(dataset.root).table("detections").read(0).to_pylist()
    }
    assert rows["p0.jpg"] == []
    (one,) = rows["p2.jpg"]
    assert one["box_xyxy"] == [24, 16, 48, 32]
    assert (one["label"], one["status"], one["reason"]) == ("cat", "kept", None)


@pytest.mark.parametrize("wrong", [{"min_score": 1.0}, {"max_objects": 0}])
def test_rules_that_cannot_be_are_mistakes(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Detect(detector=Fixed(), **wrong)
