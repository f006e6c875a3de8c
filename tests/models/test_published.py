"""Weights that others publish: found in a folder or the cache, fetched, or reported with what to fetch."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch

from mtadiffusion.errors import UserError
from mtadiffusion.models.hub import file_digest
from mtadiffusion.models.published import HubFolder, WebFile


def hub(name: str) -> HubFolder:
    return HubFolder(name=name, files=("config.json", "*.safetensors"), argument="x.model")


def web(path: str | None = None) -> WebFile:
    return WebFile(url="https://example.org/x.pth", saved_as="x.pth", path=path, argument="x.file")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_whole_folder_is_taken_as_it_is(whole: Path) -> None:
    assert hub(str(whole)).fetched() == whole


def test_a_folder_that_lacks_a_file_is_told_which(whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"x\.model must be a folder that holds \*\.safetensors"):
        hub(str(whole)).fetched()
    assert hub(str(whole)).digest() is None


def test_the_digest_is_of_all_files_contents(whole: Path) -> None:
    before = hub(str(whole)).digest()
    (whole / "notes.txt").write_text("not needed")
    assert hub(str(whole)).digest() == before
    (whole / "config.json").write_text("[]")
    assert hub(str(whole)).digest() != before


def test_an_incomplete_cache_is_completed_from_the_hub(whole: Path, tmp_path: Path, monkeypatch) -> None:
    part = tmp_path / "part"
    part.mkdir()

    def snapshot(_name: str, **options: object) -> str:
        return str(part if options.get("local_files_only") else whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert hub("someone/model").present() is None
    assert hub("someone/model").fetched() == whole


def test_a_name_that_the_hub_does_not_know_is_the_users_mistake(monkeypatch) -> None:
    def unknown(*_args: object, **_options: object) -> str:
        raise huggingface_hub.errors.HFValidationError("no such form")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unknown)
    with pytest.raises(UserError, match="neither a folder here nor a public model of the hub"):
        hub("no model/at all").fetched()


def test_a_file_from_the_web_is_fetched_once(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def download(url: str, place: str) -> None:
        asked.append(url)
        Path(place).write_bytes(b"x")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert web().digest() is None
    assert web().fetched() == web().fetched() == tmp_path / "checkpoints" / "x.pth"
    assert asked == ["https://example.org/x.pth"]
    assert web().digest() == file_digest(tmp_path / "checkpoints" / "x.pth")


def test_the_users_own_file_is_never_replaced_by_a_download(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.file must be a file, got .*published at https://example"):
        web(str(tmp_path / "absent.pth")).fetched()
