"""What is looked at while a branch trains: its losses on held-out samples, and a sheet of filled holes.

Samples and noise are the same every time, so that two lines of the log can be compared.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from mtadiffusion.config import TrainConfig, ValidationConfig
from mtadiffusion.seeding import torch_generator
from mtadiffusion.train.batches import BatchSource, CachedBatches
from mtadiffusion.train.dataset import RecordSamples, TrainingSamples
from mtadiffusion.train.latent_cache import LatentCache
from mtadiffusion.train.step import StepModels, training_step

_TILE = 128
_TEXT_ROWS, _TEXT_ROW_HEIGHT, _LETTERS = 4, 11, 21


class Validation:
    """The held-out samples of a run, and what is looked at on them.

    Args:
        cache: the samples whose losses are measured, encoded.
        shown: those that sheets are drawn of.
        config: the run's.
    """

    def __init__(self, cache: LatentCache, shown: TrainingSamples, config: TrainConfig) -> None:
        self._config = config
        self._batches = CachedBatches(cache.samples, cache, empty_prompt=0.0)
        self._kinds = [self._batches.kind(number) for number in range(config.validation.samples)]
        self._drawn = held_out_holes(shown, config.validation.images)

    def figures(self, models: StepModels) -> dict[str, dict[str, float]]:
        """`validation`: each loss; `validation_noise`: the noise loss by timestep and by kind of hole."""
        figures = {"validation": validation_losses(models, self._batches, self._config)}
        if self._config.validation.timesteps:
            by_timestep = noise_by_timestep(models, self._batches, self._kinds, self._config)
            figures["validation_noise"] = by_timestep
        return figures

    def draw(self, pipeline: Any, path: Path) -> None:
        """Write the sheet of some scenes, filled by `pipeline`."""
        draw_sheet(pipeline, self._drawn, self._config.validation, self._config.seed, path)


@torch.no_grad()
def validation_losses(models: StepModels, batches: BatchSource, config: TrainConfig) -> dict[str, float]:
    """Mean of each unweighted loss over the held-out samples 0, 1, ..."""
    sums: dict[str, float] = {}
    count = config.validation.samples
    for start in range(0, count, config.batch_size):
        numbers = range(start, min(start + config.batch_size, count))
        generators = [torch_generator(config.seed, "validation noise", number) for number in numbers]
        batch = batches.batch(numbers).to(models.schedule.device)
        losses = training_step(models, batch, config.loss, generators)
        for name, value in losses.terms.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(numbers)
    return {name: value / count for name, value in sums.items()}


@torch.no_grad()
def noise_by_timestep(
    models: StepModels, batches: BatchSource, kinds: Sequence[str], config: TrainConfig
) -> dict[str, float]:
    """Mean noise loss of the held-out samples at fixed timesteps.

    Every sample has one of `validation.timesteps`, in turn, and the same noise every time.

    Args:
        kinds: each sample's kind of hole.

    Returns:
        By timestep, as `t500`, and by kind, as `brush`.
    """
    losses: dict[str, list[float]] = {}
    for (timestep, kind), numbers in _groups(kinds, config.validation.timesteps).items():
        for start in range(0, len(numbers), config.batch_size):
            part = numbers[start : start + config.batch_size]
            value = _noise_at(models, batches, part, timestep, config)
            for name in (f"t{timestep}", kind):
                losses.setdefault(name, []).extend([value] * len(part))
    return {name: sum(values) / len(values) for name, values in losses.items()}


def _groups(kinds: Sequence[str], timesteps: Sequence[int]) -> dict[tuple[int, str], list[int]]:
    """The samples' numbers by timestep and kind, spread so that each kind meets every timestep."""
    groups: dict[tuple[int, str], list[int]] = {}
    met: Counter[str] = Counter()
    for number, kind in enumerate(kinds):
        groups.setdefault((timesteps[met[kind] % len(timesteps)], kind), []).append(number)
        met[kind] += 1
    return dict(sorted(groups.items()))


def _noise_at(
    models: StepModels, batches: BatchSource, numbers: Sequence[int], timestep: int, config: TrainConfig
) -> float:
    generators = [torch_generator(config.seed, "validation noise", number) for number in numbers]
    batch = batches.batch(numbers).to(models.schedule.device)
    at = torch.full((len(numbers),), timestep, device=models.schedule.device)
    alone = replace(
        config.loss, delta=0.0, eta=0.0, perceptual=0.0, adversarial=0.0, min_snr=0.0, hole_weight=1.0
    )
    return float(training_step(models, batch, alone, generators, at).terms["noise"])


def held_out_holes(samples: TrainingSamples, count: int) -> list[RecordSamples]:
    """One variant of each of the first records, brush and object holes in turn where both exist."""
    variants = max(1, samples.config.holes_per_image)
    return [
        samples.record_samples(record, (record % variants,)) for record in range(min(count, samples.count))
    ]


def draw_sheet(
    pipeline: Any, samples: Sequence[RecordSamples], config: ValidationConfig, seed: int, path: Path
) -> None:
    """Write a contact sheet, a column a sample: the picture with its hole, the filled one, the original."""
    filled = pipeline(
        prompt=[sample.prompts[0] for sample in samples],
        image=[Image.fromarray(sample.image) for sample in samples],
        mask_image=[Image.fromarray(sample.holes[0].astype(np.uint8) * 255) for sample in samples],
        num_inference_steps=config.steps,
        guidance_scale=config.guidance_scale,
        generator=[torch_generator(seed, "validation sheet", number) for number in range(len(samples))],
        output_type="pil",
    ).images
    sheet = contact_sheet(samples, [np.asarray(picture.convert("RGB")) for picture in filled])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    sheet.save(temporary, format="PNG")
    temporary.replace(path)


def contact_sheet(samples: Sequence[RecordSamples], filled: Sequence[np.ndarray]) -> Image.Image:
    """Columns of (hole shown grey, `filled` uint8 (H, W, 3), original) under the prompt's first words."""
    side = max(_TILE, samples[0].image.shape[0])
    header = _TEXT_ROWS * _TEXT_ROW_HEIGHT + 2
    sheet = Image.new("RGB", (side * len(samples), header + 3 * side), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (sample, result) in enumerate(zip(samples, filled, strict=True)):
        masked = np.where(sample.holes[0][..., None], np.uint8(128), sample.image)
        for row, picture in enumerate((masked, result, sample.image)):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * side, header + row * side))
        _write_prompt(pen, sample.prompts[0], column * side)
    return sheet


def _write_prompt(pen: ImageDraw.ImageDraw, prompt: str, left: int) -> None:
    drawable = prompt.encode("latin-1", "replace").decode("latin-1")
    for row, text in enumerate(textwrap.wrap(drawable, _LETTERS)[:_TEXT_ROWS]):
        pen.text((left + 2, row * _TEXT_ROW_HEIGHT), text, "black")
