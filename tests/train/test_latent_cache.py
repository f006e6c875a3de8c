"""The cache against encoding at every visit, its shards, and what becomes of damaged ones."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.train import latent_cache
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.batches import CachedBatches, EncodedBatches
from mtadiffusion.train.cache_files import DamagedShardError, open_shard
from mtadiffusion.train.dataset import TrainingSamples
from mtadiffusion.train.encoding import build_encoders
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.latent_cache import LatentCache, cache_facts, filled_cache

from .conftest import Shapes, changed
from .test_dataset import Altered


@pytest.fixture(autouse=True)
def closed_shards() -> None:
    open_shard.cache_clear()


@pytest.fixture
def encoders(config: TrainConfig) -> Any:
    return partial(build_encoders, Backbone(config, "cpu"), config)


def of_shapes(config: TrainConfig, count: int = 7, **data: Any) -> tuple[TrainConfig, TrainingSamples]:
    config = changed(config, data={"shard_records": 3, "records": 0, **data})
    return config, TrainingSamples(Shapes(count=count), config.data, 5)


def filled(config: TrainConfig, samples: TrainingSamples, folder: Path, encoders: Any) -> LatentCache:
    return filled_cache(changed(config, data={"cache_dir": str(folder)}), samples, folder, encoders)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        ({"cache_dtype": "float32"}, 1e-5),
        ({"cache_dtype": "float16"}, 2e-3),
        ({"cache_dtype": "float32", "posterior": "sample", "holes_per_object": 2}, 1e-5),
    ],
)
def test_cached_and_uncached_batches_are_the_same(
    config: TrainConfig, encoders: Any, tmp_path: Path, data: dict[str, Any], tolerance: float
) -> None:
    config, samples = of_shapes(config, encode_batch=2, **data)
    cached = CachedBatches(samples, filled(config, samples, tmp_path, encoders), 0.3)
    fresh = EncodedBatches(samples, *encoders(Faults(7, 0)), 0.3)
    for numbers in ([0, 1, 2, 3], [9, 6, 20]):
        one, other = cached.batch(numbers), fresh.batch(numbers)
        assert one.latents.shape == (len(numbers), 4, 16, 16)
        assert one.pooled_text is None
        assert other.pooled_text is None
        for name, value in vars(one).items():
            if value is not None:
                torch.testing.assert_close(
                    value, getattr(other, name), rtol=tolerance, atol=tolerance, msg=name
                )


def test_a_sampled_posterior_differs_at_every_visit_and_not_from_itself(
    config: TrainConfig, encoders: Any, tmp_path: Path
) -> None:
    config, samples = of_shapes(config, count=1, posterior="sample")
    batches = CachedBatches(samples, filled(config, samples, tmp_path, encoders), 0.0)
    first, second = batches.batch([0]).latents, batches.batch([1]).latents
    assert not torch.equal(first, second)
    assert torch.equal(first, batches.batch([0]).latents)


def test_calibration_pictures_are_those_of_the_uncached_run(
    config: TrainConfig, encoders: Any, tmp_path: Path
) -> None:
    from mtadiffusion.train.batches import encoded_pictures

    config, samples = of_shapes(config, cache_dtype="float32")
    cache = filled(config, samples, tmp_path, encoders)
    fresh = encoded_pictures(samples, encoders(Faults(7, 0))[0], 4)
    for one, other in zip(cache.pictures(4), fresh, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_killed_filling_goes_on_with_the_shards_that_are_absent(
    config: TrainConfig, encoders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, samples = of_shapes(config)
    write, written = latent_cache.CacheFiller.write, []

    def dying(self: Any, path: Path, records: Any) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path.name)
        write(self, path, records)

    with monkeypatch.context() as patch:
        patch.setattr(latent_cache.CacheFiller, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            filled(config, samples, tmp_path, encoders)
    kept = (tmp_path / written[0]).stat().st_mtime_ns
    facts = cache_facts(config, samples)
    cache = LatentCache(tmp_path, samples, facts)
    assert cache.absent() == [1, 2]
    report = cache.fill(encoders)
    assert (report.made, report.records, report.variants) == (2, 7, 14)
    assert (tmp_path / written[0]).stat().st_mtime_ns == kept
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [
        "cache.json",
        *(f"shard-{shard:06d}.safetensors" for shard in range(3)),
    ]

    def not_asked(faults: Faults) -> Any:
        raise AssertionError("nothing is left to encode")

    assert cache.fill(not_asked).made == 0


def test_a_shard_in_another_process_hands_is_left_to_it(
    config: TrainConfig, encoders: Any, tmp_path: Path
) -> None:
    config, samples = of_shapes(config)
    cache = LatentCache(tmp_path, samples, cache_facts(config, samples))
    holding = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / f".{cache.path(0).name}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        filler = latent_cache.CacheFiller(samples, encoders)
        assert [cache._make(shard, filler, 0) for shard in range(3)] == [False, True, True]
        other.communicate()
    assert cache.fill(encoders).made == 1


def test_a_cache_of_something_else_is_refused_and_says_what_differs(
    config: TrainConfig, encoders: Any, tmp_path: Path
) -> None:
    config, samples = of_shapes(config, count=3)
    filled(config, samples, tmp_path, encoders)
    for other, named in (
        (changed(config, data={"holes": {"min_visible": 0.9}}), r"crop policy \(holes"),
        (changed(config, branch={"hole_fill": "grey"}), r"conditioning \(hole_fill black there, grey here"),
        (changed(config, loss={"edge_downsampling": "max"}), r"edges \(downsampling area there, max here"),
    ):
        with pytest.raises(UserError, match=rf"data\.cache_dir was made with another {named}"):
            LatentCache(tmp_path, samples, cache_facts(other, samples))
    more_workers = changed(config, data={"workers": 2, "empty_prompt": 0.5, "posterior": "sample"})
    LatentCache(tmp_path, samples, cache_facts(more_workers, samples))
    smaller = TrainingSamples(Shapes(count=2), config.data, 5)
    with pytest.raises(UserError, match=r"records \(count 3 there, 2 here\)"):
        LatentCache(tmp_path, smaller, cache_facts(config, smaller))


def test_a_run_replaces_its_own_cache_of_something_else(
    config: TrainConfig, encoders: Any, tmp_path: Path
) -> None:
    config, samples = of_shapes(config, count=3)
    filled_cache(config, samples, tmp_path, encoders)
    other = dataclasses.replace(samples.config, holes_per_image=3)
    again = TrainingSamples(samples.source, other, 5)
    cache = filled_cache(dataclasses.replace(config, data=other), again, tmp_path, encoders)
    assert len(cache.kinds(0)) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent"])
def test_a_damaged_shard_is_named_and_counted_and_the_run_goes_on(
    config: TrainConfig, encoders: Any, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, samples = of_shapes(config, count=9, max_damaged=0.4)
    cache = filled(config, samples, tmp_path, encoders)
    sound = [CachedBatches(samples, cache, 0.0).batch([number]) for number in range(9)]
    path = cache.path(1)
    content = bytearray(path.read_bytes())
    content[-20000:-100] = bytes(byte ^ 0xFF for byte in content[-20000:-100])
    {
        "cut": lambda: path.write_bytes(path.read_bytes()[:-50]),
        "flipped": lambda: path.write_bytes(content),
        "absent": path.unlink,
    }[damage]()
    open_shard.cache_clear()
    faults = Faults(samples.count, 0.4)
    batches = CachedBatches(samples, cache, 0.0, faults)
    with caplog.at_level(logging.WARNING):
        after = [batches.batch([number]) for number in range(9)]
    assert 1 <= faults.counts()["damaged"] <= 3
    assert path.name in caplog.text
    for number, (one, other) in enumerate(zip(sound, after, strict=True)):
        same = torch.equal(one.masked_latents, other.masked_latents) and torch.equal(one.text, other.text)
        if samples.order.place(number)[0] not in cache.shards[1]:
            assert same
    strict = CachedBatches(samples, cache, 0.0, Faults(samples.count, 0.1))
    if damage != "flipped":
        with pytest.raises(UserError, match=rf"data\.max_damaged allows .* 3 of 9.*{path.name}"):
            strict.batch(range(9))


def test_records_that_cannot_be_read_are_left_out_of_the_cache(
    config: TrainConfig, encoders: Any, tmp_path: Path
) -> None:
    config = changed(config, data={"shard_records": 3, "records": 0})
    samples = TrainingSamples(Altered({4: OSError("gone")}), config.data, 5)
    cache = LatentCache(tmp_path, samples, cache_facts(config, samples))
    report = cache.fill(encoders)
    assert (report.damaged, report.variants) == (1, 22)
    assert cache.kinds(4) == ()
    cached = CachedBatches(samples, cache, 0.0)
    fresh = EncodedBatches(samples, *encoders(Faults(12, 1)), 0.0)
    torch.testing.assert_close(
        cached.batch(range(12)).latents, fresh.batch(range(12)).latents, rtol=2e-3, atol=2e-3
    )
    assert cached.faults.counts() == fresh.faults.counts() == {"damaged": 1}


def test_long_texts_are_cut_at_a_word_and_counted(
    config: TrainConfig, encoders: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = dataclasses.replace(Shapes().record(0), caption="abcd efgh ijkl mnop qrst uvwx yz")
    config = changed(config, data={"holes": {"brush_probability": 1.0}, "records": 1})
    samples = TrainingSamples(Altered({0: long}), config.data, 5)
    cache = LatentCache(tmp_path, samples, cache_facts(config, samples))
    with caplog.at_level(logging.WARNING):
        report = cache.fill(encoders)
    assert report.truncated == 1
    assert "dropped: 'uvwx yz'" in caplog.text
    _, text = encoders(Faults(1, 0))
    kept = text(["abcd efgh ijkl mnop qrst"]).tokens[0].half()  # of 24 tokens two are the ends
    assert torch.equal(cache.row(0, 0, False)["text"], kept)


def test_a_shard_that_is_no_shard_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "shard-000000.safetensors"
    path.write_bytes(np.random.default_rng(0).bytes(500))
    with pytest.raises(DamagedShardError, match="is damaged"):
        open_shard(path)


def test_text_states_equal_the_stock_pipelines(config: TrainConfig, encoders: Any) -> None:
    backbone = Backbone(config, "cpu")
    parts = vars(backbone.encoders)
    stock = StableDiffusionPipeline(
        **{name: parts[name] for name in ("vae", "text_encoder", "tokenizer")},
        unet=backbone.unet,
        scheduler=backbone.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    expected, _ = stock.encode_prompt("a red apple", "cpu", 1, False)
    assert torch.equal(encoders(Faults(1, 0))[1](["a red apple"]).tokens, expected)
