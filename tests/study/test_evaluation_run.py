"""A finished evaluation as the runs of a study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluate.small import Brightness, Noise, Squares
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.folder import ABOUT
from mtadiffusion.evaluate.run import Plan, evaluate
from mtadiffusion.study.create import Terms, create_study
from mtadiffusion.study.runs import read_runs
from mtadiffusion.study.study import PICTURES


def evaluated(out: Path, *methods: Noise) -> Path:
    evaluate(Plan(benchmark=Squares(), methods=methods, metrics=[Brightness()]), out)
    return out


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on six items; the second failed at one."""
    failing = Noise(name="bright", level=200, fails_on="a <b>thing</b> 3")
    return evaluated(tmp_path_factory.mktemp("evaluation") / "both", Noise(name="dark", level=20), failing)


def test_a_study_of_an_evaluation_shows_its_pictures_and_leaves_out_what_failed(
    evaluation: Path, tmp_path: Path
) -> None:
    study = create_study(read_runs([str(evaluation)]), Terms(images=5, checks=1), tmp_path / "study")
    benchmark = Squares()
    assert study.methods == ("dark", "bright")
    assert [item.item_id for item in study.items] == [f"item-{n}" for n in (0, 1, 2, 4, 5)]
    items = {item.item_id: item for item in benchmark.items()}
    for item in study.items:
        picture, hole = (read(items[item.item_id]) for read in (benchmark.picture, benchmark.hole))
        files = (item.masked, item.results["dark"], item.results["bright"])
        masked, dark, bright = (np.asarray(Image.open(study.root / PICTURES / file)) for file in files)
        assert item.prompt == items[item.item_id].prompt
        assert (masked[~hole] == picture[~hole]).all()
        assert (masked[hole] != picture[hole]).any()
        assert dark[hole].mean() < 60 < 150 < bright[hole].mean()


def test_a_name_takes_one_of_several_methods_or_renames_a_single_one(
    evaluation: Path, tmp_path: Path
) -> None:
    alone = evaluated(tmp_path / "alone", Noise(name="dark", level=60))
    runs = read_runs([f"dark={evaluation}", f"grey={alone}"])
    assert [(run.method, len(run.items)) for run in runs] == [("dark", 6), ("grey", 6)]
    with pytest.raises(UserError, match=r"must name one of the methods in .*: dark, bright, got 'light'"):
        read_runs([f"light={evaluation}", str(alone)])


def test_an_evaluation_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    (tmp_path / ABOUT).write_text("{}")
    with pytest.raises(UserError, match="--runs must be a finished evaluation"):
        read_runs([str(tmp_path)])


def test_pictures_outside_the_evaluation_are_refused(tmp_path: Path) -> None:
    alone = evaluated(tmp_path / "alone", Noise(), Noise(name="other"))
    scores = alone / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    scores.write_text("".join(json.dumps(row | {"picture": "../../secret.png"}) + "\n" for row in rows))
    with pytest.raises(UserError, match="must name pictures inside"):
        read_runs([str(alone)])
