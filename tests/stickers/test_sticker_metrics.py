"""The embedded metrics: what they say of truth, of another object, and of another style."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.evaluate.benchmark import Item
from mtadiffusion.evaluate.metrics import metric_named, score_batch
from mtadiffusion.evaluate.metrics.metric import Batch, Sample
from mtadiffusion.stickers import metrics
from mtadiffusion.stickers.judge import load_judge
from mtadiffusion.stickers.problems import hole_problem

NAMES = ("sticker_category", "sticker_style", "sticker_colour")


def truth(index: int, **facts: object) -> Sample:
    """A scene as it is, whose item asks for the object that is there."""
    problem = hole_problem("validation", index)
    main = problem.scene.placements[0].sprite
    known = {"style": main.style, "colour": main.colour, **facts}
    item = Item(
        item_id=str(index),
        prompt=problem.prompt,
        label=main.label,
        facts={name: value for name, value in known.items() if value is not None},
    )
    picture = problem.scene.record.image
    return Sample(item=item, original=picture, hole=problem.hole, result=picture)


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return [truth(index) for index in range(16)]


@pytest.fixture(scope="module")
def ready() -> list:
    made = [metric_named(name) for name in NAMES]
    for one in made:
        one.setup("cpu")
    return made


def test_the_judge_agrees_with_what_is_there(scenes, ready) -> None:
    scores = score_batch(ready, Batch(samples=scenes))
    for name in NAMES:
        known = [value for value in scores[name] if value is not None]
        assert np.mean(known) > 0.6, name
        assert set(known) <= {0.0, 1.0}


def test_what_is_not_asked_for_has_no_score(ready) -> None:
    scores = score_batch(ready, Batch(samples=[truth(0, style=None, colour=None)]))
    assert scores["sticker_style"] == scores["sticker_colour"] == [None]


def test_scores_are_the_judges_verdicts(scenes, ready) -> None:
    verdicts = load_judge().verdicts(
        np.stack([one.result for one in scenes]), np.stack([one.hole for one in scenes])
    )
    scores = score_batch(ready, Batch(samples=scenes))
    expected = [
        float(verdict.category == one.item.label) for verdict, one in zip(verdicts, scenes, strict=True)
    ]
    assert scores["sticker_category"] == expected


def test_the_judge_looks_at_a_batch_once(scenes, ready, monkeypatch) -> None:
    asked = []
    verdicts = metrics.verdicts_of
    monkeypatch.setattr(metrics, "verdicts_of", lambda *parts: asked.append(1) or verdicts(*parts))
    score_batch(ready, Batch(samples=scenes))
    assert asked == [1]


def test_pictures_of_several_sizes_are_judged_in_one_batch() -> None:
    judge = load_judge()
    problems = [hole_problem("validation", 3, size=size) for size in (64, 96, 64)]
    pictures, holes = [p.scene.record.image for p in problems], [p.hole for p in problems]
    found = metrics.verdicts_of(judge, pictures, holes)
    assert found == [judge.verdicts(p[None], h[None])[0] for p, h in zip(pictures, holes, strict=True)]
