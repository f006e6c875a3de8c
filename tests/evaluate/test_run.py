"""Evaluations as a whole: what is drawn and scored, what is noted, and that nothing is lost or done twice."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.data.dataset import writing
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Item
from mtadiffusion.evaluate.generate import seed_of
from mtadiffusion.evaluate.report import tables
from mtadiffusion.evaluate.run import Plan, evaluate, limited

from .small import Brightness, Change, EdgesSeen, Foreseeing, Noise, Squares, Together

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    """Plots take most of a small evaluation's time."""
    monkeypatch.setattr("mtadiffusion.evaluate.report.write.write_plots", lambda results, out: [])


def plan(**fields) -> Plan:
    given = {"benchmark": Squares(), "methods": [Noise()], "metrics": [Brightness(), Change()], **fields}
    return Plan(**given)


def pictures(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("*-*/images/*.png"))
    }


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]


def figure(summary: dict, **wanted) -> dict:
    (found,) = [one for one in summary["figures"] if all(one[key] == value for key, value in wanted.items())]
    return found


def test_every_item_is_drawn_scored_and_summed_up(tmp_path):
    summary = evaluate(plan(), tmp_path / "out")
    outcomes = rows(tmp_path / "out")
    benchmark, drawn = Squares(), pictures(tmp_path / "out")
    assert len(drawn) == len(outcomes) == 6
    levels = []
    for item, outcome in zip(benchmark.items(), outcomes, strict=True):
        with Image.open(tmp_path / "out" / outcome["picture"]) as picture:
            pixels = np.asarray(picture)
        hole = benchmark.hole(item)
        assert (pixels[~hole] == benchmark.picture(item)[~hole]).all()
        noise = np.random.default_rng(seed_of(benchmark.settings, item)).integers(
            0, 20, pixels.shape, np.uint8
        )
        assert (pixels[hole] == 100 + noise[hole]).all()
        assert outcome["scores"]["brightness"] == pixels[hole].mean()
        levels.append(pixels[hole].mean())
    overall = figure(summary, group="overall", metric="brightness")
    assert overall["mean"] == pytest.approx(10 * np.mean(levels))
    assert overall["low"] < overall["mean"] < overall["high"]
    assert figure(summary, group="inside", metric="brightness")["n"] == 3
    assert not summary["failed"]


def test_a_second_run_does_nothing_again_and_says_the_same(tmp_path):
    first = evaluate(plan(), tmp_path / "out")
    before = pictures(tmp_path / "out")
    broken = plan(
        methods=[Noise(fails_on="a <b>thing</b> 1")],
        metrics=[Brightness(fails_on="a <b>thing</b> 1"), Change()],
    )
    second = evaluate(broken, tmp_path / "out")
    assert second == first
    assert pictures(tmp_path / "out") == before


def test_other_settings_weights_or_dtypes_never_share_pictures(tmp_path):
    evaluate(plan(), tmp_path / "out")
    evaluate(plan(changes={"steps": 5}), tmp_path / "out")
    evaluate(plan(methods=[Noise(level=50)]), tmp_path / "out")
    evaluate(plan(place=replace(plan().place, dtype="bfloat16")), tmp_path / "out")
    assert len({Path(name).parts[0] for name in pictures(tmp_path / "out")}) == 4


def test_a_changed_metric_scores_anew(tmp_path):
    evaluate(plan(), tmp_path / "out")
    evaluate(plan(metrics=[Brightness(version="2")]), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*/scores/brightness-*.jsonl"))) == 2


@pytest.mark.parametrize("engine", [Local(), Local(1)], ids=["here", "worker"])
def test_scores_are_named_for_weights_that_came_with_the_setup(tmp_path, engine):
    first = evaluate(plan(metrics=[Brightness(fetches=True)]), tmp_path / "out", engine)
    assert first["scorers"]["brightness"]["identity"] == {"version": "1"}
    assert evaluate(plan(metrics=[Brightness(fails_on="a <b>thing</b> 1")]), tmp_path / "out") == first


def test_what_a_method_crashes_on_is_noted_and_the_rest_goes_on(tmp_path):
    summary = evaluate(plan(methods=[Noise(fails_on="a <b>thing</b> 2")]), tmp_path / "out")
    assert summary["failed"] == [
        {"method": "noise", "item": "item-2", "error": "RuntimeError: cannot draw this"}
    ]
    assert summary["methods"][0]["drawn"] == 5
    assert figure(summary, group="overall", metric="change")["n"] == 5
    mended = evaluate(plan(), tmp_path / "out")
    assert not mended["failed"]
    assert figure(mended, group="overall", metric="change")["n"] == 6


def test_a_method_that_cannot_be_set_up_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^--method has no weights$"):
        evaluate(plan(methods=[Noise(broken="has no weights")]), tmp_path / "out")


def test_a_metric_without_weights_is_left_out_with_its_reason(tmp_path):
    summary = evaluate(plan(metrics=[Brightness(broken="is out of reach"), Change()]), tmp_path / "out")
    assert summary["unusable"] == {"brightness": "brightness is out of reach"}
    assert list(summary["metrics"]) == ["change"]
    assert (
        "brightness: not computed (brightness is out of reach)" in (tmp_path / "out/summary.md").read_text()
    )


def test_what_a_metric_fails_on_or_does_not_apply_to_has_no_score(tmp_path):
    metric = Brightness(fails_on="a <b>thing</b> 0", skips="a <b>thing</b> 1")
    summary = evaluate(plan(metrics=[metric]), tmp_path / "out")
    assert [(one["item"], one["error"]) for one in summary["faults"]] == [
        ("item-0", "ValueError: cannot look at this")
    ]
    scores = {row["item"]: row["scores"].get("brightness", "none") for row in rows(tmp_path / "out")}
    assert scores["item-0"] == "none"
    assert scores["item-1"] is None
    assert figure(summary, group="overall", metric="brightness")["n"] == 4


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", None], ids=["empty", "truncated", "gone"])
def test_a_damaged_picture_is_drawn_and_scored_again(tmp_path, damage):
    first = evaluate(plan(), tmp_path / "out")
    whole = pictures(tmp_path / "out")
    (victim,) = (tmp_path / "out").glob("*/images/item-3.png")
    if damage is None:
        victim.unlink()
    else:
        victim.write_bytes(damage)
    assert evaluate(plan(), tmp_path / "out") == first
    assert pictures(tmp_path / "out") == whole


def test_a_picture_that_someone_changed_is_drawn_again(tmp_path):
    evaluate(plan(), tmp_path / "out")
    whole = pictures(tmp_path / "out")
    (victim,) = (tmp_path / "out").glob("*/images/item-3.png")
    Image.new("RGB", (24, 24), "red").save(victim)
    evaluate(plan(), tmp_path / "out")
    assert pictures(tmp_path / "out") == whole


@pytest.mark.parametrize("method", ["Noise", "Together"])
def test_killed_in_the_middle_and_run_again_gives_the_same_summary(tmp_path, method):
    code = (
        "import sys; from pathlib import Path; from tests.evaluate.small import *;"
        "from mtadiffusion.evaluate.run import Plan, evaluate; out = Path(sys.argv[1]);"
        f"method = {method}(kills_at=4, killed=out.parent / 'killed');"
        "metrics = [Brightness(), Change()];"
        "evaluate(Plan(benchmark=Squares(), methods=[method], metrics=metrics, batch=3), out)"
    )
    command = [sys.executable, "-c", code, tmp_path / "out"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -9
    drawn = set(pictures(tmp_path / "out"))
    assert 0 < len(drawn) < 6
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in drawn}
    kind = {"Noise": Noise, "Together": Together}[method]
    evaluate(plan(methods=[kind()], batch=3), tmp_path / "out")
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in drawn} == times
    evaluate(plan(methods=[kind()], batch=3), tmp_path / "calm")
    assert pictures(tmp_path / "out") == pictures(tmp_path / "calm")
    for name in ("summary.json", "summary.csv", "summary.md", "summary.tex", "scores.jsonl", "index.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    class Interrupted(Noise):
        def generate(self, image, hole, prompt, seed):
            if prompt == "a <b>thing</b> 3":
                raise KeyboardInterrupt
            return super().generate(image, hole, prompt, seed)

    with pytest.raises(KeyboardInterrupt):
        evaluate(plan(methods=[Interrupted()]), tmp_path / "out")
    assert len(pictures(tmp_path / "out")) == 3
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert evaluate(plan(), tmp_path / "out") == evaluate(plan(), tmp_path / "calm")


def test_what_is_drawn_together_does_not_depend_on_what_was_lost(tmp_path):
    evaluate(plan(methods=[Together()], batch=4), tmp_path / "out")
    whole = pictures(tmp_path / "out")
    (victim,) = (tmp_path / "out").glob("*/images/item-1.png")
    victim.unlink()
    evaluate(plan(methods=[Together()], batch=4), tmp_path / "out")
    assert pictures(tmp_path / "out") == whole


def test_what_fails_together_is_drawn_one_by_one(tmp_path):
    summary = evaluate(plan(methods=[Together(fails_on="a <b>thing</b> 0")], batch=6), tmp_path / "out")
    assert [one["item"] for one in summary["failed"]] == ["item-0"]
    assert len(pictures(tmp_path / "out")) == 5


@pytest.mark.parametrize("batch", [1, 4])
def test_the_edges_that_a_method_expected_are_kept_and_scored(tmp_path, batch):
    methods = [Foreseeing(silent_on="a <b>thing</b> 2"), Noise()]
    asked = plan(methods=methods, metrics=[EdgesSeen(), Change()], batch=batch)
    summary = evaluate(asked, tmp_path / "out")
    assert not summary["faults"]
    scores = {(row["method"], row["item"]): row["scores"]["edges_seen"] for row in rows(tmp_path / "out")}
    assert scores["foreseeing", "item-0"] == pytest.approx(0.5, abs=1e-5)
    assert scores["foreseeing", "item-2"] is None
    assert scores["noise", "item-0"] is None
    assert figure(summary, method="foreseeing", metric="edges_seen", group="overall")["n"] == 5
    kept = sorted((tmp_path / "out").glob("foreseeing-*/edges/*.png"))
    assert len(kept) == 5
    with Image.open(kept[0]) as grid:
        assert grid.size == (8, 6)
    assert evaluate(asked, tmp_path / "out") == summary


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_lost_or_changed_edges_are_made_again_with_their_picture(tmp_path, damage):
    asked = plan(methods=[Foreseeing()], metrics=[EdgesSeen()])
    first = evaluate(asked, tmp_path / "out")
    (victim,) = (tmp_path / "out").glob("*/edges/item-3.png")
    whole = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        Image.new("I;16", (8, 6)).save(victim)
    assert evaluate(asked, tmp_path / "out") == first
    assert victim.read_bytes() == whole


def test_edges_that_are_no_map_are_noted_with_their_item(tmp_path):
    summary = evaluate(plan(methods=[Foreseeing(strength=float("nan"))], batch=2), tmp_path / "out")
    assert len(summary["failed"]) == 6
    assert summary["failed"][0]["error"].startswith("the method must hand over finite edges")
    assert not pictures(tmp_path / "out")


def test_worker_processes_draw_and_score_the_same(tmp_path):
    here = evaluate(plan(methods=[Noise(), Together()]), tmp_path / "here")
    there = evaluate(plan(methods=[Noise(), Together()]), tmp_path / "there", Local(2))
    assert there == here
    assert pictures(tmp_path / "there") == pictures(tmp_path / "here")


def test_an_item_that_kills_its_worker_is_noted(tmp_path):
    killing = Noise(kills_at=1, killed=tmp_path / "killed")
    summary = evaluate(plan(methods=[killing], benchmark=Squares(count=2)), tmp_path / "out", Local(1))
    assert len(summary["failed"]) + summary["methods"][0]["drawn"] == 2
    assert (tmp_path / "killed").exists()


def test_two_runs_at_once_are_refused(tmp_path):
    with writing(tmp_path / "out"), pytest.raises(UserError, match=r"^--out is being written by another run"):
        evaluate(plan(), tmp_path / "out")


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match=r"^--out holds something that is not an evaluation"):
        evaluate(plan(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_another_benchmarks_folder_is_refused(tmp_path):
    evaluate(plan(), tmp_path / "out")
    with pytest.raises(UserError, match=r"^--out already holds an evaluation on squares"):
        evaluate(plan(benchmark=Squares(version="2")), tmp_path / "out")


@pytest.mark.parametrize("item_id", ["../up", "a/b", ".hidden", "", "a b", "a\n"])
def test_ids_that_are_no_files_names_are_refused(tmp_path, item_id):
    class Hostile(Squares):
        def items(self):
            return [Item(item_id=item_id, prompt="x")]

    with pytest.raises(UserError, match=r"^--benchmark must have ids of letters"):
        evaluate(plan(benchmark=Hostile()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_that_cannot_be_written_down_is_refused(tmp_path):
    class Hostile(Squares):
        def items(self):
            return [Item(item_id="a", prompt=json.loads(r'"\ud800 cat"'))]

    with pytest.raises(UserError, match=r"^--benchmark must have prompts that UTF-8 can hold, got 'a'"):
        evaluate(plan(benchmark=Hostile()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_metrics_pictures_are_drawn_and_counted(tmp_path):
    summary = evaluate(plan(methods=[Noise(fails_on="a <b>thing</b> 2")], metrics=[]), tmp_path / "out")
    assert summary["counts"] == [
        {"method": "noise", "group": "overall", "items": 6, "drawn": 5},
        {"method": "noise", "group": "inside", "items": 3, "drawn": 2},
        {"method": "noise", "group": "outside", "items": 3, "drawn": 3},
    ]
    assert [row.drawn for row in tables.tables(summary)[0].rows] == [5]


def test_a_full_disk_is_one_line_and_nothing_is_half_written(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    evaluate(plan(limit=3), tmp_path / "out")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"^--out has no space left on its disk, got .*; free some and run again"
    ):
        evaluate(plan(), tmp_path / "out")
    monkeypatch.undo()
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert len(pictures(tmp_path / "out")) == 3
    assert evaluate(plan(), tmp_path / "out")["methods"][0]["drawn"] == 6


def test_a_limit_takes_groups_in_turn_and_grows_without_loss():
    items = [Item(item_id=f"{group}{n}", prompt="", group=group) for group in "ab" for n in range(4)]
    names = [{item.item_id for item in limited(items, limit)} for limit in range(1, 10)]
    assert names[0] == {"a0"}
    assert names[3] == {"a0", "b0", "a1", "b1"}
    assert all(smaller <= larger for smaller, larger in pairwise(names))
    assert [item.item_id for item in limited(items, 3)] == ["a0", "a1", "b0"]
    assert limited(items, None) == items


def test_methods_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^--method must have different names, got 'noise'"):
        evaluate(plan(methods=[Noise(), Noise(level=3)]), tmp_path / "out")
