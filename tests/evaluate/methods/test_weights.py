"""Where weights lie, and digests of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods import weights
from mtadiffusion.evaluate.methods.weights import check_files, check_named, digest, find_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("unet", "extra"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_digest_is_of_contents_and_names_of_the_parts_that_are_loaded(folder: Path) -> None:
    before = digest(folder, ("unet",))
    assert digest(folder, ("unet", "extra")) != before
    (folder / "extra" / "model.safetensors").write_bytes(b"others")
    (folder / "unet" / "model.fp16.safetensors").write_bytes(b"a variant that is not loaded")
    (folder / "unet" / "picture.png").write_bytes(b"of the model card")
    assert digest(folder, ("unet",)) == before
    (folder / "unet" / "config.json").write_text("[]")
    assert digest(folder, ("unet",)) != before


def test_a_variant_alone_counts_and_so_does_a_file_as_a_part(folder: Path) -> None:
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "model.fp16.safetensors")
    before = digest(folder, ("unet", "index.json"))
    (folder / "index.json").write_text("{}")
    beside = digest(folder, ("unet", "index.json"))
    assert before != beside
    (folder / "unet" / "model.fp16.safetensors").write_bytes(b"others")
    assert digest(folder, ("unet", "index.json")) not in (before, beside)


def test_a_renamed_file_is_another_digest(folder: Path) -> None:
    before = digest(folder, ("unet",))
    (folder / "unet" / "model.safetensors").rename(folder / "unet" / "other.safetensors")
    assert digest(folder, ("unet",)) != before


def test_a_file_is_digested_by_its_content(folder: Path) -> None:
    one, other = folder / "unet" / "model.safetensors", folder / "extra" / "model.safetensors"
    assert digest(one) == digest(other) != digest(folder / "unet" / "config.json")


def test_an_unchanged_file_is_read_once(folder: Path) -> None:
    digest(folder, ("unet",))
    missed = weights._content_digest.cache_info().misses
    digest(folder, ("unet",))
    assert weights._content_digest.cache_info().misses == missed
    (folder / "unet" / "model.safetensors").write_bytes(b"longer weights")
    digest(folder, ("unet",))
    assert weights._content_digest.cache_info().misses == missed + 1


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
        UserError, match=r"neither a folder here nor a model of the hub.*hf download owner/name"
    ):
        find_folder("owner/name", "x", ("*",))


def test_the_first_missing_file_is_named(folder: Path) -> None:
    check_files(folder, ("unet/config.json",), "x")
    with pytest.raises(UserError, match=r"x lacks vae/config\.json"):
        check_files(folder, ("unet/config.json", "vae/config.json"), "x")
