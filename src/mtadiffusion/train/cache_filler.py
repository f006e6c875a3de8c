"""What makes a shard of the latent cache: records rendered, encoded and written, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtadiffusion.models.text_encoders import joined
from mtadiffusion.train.cache_files import write_shard
from mtadiffusion.train.dataset import (
    BRUSH,
    RecordSamples,
    TrainingSamples,
    holes_to_tensor,
    images_to_tensor,
)
from mtadiffusion.train.encoding import LatentEncoder, PromptEncoder
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.loader import SampleWorkers

_TEXTS_A_CALL = 64


class CacheFiller:
    """Renders, encodes and writes shards.

    Args:
        samples: what they are of.
        encoders: gives what encodes, which reports texts that it cuts.
    """

    def __init__(
        self, samples: TrainingSamples, encoders: Callable[[Faults], tuple[LatentEncoder, PromptEncoder]]
    ) -> None:
        self.samples, self.faults = samples, Faults(samples.count, samples.config.max_damaged)
        self.encoder, self.text = encoders(self.faults)
        self.dtype = getattr(torch, samples.config.cache_dtype)
        self._workers = SampleWorkers(samples, samples.config.workers)

    def write(self, path: Path, records: Sequence[int]) -> None:
        """The shard of these records, which are of one bucket.

        Raises:
            UserError: too many records cannot be read.
        """
        resampled, truncated = self.faults.resampled, self.faults.truncated
        rendered: list[RecordSamples | None] = []
        encoded: list[dict[str, Tensor]] = []
        for chunk in self._rendered(records):
            encoded.append(self._encoded(chunk, self.samples.shape(records[0])))
            rendered += [item and _without_pixels(item) for item in chunk]
        rows = {name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}
        prompts = ["", *sorted({prompt for item in rendered if item for prompt in item.prompts} - {""})]
        rows |= _places(rendered, prompts) | self._texts(prompts)
        facts: dict[str, int | str] = {
            "variants": len(rows["prompt"]),
            "damaged": sum(item is None for item in rendered),
            "resampled": self.faults.resampled - resampled,
            "truncated": self.faults.truncated - truncated,
        }
        write_shard(path, rows, facts)

    def _rendered(self, records: Sequence[int]) -> Iterator[list[RecordSamples | None]]:
        """The samples of the records in order, `encode_batch` at a time; None where one cannot be read."""
        chunk: list[RecordSamples | None] = []
        for record, made in zip(records, self._workers.map("kept_samples", records), strict=True):
            if isinstance(made, str):
                self.faults.damage([record], made)
            else:
                self.faults.resample(made.resampled)
            chunk.append(None if isinstance(made, str) else made)
            if len(chunk) == self.samples.config.encode_batch or record == records[-1]:
                yield chunk
                chunk = []

    def _encoded(self, chunk: Sequence[RecordSamples | None], shape: tuple[int, int]) -> dict[str, Tensor]:
        """The rows of the records and their variants, in order; those of a None mean nothing."""
        blank = np.zeros((*shape, 3), np.uint8)
        image = images_to_tensor(np.stack([blank if item is None else item.image for item in chunk]))
        whole, edge = self.encoder.image(image)
        colours = F.interpolate((image + 1) / 2, size=edge.shape[-2:], mode="area")
        rows = {"mean": whole.mean, "deviation": whole.deviation, "edge": edge, "colours": colours}
        rows |= self._encoded_holes(image, chunk, whole.mean)
        held = {name: row.to(torch.uint8 if name == "known" else self.dtype) for name, row in rows.items()}
        sizes = [(0,) * 6 if item is None else item.sizes for item in chunk]
        return held | {"sizes": torch.tensor(sizes, dtype=torch.int32)}

    def _encoded_holes(
        self, image: Tensor, chunk: Sequence[RecordSamples | None], like: Tensor
    ) -> dict[str, Tensor]:
        """z_m's posterior (V, C, h, w) and the known maps (V, 1, h, w) of all variants of the chunk."""
        pairs = [(place, hole) for place, item in enumerate(chunk) if item for hole in item.holes]
        means, deviations, maps = [like[:0]], [like[:0]], [like[:0, :1]]
        for first in range(0, len(pairs), self.samples.config.encode_batch):
            places, holes = zip(*pairs[first : first + self.samples.config.encode_batch], strict=True)
            masked, known = self.encoder.hole(image[list(places)], holes_to_tensor(np.stack(holes)))
            means.append(masked.mean)
            deviations.append(masked.deviation)
            maps.append(known)
        names = ("masked_mean", "masked_deviation", "known")
        return dict(zip(names, map(torch.cat, (means, deviations, maps)), strict=True))

    def _texts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`text` and, of SDXL, `pooled`."""
        chunks = (prompts[i : i + _TEXTS_A_CALL] for i in range(0, len(prompts), _TEXTS_A_CALL))
        states = joined([self.text(chunk).to(self.dtype) for chunk in chunks])
        return {"text": states.tokens} | ({} if states.pooled is None else {"pooled": states.pooled})


def _without_pixels(item: RecordSamples) -> RecordSamples:
    """What is still needed of a record that is encoded."""
    nothing = np.empty(0, np.uint8)
    return replace(item, image=nothing, holes=nothing)


def _places(rendered: Sequence[RecordSamples | None], prompts: Sequence[str]) -> dict[str, Tensor]:
    """Where each record's variants begin, and each variant's kind and text."""
    counts = [len(item.prompts) if item else 0 for item in rendered]
    kinds = [kind == BRUSH for item in rendered if item for kind in item.kinds]
    row = {prompt: place for place, prompt in enumerate(prompts)}
    used = [row[prompt] for item in rendered if item for prompt in item.prompts]
    return {
        "first": torch.from_numpy(np.cumsum([0, *counts])),
        "brush": torch.tensor(kinds, dtype=torch.uint8),
        "prompt": torch.tensor(used, dtype=torch.int64),
    }
