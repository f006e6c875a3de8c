"""`mta train` in the hands of somebody who gets it all wrong: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mtadiffusion.cli import main
from mtadiffusion.data import exported, records
from mtadiffusion.data.tars import Packer

from .test_train_cache_command import sample, write_shards

QUICK = (
    "steps=1",
    "validation.every=0",
    "data.records=0",
    "loss.delta=0",
    "data.cache=false",
    "batch_size=2",
)


@pytest.fixture(autouse=True)
def several_records_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "VALIDATION", 0.25)
    exported._facts.cache_clear()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


def words(data: Path, out: Path, *changes: str) -> list[str]:
    settings = [word for change in (*QUICK, *changes) for word in ("--set", change)]
    return ["train", "--recipe", "debug", "--data", str(data), "--out", str(out), *settings]


def refusal(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert main(command) == 2
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("error"))
    return line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.size=72"], "data.size must be a multiple of 16, got 72"),
        (["data.max_aspect=2", "data.bucket_step=24"], "data.bucket_step must be a multiple of 16, got 24"),
        (["device=toaster"], "device is not available on this machine, got 'toaster'"),
        (["loss.edge_target=sobl"], "loss.edge_target is unknown, got 'sobl'; did you mean 'sobel'?"),
        (["loss.gamma=inf"], "loss.gamma must be at least 0, got inf"),
        (
            ["loss.delta=1", "style_vgg.initialise=folded", "style_vgg.weights=absent"],
            "style_vgg.weights must",
        ),
        (
            ["loss.delta=0", "loss.perceptual=1", "style_vgg.initialise=folded", "style_vgg.weights=absent"],
            "style_vgg.weights must",
        ),
        (["loss.perceptual=-1"], "loss.perceptual must be at least 0, got -1"),
        (["branch.start_from=./absent"], "branch.start_from must be an existing folder"),
        (["backbone=./absent"], "backbone must be an existing folder"),
        (
            ["data.cache_dir=absent"],
            "data.cache_dir must be the folder of a latent cache, got 'absent'; make it",
        ),
    ],
)
def test_a_setting_that_cannot_be_leaves_no_run(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    assert message in refusal(capsys, words(shards, tmp_path / "run", *changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_named(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = "device is not available on this machine, got 'cuda'"
    assert expected in refusal(capsys, words(shards, tmp_path / "run", "device=cuda"))
    cache = ["train", "cache", "--recipe", "debug", "--data", str(shards), "--set", "device=cuda"]
    assert expected in refusal(capsys, [*cache, "--out", str(tmp_path / "cache")])
    assert not (tmp_path / "cache").exists()


def one_shard(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    with (folder / "shard-000000.tar").open("wb") as file:
        packer = Packer(file)
        for index in range(4):
            picture, facts = sample(index)
            facts["objects"] = [{**item, **changes} for item in facts["objects"]]
            packer.add(f"{index}.png", picture)
            packer.add(f"{index}.json", json.dumps(facts).encode())
        packer.close()
    return folder


def test_data_that_cannot_be_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "shard-000000.tar").write_bytes(b"junk" * 5000)
    for data, message in (
        (tmp_path / "empty", "data.source must be a dataset, or a folder of exported shards"),
        (tmp_path / "junk", "has more than data.max_damaged=0.25 of its shards damaged"),
        (one_shard(tmp_path / "null", description=None), "has a sample whose description is None"),
    ):
        assert message in refusal(capsys, words(data, tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_a_strange_cache_and_a_damaged_checkpoint_are_refused_and_stay(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = tmp_path / "cache" / "train" / "cache.json"
    facts.parent.mkdir(parents=True)
    for content in ("{}", "[]", "{"):
        facts.write_text(content)
        line = refusal(capsys, words(shards, tmp_path / "run", f"data.cache_dir={tmp_path / 'cache'}"))
        assert "data.cache_dir has a damaged cache.json" in line
    run = tmp_path / "run"
    assert main(words(shards, run)) == 0
    (checkpoint,) = (run / "checkpoints").iterdir()
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (copy / "optimizer.safetensors").write_bytes(b"junk")
    for content in (None, "{}", "{"):
        if content is not None:
            (copy / "state.json").write_text(content)
        line = refusal(capsys, [*words(shards, tmp_path / "other"), "--resume", str(copy)])
        assert "--resume has a checkpoint that cannot be read" in line
    refusal(capsys, [*words(shards, run, "data.size=72"), "--fresh"])
    assert checkpoint.is_dir()
    assert json.loads((run / "config.json").read_text())["data"]["size"] == 64
