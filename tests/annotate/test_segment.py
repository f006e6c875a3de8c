"""Masks: the real segmenter's class at a tiny size, cleaning, and the rules about what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.annotate.sam import Sam
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.local import Local
from mtadiffusion.imaging.masks import coco_to_mask, mask_box

from .test_detect import Fixed, picture
from .tiny_models import save_sam2, save_sam_hq


@pytest.fixture(scope="module")
def segmenter(sam):
    segmenter = Sam(model=str(sam), longest=64)
    segmenter.load()
    return segmenter


BOXES = [[4.0, 4.0, 30.0, 30.0], [10.0, 0.0, 60.0, 40.0], [0.0, 20.0, 20.0, 40.0]]


def test_the_mask_of_a_box_is_the_one_that_sam_rates_best(segmenter):
    """Independent computation: transformers' own post-processing of all three masks."""
    image = picture(0, (60, 40))
    masks, quality = segmenter.segment(image, BOXES, image.size)
    inputs = segmenter._processor(images=image, input_boxes=[BOXES], return_tensors="pt")
    with torch.inference_mode():
        outputs = segmenter._network(
            pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float()
        )
    (all_masks,) = segmenter._processor.post_process_masks(
        [outputs.pred_masks[0]], inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    best = outputs.iou_scores[0].argmax(1)
    expected = torch.stack([all_masks[i, k] for i, k in enumerate(best)]).numpy()
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_allclose(quality, outputs.iou_scores[0].max(1).values)
    assert masks.shape == (3, 40, 60)


@pytest.mark.parametrize("save", [save_sam_hq, save_sam2])
def test_the_other_segment_anything_models_are_asked_alike(tmp_path, save):
    if save is save_sam2:
        pytest.importorskip("torchvision", reason="SAM 2.1's processor needs the package torchvision")
    segmenter = Sam(model=str(save(tmp_path / "model")), longest=64)
    segmenter.load()
    masks, quality = segmenter.segment(picture(0, (60, 40)), BOXES, (120, 80))
    assert masks.shape == (3, 80, 120)
    assert masks.dtype == bool
    alone, best = segmenter.segment(picture(0, (60, 40)), BOXES[1:2], (120, 80))
    assert (alone[0] != masks[1]).mean() < 0.01
    np.testing.assert_allclose(best[0], quality[1], atol=1e-4)


def test_masks_come_at_the_size_that_is_asked_for(segmenter):
    masks, _ = segmenter.segment(picture(0, (60, 40)), BOXES, (120, 80))
    assert masks.shape == (3, 80, 120)


def test_boxes_do_not_depend_on_their_company(segmenter):
    image = picture(1, (60, 40))
    together, _ = segmenter.segment(image, BOXES, image.size)
    for box, mask in zip(BOXES, together, strict=True):
        alone, _ = segmenter.segment(image, [box], image.size)
        assert (alone[0] != mask).mean() < 0.01


class FixedMasks:
    """A segmenter that fills each box by a rule."""

    longest = 48

    def __init__(self, fill):
        self.fill = fill

    def settings(self):
        return {"kind": "fixed", "fill": self.fill}

    def load(self):
        """Nothing to load."""

    def segment(self, image, boxes_xyxy, size):
        assert max(image.size) <= self.longest
        masks = np.zeros((len(boxes_xyxy), size[1], size[0]), dtype=bool)
        for mask, box in zip(masks, boxes_xyxy, strict=True):
            x0, y0, x1, y1 = (round(v * size[0] / image.width) for v in box)
            if self.fill == "box":
                mask[y0:y1, x0:x1] = True
            elif self.fill == "corner":
                mask[y0 : y0 + (y1 - y0) // 3, x0 : x0 + (x1 - x0) // 3] = True
            elif self.fill == "all":
                mask[:] = True
        return masks, np.full(len(masks), 0.75)


def segmented(tmp_path, folder, fill):
    """The objects of every image, by image id."""
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(folder), 100)
    boxes = [("cat", 0.9, (12, 8, 24, 16)), ("dog", 0.3, (1, 1, 20, 20)), ("cat", 0.8, (30, 10, 40, 20))]
    labels, detect = Labels(source=Vocabulary(names=("cat", "dog"))), Detect(detector=Fixed(*boxes))
    stages = [Index(), Filters(), labels, detect, Segment(segmenter=FixedMasks(fill))]
    run_stages(dataset, stages, Local())
    rows = Dataset.open(dataset.root).table("masks").read(0).to_pylist()
    return {row["image_id"]: row["objects"] for row in rows}


def test_a_mask_is_stored_at_the_size_of_the_whole_image(folder, tmp_path):
    first, second, left_out = segmented(tmp_path, folder, "box")["p2.jpg"]  # best scores first
    mask = coco_to_mask({"size": [64, 96], "counts": first["counts"]})
    assert mask_box(mask) == (24, 16, 48, 32)
    assert (first["status"], first["area"], first["quality"]) == ("kept", 24 * 16, 0.75)
    assert second["status"] == "kept"
    assert (left_out["status"], left_out["counts"]) == ("skipped", None)


@pytest.mark.parametrize(
    ("fill", "reason"), [("corner", "does not fit its box"), ("all", "whole image"), ("none", "tiny mask")]
)
def test_masks_that_cannot_be_the_object_s_are_rejected_with_a_reason(folder, tmp_path, fill, reason):
    objects = segmented(tmp_path, folder, fill)["p2.jpg"]
    assert {one["reason"] for one in objects if one["status"] == "rejected"} == {reason}


def test_images_that_were_rejected_have_no_masks(folder, tmp_path):
    (folder / "p0.jpg").write_bytes(b"no picture")
    assert segmented(tmp_path, folder, "box")["p0.jpg"] == []
