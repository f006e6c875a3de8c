"""Predict how long a corpus takes to annotate, from seconds an image, workers and shard size.

    python benchmarks/annotate_at_scale.py --images 5000000 --shard-size 1000 --gpus 64
    python benchmarks/annotate_at_scale.py --check

Stages run one after another; of each stage the shards are handed to workers as these become free, as the Ray
engine does. A shard's time is spread log-normally about the stage's rate. Stages on GPUs have a worker a GPU,
the others a worker a core. The last line on stdout is one JSON object.

`--check` runs the index stage on Ray with one and with two workers on this machine, and compares the second
with what the first predicts: `predicted_over_measured`.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from annotate import Watched, write_source

from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.index import Index
from mtadiffusion.engines import on_ray
from mtadiffusion.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """What a stage costs."""

    name: str
    """As in `mta annotate --stages`."""

    seconds: float
    """An image, for one worker."""

    start: float
    """Seconds until a worker is set up."""

    gpu: bool
    """Whether a worker has a GPU; else a core."""


A100 = (
    StageRate(name="index", seconds=0.02, start=5, gpu=False),
    StageRate(name="filters", seconds=0.0002, start=60, gpu=False),
    StageRate(name="detect", seconds=0.2, start=60, gpu=True),
    StageRate(name="segment", seconds=0.17, start=60, gpu=True),
    StageRate(name="describe", seconds=0.35, start=120, gpu=True),
)
"""The paper's models on an A100, five objects an image. `docs/scale.md` says where the figures come from."""


def simulate(rate: StageRate, shards: Sequence[int], workers: int, *, spread: float, seed: int = 0) -> float:
    """Seconds until a stage is done.

    Args:
        rate: the stage's.
        shards: images of each shard.
        workers: how many there are; all start at once.
        spread: standard deviation of the logarithm of a shard's time.
        seed: of the spread.
    """
    luck = np.exp(spread * numpy_generator(seed, rate.name).standard_normal(len(shards)) - spread**2 / 2)
    free = [rate.start] * min(workers, len(shards))
    for images, factor in zip(shards, luck, strict=True):
        heapq.heappush(free, heapq.heappop(free) + images * rate.seconds * factor)
    return max(free)


def plan(images: int, shard_size: int, *, gpus: int, cores: int, spread: float) -> dict[str, Any]:
    """Hours of every stage and of all, and the hours that GPUs are held."""
    shards = [min(shard_size, images - start) for start in range(0, images, shard_size)]
    hours, held = {}, 0.0
    for rate in A100:
        workers = gpus if rate.gpu else cores
        hours[rate.name] = simulate(rate, shards, workers, spread=spread) / 3600
        held += workers * hours[rate.name] if rate.gpu else 0.0
    return {
        "images": images,
        "shards": len(shards),
        "hours": {name: round(value, 2) for name, value in hours.items()},
        "wall_hours": round(sum(hours.values()), 2),
        "gpu_hours": round(held),
        "gpu_hours_at_work": round(sum(images * rate.seconds for rate in A100 if rate.gpu) / 3600),
    }


def check(pictures: int) -> dict[str, float]:
    """The index on one worker, what that predicts for two, and what two take."""
    seconds, start = [], []
    with tempfile.TemporaryDirectory() as temporary, on_ray.connected(cpus=2):
        source = write_source(Path(temporary) / "source", pictures)
        for workers in (1, 2):
            engine = Watched(workers)
            annotate(str(source), Path(temporary) / f"dataset-{workers}", [Index()], engine=engine)
            seconds.append(engine.done[-1] - engine.begun)
            start.append(engine.done[0] - engine.begun)
            shards = len(engine.done)
    each = (seconds[0] - start[0]) / (shards - 1)
    size = pictures // shards
    rate = StageRate(name="index", seconds=each / size, start=max(0.0, start[0] - each), gpu=False)
    predicted = simulate(rate, [size] * shards, 2, spread=0.0)
    print(f"one worker: {seconds[0]:.1f} s, start {rate.start:.1f} s", file=sys.stderr)
    return {
        "predicted_seconds": round(predicted, 2),
        "measured_seconds": round(seconds[1], 2),
        "predicted_over_measured": round(predicted / seconds[1], 3),
    }


def main() -> None:
    """Parse, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000_000)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--cores", type=int, default=512)
    parser.add_argument("--spread", type=float, default=0.2, help="of a shard's time, as a share of it")
    parser.add_argument("--check", action="store_true", help="compare a prediction with a run here")
    parser.add_argument("--pictures", type=int, default=2000, help="pictures of --check")
    arguments = parser.parse_args()
    if arguments.check:
        print(json.dumps(check(arguments.pictures)))
        return
    size, spread = arguments.shard_size, arguments.spread
    print(json.dumps(plan(arguments.images, size, gpus=arguments.gpus, cores=arguments.cores, spread=spread)))


if __name__ == "__main__":
    main()
