"""Samples as latents: encoded as they are visited, or once before training and then held in memory.

A cache keeps of every record z_0 and the edge target, and of each of its K variants the masked image's
latents, the known map and the prompt; a step then runs the branch and the UNet only. Both ways give the same
batch up to the rounding of `data.cache_dtype` (docs/method.md, sections 1, 3 and 5).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from mtadiffusion.config import TrainConfig
from mtadiffusion.models.conditioning import latent_known, masked_image
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.train.dataset import (
    RecordSamples,
    TrainingSamples,
    holes_to_tensor,
    images_to_tensor,
)
from mtadiffusion.train.losses import edge_target
from mtadiffusion.train.step import LatentBatch

_TEXTS_A_CALL = 64


def encode_latents(vae: Any, image: Tensor) -> Tensor:
    """z = (mode of the VAE's posterior - shift) * scaling factor: (B, 3, H, W) in [-1, 1] -> (B, C, h, w)."""
    encoded = vae.encode(image)
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latents - shift) * vae.config.scaling_factor


@dataclass(frozen=True, kw_only=True)
class LatentEncoder:
    """Pixels to all that a step reads of them. Results lie on the CPU in fp32."""

    vae: Any
    """Frozen diffusers autoencoder."""

    hole_fill: str = "black"
    """What the VAE sees in a hole."""

    known_mode: str = "nearest"
    """How the hole reaches latent size."""

    edge_target: str = "sobel"
    """Name of the structure target."""

    edge_downsampling: str = "area"
    """How it reaches latent size."""

    @torch.no_grad()
    def image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> z_0 (B, C, h, w) and the edge target (B, 1, h, w)."""
        latents = self._latents(image)
        size = (latents.shape[-2], latents.shape[-1])
        return latents, edge_target((image + 1) / 2, size, self.edge_target, self.edge_downsampling)

    @torch.no_grad()
    def hole(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Image and hole (B, 1, H, W) -> z_m (B, C, h, w) and the known map (B, 1, h, w)."""
        latents = self._latents(masked_image(image, hole, self.hole_fill))
        return latents, latent_known(hole, (latents.shape[-2], latents.shape[-1]), self.known_mode)

    def _latents(self, image: Tensor) -> Tensor:
        return encode_latents(self.vae, image.to(self.vae.device, self.vae.dtype)).float().cpu().contiguous()


class PromptEncoder:
    """Text encoder states by prompt, remembered as long as all of them fit into the memory allowed."""

    def __init__(self, text_encoder: Any, tokenizer: Any, limit_mb: int, dtype: torch.dtype) -> None:
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.limit_bytes, self.dtype = limit_mb * 2**20, dtype
        self._rows: dict[str, int] = {}
        self._table = torch.empty(0)

    def remember(self, prompts: Sequence[str]) -> None:
        """Encode the unique ones among `prompts` and the empty one, if they fit; otherwise do nothing."""
        unique = sorted({"", *prompts})
        one = self._states([""])
        if one.numel() * self.dtype.itemsize * len(unique) > self.limit_bytes:
            return
        chunks = [unique[i : i + _TEXTS_A_CALL] for i in range(0, len(unique), _TEXTS_A_CALL)]
        table = [self._states(chunk) for chunk in tqdm(chunks, desc="texts", leave=False)]
        self._table = torch.cat(table)
        self._rows = {prompt: row for row, prompt in enumerate(unique)}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """B texts -> (B, L, D) fp32 on the CPU."""
        if all(prompt in self._rows for prompt in prompts):
            return self._table[[self._rows[prompt] for prompt in prompts]].float()
        return self._states(prompts).float()

    @torch.no_grad()
    def _states(self, prompts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        states = self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]
        return states.to("cpu", self.dtype)


class BatchSource(Protocol):
    """Gives the encoded batch of the run's samples with the given numbers."""

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        """The samples `numbers`, on the CPU in fp32."""


class EncodedBatches:
    """Every sample encoded when it is visited."""

    def __init__(
        self, samples: TrainingSamples, encoder: LatentEncoder, text: PromptEncoder, empty_prompt: float
    ) -> None:
        self.samples, self.encoder, self.text, self.empty_prompt = samples, encoder, text, empty_prompt

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        """The samples `numbers`, on the CPU in fp32."""
        pixels = self.samples.batch(numbers)
        latents, edge = self.encoder.image(pixels.image)
        masked, known = self.encoder.hole(pixels.image, pixels.hole)
        prompts = thinned_prompts(pixels.prompts, self.samples.seed, numbers, self.empty_prompt)
        return LatentBatch(
            latents=latents, masked_latents=masked, known=known, edge=edge, text=self.text(prompts)
        )


class CachedBatches:
    """Every sample looked up in a filled cache."""

    def __init__(
        self, samples: TrainingSamples, cache: LatentCache, text: PromptEncoder, empty_prompt: float
    ) -> None:
        self.samples, self.cache, self.text, self.empty_prompt = samples, cache, text, empty_prompt

    def batch(self, numbers: Sequence[int]) -> LatentBatch:
        """The samples `numbers`, on the CPU in fp32."""
        records, variants = zip(*map(self.samples.identity, numbers), strict=True)
        r, k = list(records), list(variants)
        prompts = [self.cache.prompts[i][j] for i, j in zip(r, k, strict=True)]
        prompts = thinned_prompts(prompts, self.samples.seed, numbers, self.empty_prompt)
        return LatentBatch(
            latents=self.cache.latents[r].float(),
            masked_latents=self.cache.masked_latents[r, k].float(),
            known=self.cache.known[r, k].float(),
            edge=self.cache.edges[r].float(),
            text=self.text(prompts),
        )


def thinned_prompts(prompts: Sequence[str], seed: int, numbers: Sequence[int], empty: float) -> list[str]:
    """The prompts with some emptied, each by the stream of its sample number (docs/method.md, section 5)."""
    draws = (numpy_generator(seed, "empty prompt", number).uniform() for number in numbers)
    return ["" if draw < empty else prompt for prompt, draw in zip(prompts, draws, strict=True)]


@dataclass(frozen=True, kw_only=True)
class LatentCache:
    """N records with K variants each."""

    latents: Tensor
    """z_0, (N, C, h, w)."""

    edges: Tensor
    """s~, (N, 1, h, w)."""

    masked_latents: Tensor
    """z_m, (N, K, C, h, w)."""

    known: Tensor
    """uint8 (N, K, 1, h, w), 1 = known."""

    prompts: list[list[str]]
    """N times K texts."""

    def unique_prompts(self) -> list[str]:
        """Every text once, sorted."""
        return sorted({prompt for prompts in self.prompts for prompt in prompts})

    def save(self, path: Path, fingerprint: str) -> None:
        """Write one safetensors file by a temporary name and a rename."""
        texts = np.frombuffer(json.dumps(self.prompts).encode(), dtype=np.uint8).copy()
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        tensors["prompts"] = torch.from_numpy(texts)
        save_file(tensors, temporary, metadata={"fingerprint": fingerprint})
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> LatentCache | None:
        """The cache in the file, or None where there is none or it was filled from something else."""
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        prompts = json.loads(tensors.pop("prompts").numpy().tobytes())
        return cls(**tensors, prompts=prompts)


def filled_cache(
    config: TrainConfig, samples: TrainingSamples, encoder: LatentEncoder, path: Path
) -> LatentCache:
    """The cache of `samples`: from `path` if it was filled from the same things, else filled and kept."""
    fingerprint = cache_fingerprint(config, samples, encoder.vae)
    cache = LatentCache.load(path, fingerprint)
    if cache is None:
        cache = fill_cache(samples, encoder)
        cache.save(path, fingerprint)
    return cache


def cache_fingerprint(config: TrainConfig, samples: TrainingSamples, vae: nn.Module) -> str:
    """A digest of everything that a cache's content depends on."""
    how_only = ("cache", "cache_file", "text_cache_mb", "workers", "encode_batch", "empty_prompt", "records")
    data = {name: value for name, value in asdict(config.data).items() if name not in how_only}
    branch = (config.branch.hole_fill, config.branch.latent_known)
    edges = (config.loss.edge_target, config.loss.edge_downsampling)
    digest = hashlib.blake2b(json.dumps([data, branch, edges, samples.seed, samples.count]).encode())
    digest.update(samples.record_samples(0).image.tobytes())
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def fill_cache(samples: TrainingSamples, encoder: LatentEncoder) -> LatentCache:
    """Render and encode every record with its variants, with a progress bar on stderr."""
    dtype = getattr(torch, samples.config.cache_dtype)
    parts: list[dict[str, Tensor]] = []
    prompts: list[list[str]] = []
    with tqdm(total=samples.count, desc="latents", unit="record") as progress:
        for chunk in _rendered(samples):
            parts.append(_encoded(chunk, encoder, dtype))
            prompts.extend(list(item.prompts) for item in chunk)
            progress.update(len(chunk))
    return LatentCache(
        **{name: torch.cat([part[name] for part in parts]) for name in parts[0]}, prompts=prompts
    )


def _rendered(samples: TrainingSamples) -> Iterator[list[RecordSamples]]:
    """The samples of all records in order, `encode_batch` records at a time, rendered ahead by workers."""
    size, workers = samples.config.encode_batch, samples.config.workers
    chunks = [range(i, min(i + size, samples.count)) for i in range(0, samples.count, size)]
    if workers == 0:
        yield from (_render(samples, chunk) for chunk in chunks)
        return
    waiting, upcoming = deque[Future[list[RecordSamples]]](), iter(chunks)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting.extend(pool.submit(_render, samples, chunk) for chunk in islice(upcoming, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_render, samples, chunk) for chunk in islice(upcoming, 1))


def _render(samples: TrainingSamples, records: range) -> list[RecordSamples]:
    return [samples.record_samples(record) for record in records]


def _encoded(chunk: Sequence[RecordSamples], encoder: LatentEncoder, dtype: torch.dtype) -> dict[str, Tensor]:
    variants = len(chunk[0].prompts)
    image = images_to_tensor(np.stack([item.image for item in chunk]))  # (n, 3, H, W)
    latents, edges = encoder.image(image)
    by_variant = [
        encoder.hole(image, holes_to_tensor(np.stack([item.holes[k] for item in chunk])))
        for k in range(variants)
    ]
    return {
        "latents": latents.to(dtype),
        "edges": edges.to(dtype),
        "masked_latents": torch.stack([masked for masked, _ in by_variant], dim=1).to(dtype),
        "known": torch.stack([known for _, known in by_variant], dim=1).to(torch.uint8),
    }
