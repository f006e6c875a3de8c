"""What the metrics without downloads say of fills whose worth is known.

    python benchmarks/metrics_on_controls.py

Every hole is filled in six ways by the renderer, none by a model: the original, the object asked for in the
scene's style and in another, a piece of a scene in another style, the original blurred, and noise. A metric
is of use where it puts them in the right order: the tables show its mean for each, and how often the original
or the pasted object scores better than the same hole filled wrongly (0.5 is chance).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from mtadiffusion.evaluate.benchmark import Item
from mtadiffusion.evaluate.metrics import DEFAULTS, metric_named, score_batch
from mtadiffusion.evaluate.metrics.metric import Batch, Sample
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers.assets import STYLES
from mtadiffusion.stickers.controls import asked_for, blurred, paste_object
from mtadiffusion.stickers.problems import HoleProblem, background_filled, hole_problem

METRICS = tuple(name for name in DEFAULTS["sticker"] if name != "psnr")
COMPARISONS = (
    ("asked", "other style"),
    ("original", "foreign scene"),
    ("original", "blurred"),
    ("original", "noise"),
)
_BATCH = 32


def fills(problem: HoleProblem, foreign: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 (H, W, 3) by the kind of fill; `foreign` is a scene in another style."""
    picture, hole = problem.scene.record.image, problem.hole
    rng = numpy_generator(0, "benchmarks/metrics_on_controls", problem.index)
    background = background_filled(problem.scene, hole, rng)
    wanted = asked_for(problem)
    other = replace(wanted, style=STYLES[(STYLES.index(wanted.style) + 1 + problem.index % 3) % 4])
    drawn = {
        "original": picture,
        "asked": paste_object(background, hole, wanted),
        "other style": paste_object(background, hole, other),
        "foreign scene": foreign,
        "blurred": blurred(picture, hole),
        "noise": rng.integers(0, 256, size=picture.shape, dtype=np.uint8),
    }
    return {kind: np.where(hole[..., None], fill, picture) for kind, fill in drawn.items()}


def sample(problem: HoleProblem, result: np.ndarray) -> Sample:
    """A result beside its problem."""
    facts = {"style": problem.style, "colour": problem.colour}
    item = Item(
        item_id=str(problem.index),
        prompt=problem.prompt,
        label=problem.label,
        facts={name: value for name, value in facts.items() if value is not None},
    )
    return Sample(item=item, original=problem.scene.record.image, hole=problem.hole, result=result)


def scores(split: str, count: int) -> dict[str, dict[str, list[float | None]]]:
    """By metric and kind of fill, one number a hole."""
    metrics = [metric_named(name) for name in METRICS]
    for one in metrics:
        one.setup("cpu")
    problems = [hole_problem(split, index) for index in tqdm(range(count), desc="problems", unit="hole")]
    drawn = [fills(problem, foreign_picture(problems, place)) for place, problem in enumerate(problems)]
    found: dict[str, dict[str, list[float | None]]] = {name: {} for name in METRICS}
    for kind in tqdm(drawn[0], desc="fills", unit="kind"):
        samples = [sample(problem, fill[kind]) for problem, fill in zip(problems, drawn, strict=True)]
        for start in range(0, count, _BATCH):
            for name, values in score_batch(metrics, Batch(samples=samples[start : start + _BATCH])).items():
                found[name].setdefault(kind, []).extend(values)
    return found


def foreign_picture(problems: Sequence[HoleProblem], place: int) -> np.ndarray:
    """The next problem's picture whose style is another."""
    following = (*problems[place + 1 :], *problems[:place])
    return next(one.scene.record.image for one in following if one.style != problems[place].style)


def better_share(name: str, good: Sequence[float | None], bad: Sequence[float | None]) -> float:
    """How often the good fill of a hole scores better than the bad one; a tie is half."""
    sign = 1 if metric_named(name).definition.better == "higher" else -1
    pairs = [(a, b) for a, b in zip(good, bad, strict=True) if a is not None and b is not None]
    return float(np.mean([0.5 + 0.5 * np.sign(sign * (a - b)) for a, b in pairs]))


def report(found: dict[str, dict[str, list[float | None]]]) -> str:
    """Two Markdown tables: means, and shares in the right order."""
    kinds = list(next(iter(found.values())))
    means = {
        name: [np.mean([v for v in by_kind[kind] if v is not None]) for kind in kinds]
        for name, by_kind in found.items()
    }
    shares = {
        name: [better_share(name, by_kind[good], by_kind[bad]) for good, bad in COMPARISONS]
        for name, by_kind in found.items()
    }
    pairs = [f"{good} over {bad}" for good, bad in COMPARISONS]
    return f"{_table(kinds, means)}\n\n{_table(pairs, shares)}"


def _table(columns: Sequence[str], rows: dict[str, list[float]]) -> str:
    lines = [("Metric", *columns), ("---",) * (len(columns) + 1)]
    lines += [(f"`{name}`", *(f"{value:.2f}" for value in values)) for name, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Parse, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--holes", type=int, default=200)
    arguments = parser.parse_args()
    print(report(scores(arguments.split, arguments.holes)))


if __name__ == "__main__":
    main()
