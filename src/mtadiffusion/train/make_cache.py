"""Making the latent cache of a configuration's records, training and held-out, without training."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from mtadiffusion.config import TrainConfig
from mtadiffusion.models.loading import torch_device
from mtadiffusion.models.model_files import ENCODERS
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.crops import check_divisible
from mtadiffusion.train.dataset import TrainingSamples, held_out_samples, record_source
from mtadiffusion.train.encoding import build_encoders
from mtadiffusion.train.latent_cache import LatentCache, cache_facts, with_cached_holes
from mtadiffusion.train.losses import check_edge_target

HOLES_PER_IMAGE = HOLES_PER_OBJECT = 2
"""What is kept where the configuration asks for fresh holes, which cannot be kept."""


def make_cache(config: TrainConfig, folder: Path) -> dict[str, dict[str, int]]:
    """Fill the cache in `folder`, or what is absent of it.

    Returns:
        What `CacheReport` says of the splits `train` and, where it is looked at, `validation`.

    Raises:
        UserError: backbone or data are not there or do not fit, or the folder holds another cache.
    """
    config, data = _with_kept_holes(with_cached_holes(config)), config.data
    check_edge_target(config.loss.edge_target)
    backbone = Backbone(config, torch_device(config.device, "device"), ENCODERS)
    check_divisible(data, backbone.picture_factor)
    opened = partial(record_source, data.source, seed=data.source_seed, size=data.size)
    sources = {split: opened(split=split) for split in ("train", "validation")}
    samples = {"train": TrainingSamples(sources["train"], config.data, config.seed, config.batch_size)}
    if config.validation.every and config.validation.samples and len(sources["validation"]):
        samples["validation"] = held_out_samples(config, sources["validation"])
    encoders = partial(build_encoders, backbone, config)
    caches = {
        split: LatentCache(folder / split, of, cache_facts(config, of)) for split, of in samples.items()
    }
    return {split: asdict(cache.fill(encoders)) for split, cache in caches.items()}


def _with_kept_holes(config: TrainConfig) -> TrainConfig:
    if config.data.holes_per_image:
        return config
    each = config.data.holes_per_object or HOLES_PER_OBJECT
    data = replace(config.data, holes_per_image=HOLES_PER_IMAGE, holes_per_object=each)
    return replace(config, data=data)
