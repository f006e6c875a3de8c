"""Where weights lie, and whether they are all there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.weights import check_files, check_named, find_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("name", ["", "./missing", "~/missing/folder", "/missing", "a/b/c"])
def test_a_path_that_is_not_there_is_named_without_a_network(name: str) -> None:
    with pytest.raises(UserError, match="flux-fill:model must be an existing folder"):
        check_named(name, "flux-fill:model")


def test_folders_and_hub_ids_may_be_named(folder: Path) -> None:
    check_named(str(folder), "x")
    check_named("owner/name", "x")
    assert find_folder(str(folder), "x", ()) == folder


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        UserError, match=r"x is not on this machine, and the hub is out of reach.*hf download owner/name"
    ):
        find_folder("owner/name", "x", ("*",))


def test_the_first_missing_file_is_named(folder: Path) -> None:
    check_files(folder, ("unet/config.json",), "x")
    with pytest.raises(UserError, match=r"x lacks vae/config\.json"):
        check_files(folder, ("unet/config.json", "vae/config.json"), "x")
