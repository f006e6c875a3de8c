"""From masks to descriptions: what the model is shown, what is kept of what it says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.annotate.caption import PROMPT as CAPTION_PROMPT
from mtadiffusion.annotate.caption import Caption
from mtadiffusion.annotate.describe import GREY, PROMPT, Describe, object_crop
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.grounding_dino import GroundingDino
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.annotate.sam import Sam
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.annotate.vision_language import LocalVisionLanguage
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.runs import Runs

from .test_detect import Fixed
from .test_segment import FixedMasks


class Parrot:
    """A describer that answers by a rule and remembers what it was asked."""

    longest = 48

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    def settings(self):
        return {"kind": "parrot"}

    def load(self):
        """Nothing to load."""

    def answer(self, images, prompts):
        first = len(self.asked)
        self.asked += zip(images, prompts, strict=True)
        return [self.answers[(first + i) % len(self.answers)] for i in range(len(prompts))]


def described(tmp_path, folder, limit, parrot, **options):
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(folder), 100)
    boxes = [("cat", 0.9, (12, 8, 24, 16)), ("dog", 0.8, (30, 10, 40, 20)), ("cat", 0.3, (1, 1, 20, 20))]
    stages = [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("cat", "dog"))),
        Detect(detector=Fixed(*boxes)),
        Segment(segmenter=FixedMasks("box")),
        Describe(describer=parrot, limit=limit, **options),
    ]
    run_stages(dataset, stages, Local())
    rows = Dataset.open(dataset.root).table("descriptions").read(0).to_pylist()
    return {row["image_id"]: row["objects"] for row in rows}


def test_every_object_with_a_mask_is_asked_for_by_its_label(folder, tmp_path, limit):
    parrot = Parrot("The image shows a red thing of wood.")
    first, second, third = described(tmp_path, folder, limit, parrot)["p2.jpg"]
    assert [prompt for _, prompt in parrot.asked[:2]] == [
        PROMPT.replace("{label}", n) for n in ("cat", "dog")
    ]
    assert len(parrot.asked) == 14
    assert first == {
        "status": "kept",
        "reason": None,
        "text": "A red thing of wood.",
        "full": "A red thing of wood.",
    }
    assert (second["status"], third["status"]) == ("kept", "skipped")


def test_answers_stay_with_their_objects_whatever_the_batch(folder, tmp_path, limit):
    answers = [f"The {i} thing has a number." for i in range(14)]
    one = described(tmp_path / "a", folder, limit, Parrot(*answers), batch=1)
    five = described(tmp_path / "b", folder, limit, Parrot(*answers), batch=5)
    assert one == five


def test_a_refusal_is_kept_with_its_reason(folder, tmp_path, limit):
    found = described(tmp_path, folder, limit, Parrot("I am sorry, I cannot see an image."))["p2.jpg"][0]
    assert (found["status"], found["reason"], found["text"]) == ("rejected", "refusal", None)
    assert found["full"].startswith("I am sorry")


def test_a_description_fits_the_text_encoder(folder, tmp_path, limit, tokenizer):
    limit.tokens = 24
    answer = "A red cat lies. It is glossy. " + "It is soft and warm and round and brown. "
    found = described(tmp_path, folder, limit, Parrot(answer))["p2.jpg"][0]
    assert len(tokenizer(found["text"]).input_ids) <= 24
    assert found["text"].endswith(".")
    assert len(found["full"]) > len(found["text"])


def test_images_without_a_place_are_skipped(folder, tmp_path, limit):
    (folder / "p0.jpg").write_bytes(b"no picture")
    assert described(tmp_path, folder, limit, Parrot("A red thing."))["p0.jpg"] == []


def test_a_crop_shows_the_object_alone_with_a_margin():
    image = Image.new("RGB", (100, 50), (255, 0, 0))
    mask = np.zeros((100, 200), dtype=bool)
    mask[40:60, 80:120] = True
    crop = object_crop(image, Runs.of(mask), margin=0.1, masked=True)
    assert crop.size == (24, 14)
    assert crop.getpixel((0, 0)) == GREY
    assert crop.getpixel((12, 7)) == (255, 0, 0)
    assert object_crop(image, Runs.of(mask), margin=0.1, masked=False).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("corner", [(0, 0), (19, 29)])
def test_a_crop_of_one_pixel_at_the_edge_is_a_picture(corner):
    mask = np.zeros((20, 30), dtype=bool)
    mask[corner] = True
    crop = object_crop(Image.new("RGB", (15, 10)), Runs.of(mask), margin=0.0, masked=True)
    assert min(crop.size) >= 1


def test_a_prompt_without_the_label_is_a_mistake():
    with pytest.raises(UserError, match="prompt must contain"):
        Describe(describer=Parrot("x"), prompt="Describe it")


def test_the_paper_s_models_run_from_a_folder_to_descriptions(
    folder, tmp_path, limit, grounding_dino, sam, llava
):
    """The real classes, random weights: whatever they say has its row."""
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(folder), 4)
    stages = [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("cat", "red car"))),
        Detect(detector=GroundingDino(model=str(grounding_dino), longest=96), min_score=0.1),
        Segment(segmenter=Sam(model=str(sam), longest=64), min_fit=0.0, min_area=0.0),
        Describe(describer=LocalVisionLanguage(model=str(llava), max_new_tokens=8), limit=limit),
    ]
    reports = run_stages(dataset, stages, Local())
    assert all(report.failed == {} for report in reports)
    dataset = Dataset.open(dataset.root)
    for shard in range(2):
        tables = [
            dataset.table(name).read(shard).to_pylist() for name in ("detections", "masks", "descriptions")
        ]
        for rows in zip(*tables, strict=True):
            assert len({row["image_id"] for row in rows}) == 1
            assert len({len(row["objects"]) for row in rows}) == 1


def test_images_without_a_caption_are_asked_for_one(folder, tmp_path, limit):
    (folder / "p2.txt").write_text("cat")
    (folder / "p4.jpg").write_bytes(b"no picture")
    parrot = Parrot("The image shows a field of colours.")
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(folder), 100)
    run_stages(dataset, [Index(), Filters(), Caption(describer=parrot, limit=limit, batch=2)], Local())
    rows = Dataset.open(dataset.root).table("captions").read(0).to_pylist()
    found = {row["image_id"]: (row["status"], row["text"]) for row in rows}
    assert found["p0.jpg"] == ("skipped", None)
    assert found["p4.jpg"] == ("skipped", None)
    assert found["p2.jpg"] == found["p6.jpg"] == ("kept", "A field of colours.")
    assert {prompt for _, prompt in parrot.asked} == {CAPTION_PROMPT}
