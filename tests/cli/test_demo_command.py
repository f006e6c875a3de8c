"""`mta demo` and `mta measure` from end to end, on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import opened

from mtadiffusion.cli import main
from mtadiffusion.stickers import measure as measurement


@pytest.fixture
def models(backbone_folder: Path, branch_folder: Path) -> list[str]:
    return ["--model", str(backbone_folder), "--branch", str(branch_folder), "--steps", "1"]


def test_demo_prints_the_paths_of_sheet_and_page_last(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--count", "2", *models]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [str(out / "sheet.png"), str(out / "index.html")]
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "sheet.png"]


def test_demo_json_is_one_object(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path), "--count", "1", "--split", "test", "--json", *models]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["sheet"] == str(tmp_path / "sheet.png")
    assert len(result["prompts"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "train"], "--split must be validation or test, got 'train'"),
        (["--count", "0"], "--count must be a whole number between 1 and 100, got 0"),
        (["--guidance", "nan"], "--guidance must be a number between 0 and 100, got nan"),
        (["--out", f"{__file__}/below"], "--out must be a folder"),
    ],
)
def test_demo_mistakes_are_one_line(
    models: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["demo", *models, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: " + message)
    assert captured.err.count("\n") == 1


def test_demo_does_not_write_where_a_file_is(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "demo"), *models]) == 2
    assert "--out must be a folder" in capsys.readouterr().err
    assert (tmp_path / "demo").read_text() == "mine"


def test_measure_prints_one_json_object_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, object] = {}

    def measure(split: str, holes: int, **options: object) -> dict[str, object]:
        asked.update(split=split, holes=holes, **options)
        return {"split": split, "holes": holes}

    monkeypatch.setattr(measurement, "measure", measure)
    assert main(["measure", "--split", "test", "--holes", "12", "--steps", "3", "--seed", "4"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"split": "test", "holes": 12}
    sampling = asked["sampling"]
    assert isinstance(sampling, measurement.Sampling)
    assert (sampling.steps, sampling.seed) == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "validatoin"], "--split must be validation or test, got 'validatoin'"),
        (["--holes", "0"], "--holes must be between 8 and 100000, got 0"),
        (["--steps", "0"], "--steps must be a whole number between 1 and 1000, got 0"),
    ],
)
def test_measure_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["measure", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: " + message)


def test_the_demo_s_page_shows_every_picture_in_a_browser(models: list[str], tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path), "--count", "2", *models]) == 0
    with opened(tmp_path / "index.html") as page:
        widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) == 10
        assert min(widths) > 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    with opened(tmp_path / "index.html", width=400) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
