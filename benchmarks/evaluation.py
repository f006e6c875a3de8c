"""What evaluation costs: batched scoring with shared features against a loop, and the embedded benchmark.

    python benchmarks/evaluation.py

Progress goes to stderr; the last line on stdout is one JSON object:

- `scoring_speedup`: processor time of a loop that asks each metric for one picture at a time, as BrushNet's
  script does, over that of this project's batches, whose metrics share the picture's vector. CLIP similarity
  and aesthetic score, CLIP of the ViT-B/32 layout with random weights; median of rounds that time both.
- `scoring_difference`: the largest difference between the two ways' scores.
- `sticker_bench_minutes`: `mta evaluate` on the embedded benchmark's 200 items with two methods and all
  embedded metrics, in two processes; `sticker_bench_core_minutes`: the processor time of it, which other work
  on the machine changes less.
- `study_answers_lost`: answers that a simulated user study loses (benchmarks/study.py); null without it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from mtadiffusion.evaluate.benchmark import Item
from mtadiffusion.evaluate.metrics import metric_named, score_batch
from mtadiffusion.evaluate.metrics.metric import Batch, Sample
from mtadiffusion.evaluate.score import BATCH
from mtadiffusion.seeding import numpy_generator

SIDE = 512
PROMPTS = (
    "a bowl of ripe fruit on a wooden table by the window",
    "a small dog that wears a blue scarf in the snow",
    "an old lighthouse above a rough sea, painted in oil",
    "two people who ride bicycles along a canal in spring",
)
METHODS = ("mtadiffusion", "backbone")


def scoring(pictures: int, rounds: int) -> dict[str, float]:
    """Speed and difference of the two ways."""
    samples = [_sample(number) for number in range(pictures)]
    with tempfile.TemporaryDirectory() as temporary:
        folder, head = _write_clip(Path(temporary) / "clip"), Path(temporary) / "head.safetensors"
        _write_head(head, CLIPConfig.from_pretrained(folder).projection_dim)
        metrics = [
            metric_named("clip_similarity", model=str(folder)),
            metric_named("aesthetic", model=str(folder), head=str(head)),
        ]
        for metric in metrics:
            metric.setup("cpu")
        loop = Loop(folder, head)
        _batched(metrics, samples[:BATCH]), loop.scores(samples[:2])
        ratios = []
        for _ in tqdm(range(rounds), desc="scoring", unit="round"):
            ours, ours_seconds = _timed(lambda: _batched(metrics, samples))
            theirs, their_seconds = _timed(lambda: loop.scores(samples))
            ratios.append(their_seconds / ours_seconds)
    return {
        "scoring_speedup": round(statistics.median(ratios), 2),
        "scoring_difference": round(float(np.abs(np.subtract(ours, theirs)).max()), 6),
    }


class Loop:
    """Each metric with a CLIP of its own, asked for one picture after the other."""

    def __init__(self, folder: Path, head: Path) -> None:
        from safetensors.torch import load_file

        self._similarity, self._aesthetic = (CLIPModel.from_pretrained(folder).eval() for _ in range(2))
        self._processor = CLIPProcessor.from_pretrained(folder)
        self._head = load_file(head)

    @torch.inference_mode()
    def scores(self, samples: Sequence[Sample]) -> list[list[float]]:
        """(similarity, aesthetic) of each sample."""
        return [[self._similar(sample), self._beautiful(sample)] for sample in samples]

    def _similar(self, sample: Sample) -> float:
        text = self._processor.tokenizer([sample.item.prompt], truncation=True, return_tensors="pt")
        model = self._similarity
        words = model.text_projection(model.text_model(**text).pooler_output)
        return max(100 * float(F.cosine_similarity(self._vector(model, sample), words)), 0.0)

    def _beautiful(self, sample: Sample) -> float:
        vector = F.normalize(self._vector(self._aesthetic, sample), dim=-1)
        return float(vector @ self._head["weight"].T + self._head["bias"])

    def _vector(self, model: Any, sample: Sample) -> torch.Tensor:
        pixels = self._processor.image_processor([Image.fromarray(sample.result)], return_tensors="pt")
        return model.visual_projection(model.vision_model(**pixels).pooler_output)


def sticker_bench(items: int, out: Path) -> dict[str, float]:
    """Minutes of `mta evaluate` on the embedded benchmark."""
    command = [Path(sys.executable).with_name("mta"), "evaluate", "--benchmark", "stickerbench"]
    words = [part for method in METHODS for part in ("--method", method)]
    begun, used = time.monotonic(), _core_seconds()
    subprocess.run(
        [*command, *words, "--out", out, "--workers", "2", "--limit", str(items)],
        check=True,
        stdout=sys.stderr,
    )
    return {
        "sticker_bench_minutes": round((time.monotonic() - begun) / 60, 2),
        "sticker_bench_core_minutes": round((_core_seconds() - used) / 60, 2),
    }


def study_answers_lost() -> int | None:
    """Of the study's own benchmark; None where that is not."""
    try:
        import study
    except ModuleNotFoundError:
        return None
    return int(study.answers_lost()["study_answers_lost"])


def _batched(metrics: Sequence[Any], samples: Sequence[Sample]) -> list[list[float]]:
    rows: list[list[float]] = []
    for start in range(0, len(samples), BATCH):
        scores = score_batch(metrics, Batch(samples=samples[start : start + BATCH]))
        rows += [list(row) for row in zip(*scores.values(), strict=True)]
    return rows


def _timed(work: Any) -> tuple[Any, float]:
    """What it gives, and the processor time that it takes: other work on the machine does not count."""
    begun = time.process_time()
    return work(), time.process_time() - begun


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sample(number: int) -> Sample:
    coarse = numpy_generator(0, "benchmark/evaluation", number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    item = Item(item_id=str(number), prompt=PROMPTS[number % len(PROMPTS)])
    return Sample(item=item, original=picture, hole=np.ones((SIDE, SIDE), dtype=bool), result=picture)


def _write_clip(folder: Path) -> Path:
    """A CLIP of the ViT-B/32 layout with random weights, and a tokenizer of the prompts' words."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    return folder


def _tokenizer() -> CLIPTokenizer:
    """Words of the prompts are one token each, as they are in CLIP's own vocabulary."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary, merges = letters + [f"{letter}</w>" for letter in letters], []
    for word in sorted({word.strip(",") for prompt in PROMPTS for word in prompt.split()}):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.append(parts[0])
    names = list(dict.fromkeys([*vocabulary, "<|startoftext|>", "<|endoftext|>"]))
    return CLIPTokenizer(
        vocab={name: number for number, name in enumerate(names)},
        merges=list(dict.fromkeys(merges)),
        model_max_length=77,
    )


def _write_head(path: Path, width: int) -> None:
    from safetensors.torch import save_file

    weight = numpy_generator(0, "benchmark/head").normal(0, 1, (1, width)).astype(np.float32)
    save_file({"weight": torch.from_numpy(weight), "bias": torch.full((1,), 5.0)}, path)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=48, help="that are scored")
    parser.add_argument("--rounds", type=int, default=3, help="of scoring")
    parser.add_argument("--items", type=int, default=200, help="of the embedded benchmark; 0 leaves it out")
    arguments = parser.parse_args()
    figures: dict[str, Any] = scoring(arguments.pictures, arguments.rounds)
    if arguments.items:
        with tempfile.TemporaryDirectory() as temporary:
            figures |= sticker_bench(arguments.items, Path(temporary) / "out")
    print(json.dumps({**figures, "study_answers_lost": study_answers_lost()}))


if __name__ == "__main__":
    main()
