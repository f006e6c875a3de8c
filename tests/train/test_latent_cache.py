"""The cache against encoding at every visit, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from mtadiffusion.config import TrainConfig
from mtadiffusion.train.dataset import TrainingSamples
from mtadiffusion.train.latent_cache import (
    CachedBatches,
    EncodedBatches,
    LatentCache,
    LatentEncoder,
    PromptEncoder,
    cache_fingerprint,
    fill_cache,
    filled_cache,
)
from mtadiffusion.train.setup import load_backbone

from .conftest import Shapes, changed


@pytest.fixture
def backbone(config: TrainConfig):  # type: ignore[no-untyped-def]
    return load_backbone(config.backbone, "cpu")


def text_encoder(backbone, dtype: torch.dtype, limit_mb: int = 64) -> PromptEncoder:  # type: ignore[no-untyped-def]
    return PromptEncoder(backbone.text_encoder, backbone.tokenizer, limit_mb, dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
@pytest.mark.parametrize("workers", [0])
def test_cached_and_uncached_batches_are_the_same(
    config: TrainConfig,
    backbone,
    dtype: str,
    tolerance: float,
    workers: int,  # type: ignore[no-untyped-def]
) -> None:
    data = changed(config.data, cache_dtype=dtype, encode_batch=3, empty_prompt=0.3, workers=workers)
    samples, encoder = TrainingSamples(Shapes(count=7), data, 5), LatentEncoder(vae=backbone.vae)
    cache = fill_cache(samples, encoder)
    remembered = text_encoder(backbone, getattr(torch, dtype))
    remembered.remember(cache.unique_prompts())
    cached = CachedBatches(samples, cache, remembered, 0.3)
    fresh = EncodedBatches(samples, encoder, text_encoder(backbone, torch.float32), 0.3)
    for numbers in ([0, 1, 2, 3], [9, 6, 20]):
        one, other = cached.batch(numbers), fresh.batch(numbers)
        assert one.latents.shape == (len(numbers), 4, 16, 16)
        for name, value in vars(one).items():
            torch.testing.assert_close(value, getattr(other, name), rtol=tolerance, atol=tolerance, msg=name)


def test_workers_render_the_same_records_in_order(config: TrainConfig, backbone) -> None:  # type: ignore[no-untyped-def]
    from mtadiffusion.stickers.scenes import SceneWorld  # importable by a worker, unlike a test's class

    caches = []
    for workers in (0, 1):
        data = changed(config.data, encode_batch=2, workers=workers, records=5)
        samples = TrainingSamples(SceneWorld(length=5), data, 5)
        caches.append(fill_cache(samples, LatentEncoder(vae=backbone.vae)))
    assert caches[0].prompts == caches[1].prompts
    assert torch.equal(caches[0].masked_latents, caches[1].masked_latents)


def test_cache_file_is_read_again_only_for_the_same_things(
    config: TrainConfig,
    backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    samples, encoder = TrainingSamples(Shapes(), config.data, 5), LatentEncoder(vae=backbone.vae)
    path = tmp_path / "cache.safetensors"
    first = filled_cache(config, samples, encoder, path)
    assert [item.name for item in tmp_path.iterdir()] == ["cache.safetensors"]
    with monkeypatch.context() as patched:
        patched.setattr("mtadiffusion.train.latent_cache.fill_cache", None)
        again = filled_cache(config, samples, encoder, path)
    assert again.prompts == first.prompts
    assert torch.equal(again.known, first.known)
    for other in (
        changed(config, data={"holes": {"boxed": 3.0}}),
        changed(config, branch={"hole_fill": "grey"}),
        changed(config, loss={"edge_target": "other"}),
        changed(config, loss={"edge_downsampling": "max"}),
    ):
        assert LatentCache.load(path, cache_fingerprint(other, samples, backbone.vae)) is None
    more_workers = changed(config, data={"workers": 2, "empty_prompt": 0.5})
    assert LatentCache.load(path, cache_fingerprint(more_workers, samples, backbone.vae)) is not None
    with torch.no_grad():
        next(backbone.vae.parameters()).add_(1)
    assert LatentCache.load(path, cache_fingerprint(config, samples, backbone.vae)) is None


def test_prompts_beyond_the_memory_allowed_are_encoded_when_asked_for(backbone) -> None:  # type: ignore[no-untyped-def]
    small, large = text_encoder(backbone, torch.float32, 0), text_encoder(backbone, torch.float32)
    small.remember(["a", "b"])
    large.remember(["a", "b"])
    assert not small._rows
    assert set(large._rows) == {"", "a", "b"}
    torch.testing.assert_close(small(["b", "", "a"]), large(["b", "", "a"]), rtol=1e-5, atol=1e-5)
    assert large(["another"]).shape == (1, 24, 16)


def test_text_states_equal_the_stock_pipelines(backbone) -> None:  # type: ignore[no-untyped-def]
    parts = vars(backbone)
    stock = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    expected, _ = stock.encode_prompt("a red apple", "cpu", 1, False)
    assert torch.equal(text_encoder(backbone, torch.float32)(["a red apple"]), expected)
