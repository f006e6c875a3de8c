"""Hits: the label in the hole, by recognisers that see nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.hit import Hit
from mtadiffusion.evaluate.metrics.recognisers import hole_crop
from mtadiffusion.stickers.problems import hole_problem

from ...annotate.tiny_models import save_grounding_dino
from .samples import batch, box, picture, sample


class Oracle:
    """Finds what is on its list."""

    def __init__(self, *found):
        self.found = found

    def identity(self):
        return {"oracle": list(self.found)}

    def setup(self, device):
        pass

    def finds(self, pictures, holes, labels):
        assert all(hole.any() for hole in holes)
        return [label in self.found for label in labels]


def test_a_hit_is_one_a_miss_zero_and_nothing_asked_none():
    metric = Hit(recogniser=Oracle("cat"))
    empty = np.zeros((48, 64), bool)
    scored = batch(sample(label="dog"), sample(), sample(label="cat"), sample(label="cat", hole=empty))
    assert metric.score(scored) == [0, None, 1, None]
    assert metric.score(batch(sample())) == [None]


def test_the_crop_shows_the_hole_alone():
    original = picture(0)
    crop = np.asarray(hole_crop(original, box()))
    assert (crop == original[16:32, 21:42]).all()
    disc = np.zeros((48, 64), bool)
    disc[20, 30] = disc[22, 33] = True
    crop = np.asarray(hole_crop(original, disc))
    assert crop.shape == (3, 4, 3)
    assert (crop[0, 0] == original[20, 30]).all()
    assert crop[0, 1].tolist() == [122, 116, 104]


def test_what_lies_outside_the_hole_changes_nothing(tmp_path):
    metric = metric_named("hit", model=str(save_grounding_dino(tmp_path)), threshold=0.0)
    metric.setup("cpu")
    seen = []
    network = metric.recogniser._network

    def watched(**inputs):
        seen.append(inputs["pixel_values"])
        return network(**inputs)

    watched.device = network.device
    metric.recogniser._network = watched
    one = sample(label="cat")
    other = sample(label="cat", result=np.where(one.hole[..., None], one.result, np.uint8(7)))
    metric.score(batch(one))
    metric.score(batch(other))
    assert (seen[0] == seen[1]).all()


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 1), (1.0, 0)])
def test_a_detector_hits_where_a_box_reaches_the_threshold(tmp_path, threshold, expected):
    metric = metric_named("hit", model=str(save_grounding_dino(tmp_path)), threshold=threshold)
    metric.setup("cpu")
    assert metric.score(batch(sample(label="cat"), sample(label="Red car "))) == [expected] * 2


def test_clip_chooses_the_nearest_name_whatever_the_batch(clip_folder):
    names = ("red", "apple", "cat", "glossy")
    metric = metric_named("hit", recogniser="clip", vocabulary=names, model=str(clip_folder))
    metric.setup("cpu")
    chosen = []
    for name in names:
        asked = [sample(number, (32, 32), label=name.upper()) for number in range(3)]
        together = metric.score(batch(*asked))
        assert together == [metric.score(batch(one))[0] for one in asked]
        chosen.append(together)
    assert np.sum(chosen, axis=0).tolist() == [1, 1, 1]


def test_the_judge_of_stickers_is_a_recogniser_too():
    metric = metric_named("hit", recogniser="sticker")
    metric.setup("cpu")
    problems = [hole_problem("validation", index) for index in range(10)]
    labels = [problem.scene.placements[0].sprite.label for problem in problems]
    truth = [
        sample(result=p.scene.record.image, original=p.scene.record.image, hole=p.hole, label=label)
        for p, label in zip(problems, labels, strict=True)
    ]
    other = [
        sample(result=p.scene.record.image, original=p.scene.record.image, hole=p.hole, label=p.label)
        for p in problems
    ]
    assert np.mean(metric.score(batch(*truth))) > 0.8 > 0.2 > np.mean(metric.score(batch(*other)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recogniser": "grounding-dina"}, r"hit\.recogniser is unknown, .*'grounding-dino'"),
        ({"recogniser": "clip"}, r"hit\.vocabulary must be a list of names"),
        ({"recogniser": "clip", "vocabulary": " , "}, r"hit\.vocabulary must be a list of names"),
        ({"treshold": 0.2}, r"hit\.treshold is no option of grounding-dino; did you mean 'threshold'"),
    ],
)
def test_wrong_recognisers_and_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        metric_named("hit", **options)
