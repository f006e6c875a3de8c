"""`make loop` at a scale of seconds: from pictures to inpainting through our own annotations."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.records import DatasetRecords

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_loop_goes_from_pictures_to_inpainting(tmp_path):
    command = ["make", "loop", "--old-file", ".venv/.ready", f"BIN={Path(sys.executable).parent}"]
    scale = [f"LOOP={tmp_path}", "SCENES=24", "STEPS=2", "SHOWN=1"]
    subprocess.run([*command, *scale], cwd=ROOT, check=True, capture_output=True)
    records = DatasetRecords(tmp_path / "dataset", split="train")
    first = records.record(0)
    assert first.objects
    assert first.caption
    assert Dataset.open(tmp_path / "dataset").table("descriptions").absent(1) == []
    assert (tmp_path / "demo" / "index.html").exists()
