"""`mta train cache`: from a dataset's export to a run that reads nothing but the cache."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.cli import main
from mtadiffusion.data import coded, exported, records
from mtadiffusion.data.tars import Packer
from mtadiffusion.imaging.masks import mask_box, mask_to_coco
from mtadiffusion.stickers.scenes import SceneWorld
from mtadiffusion.train.encoding import LatentEncoder, PromptEncoder


def write_shards(folder: Path, shards: int = 3, each: int = 4) -> Path:
    """Sticker scenes of several shapes in the form of `mta data export --format webdataset`."""
    folder.mkdir()
    for shard in range(shards):
        with (folder / f"shard-{shard:06d}.tar").open("wb") as file:
            packer = Packer(file)
            for number in range(each):
                picture, facts = sample(shard * each + number)
                packer.add(f"{shard:06d}{number:06d}.png", picture)
                packer.add(f"{shard:06d}{number:06d}.json", json.dumps(facts).encode())
            packer.close()
    return folder


def sample(index: int) -> tuple[bytes, dict[str, Any]]:
    record = SceneWorld(size=64).record(index)
    rows = slice(0, 64 if index % 2 else 48)
    objects = [
        {
            "label": item.label,
            "score": 1.0,
            "box_xyxy": list(mask_box(item.mask[rows])),
            "segmentation": mask_to_coco(item.mask[rows]),
            "area": int(item.mask[rows].sum()),
            "description": item.description,
        }
        for item in record.objects
        if item.mask[rows].any()
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(record.image[rows])).save(buffer, "PNG")
    return buffer.getvalue(), {"image_id": record.image_id, "caption": record.caption, "objects": objects}


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "VALIDATION", 0.25)
    exported._facts.cache_clear()
    return write_shards(tmp_path / "shards")


CHANGES = ["--set", "data.records=0", "--set", "validation.images=0", "--set", "validation.samples=2"]
BUCKETS = ["--set", "data.max_aspect=1.5", "--set", "data.bucket_step=16", "--set", "batch_size=2"]


def test_a_run_on_a_cache_decodes_and_encodes_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--recipe",
        "debug",
        "--data",
        str(shards),
        *CHANGES,
        *BUCKETS,
        "--set",
        "data.holes_per_object=2",
    ]
    cache = tmp_path / "cache"
    assert main(["train", "cache", *words, "--out", str(cache), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["train"]["records"] + report["validation"]["records"] <= 12
    assert report["train"]["variants"] > 4 * report["train"]["records"] - 4

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cached run has no need of this")

    monkeypatch.setattr(LatentEncoder, "image", refuse)
    monkeypatch.setattr(PromptEncoder, "__call__", refuse)
    monkeypatch.setattr(exported.ExportedRecords, "coded", refuse)
    monkeypatch.setattr(coded, "decode_reduced", refuse)
    words = [*words, "--set", f"data.cache_dir={cache}", "--set", "steps=2", "--set", "validation.every=2"]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/branch/config.json").is_file()


def test_an_options_absence_and_anothers_cache_take_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: --recipe is missing; see --help\n"
    words = [
        "train",
        "cache",
        "--recipe",
        "debug",
        "--data",
        str(shards),
        *CHANGES,
        "--out",
        str(tmp_path / "c"),
    ]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--set", "data.size=80"]) == 2
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("error"))
    assert "data.cache_dir was made with another crop policy (size 64 there, 80 here)" in line
    assert main([*words, "--set", "data.size=72"]) == 2
    assert "data.size must be a multiple of 16, got 72" in capsys.readouterr().err
