"""Running stages: resuming after any death, quarantine, other settings, full disks, two runs at once."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from mtadiffusion.annotate import run
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.data import files
from mtadiffusion.data.dataset import Dataset, writing
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError

from .stages import Brightness, contents, reports_of


def annotated(root, source, stages, workers=0):
    """Run the stages here or in workers; their reports by name."""
    return reports_of(root, source, stages, Local(workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_run_makes_nothing_anew(make_tars, tmp_path, workers):
    source, stages = make_tars(), [Index(), Filters(), Brightness()]
    first = annotated(tmp_path / "ds", source, stages, workers)
    assert [(r.made, r.reused) for r in first.values()] == [(3, 0)] * 3
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "ds").rglob("*.parquet")}
    second = annotated(tmp_path / "ds", source, stages, workers)
    assert [(r.made, r.reused) for r in second.values()] == [(0, 3)] * 3
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "ds").rglob("*.parquet")}


def test_workers_make_the_same_tables(make_tars, tmp_path):
    source, stages = make_tars(), [Index(), Filters(), Brightness()]
    annotated(tmp_path / "one", source, stages)
    annotated(tmp_path / "two", source, stages, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_setting_makes_another_table_beside_the_old_one(make_tars, tmp_path):
    source = make_tars()
    old = annotated(tmp_path / "ds", source, [Index(), Brightness()])["brightness"].table
    new = annotated(tmp_path / "ds", source, [Index(), Brightness(longest=8)])["brightness"].table
    assert old.key != new.key
    assert old.has(0)
    assert Dataset.open(tmp_path / "ds").table("brightness") == new


def test_a_faulty_shard_is_quarantined_and_the_rest_goes_on(make_tars, tmp_path):
    source = make_tars()
    report = annotated(tmp_path / "ds", source, [Index(), Brightness(faulty_shard=1)])["brightness"]
    assert report.made == 2
    assert "cannot do this one" in report.failed[1]
    mended = annotated(tmp_path / "ds", source, [Index(), Brightness()])["brightness"]
    assert (mended.made, mended.reused, mended.failed) == (1, 2, {})


def test_a_stage_waits_for_no_shard_that_its_inputs_lack(make_tars, tmp_path):
    @dataclass(kw_only=True)
    class After(Brightness):
        name: ClassVar[str] = "after"
        reads: ClassVar[tuple[str, ...]] = ("index", "brightness")

    stages = [Index(), Brightness(faulty_shard=0), After()]
    reports = annotated(tmp_path / "ds", make_tars(), stages)
    assert reports["after"].made == 2


def test_a_worker_that_is_killed_costs_its_own_shard_only(make_tars, tmp_path):
    stages = [Index(), Brightness(deadly_shard=1)]
    report = annotated(tmp_path / "ds", make_tars(), stages, workers=2)["brightness"]
    assert report.made == 2
    assert report.failed == {1: "the worker died"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_model_that_cannot_be_loaded_is_one_line(make_tars, tmp_path, workers):
    with pytest.raises(UserError, match=r"^brightness cannot be set up; no such model$"):
        annotated(tmp_path / "ds", make_tars(), [Index(), Brightness(broken=True)], workers)
    assert Dataset.open(tmp_path / "ds").table("index").absent(3) == []


def test_a_full_disk_s_error_travels_between_processes(tmp_path):
    error = pickle.loads(pickle.dumps(files.DiskFullError(tmp_path)))
    assert isinstance(error, files.DiskFullError)
    assert str(error) == str(files.DiskFullError(tmp_path))
    assert error.argument == "--out"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_the_run_in_one_line_and_leaves_nothing_unfinished(
    make_tars, tmp_path, monkeypatch, code
):
    source = make_tars()
    annotated(tmp_path / "ds", source, [Index()])

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        annotated(tmp_path / "ds", source, [Brightness()])
    monkeypatch.undo()
    assert not list((tmp_path / "ds").rglob("*.partial"))
    assert annotated(tmp_path / "ds", source, [Index(), Brightness()])["brightness"].made == 3


def test_a_second_run_at_once_is_refused(tmp_path):
    root, refused = tmp_path / "ds", pytest.raises(UserError, match="being written by another run")
    with writing(root), refused, writing(root):
        pass
    with writing(root):
        pass


RUN = """
import sys
from pathlib import Path
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.engines.local import Local
from mtadiffusion.data.dataset import Dataset, writing

root, source = Path(sys.argv[1]), sys.argv[2]
print("begun", flush=True)
with writing(root):
    run_stages(Dataset.open_or_plan(root, source, 2), [Index(), Filters()], Local())
"""


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_tables(make_tars, tmp_path, share):
    source = make_tars(tars=12, samples=6)
    command = [sys.executable, "-c", RUN]
    started = time.monotonic()
    subprocess.run([*command, tmp_path / "whole", source], check=True, capture_output=True)
    seconds = time.monotonic() - started

    process = subprocess.Popen(
        [*command, tmp_path / "cut", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(share * seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    subprocess.run([*command, tmp_path / "cut", source], check=True, capture_output=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_errors_of_a_shard_name_their_cause(make_tars, tmp_path):
    table = annotated(tmp_path / "ds", make_tars(), [Index(), Brightness(faulty_shard=2)])["brightness"].table
    failure = json.loads(table.failure_path(2).read_text())
    assert failure["attempts"] == run.ATTEMPTS
    assert failure["error"].startswith("Traceback")
