"""Digests of weights, wherever they lie, and what is said of a hub that does not answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.models import hub
from mtadiffusion.models.hub import cached_folder, fetched_folder, file_digest, weights_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("unet", "extra"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_digest_is_of_contents_and_names_of_the_parts_that_are_loaded(folder: Path) -> None:
    before = weights_digest(folder, ("unet",))
    assert weights_digest(folder, ("unet", "extra")) != before
    (folder / "extra" / "model.safetensors").write_bytes(b"others")
    (folder / "unet" / "model.fp16.safetensors").write_bytes(b"a variant that is not loaded")
    (folder / "unet" / "picture.png").write_bytes(b"of the model card")
    assert weights_digest(folder, ("unet",)) == before
    (folder / "unet" / "config.json").write_text("[]")
    assert weights_digest(folder, ("unet",)) != before


def test_a_variant_alone_counts_and_so_does_a_file_as_a_part(folder: Path) -> None:
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "model.fp16.safetensors")
    before = weights_digest(folder, ("unet", "index.json"))
    (folder / "index.json").write_text("{}")
    beside = weights_digest(folder, ("unet", "index.json"))
    assert before != beside
    (folder / "unet" / "model.fp16.safetensors").write_bytes(b"others")
    assert weights_digest(folder, ("unet", "index.json")) not in (before, beside)


def test_a_renamed_file_is_another_weights_digest(folder: Path) -> None:
    before = weights_digest(folder, ("unet",))
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "other.safetensors")
    assert weights_digest(folder, ("unet",)) != before


def test_a_file_is_digested_by_its_content(folder: Path) -> None:
    one, other = folder / "unet" / "model.safetensors", folder / "extra" / "model.safetensors"
    assert weights_digest(one) == weights_digest(other) != weights_digest(folder / "unet" / "config.json")


def test_an_unchanged_file_is_read_once(folder: Path) -> None:
    weights_digest(folder, ("unet",))
    missed = hub._content_digest.cache_info().misses
    weights_digest(folder, ("unet",))
    assert hub._content_digest.cache_info().misses == missed
    (folder / "unet" / "model.safetensors").write_bytes(b"longer weights")
    weights_digest(folder, ("unet",))
    assert hub._content_digest.cache_info().misses == missed + 1


@pytest.mark.parametrize("name", [hashlib.sha256(b"weights").hexdigest(), "0" * 40])
def test_a_file_of_the_hubs_cache_has_the_digest_of_its_content(tmp_path: Path, name: str) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / name).write_bytes(b"weights")  # small files are named by git's hash
    (tmp_path / "link").symlink_to(tmp_path / "blobs" / name)
    (tmp_path / "copy").write_bytes(b"weights")
    assert file_digest(tmp_path / "link") == file_digest(tmp_path / "copy")


def test_large_files_of_the_hubs_cache_are_not_read(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    assert file_digest(blob) == "ab" * 32


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no network"), r"out of reach, got 'a/one'; where .*--include 'x' --local-dir"),
        (huggingface_hub.errors.HFValidationError("no"), r"nor a public model of the hub, got 'a/one'"),
    ],
)
def test_what_cannot_be_fetched_is_the_users_to_fetch(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=message):
        fetched_folder("a/one", ["x"], "--model")
    with pytest.raises(UserError, match="did you mean 'a/ones'"):
        fetched_folder("a/one", ["x"], "--model", ["a/ones"])


def test_a_folder_that_is_not_in_the_cache_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_arguments: object, **options: object) -> None:
        assert options["local_files_only"]
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    assert cached_folder("a/one", ["x"]) is None
