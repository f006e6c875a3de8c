"""Samples a second of the training loader on one core, beside the collate path of BrushNet's training script.

`python benchmarks/training_loader.py` writes shards of synthetic photographs, loads them both ways at 512
pixels and prints one JSON object as its last line. Times are of this process's CPU, so that they are a core's
whatever else the machine does.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from mtadiffusion.config import DataConfig
from mtadiffusion.data.exported import ExportedRecords
from mtadiffusion.data.images import decode_reduced
from mtadiffusion.data.tars import Packer
from mtadiffusion.imaging.masks import coco_to_mask, mask_box, mask_to_brushdata, mask_to_coco
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.train.dataset import TrainingSamples, holes_to_tensor, images_to_tensor
from mtadiffusion.train.holes import object_hole, random_brush_hole
from mtadiffusion.train.losses import edge_target

SIZE, LATENT = 512, 64
OBJECTS = 5
PICTURES = 8


def photograph(index: int, width: int, height: int) -> np.ndarray:
    """uint8 (height, width, 3) with a photograph's spectrum: amplitude falls with frequency."""
    rng = numpy_generator(0, "photograph", index)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    planes = [
        np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency**1.3).real for _ in range(3)
    ]
    grey, *colours = (plane / plane.std() for plane in planes)
    image = np.stack([grey, grey + 0.3 * colours[0], grey + 0.3 * colours[1]], axis=-1)
    return np.clip(128 + 45 * image, 0, 255).astype(np.uint8)


def blob(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """bool (height, width) of a wavy disc."""
    y, x = np.mgrid[:height, :width]
    cx, cy = rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * height
    angle, radius = np.arctan2(y - cy, x - cx), rng.uniform(0.1, 0.3) * height
    return np.hypot(x - cx, y - cy) < radius * (1 + 0.1 * np.sin(7 * angle) + 0.05 * np.sin(23 * angle))


def write_shard(folder: Path, pictures: int) -> None:
    """One exported shard of pictures of 1024 to 1536 pixels, as LAION's above 1024 are."""
    with (folder / "shard-000000.tar").open("wb") as file:
        packer = Packer(file)
        for index in range(pictures):
            rng = numpy_generator(0, "shape", index)
            width, height = 64 * int(rng.integers(16, 25)), 64 * int(rng.integers(16, 21))
            buffer = io.BytesIO()
            Image.fromarray(photograph(index, width, height)).save(buffer, "JPEG", quality=85)
            masks = [blob(rng, width, height) for _ in range(OBJECTS)]
            objects = [
                {
                    "label": "blob",
                    "score": 0.9,
                    "box_xyxy": list(mask_box(mask)),
                    "segmentation": mask_to_coco(mask),
                    "area": int(mask.sum()),
                    "description": "a wavy blob in the style of noise",
                }
                for mask in masks
            ]
            facts = {"image_id": f"{index}", "caption": "noise", "objects": objects}
            packer.add(f"{index:06d}.jpg", buffer.getvalue())
            packer.add(f"{index:06d}.json", json.dumps(facts).encode())
        packer.close()


def our_batch(samples: TrainingSamples, numbers: range) -> None:
    """Pixels, holes, texts and edge targets, as tensors."""
    batch = samples.batch(numbers)
    assert batch.hole.shape == (len(numbers), 1, SIZE, SIZE)
    edge_target(batch.image, (LATENT, LATENT))


def reference_batch(records: list[dict[str, Any]], numbers: range) -> dict[str, torch.Tensor]:
    """What BrushNet's collate function does, written from its description, without edge targets.

    Pictures are decoded and resized at full size; masks of runs are filled by a loop, with probability 0.3
    eroded and dilated, with 0.5 inverted, and resized by a cubic filter as three float channels.
    """
    pixels, masks, masked = [], [], []
    for number in numbers:
        record, rng = records[number % len(records)], numpy_generator(0, "reference", number)
        image = np.asarray(Image.open(io.BytesIO(record["jpg"])).convert("RGB")).astype(np.float32)
        mask = filled_by_a_loop(record["runs"][int(rng.integers(OBJECTS))], image.shape[0], image.shape[1])
        if rng.uniform() < 0.3:
            mask = np.asarray(eroded_and_dilated(mask))
        if rng.uniform() < 0.5:
            mask = 1 - mask
        hole = np.repeat(mask[..., None], 3, axis=2).astype(np.float32)
        scale = SIZE / min(image.shape[:2])
        scaled = (max(SIZE, round(image.shape[1] * scale)), max(SIZE, round(image.shape[0] * scale)))
        image, hole = cubic(image, scaled), cubic(hole, scaled)
        left, top = (int(rng.integers(side - SIZE + 1)) for side in scaled)
        image, hole = (a[top : top + SIZE, left : left + SIZE] for a in (image, hole))
        pixels.append(torch.tensor(image / 127.5 - 1).permute(2, 0, 1))
        masked.append(torch.tensor(image * (1 - hole) / 127.5 - 1).permute(2, 0, 1))
        masks.append(torch.tensor(1 - hole[..., :1]).permute(2, 0, 1))
    return {
        name: torch.stack(tensors).contiguous().float()
        for name, tensors in (("pixels", pixels), ("masks", masks), ("masked", masked))
    }


def filled_by_a_loop(runs: list[int], height: int, width: int) -> np.ndarray:
    """uint8 (height, width) of column-major 1-based runs."""
    flat = np.zeros(height * width, dtype=np.uint8)
    for start, length in zip(runs[0::2], runs[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = 1
    return flat.reshape((width, height)).T


def eroded_and_dilated(mask: np.ndarray) -> Image.Image:
    """By 7 x 7, Pillow's nearest odd size, at the full size of the picture."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    return image.filter(ImageFilter.MinFilter(7)).filter(ImageFilter.MaxFilter(7))


def cubic(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 (H, W, 3) at another size (width, height), a channel at a time."""
    planes = [
        Image.fromarray(np.ascontiguousarray(array[..., channel])).resize(size, Image.Resampling.BICUBIC)
        for channel in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def samples_a_second(batch: Callable[[range], object], batches: int, size: int = 4) -> float:
    """Of this process's CPU time, the first batch left out."""
    batch(range(size))
    start = time.process_time()
    for number in range(1, batches + 1):
        batch(range(number * size, (number + 1) * size))
    return batches * size / (time.process_time() - start)


def stage_milliseconds(source: ExportedRecords, samples: TrainingSamples) -> dict[str, float]:
    """CPU milliseconds a sample of each stage of our loader."""
    record, rng = source.coded(0), numpy_generator(0, "stages", 0)
    made = samples.record_samples(0, (0,))
    window = samples._crop(0, 0).window
    hole, image = made.holes[0], np.stack([made.image])
    data, noise = record.read(), torch.rand(1, 3, SIZE, SIZE)
    stages: dict[str, Callable[[], object]] = {
        "read": lambda: (source.coded(0), record.read()),
        "decode": lambda: np.asarray(decode_reduced(data, SIZE)),
        "decode and resize": lambda: record.pixels(window),
        "mask": lambda: record.mask(0, window),
        "mask, whole": lambda: coco_to_mask(record.objects[0].segmentation),
        "object hole": lambda: object_hole(rng, hole, mask_box(hole)),
        "brush hole": lambda: random_brush_hole(rng, SIZE, SIZE),
        "to tensors": lambda: (images_to_tensor(image), holes_to_tensor(made.holes)),
        "edge target": lambda: edge_target(noise, (LATENT, LATENT)),
    }
    return {name: round(milliseconds(stage), 2) for name, stage in stages.items()}


def milliseconds(stage: Callable[[], object], times: int = 10) -> float:
    """CPU milliseconds of one call, the first one left out."""
    return 1e3 / samples_a_second(lambda _: stage(), times, 1)


def loader_figures(pictures: int = PICTURES, batches: int = 8) -> dict[str, Any]:
    """`loader_samples_per_second`, `loader_speedup` over the reference, and what they are made of."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder), pictures)
        source = ExportedRecords(folder)
        config = DataConfig(source=folder, size=SIZE, holes_per_image=0, cache=False)
        samples = TrainingSamples(source, config, seed=0)
        records = [
            {
                "jpg": one.read(),
                "runs": [mask_to_brushdata(coco_to_mask(o.segmentation)) for o in one.objects],
            }
            for one in map(source.coded, range(len(source)))
        ]
        ours = samples_a_second(lambda numbers: our_batch(samples, numbers), batches)
        reference = samples_a_second(lambda numbers: reference_batch(records, numbers), max(2, batches // 2))
        stages = stage_milliseconds(source, samples)
    return {
        "loader_speedup": round(ours / reference, 2),
        "loader_samples_per_second": round(ours, 1),
        "reference_samples_per_second": round(reference, 1),
        "loader_milliseconds": stages,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--batches", type=int, default=8)
    arguments = parser.parse_args()
    print(json.dumps(loader_figures(arguments.pictures, arguments.batches)))


if __name__ == "__main__":
    main()
