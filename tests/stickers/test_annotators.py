"""The embedded annotators in the places of the paper's models, with tiny random networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mtadiffusion.annotate.describe import GREY
from mtadiffusion.cli import main
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.stickers.annotation_quality import annotation_quality
from mtadiffusion.stickers.annotators import (
    StickerCaptioner,
    StickerDescriber,
    StickerDetector,
    StickerSegmenter,
)
from mtadiffusion.stickers.assets import STYLES
from mtadiffusion.stickers.attributes import AttributeNet, crop_pixels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.instances import InstanceNet

LABELS = ("apple", "car")
ALWAYS = 8.0
"""A bias that makes every cell sure of itself."""


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    """A network to which every picture is one apple, everywhere."""
    network = InstanceNet(labels=LABELS, side=32, widths=(4, 6, 8, 8), mask_width=4)
    for head in (network.centres, network.drawers):
        torch.nn.init.zeros_(head[1].weight)
        torch.nn.init.zeros_(head[1].bias)
    network.centres[1].bias.data[0] = ALWAYS
    network.drawers[1].bias.data[-1] = ALWAYS
    folder = tmp_path_factory.mktemp("instances")
    network.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def attributes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attributes")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AttributeNet(styles=STYLES, colours=tuple(COLOURS), widths=(4, 4), strides=(2, 2))
    network.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_boxes_are_those_of_masks_in_the_picture_s_own_pixels(instances, picture):
    detector = StickerDetector(model=instances)
    detector.load()
    (found,) = detector.detect([picture], [LABELS], 0.5)
    assert {one.box_xyxy for one in found} == {(0.0, 0.0, 60.0, 40.0)}
    assert {one.label for one in found} == {"apple"}


def test_only_labels_that_are_asked_for_are_found(instances, picture):
    detector = StickerDetector(model=instances)
    detector.load()
    assert detector.detect([picture], [("car", "zebra")], 0.5) == [[]]


def test_a_box_gets_the_mask_that_fits_it_best_and_none_where_nothing_is(instances, picture):
    segmenter = StickerSegmenter(model=instances)
    segmenter.load()
    masks, qualities = segmenter.segment(picture, [(0, 0, 60, 40), (100, 100, 110, 110)], (120, 80))
    assert masks.shape == (2, 80, 120)
    assert masks[0].all()
    assert not masks[1].any()
    assert qualities[0] > 0.9
    assert qualities[1] == 0


def test_descriptions_name_the_label_and_follow_from_the_pixels(attributes, picture):
    describer = StickerDescriber(model=attributes)
    describer.load()
    first = describer.answer([picture, picture], ["apple", "beer mug"])
    assert "apple" in first[0]
    assert "beer mug" in first[1]
    assert describer.answer([picture, picture], ["apple", "beer mug"]) == first


def test_a_caption_names_what_is_there(instances, picture):
    captioner = StickerCaptioner(model=instances)
    captioner.load()
    (caption,) = captioner.answer([picture], ["?"])
    assert caption.startswith("an apple")


def test_a_crop_is_padded_to_a_square_with_grey_and_keeps_its_shape():
    pixels = crop_pixels(Image.new("RGB", (20, 10), (255, 255, 255)), 8)
    grey = torch.full((3, 8), GREY[0] / 127.5 - 1)
    assert pixels.shape == (3, 8, 8)
    torch.testing.assert_close(pixels[:, 0], grey)
    torch.testing.assert_close(pixels[:, 4], torch.ones(3, 8))


def test_a_file_over_the_sticker_set_goes_from_pictures_to_descriptions(
    instances, attributes, picture, tmp_path, capsys
):
    (tmp_path / "pictures").mkdir()
    picture.save(tmp_path / "pictures" / "one.png")
    settings = tmp_path / "mine.toml"
    settings.write_text(f"""
base = "sticker"
[detect]
model = {instances!r}
max_area = 1.0
[segment]
model = {instances!r}
max_area = 1.0
[caption]
model = {instances!r}
[describe]
model = {attributes!r}
""")
    words = ["annotate", tmp_path / "pictures", "--out", tmp_path / "ds", "--annotators", settings]
    assert main([str(word) for word in [*words, "--workers", 0]]) == 0
    (row,) = Dataset.open(tmp_path / "ds").table("descriptions").read(0).to_pylist()
    assert "apple" in row["objects"][0]["text"]
    settings.write_text('base = "stickers"\n')
    assert main([str(word) for word in words]) == 2
    assert "did you mean 'sticker'" in capsys.readouterr().err


def test_the_shipped_annotators_see_scenes_that_they_never_saw():
    quality = annotation_quality("validation", 60)
    assert quality["detection_f1"] > 0.85
    assert quality["mask_iou"] > 0.85
    assert quality["style"] > 0.85
    assert quality["colour"] > 0.8
