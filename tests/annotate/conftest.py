"""Small pictures in every kind of source."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.annotate.describe import TextLimit
from mtadiffusion.seeding import numpy_generator

from .tiny_models import save_clip, save_grounding_dino, save_llava, save_sam


def encoded(number: int, size: tuple[int, int] = (96, 64), form: str = "JPEG") -> bytes:
    """A picture of coarse noise; another number is another picture."""
    coarse = numpy_generator(0, "picture", number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, form)
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of the members in their order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven pictures in two folders, with captions beside some."""
    root = tmp_path / "pictures"
    (root / "inner").mkdir(parents=True)
    for number in range(7):
        place = root / ("inner" if number % 2 else "") / f"p{number}.jpg"
        place.write_bytes(encoded(number))
    (root / "p0.txt").write_text("a first picture\n")
    (root / "inner/p1.json").write_text(json.dumps({"caption": "a second", "aesthetic_score": 6.5}))
    return root


@pytest.fixture
def make_tars(tmp_path) -> Callable[..., Path]:
    """Writes img2dataset-like tars of some samples each."""

    def make(tars: int = 3, samples: int = 4) -> Path:
        root = tmp_path / "tars"
        root.mkdir()
        for t in range(tars):
            members = []
            for s in range(samples):
                key, fields = f"{t:05d}{s:04d}", {"caption": f"picture {t} {s}", "NSFW": "UNLIKELY"}
                members += [
                    (f"{key}.jpg", encoded(t * samples + s)),
                    (f"{key}.txt", fields["caption"].encode()),
                    (f"{key}.json", json.dumps(fields).encode()),
                ]
            write_tar(root / f"{t:05d}.tar", members)
        return root

    return make


@pytest.fixture(scope="session")
def grounding_dino(tmp_path_factory) -> Path:
    """The folder of a tiny GroundingDINO."""
    return save_grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="session")
def sam(tmp_path_factory) -> Path:
    """The folder of a tiny SAM."""
    return save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def llava(tmp_path_factory) -> Path:
    """The folder of a tiny LLaVA."""
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def limit(tokenizer, tmp_path) -> TextLimit:
    """77 tokens of the tiny backbone's tokenizer."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return TextLimit(tokenizer=str(tmp_path / "tokenizer"), tokens=77)


@pytest.fixture
def clip(tokenizer, tmp_path) -> Path:
    """The folder of a tiny CLIP."""
    return save_clip(tmp_path / "clip", tokenizer)
