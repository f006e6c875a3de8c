"""What annotation costs beside decoding and models, and that nothing is lost when it is killed.

    python benchmarks/annotate.py

Pictures of 512 pixels go through index, filters, labels, detect, segment and describe, with models that cost
nothing. Progress goes to stderr; the last line on stdout is one JSON object:

- `images_per_second_per_core`: end to end, in one process.
- `overhead_ms_per_image_stage`: all time but that of decoding and of the models, an image and a stage, the
  mean of all six stages; `overhead_ms_by_stage` has each of them. Reading the source, hashing, cleaning and
  coding masks, cropping and writing the tables are in it.
- `decode_ms_per_image_stage`: decoding, beside it.
- `detection_f1`, `mask_iou`, `style`, `colour`: the embedded annotators on scenes of the validation split
  (`--split test` for scenes that nothing was chosen on).
- `peak_memory_mb`, `peak_memory_mb_10x`: of a process that annotates some shards, and ten times as many.
- `ray_speedup_2_workers`: shards a second of two Ray workers over those of one, from the first shard done to
  the last; `ray_start_seconds`: what comes before, the slower of the two.
- `resume_kills`, `resume_rows_lost`, `resume_rows_twice`, `resume_rows_changed`: runs killed that often at
  random moments and resumed, compared row for row with an undisturbed one.

Speeds in one process are taken from its own processor time, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from tqdm import tqdm

from mtadiffusion.annotate import describe
from mtadiffusion.annotate import index as index_module
from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.detect import Detect, Detection
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.run import Worker
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.annotate.stage import Stage
from mtadiffusion.data import images
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.tables import Table
from mtadiffusion.engines import on_ray
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers.annotation_quality import annotation_quality

SIDE = 512
KILLS = 20
SHARD = 50
"""Pictures a shard."""


class NoDetector:
    """Finds two boxes in every picture at once."""

    longest = SIDE

    def settings(self) -> dict[str, Any]:
        return {}

    def load(self) -> None:
        pass

    def detect(self, images: Sequence[Image.Image], labels: Any, min_score: float) -> list[list[Detection]]:
        boxes = ((40.0, 60.0, 240.0, 300.0), (280.0, 200.0, 480.0, 440.0))
        return [[Detection(label="thing", score=0.9, box_xyxy=box) for box in boxes] for _ in images]


class NoSegmenter:
    """Takes an ellipse for the mask of every box."""

    longest = SIDE

    def settings(self) -> dict[str, Any]:
        return {}

    def load(self) -> None:
        y, x = np.mgrid[-1:1:240j, -1:1:200j]
        self.ellipse = x**2 + y**2 < 1

    def segment(
        self, image: Image.Image, boxes_xyxy: Sequence[Sequence[float]], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        masks = np.zeros((len(boxes_xyxy), size[1], size[0]), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = self.ellipse
        return masks, np.full(len(masks), 0.9)


class NoDescriber:
    """Says the same of every crop."""

    longest = SIDE

    def settings(self) -> dict[str, Any]:
        return {}

    def load(self) -> None:
        pass

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        return ["A shiny red thing with round corners, drawn with bold outlines."] * len(images)


class NoLimit:
    """Every text fits."""

    def settings(self) -> dict[str, Any]:
        return {}

    def load(self) -> Any:
        return lambda text: True


def build() -> list[Stage]:
    """The stages, with models that cost nothing."""
    return [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("thing",))),
        Detect(detector=NoDetector()),
        Segment(segmenter=NoSegmenter()),
        describe.Describe(describer=NoDescriber(), limit=NoLimit()),
    ]


def write_source(folder: Path, pictures: int) -> Path:
    """Tars of `SHARD` JPEGs of 512 pixels each, some 60 kB a picture."""
    folder.mkdir(parents=True)
    for start in tqdm(range(0, pictures, SHARD), desc=f"source of {pictures}", unit="tar"):
        with tarfile.open(folder / f"{start // SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + SHARD, pictures)):
                data = _picture(number)
                for name, content in ((f"{number:08d}.jpg", data), (f"{number:08d}.txt", b"a picture")):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def _picture(number: int) -> bytes:
    rng = numpy_generator(0, "benchmark", number)
    coarse, fine = (rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (8, 128))
    grown = [Image.fromarray(a).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for a in (coarse, fine)]
    buffer = io.BytesIO()
    Image.blend(*grown, 0.3).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@contextmanager
def timed(*places: tuple[Any, str]) -> Iterator[dict[str, float]]:
    """Sums the seconds of processor time that this process spends in some functions: (where, name)."""
    spent = {"seconds": 0.0}

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*arguments)
            finally:
                spent["seconds"] += time.process_time() - begun

        return call

    with ExitStack() as stack:
        for place, name in places:
            stack.enter_context(mock.patch.object(place, name, clocked(getattr(place, name))))
        yield spent


def throughput(folder: Path, pictures: int) -> dict[str, Any]:
    """End to end in one process, stage by stage."""
    source, each = write_source(folder / "source", pictures), 1000 / pictures
    decoders = (images, "decode"), (index_module, "opened"), (index_module, "pixels")
    models = (NoDetector, "detect"), (NoSegmenter, "segment"), (NoDescriber, "answer")
    whole, overhead = 0.0, {}
    with timed(*decoders) as decoding, timed(*models) as modelling:
        for stage in build():
            begun, other = time.process_time(), decoding["seconds"] + modelling["seconds"]
            (report,) = annotate(str(source), folder / "dataset", [stage])
            seconds = time.process_time() - begun
            assert report.images == pictures
            other = decoding["seconds"] + modelling["seconds"] - other
            overhead[report.table.name] = round((seconds - other) * each, 3)
            whole += seconds
    left = whole - decoding["seconds"] - modelling["seconds"]
    return {
        "images_per_second_per_core": round(pictures / whole, 1),
        "overhead_ms_per_image_stage": round(left * each / len(overhead), 3),
        "overhead_ms_by_stage": overhead,
        "decode_ms_per_image_stage": round(decoding["seconds"] * each / len(overhead), 3),
    }


def peak_memory(folder: Path, pictures: int) -> float:
    """MB of a process that annotates so many pictures."""
    source = write_source(folder / "source", pictures)
    done = subprocess.run(_command(source, folder / "dataset"), check=True, capture_output=True, text=True)
    return round(json.loads(done.stdout.splitlines()[-1])["peak_mb"], 1)


def _command(source: Path, out: Path) -> list[str]:
    return [sys.executable, __file__, "--one", str(source), str(out)]


def one(source: Path, out: Path) -> None:
    """What `_command` runs: all stages here, then the peak of this process's memory."""
    annotate(str(source), out, build())
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


class Watched:
    """An engine that notes when each shard was done."""

    def __init__(self, workers: int) -> None:
        self.engine, self.begun, self.done = on_ray.OnRay(workers), time.monotonic(), list[float]()

    def make(self, worker: Worker, shards: Sequence[int]) -> Iterator[int]:
        self.begun = time.monotonic()
        for rows in self.engine.make(worker, shards):
            self.done.append(time.monotonic())
            yield rows


def ray_speedup(folder: Path, pictures: int) -> dict[str, float]:
    """The index on one and on two Ray workers; it reads, decodes, hashes and packs."""
    source = write_source(folder / "source", pictures)
    pace, start = [], []
    with on_ray.connected(cpus=2):
        for workers in (1, 2):
            engine = Watched(workers)
            annotate(str(source), folder / f"dataset-{workers}", [Index()], engine=engine)
            start.append(engine.done[0] - engine.begun)
            pace.append((len(engine.done) - workers) / (engine.done[-1] - engine.done[workers - 1]))
    return {"ray_speedup_2_workers": round(pace[1] / pace[0], 2), "ray_start_seconds": round(max(start), 1)}


def resumed(folder: Path, pictures: int, kills: int) -> dict[str, int]:
    """Rows after `kills` deaths at random moments, against a run that nothing disturbed."""
    source = write_source(folder / "source", pictures)
    begun = time.monotonic()
    subprocess.run(_command(source, folder / "whole"), check=True, capture_output=True)
    longest, rng, killed = time.monotonic() - begun, random.Random(0), 0
    with tqdm(total=kills, desc="kills", unit="kill") as bar:
        while killed < kills:
            process = subprocess.Popen(
                _command(source, folder / f"cut-{killed // 4}"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(rng.uniform(0.1, 0.6) * longest)
            except subprocess.TimeoutExpired:
                process.kill()
            killed += 1
            bar.update()
            process.wait()
    totals: Counter[str] = Counter()
    for cut in sorted(folder.glob("cut-*")):
        subprocess.run(_command(source, cut), check=True, capture_output=True)
        totals += _difference(folder / "whole", cut)
    kinds = ("lost", "twice", "changed")
    return {"resume_kills": kills} | {f"resume_rows_{kind}": totals[kind] for kind in kinds}


def _difference(whole: Path, cut: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for name in Dataset.open(whole).manifest.tables:
        wanted, got = (_rows(Dataset.open(root), name) for root in (whole, cut))
        counts = Counter(json.loads(row)["image_id"] for row in got)
        names = [json.loads(row)["image_id"] for row in wanted]
        found["lost"] += sum(counts[one] == 0 for one in names)
        found["twice"] += sum(count - 1 for count in counts.values())
        found["changed"] += sum(a != b for a, b in zip(wanted, got, strict=False))
    return found


def _rows(dataset: Dataset, name: str) -> list[str]:
    table: Table = dataset.table(name)
    shards = (table.read(n).to_pylist() for n in range(dataset.manifest.shards))
    return [json.dumps(row, sort_keys=True, default=bytes.hex) for shard in shards for row in shard]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000, help="pictures of the longest measurement")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--scenes", type=int, default=500, help="scenes that the annotators are judged on")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("SOURCE", "OUT"), help="print its peak")
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root, some = Path(temporary), max(SHARD, arguments.pictures // 10)
        figures: dict[str, Any] = throughput(root / "throughput", arguments.pictures)
        quality = annotation_quality(arguments.split, arguments.scenes)
        figures |= {name: round(share, 4) for name, share in quality.items()}
        figures["peak_memory_mb"] = peak_memory(root / "memory", some)
        figures["peak_memory_mb_10x"] = peak_memory(root / "memory10", 10 * some)
        figures |= resumed(root / "resumed", some, arguments.kills)
        figures |= ray_speedup(root / "ray", 3 * arguments.pictures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
