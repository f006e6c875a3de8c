"""Object holes from a small annotated dataset: red things that fake annotators find by their colour."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.describe import Describe, TextLimit
from mtadiffusion.annotate.detect import Detect, Detection
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.data import records
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Benchmark
from mtadiffusion.evaluate.benchmarks import benchmark
from mtadiffusion.evaluate.benchmarks.object_holes import GROUPS
from mtadiffusion.seeding import numpy_generator

SIZE = 64
PICTURES = 24


def red(image: np.ndarray) -> np.ndarray:
    return (image[..., 0].astype(int) - image[..., 1]) > 100


class Finder:
    """Detector, segmenter and describer of whatever is red."""

    longest = 512

    def settings(self):
        return {"kind": "finder"}

    def load(self):
        """Nothing to load."""

    def detect(self, images, labels, min_score):
        boxes = [Image.fromarray(red(np.asarray(image))).getbbox() for image in images]
        return [[Detection(label="ball", score=0.9, box_xyxy=box)] if box else [] for box in boxes]

    def segment(self, image, boxes_xyxy, size):
        mask = red(np.asarray(image.resize(size)))
        return np.stack([mask] * len(boxes_xyxy)), np.ones(len(boxes_xyxy))

    def answer(self, images, prompts):
        return ["A red ball of smooth wood." for _ in prompts]


class AnyLength(TextLimit):
    """A text encoder that reads all."""

    def load(self):
        return lambda text: True


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with an ellipse each; one is too small, one has a tiny and one a huge ellipse."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        rng = numpy_generator(0, "ellipse", number)
        width, height = [(120, 80), (80, 120), (96, 96)][number % 3] if number else (40, 60)
        radii = {1: (4, 4), 2: (44, 44)}.get(number, tuple(rng.uniform(12, 26 if number else 19, 2)))
        x, y = (rng.uniform(r, side - r) for r, side in zip(radii, (width, height), strict=True))
        image = Image.new("RGB", (width, height), (90, 90, 90))
        box = [x - radii[0], y - radii[1], x + radii[0], y + radii[1]]
        ImageDraw.Draw(image).ellipse(box, fill=(230, 30, 30))
        image.save(folder / f"p{number:02d}.png")
    finder = Finder()
    stages = [
        Index(),
        Filters(duplicates=False),
        Labels(source=Vocabulary(names=("ball",))),
        Detect(detector=finder),
        Segment(segmenter=finder),
        Describe(describer=finder, limit=AnyLength()),
    ]
    out = tmp_path_factory.mktemp("annotated") / "ds"
    annotate(str(folder), out, stages, shard_size=7)
    return out


@pytest.fixture(autouse=True)
def _all_images_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "VALIDATION", 1.0)


def opened(dataset: Path, **options: object) -> Benchmark:
    return benchmark("object-holes", dataset, **{"count": 12, "size": SIZE, **options})


def test_items_ask_for_the_objects_of_images_in_which_they_fit(dataset: Path) -> None:
    items = opened(dataset, count=20).items()
    images = {item.facts["image_id"] for item in items}
    assert len(images) == 20
    assert not images & {"p00.png", "p01.png", "p02.png"}
    assert {(item.prompt, item.label) for item in items} == {("A red ball of smooth wood.", "ball")}
    assert all(item.facts["category"] == "ball" for item in items)
    assert all(item.facts["reference"] == "original" for item in items)
    assert [item.group for item in items[:4]] == [*GROUPS, GROUPS[0]]


def test_a_hole_covers_its_object_in_the_picture_as_its_group_says(dataset: Path) -> None:
    bench = opened(dataset)
    for item in bench.items():
        picture, hole = bench.picture(item), bench.hole(item)
        assert (picture.shape, picture.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (hole.shape, hole.dtype) == ((SIZE, SIZE), np.dtype(bool))
        thing = red(picture)
        assert (thing & ~hole).sum() <= (0.01 * thing.sum() if item.group == "exact" else 0)
        assert thing.mean() == pytest.approx(item.facts["area"], abs=0.03)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert (hole.sum() == rows * columns) == (item.group == "boxed")
        assert (hole.sum() < 1.25 * thing.sum()) == (item.group == "exact")


def test_the_choice_depends_on_the_seed_alone(dataset: Path, tmp_path: Path) -> None:
    first = opened(dataset)
    copy = Path(shutil.copytree(dataset, tmp_path / "ds"))
    assert list(opened(copy).items()) == list(first.items())
    assert opened(copy).fingerprint() == first.fingerprint()
    other = opened(dataset, seed=1)
    assert [item.facts["image_id"] for item in other.items()] != [
        item.facts["image_id"] for item in first.items()
    ]
    assert other.fingerprint() != first.fingerprint()


def test_fewer_items_are_the_first_ones(dataset: Path) -> None:
    assert list(opened(dataset, count=5).items()) == list(opened(dataset).items())[:5]


@pytest.mark.parametrize("options", [{"margin": 0.1}, {"groups": "boxed"}, {"count": 3}, {"size": 48}])
def test_every_option_that_changes_items_changes_the_fingerprint(dataset: Path, options: dict) -> None:
    assert opened(dataset, **options).fingerprint() != opened(dataset).fingerprint()


def test_a_benchmark_travels_to_another_process_with_its_tables_open(dataset: Path) -> None:
    bench = opened(dataset)
    item = bench.items()[4]
    there = pickle.loads(pickle.dumps(bench))
    np.testing.assert_array_equal(there.hole(item), bench.hole(item))
    np.testing.assert_array_equal(there.picture(item), bench.picture(item))


def test_too_few_images_are_counted(dataset: Path) -> None:
    with pytest.raises(
        UserError, match=r"must hold 400 images of at least 64 pixels .*, got '2\d in the split"
    ):
        opened(dataset, count=400).items()


def test_a_folder_that_is_no_dataset_and_tables_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DATASET must be a folder with a manifest\.json"):
        opened(tmp_path).items()


def test_an_image_that_went_missing_is_named(dataset: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "ds"))
    bench = opened(copy)
    item = bench.items()[0]
    shutil.rmtree(copy / "images")
    with pytest.raises(UserError, match=rf"image {item.facts['image_id']} cannot be read"):
        bench.picture(item)


def test_settings_have_the_size_that_was_asked_for(dataset: Path) -> None:
    assert opened(dataset).settings.size == SIZE
    assert opened(dataset).settings.seed_per_item
