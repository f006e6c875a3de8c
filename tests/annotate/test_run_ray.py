"""Running stages on Ray: the same tables as here, deaths of workers, errors that stop a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.cli import main
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.local import Local
from mtadiffusion.engines.on_ray import OnRay, connected
from mtadiffusion.errors import UserError

from .stages import Brightness, contents, reports_of


@pytest.fixture(scope="module")
def cluster():
    """Ray with two CPUs on this machine."""
    pytest.importorskip("ray", reason="needs the package ray")
    with connected(cpus=2):
        yield


def test_ray_makes_the_same_tables_as_this_process(cluster, make_tars, tmp_path):
    source, stages = make_tars(), [Index(), Filters(), Brightness()]
    reports_of(tmp_path / "here", source, stages, Local())
    reports_of(tmp_path / "ray", source, stages, OnRay(workers=2))
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def test_a_second_run_makes_nothing_anew(cluster, make_tars, tmp_path):
    source, stages = make_tars(), [Index(), Brightness()]
    reports_of(tmp_path / "ds", source, stages, OnRay())
    second = reports_of(tmp_path / "ds", source, stages, OnRay())
    assert [(r.made, r.reused) for r in second.values()] == [(0, 3)] * 2


def test_a_faulty_shard_is_quarantined_and_the_rest_goes_on(cluster, make_tars, tmp_path):
    stages = [Index(), Brightness(faulty_shard=1)]
    report = reports_of(tmp_path / "ds", make_tars(), stages, OnRay(workers=1))["brightness"]
    assert report.made == 2
    assert "cannot do this one" in report.failed[1]


def test_a_shard_that_kills_its_workers_is_quarantined_and_the_rest_goes_on(cluster, make_tars, tmp_path):
    stages = [Index(), Brightness(deadly_shard=1)]
    report = reports_of(tmp_path / "ds", make_tars(), stages, OnRay(workers=1))["brightness"]
    assert report.made == 2
    assert report.failed == {1: "the worker died"}


def test_a_model_that_cannot_be_loaded_is_one_line(cluster, make_tars, tmp_path):
    with pytest.raises(UserError, match=r"^brightness cannot be set up; no such model$"):
        reports_of(tmp_path / "ds", make_tars(), [Index(), Brightness(broken=True)], OnRay())
    assert Dataset.open(tmp_path / "ds").table("index").absent(3) == []


def test_the_command_runs_on_the_cluster_at_an_address(cluster, folder, tmp_path):
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [Path(sys.executable).with_name("mta"), "annotate", folder, "--out", tmp_path / "ds"]
    where = ["--executor", "ray", "--ray-address", address]
    what = ["--stages", "index,filters", "--shard-size", "4"]
    done = subprocess.run([*command, *where, *what], capture_output=True, text=True, check=True)
    assert "index" in done.stdout
    assert Dataset.open(tmp_path / "ds").table("filters").absent(2) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "slurm"], "--executor must be local or ray"),
        (["--ray-address", "auto"], "--ray-address goes with --executor ray"),
    ],
)
def test_executors_that_cannot_be_are_one_line(folder, tmp_path, capsys, words, message):
    assert main(["annotate", str(folder), "--out", str(tmp_path / "ds"), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"mtadiffusion\[ray\]"), connected():
        pass
