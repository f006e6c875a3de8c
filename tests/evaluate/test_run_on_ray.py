"""Evaluations on Ray: the same pictures and figures as in this process."""

from __future__ import annotations

import pytest

from mtadiffusion.engines.on_ray import OnRay, connected
from mtadiffusion.evaluate.run import Plan, evaluate

from .small import Brightness, Change, Noise, Squares


def test_ray_draws_and_scores_the_same(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the package ray")
    monkeypatch.setattr("mtadiffusion.evaluate.report.write.write_plots", lambda results, out: [])
    plan = Plan(benchmark=Squares(), methods=[Noise()], metrics=[Brightness(), Change()])
    with connected(cpus=1):
        there = evaluate(plan, tmp_path / "ray", OnRay(workers=1))
    assert there == evaluate(plan, tmp_path / "here")
    (ours,) = (tmp_path / "here").glob("*/images")
    (theirs,) = (tmp_path / "ray").glob("*/images")
    assert {p.name: p.read_bytes() for p in theirs.iterdir()} == {
        p.name: p.read_bytes() for p in ours.iterdir()
    }
