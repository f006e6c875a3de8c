"""Making a study: what goes in, what is refused, and that nothing half made is left."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mtadiffusion.cli import main
from mtadiffusion.errors import UserError
from mtadiffusion.study.create import Terms, create_study
from mtadiffusion.study.runs import read_runs
from mtadiffusion.study.study import PICTURES, Study

from .conftest import ITEMS, METHODS, noise, write_run


@pytest.fixture
def refused(capsys, tmp_path):
    """The one line that `mta study create` refuses some words with; nothing is left behind."""

    def refuse(*words):
        before = sorted(tmp_path.iterdir())
        assert main(["study", "create", *map(str, words)]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()[-1:]
        assert sorted(tmp_path.iterdir()) == before
        return line

    return refuse


def test_a_study_holds_everything_and_can_be_moved(runs, tmp_path):
    create_study(read_runs(runs), Terms(images=4), tmp_path / "new" / "study")
    shutil.rmtree(tmp_path / "runs")
    shutil.move(tmp_path / "new" / "study", tmp_path / "moved")
    study = Study.open(tmp_path / "moved")
    study.check_pictures()
    assert study.methods == METHODS
    assert len(study.items) == 4
    for item in study.items:
        number = int(item.item_id[-1])
        for method, file in item.results.items():
            with Image.open(study.root / PICTURES / file) as saved:
                assert (np.asarray(saved) == np.asarray(noise(method, number))).all()


def test_the_command_line_makes_a_study_of_runs_in_a_row(runs, tmp_path, capsys):
    words = ["--runs", *runs, "--images", "3", "--questions", "style,overall", "--participants", "2"]
    assert main(["study", "create", *words, "--out", str(tmp_path / "study"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["methods"], made["images"]) == (list(METHODS), 3)
    assert Study.open(tmp_path / "study").questions == ("style", "overall")


def test_the_same_seed_draws_the_same_items_and_another_seed_others(runs, tmp_path):
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 2)):
        study = create_study(read_runs(runs), Terms(images=2, seed=seed), tmp_path / name)
        drawn[name] = [item.item_id for item in study.items]
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_checks_use_pictures_that_are_not_judged_where_there_are_some(runs, tmp_path):
    study = create_study(read_runs(runs), Terms(images=4, checks=2), tmp_path / "study")
    judged = {item.masked for item in study.items}
    assert not judged & {check.masked for check in study.checks}


def test_pictures_keep_their_pixels_and_lose_what_else_their_files_say(runs, tmp_path):
    path = tmp_path / "runs" / "ours" / f"{ITEMS[0]}.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "ours, the best method")
    noise("ours", 0).save(path, pnginfo=text)
    study = create_study(read_runs(runs), Terms(images=5, checks=0), tmp_path / "study")
    assert all(b"best method" not in file.read_bytes() for file in (study.root / PICTURES).iterdir())


def test_a_picture_that_was_changed_is_noticed(study):
    file = next((study.root / PICTURES).iterdir())
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(UserError, match="has lost or changed the picture"):
        study.check_pictures()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99}', '{"format": 1}', "{"])
def test_a_damaged_description_is_the_users_mistake(study, content):
    (study.root / "study.json").write_text(content)
    with pytest.raises(UserError, match=r"STUDY (must hold|has a damaged)"):
        Study.open(study.root)


def test_a_description_that_names_files_elsewhere_is_refused(study):
    text = (study.root / "study.json").read_text()
    (study.root / "study.json").write_text(text.replace(study.items[0].masked, "../../secret.png"))
    with pytest.raises(UserError, match="names no picture"):
        Study.open(study.root)


def test_mistakes_are_one_line_and_leave_nothing(runs, tmp_path, refused):
    out = ["--out", tmp_path / "study"]
    usual = ["--runs", *runs, "--images", 3]
    assert "there is no such folder" in refused("--runs", tmp_path / "none", *runs, *out)
    assert "2 to 9 methods" in refused("--runs", runs[0], *out)
    assert "each method once" in refused("--runs", runs[0], runs[0], *out)
    assert "--images must be at most 5" in refused("--runs", *runs, "--images", 6, *out)
    assert "did you mean 'style'?" in refused(*usual, "--questions", "stile", *out)
    assert "each once" in refused(*usual, "--questions", "style,style", *out)
    assert "--images must be between 1 and 10000" in refused("--runs", *runs, "--images", 0, *out)
    assert "--participants must be between 0 and 10000" in refused(*usual, "--participants", 10**13, *out)
    assert "--enrol must be between 0 and" in refused(*usual, "--enrol", -1, *out)
    assert "--checks must be between 0 and 100" in refused(*usual, "--checks", 10**9, *out)
    assert "--participants must be at least 1 without --enrol" in refused(*usual, "--participants", 0, *out)
    assert "--consent must be a readable text" in refused(*usual, "--consent", tmp_path / "no.txt", *out)
    assert "--out must not exist yet" in refused(*usual, "--out", tmp_path / "runs")


def test_runs_without_common_items_are_named(tmp_path, refused):
    words = [write_run(tmp_path / "runs", "one", ITEMS[:2]), write_run(tmp_path / "runs", "two", ITEMS[2:])]
    line = refused("--runs", *words, "--images", 1, "--out", tmp_path / "study")
    assert "--runs must have items in common" in line
    assert f"{tmp_path}/runs/one" in line or "…" in line


def test_only_items_that_all_runs_have_are_drawn(tmp_path):
    words = [write_run(tmp_path / "runs", "one", ITEMS[:4]), write_run(tmp_path / "runs", "two", ITEMS[1:])]
    study = create_study(read_runs(words), Terms(images=3), tmp_path / "study")
    assert [item.item_id for item in study.items] == list(ITEMS[1:4])


def test_runs_of_other_prompts_holes_or_sizes_are_refused(runs, tmp_path, refused):
    words = ["--runs", *runs, "--images", 5, "--out", tmp_path / "study"]
    items = tmp_path / "runs" / "theirs" / "items.jsonl"
    text = items.read_text()
    items.write_text(text.replace("thing <2>", "something else"))
    assert "must show item-2 with one prompt and one hole" in refused(*words)
    items.write_text(text)
    noise("another hole", 2).save(tmp_path / "runs" / "theirs" / "masked" / "item-2.png")
    assert "must show item-2 with one prompt and one hole" in refused(*words)
    noise("masked", 2).save(tmp_path / "runs" / "theirs" / "masked" / "item-2.png")
    noise("theirs", 2, (40, 40)).save(tmp_path / "runs" / "theirs" / "item-2.png")
    assert "not 40x40 for 48x32" in refused(*words)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"item_id": "../escape", "prompt": "x", "masked": "masked/item-0.png"}, "must name pictures inside"),
        ({"item_id": "item-0", "prompt": "x", "masked": "/etc/passwd"}, "must name pictures inside"),
        ({"item_id": "item-0", "prompt": "x", "masked": "../theirs/item-0.png"}, "must name pictures inside"),
        ({"item_id": "item-0", "prompt": "x", "masked": "none.png"}, "lacks a picture"),
        ({"item_id": "check:1", "prompt": "x", "masked": "masked/item-0.png"}, "lacks a picture"),
        (
            {"item_id": "item-0", "prompt": 3, "masked": "masked/item-0.png"},
            "must hold objects with the texts",
        ),
        (["item-0"], "must hold objects with the texts"),
    ],
)
def test_hostile_and_broken_rows_are_refused(runs, tmp_path, refused, row, message):
    (tmp_path / "runs" / "ours" / "items.jsonl").write_text(json.dumps(row))
    assert message in refused("--runs", *runs, "--images", 1, "--out", tmp_path / "study")


def test_an_item_id_that_is_no_plain_name_is_refused(runs, tmp_path, refused):
    run = tmp_path / "runs" / "ours"
    shutil.copy(run / "item-0.png", run / "check:1.png")
    row = {"item_id": "check:1", "prompt": "x", "masked": "masked/item-0.png"}
    (run / "items.jsonl").write_text(json.dumps(row))
    line = refused("--runs", *runs, "--images", 1, "--out", tmp_path / "study")
    assert "must name items by letters, digits" in line


def test_a_missing_extra_is_one_line_with_its_command(runs, tmp_path, refused, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else found(name))
    line = refused("--runs", *runs, "--out", tmp_path / "study")
    assert line.endswith("needs the package uvicorn; pip install 'mtadiffusion[study]'")
