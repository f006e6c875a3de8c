"""Whether descriptions fit: the real CLIP's class at a tiny size, and the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.describe import Describe
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.annotate.verify import Verify, names
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.models.clip_scorer import ClipScorer

from .test_describe import Parrot
from .test_detect import Fixed, picture
from .test_segment import FixedMasks


@pytest.fixture
def scorer(clip):
    scorer = ClipScorer(model=str(clip))
    scorer.load()
    return scorer


def test_similarities_are_those_of_the_model_itself(scorer):
    """Independent computation: CLIPModel's logits are its scale times the cosines."""
    images, texts = [picture(i, (40, 30)) for i in range(3)], ["a red cat", "a glossy apple of", "cat"]
    cosines = scorer.texts(texts) @ scorer.images(images).T
    inputs = scorer._processor(text=texts, images=images, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = scorer._network(**inputs).logits_per_text / scorer._network.logit_scale.exp()
    np.testing.assert_allclose(cosines, expected, atol=1e-5)


class Brightness:
    """A scorer whose first number is a picture's brightness, or how often a text says "bright"."""

    longest = 48

    def settings(self):
        return {"kind": "brightness"}

    def load(self):
        """Nothing to load."""

    def images(self, images: list[Image.Image]):
        return np.array([[np.asarray(image).mean() / 255] for image in images])

    def texts(self, texts):
        return np.array([[text.count("bright")] for text in texts], dtype=float)


def test_every_description_is_compared_with_its_own_crop_and_label(folder, tmp_path, limit):
    for number in range(7):
        name = folder / ("inner" if number % 2 else "") / f"p{number}.jpg"
        Image.new("RGB", (96, 64), (32 * number,) * 3).save(name, quality=100)
    boxes = [("bright cat", 0.9, (12, 8, 24, 16)), ("dog", 0.8, (30, 10, 40, 20))]
    stages = [
        Index(),
        Filters(duplicates=False),
        Labels(source=Vocabulary(names=("bright cat", "dog"))),
        Detect(detector=Fixed(*boxes)),
        Segment(segmenter=FixedMasks("box")),
        Describe(describer=Parrot("A bright bright cat.", "I am sorry, I cannot see it."), limit=limit),
        Verify(scorer=Brightness(), batch=3),
    ]
    annotate(str(folder), tmp_path / "ds", stages)
    rows = {
        r["image_id"]: r["objects"]
        for r in Dataset.open(tmp_path / "ds").table("alignment").read(0).to_pylist()
    }
    for number in range(7):
        cat, dog = rows[("inner/" if number % 2 else "") + f"p{number}.jpg"]
        assert cat["crop_similarity"] == pytest.approx(2 * 32 * number / 255, abs=0.02)
        assert (cat["label_similarity"], cat["names_label"]) == (2, True)
        assert (dog["status"], dog["crop_similarity"]) == ("skipped", None)


@pytest.mark.parametrize(
    ("text", "label", "named"),
    [
        ("A red cat.", "cat", True),
        ("Two cats asleep.", "cat", True),
        ("Some buses.", "bus", True),
        ("A category of things.", "cat", False),
        ("A teddy and a bear.", "teddy bear", True),
        ("A bear.", "teddy bear", False),
    ],
)
def test_a_description_names_its_label_by_whole_words(text, label, named):
    assert names(text, label) == named
