"""How good the embedded model is, in figures: `python -m mtadiffusion.stickers.measure --split validation`.

Holes are filled by the branch and, beside it, by the backbone alone with latent blending; the judge says what
it makes out in them. Nothing may be chosen on the test split; guidance is compared on the validation split,
for both alike, by `--tune-guidance`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.imaging.images import save_png
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.models.registry import load_pipeline
from mtadiffusion.seeding import numpy_generator, torch_generator
from mtadiffusion.stickers import wording
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.controls import judge_report
from mtadiffusion.stickers.demo import DemoRow, contact_sheet
from mtadiffusion.stickers.judge import Judge, Verdict, load_judge
from mtadiffusion.stickers.problems import KINDS, HoleProblem, hole_problem
from mtadiffusion.stickers.sampling import Sampling
from mtadiffusion.stickers.scenes import SPLITS, SceneWorld, choose_sprite

GUIDANCES = (1.0, 1.5, 2.0, 3.0)
"""What `--tune-guidance` tries, for the branch, the backbone alone and text to image alike."""

SHEET_ROWS = 24
TEXT_IMAGES = 240
VAE_SCENES = 200
RENDERED = 1000
"""Scenes that the renderer's speed is taken from, after as many to warm up."""

_TIMED, _TIMING_THREADS = 5, 2
_BATCH = 8


def measure(
    split: str = "validation",
    holes: int = 400,
    *,
    model: str = "sticker",
    branch: str | None = "sticker",
    sampling: Sampling | None = None,
    device: str = "auto",
    sheet: Path | None = None,
) -> dict[str, Any]:
    """All figures of a model on a split of the sticker world; progress goes to stderr.

    Args:
        split: `validation`, or `test` for final figures.
        holes: how many problems; a quarter of them ask for combinations that training never shows.
        model: backbone, as `load_pipeline` takes it.
        branch: branch, as `load_pipeline` takes it.
        sampling: steps, guidance and seed; the chosen ones by default.
        device: as `load_pipeline` takes it.
        sheet: where to write a contact sheet of the first problems.

    Returns:
        JSON-ready: shares in [0, 1], dB for the VAE, known pixels' difference in 8-bit steps, MB of 10^6.
    """
    _check(split, holes)
    sampling = Sampling() if sampling is None else sampling
    judge = load_judge()
    pipeline = load_pipeline(model, branch, device=device)
    pipeline.set_progress_bar_config(disable=True)
    problems = [
        hole_problem(split, index, size=pipeline.resolution)
        for index in tqdm(range(holes), desc="problems", unit="hole")
    ]
    filled = fill(pipeline, problems, sampling, branch_scale=1.0)
    alone = fill(pipeline, problems, sampling, branch_scale=0.0)
    if sheet is not None:
        rows = [
            DemoRow(problem=p, backbone_alone=Image.fromarray(a), with_branch=Image.fromarray(f))
            for p, a, f in zip(problems[:SHEET_ROWS], alone, filled, strict=False)
        ]
        save_png(contact_sheet(rows), sheet, "--sheet")
    trust = judge_report(judge, problems, split=split)
    scored = answers(judge, problems, filled)
    figures: dict[str, Any] = {
        "split": split,
        "holes": holes,
        **scored,
        **{f"backbone_{name}": share for name, share in answers(judge, problems, alone).items()},
        "by": _breakdown(judge, problems, filled),
        "text_to_image_category": text_to_image(pipeline, judge, sampling, split=split, count=TEXT_IMAGES),
        **vae_quality(pipeline, split=split, count=VAE_SCENES),
        "known_max_difference": max(_known_difference(problems, filled), _known_difference(problems, alone)),
        "seconds_per_image": seconds_per_image(pipeline, problems[0], sampling),
        "judge_category": trust.pop("category"),
        "judge_style": trust.pop("style"),
        "judge_controls": {name: round(share, 4) for name, share in trust.items()},
        "scenes_per_second": scenes_per_second(split, RENDERED),
        "weights_mb": weights_mb(),
        "tree_mb": tree_mb(),
        "steps": sampling.steps,
        "guidance": [sampling.branch_guidance, sampling.backbone_guidance, sampling.text_guidance],
    }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def tune_guidance(
    holes: int = 100, *, model: str = "sticker", branch: str | None = "sticker", device: str = "auto"
) -> list[dict[str, float]]:
    """What each of `GUIDANCES` gives on validation holes: a row a scale, the same for branch and backbone."""
    _check("validation", holes)
    judge, pipeline = load_judge(), load_pipeline(model, branch, device=device)
    pipeline.set_progress_bar_config(disable=True)
    problems = [hole_problem("validation", index, size=pipeline.resolution) for index in range(holes)]
    rows = []
    for scale in GUIDANCES:
        sampling = Sampling(branch_guidance=scale, backbone_guidance=scale, text_guidance=scale)
        row = {"guidance": scale}
        for prefix, branch_scale in (("", 1.0), ("backbone_", 0.0)):
            scored = answers(judge, problems, fill(pipeline, problems, sampling, branch_scale=branch_scale))
            row |= {f"{prefix}{name}": share for name, share in scored.items()}
            row[f"{prefix}mean"] = float(np.mean(list(scored.values())))
        row["text_to_image_category"] = text_to_image(
            pipeline, judge, sampling, split="validation", count=holes
        )
        rows.append(row)
    return rows


def fill(
    pipeline: MTAInpaintPipeline, problems: Sequence[HoleProblem], sampling: Sampling, *, branch_scale: float
) -> np.ndarray:
    """The problems' pictures with their holes filled: uint8 (B, H, W, 3) RGB.

    At `branch_scale` 0 the backbone works alone, with latent blending.
    """
    alone = branch_scale == 0
    drawn: list[np.ndarray] = []
    for group in _groups(problems, "backbone alone" if alone else "branch"):
        result: Any = pipeline(
            [problem.prompt for problem in group],
            [problem.scene.record.image for problem in group],
            [problem.hole for problem in group],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.backbone_guidance if alone else sampling.branch_guidance,
            generator=[torch_generator(sampling.seed, "measure/fill", problem.index) for problem in group],
            branch_scale=branch_scale,
            latent_blending=alone,
        )
        drawn += [np.asarray(image) for image in result.images]
    return np.stack(drawn)


def answers(judge: Judge, problems: Sequence[HoleProblem], pictures: np.ndarray) -> dict[str, float]:
    """Shares of holes with the right category, style and (of those that a colour was asked for) colour."""
    verdicts = judge.verdicts(pictures, np.stack([problem.hole for problem in problems]))
    return _scores(list(zip(problems, verdicts, strict=True)))


def text_to_image(
    pipeline: MTAInpaintPipeline,
    judge: Judge,
    sampling: Sampling,
    *,
    split: str,
    count: int,
) -> float:
    """Share of descriptions of one object whose category the judge sees in the whole picture.

    The backbone draws in stock diffusers' own pipeline.
    """
    stock = stock_pipeline(pipeline)
    wishes = [_wish(split, index) for index in range(count)]
    right = 0
    for group in _groups(list(enumerate(wishes)), "text to image"):
        images = stock(
            [prompt for _, (_, prompt) in group],
            height=pipeline.resolution,
            width=pipeline.resolution,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.text_guidance,
            generator=[torch_generator(sampling.seed, "measure/text", index) for index, _ in group],
        ).images
        pictures = np.stack([np.asarray(image) for image in images])
        verdicts = judge.verdicts(pictures, np.ones(pictures.shape[:3], dtype=bool))
        right += sum(
            verdict.category == label for verdict, (_, (label, _)) in zip(verdicts, group, strict=True)
        )
    return right / count


def stock_pipeline(pipeline: MTAInpaintPipeline) -> Any:
    """The backbone in stock diffusers' text-to-image pipeline; the models are shared."""
    stock: Any = StableDiffusionPipeline(
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        unet=pipeline.unet,
        scheduler=pipeline.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    stock.set_progress_bar_config(disable=True)
    return stock


@torch.no_grad()
def vae_quality(pipeline: MTAInpaintPipeline, *, split: str, count: int) -> dict[str, float]:
    """PSNR in dB of encoded and decoded scenes: of all pixels and of those of objects, from mean errors."""
    world = SceneWorld(split=split, size=pipeline.resolution)
    errors, inside = [], []
    for group in _groups(range(count), "autoencoder"):
        records = [world.record(index) for index in group]
        pictures = torch.from_numpy(np.stack([record.image for record in records])).permute(0, 3, 1, 2) / 255
        encoded = pipeline.vae.encode((pictures * 2 - 1).to(pipeline.device, pipeline.vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        decoded = pipeline.vae.decode(latents, return_dict=False)[0].float().cpu() / 2 + 0.5
        errors.append(((decoded.clamp(0, 1) - pictures) ** 2).mean(1))  # (B, H, W)
        inside += [np.any([thing.mask for thing in record.objects], axis=0) for record in records]
    squared = torch.cat(errors).numpy()
    return {
        "vae_psnr": _decibels(squared.mean()),
        "vae_psnr_objects": _decibels(squared[np.stack(inside)].mean()),
    }


def seconds_per_image(pipeline: MTAInpaintPipeline, problem: HoleProblem, sampling: Sampling) -> float:
    """Median seconds of one filled picture on two threads, after one to warm up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_TIMING_THREADS)
    try:
        taken = []
        for _ in tqdm(range(_TIMED + 1), desc="timing", unit="image"):
            start = time.perf_counter()
            pipeline(
                problem.prompt,
                problem.scene.record.image,
                problem.hole,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.branch_guidance,
                generator=torch_generator(sampling.seed, "measure/timing"),
            )
            taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(taken[1:]))


def scenes_per_second(split: str, count: int) -> float:
    """Scenes of 64 pixels that one core renders in a second of its time, caches warm."""
    world = SceneWorld(split=split, size=64)
    for index in range(count):
        world.scene(index)
    start = time.process_time()
    for index in range(count):
        world.scene(index)
    return count / (time.process_time() - start)


def weights_mb() -> float:
    """Megabytes of all safetensors in the package."""
    weights = Path(__file__).parents[1].rglob("*.safetensors")
    return sum(path.stat().st_size for path in weights) / 1e6


def tree_mb() -> float | None:
    """Megabytes of the checkout's tracked files; None outside of a checkout."""
    root = Path(__file__).parents[3]
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False)
    if listing.returncode:
        return None
    paths = (root / name for name in listing.stdout.decode().split("\0") if name)
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def _check(split: str, holes: int) -> None:
    if split not in SPLITS[1:]:
        remedy = "training scenes are not held out" if split in SPLITS else nearest_name(split, SPLITS[1:])
        raise UserError("--split", "must be validation or test", split, remedy)
    if not 8 <= holes <= 100_000:
        raise UserError("--holes", "must be between 8 and 100000", holes, "400 for figures to report")


def _wish(split: str, index: int) -> tuple[str, str]:
    """(label, prompt) of one object that the sprites can show."""
    rng = numpy_generator(0, f"stickers/text/{split}", index)
    label = labels()[index % len(labels())]
    chosen = choose_sprite(rng, label, STYLES[int(rng.integers(len(STYLES)))], held_out=False)
    return label, wording.describe(rng, label, chosen.colour, chosen.style)


def _scores(judged: Sequence[tuple[HoleProblem, Verdict]]) -> dict[str, float]:
    tests: dict[str, Callable[[HoleProblem, Verdict], bool]] = {
        "category": lambda problem, verdict: verdict.category == problem.label,
        "style": lambda problem, verdict: verdict.style == problem.style,
        "colour": lambda problem, verdict: verdict.colour == problem.colour,
    }
    coloured = [(problem, verdict) for problem, verdict in judged if problem.colour is not None]
    return {
        name: float(np.mean([test(*pair) for pair in (coloured if name == "colour" else judged)]))
        for name, test in tests.items()
    }


def _breakdown(
    judge: Judge, problems: Sequence[HoleProblem], pictures: np.ndarray
) -> dict[str, dict[str, float]]:
    """The same scores by kind of hole, and apart for combinations that training never shows."""
    verdicts = judge.verdicts(pictures, np.stack([problem.hole for problem in problems]))
    judged = list(zip(problems, verdicts, strict=True))
    parts = {kind: [pair for pair in judged if pair[0].kind == kind] for kind in KINDS}
    parts["held_out"] = [pair for pair in judged if pair[0].held_out]
    return {name: {k: round(v, 4) for k, v in _scores(part).items()} for name, part in parts.items()}


def _known_difference(problems: Sequence[HoleProblem], pictures: np.ndarray) -> int:
    """The largest change of a pixel outside a hole, in 8-bit steps."""
    originals = np.stack([problem.scene.record.image for problem in problems])
    known = ~np.stack([problem.hole for problem in problems])
    return int(np.abs(pictures.astype(np.int16) - originals)[known].max(initial=0))


def _decibels(mean_squared_error: float) -> float:
    return float(-10 * np.log10(mean_squared_error))


def _groups(items: Sequence[Any], title: str) -> Iterator[Sequence[Any]]:
    with tqdm(total=len(items), desc=title, unit="image") as progress:
        for start in range(0, len(items), _BATCH):
            group = items[start : start + _BATCH]
            yield group
            progress.update(len(group))


def _print_table(rows: Sequence[dict[str, float]]) -> None:
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value:{len(name)}.3f}" for name, value in row.items()))


def main() -> None:
    """Parse, measure, print one JSON object (or, with --tune-guidance, a table)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--holes", type=int, default=None, help="400; 100 with --tune-guidance")
    parser.add_argument("--model", default="sticker")
    parser.add_argument("--branch", default="sticker")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sheet", type=Path, help=f"write a PNG of the first {SHEET_ROWS} problems")
    parser.add_argument("--tune-guidance", action="store_true", help="compare scales on the validation split")
    arguments = parser.parse_args()
    named = {"model": arguments.model, "branch": arguments.branch, "device": arguments.device}
    try:
        if arguments.tune_guidance:
            _print_table(tune_guidance(arguments.holes or 100, **named))
        else:
            holes = 400 if arguments.holes is None else arguments.holes
            print(json.dumps(measure(arguments.split, holes, sheet=arguments.sheet, **named)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
