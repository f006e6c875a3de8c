"""`mta evaluate` as it is typed: on the embedded benchmark, comparisons, and mistakes in one line."""

from __future__ import annotations

import json

import pytest

from mtadiffusion.cli import main

STICKERS = ["evaluate", "--benchmark", "stickerbench", "--method", "harmonic", "--limit", "3"]


@pytest.fixture
def _no_plots(monkeypatch):
    monkeypatch.setattr("mtadiffusion.evaluate.report.write.write_plots", lambda results, out: [])


@pytest.mark.usefixtures("_no_plots")
def test_the_embedded_benchmark_runs_and_is_compared_with_itself(tmp_path, capsys):
    words = [*STICKERS, "--metrics", "colour_distance,psnr", "--out", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["benchmark"]["items"] == 3
    assert list(summary["metrics"]) == ["colour_distance", "psnr"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "harmonic" in shown
    assert "index.html" in shown
    pair = [str(tmp_path / "out")] * 2
    assert main(["evaluate", "--compare", *pair]) == 0
    assert capsys.readouterr().out.startswith("3 common items; only in the first: 0")


@pytest.mark.usefixtures("_no_plots")
def test_a_metric_out_of_reach_is_said_and_gives_exit_code_1(tmp_path, capsys):
    metrics = ["--metrics", "psnr", "--metrics", f"clip_similarity:model={tmp_path / 'nowhere'}"]
    assert main([*STICKERS, *metrics, "--out", str(tmp_path / "out")]) == 1
    assert "clip_similarity was not computed: " in capsys.readouterr().out


@pytest.mark.usefixtures("_no_plots")
def test_a_changed_protocol_is_said(tmp_path):
    words = [*STICKERS, "--metrics", "psnr", "--steps", "7", "--seed", "3", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "Changed from the benchmark's protocol: steps 20 → 7, seed 0 → 3." in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--benchmark is needed; or --compare for two finished evaluations"),
        (["--benchmark", "stickerbench", "--out", "OUT"], "--method is needed"),
        (["--benchmark", "stickerbench", "--method", "harmonic"], "--out is needed"),
        ([*STICKERS[1:], "--out", "OUT", "--limit", "0"], "--limit must be a whole number"),
        ([*STICKERS[1:], "--out", "OUT", "--batch", "0"], "--batch must be a whole number"),
        ([*STICKERS[1:], "--out", "OUT", "--steps", "0"], "--steps must be a whole number"),
        ([*STICKERS[1:], "--out", "OUT", "--guidance", "nan"], "--guidance must be a number"),
        ([*STICKERS[1:], "--out", "OUT", "--executor", "slurm"], "--executor must be local or ray"),
        ([*STICKERS[1:], "--out", "OUT", "--device", "tpu"], "--device"),
        ([*STICKERS[1:], "--out", "OUT", "--metrics", "psnrr"], "did you mean 'psnr'?"),
        ([*STICKERS[1:], "--out", "OUT", "--metrics", "psnr:x"], "must have its options as option=value"),
        (["--benchmark", "sticker", "--method", "harmonic", "--out", "OUT"], "did you mean"),
        (["--benchmark", "stickerbench:x=1", "--method", "harmonic", "--out", "OUT"], "x is no option"),
        (
            ["--benchmark", "stickerbench", "--method", "harmonicc", "--out", "OUT"],
            "did you mean 'harmonic'?",
        ),
        (["--compare", "A", "B"], "--compare must name finished evaluations"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert message in error[0]
    assert list(tmp_path.iterdir()) == []


def test_plots_need_matplotlib_and_it_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*STICKERS, "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'mtadiffusion[evaluate]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
