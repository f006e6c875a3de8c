"""Where a training step gets its batches from: encoded when they are visited, or read from the latent cache.

Both give the same batch up to the rounding of `data.cache_dtype`; each sample depends on its number alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtadiffusion.errors import UserError
from mtadiffusion.train.cache_files import DamagedRowError, DamagedShardError, Row
from mtadiffusion.train.dataset import TrainingSamples, images_to_tensor
from mtadiffusion.train.encoding import (
    LatentEncoder,
    Posterior,
    PromptEncoder,
    drawn_latents,
    is_emptied,
    thinned_prompts,
)
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.latent_cache import LatentCache
from mtadiffusion.train.loader import Loader
from mtadiffusion.train.step import LatentBatch


class BatchSource(Protocol):
    """Gives the encoded batch of the run's samples with the given numbers."""

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        """The samples `numbers`, on the CPU in fp32."""


class EncodedBatches:
    """Every sample encoded when it is visited."""

    def __init__(
        self,
        samples: TrainingSamples,
        encoder: LatentEncoder,
        text: PromptEncoder,
        empty_prompt: float,
        faults: Faults | None = None,
    ) -> None:
        self.samples, self.encoder, self.text, self.empty_prompt = samples, encoder, text, empty_prompt
        self.faults = faults or Faults(samples.count, samples.config.max_damaged)
        self._loader = Loader(samples, samples.config.workers)

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        """The samples `numbers`, on the CPU in fp32."""
        pixels = self._loader.batch(numbers)
        for record, reason in pixels.damaged:
            self.faults.damage([record], reason)
        self.faults.resample(pixels.resampled)
        image, seed = pixels.image, self.samples.seed
        whole, edge = self.encoder.image(image)
        masked, known = self.encoder.hole(image, pixels.hole)
        latents = drawn_latents(self.samples.config.posterior, whole, masked, seed, numbers)
        prompts = thinned_prompts(pixels.prompts, seed, numbers, self.empty_prompt)
        text = self.text(prompts)
        return LatentBatch(
            latents=latents[0],
            masked_latents=latents[1],
            known=known,
            edge=edge,
            text=text.tokens,
            pooled_text=text.pooled,
            sizes=pixels.sizes.float(),
        )


class CachedBatches:
    """Every sample looked up in a filled cache; nothing is decoded or encoded."""

    def __init__(
        self,
        samples: TrainingSamples,
        cache: LatentCache,
        empty_prompt: float,
        faults: Faults | None = None,
    ) -> None:
        self.samples, self.cache, self.empty_prompt = samples, cache, empty_prompt
        self.faults = faults or Faults(samples.count, samples.config.max_damaged)

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        """The samples `numbers`, on the CPU in fp32."""
        rows = [self._row(number) for number in numbers]
        stacked = {name: torch.stack([row[name] for row in rows]).float() for name in rows[0]}
        whole = Posterior(stacked["mean"], stacked["deviation"])
        masked = Posterior(stacked["masked_mean"], stacked["masked_deviation"])
        latents = drawn_latents(self.samples.config.posterior, whole, masked, self.samples.seed, numbers)
        return LatentBatch(
            latents=latents[0],
            masked_latents=latents[1],
            known=stacked["known"],
            edge=stacked["edge"],
            text=stacked["text"],
            pooled_text=stacked.get("pooled"),
            sizes=stacked["sizes"],
        )

    def kind(self, number: int) -> str:
        """The sample's kind of hole, `brush` or `object`."""
        for record, _ in self.samples.order.candidates(number):
            with contextlib.suppress(DamagedRowError):
                if kinds := self.cache.kinds(record):
                    return kinds[self.samples.chosen_variant(number, kinds)]
        raise self._too_damaged()

    def _row(self, number: int) -> Row:
        """The sample's tensors, or those of another record of its bucket where its own are damaged."""
        for record, _ in self.samples.order.candidates(number):
            try:
                kinds = self.cache.kinds(record)
                if not kinds:
                    self.faults.damage([record], f"record {record} could not be read for the cache")
                    continue
                variant = self.samples.chosen_variant(number, kinds)
                emptied = is_emptied(self.samples.seed, number, self.empty_prompt)
                return self.cache.row(record, variant, emptied)
            except DamagedShardError as error:
                self.faults.damage(self.cache.records_beside(record), str(error))
            except DamagedRowError as error:
                self.faults.damage([record], str(error))
        raise self._too_damaged()

    def _too_damaged(self) -> UserError:
        return UserError("data.cache_dir", "has too many damaged records", str(self.cache.folder))


def encoded_pictures(samples: TrainingSamples, encoder: LatentEncoder, count: int) -> tuple[Tensor, Tensor]:
    """z_0 (n, C, h, w) and mean colours (n, 3, h, w) in [0, 1] of the first records of one bucket that can be
    read, `count` at most, as `LatentCache.pictures` has them."""
    pictures: list[np.ndarray] = []
    for record in np.flatnonzero(samples.order.buckets == samples.order.buckets[0]).tolist():
        with contextlib.suppress(OSError, ValueError):
            pictures.append(samples.record_samples(record, (0,)).image)
        if len(pictures) == count:
            break
    image = images_to_tensor(np.stack(pictures))
    latents = encoder.image(image)[0].mean
    return latents, F.interpolate((image + 1) / 2, size=latents.shape[-2:], mode="area")
