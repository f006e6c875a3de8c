"""Tiny random models in the layouts in which the real ones are published; no hub, no web."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import CLIPTokenizer

from ...annotate.tiny_models import save_clip


@pytest.fixture
def clip_folder(tmp_path: Path, tokenizer: CLIPTokenizer) -> Path:
    """A CLIP of transformers' layout with pictures of 32 pixels, its vectors of 16 numbers."""
    return save_clip(tmp_path / "clip", tokenizer)


@pytest.fixture
def words_folder(tmp_path: Path, tokenizer: CLIPTokenizer) -> Path:
    """CLIP's tokenizer alone."""
    tokenizer.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and no way to the hub or the web."""

    def unreachable(*_args: object, **options: object) -> str:
        if options.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        raise ConnectionError("network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
