"""What `edge_f1_predicted` says: the edges that the embedded branch predicts, against those of its pictures.

    python benchmarks/predicted_edges.py

Draws holes of StickerBench and compares each result with its own prediction (as the branch makes it at the
first, a middle and the last step), with the prediction for another item, and with edges everywhere. Then it
says whether good fills agree better: those in which the judge sees the object, or the style, asked for. The
share is how often one with it scores above one without; 0.5 is chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from mtadiffusion.evaluate.benchmarks import benchmark
from mtadiffusion.evaluate.generate import seed_of
from mtadiffusion.evaluate.methods.method import Request
from mtadiffusion.evaluate.methods.registry import method
from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.metric import Batch, Sample

TOGETHER = 16
AWAY = 13
"""The other item, counted from the own one: of another style and another kind of hole."""


def drawn(split: str, count: int) -> tuple[list[Sample], np.ndarray]:
    """Results, and the predictions of each at every step, float32 (count, steps, h, w)."""
    bench, ours = benchmark("stickerbench", split=split), method("mtadiffusion")
    ours.setup(bench.settings, "cpu", "float32")
    put_out: list[np.ndarray] = []
    ours._pipe.branch.register_forward_hook(lambda _m, _a, made: put_out.append(made.edge[:, 0].numpy()))
    samples, predictions = [], []
    for start in tqdm(range(0, count, TOGETHER), desc="draw", unit="batch"):
        items = bench.items()[start : min(start + TOGETHER, count)]
        pairs = [(bench.picture(item), bench.hole(item)) for item in items]
        asked = [
            Request(
                image=np.where(hole[..., None], 0, picture).astype(np.uint8),
                hole=hole,
                prompt=item.prompt,
                seed=seed_of(bench.settings, item),
            )
            for item, (picture, hole) in zip(items, pairs, strict=True)
        ]
        put_out.clear()
        for item, (picture, hole), made in zip(items, pairs, ours.generate_with_edges(asked), strict=True):
            samples.append(
                Sample(item=item, original=picture, hole=hole, result=made.picture, edges=made.edges)
            )
        predictions.append(np.stack(put_out, axis=1))
    return samples, np.concatenate(predictions)


def scores(samples: Sequence[Sample], edges: np.ndarray) -> np.ndarray:
    """F1 of each sample with the edges (h, w) that stand at its place."""
    changed = [replace(sample, edges=one) for sample, one in zip(samples, edges, strict=True)]
    return np.array(metric_named("edge_f1_predicted").score(Batch(samples=changed)), dtype=float)


def above(first: np.ndarray, second: np.ndarray) -> float:
    """How often a number of the first is greater than one of the second; a tie is half."""
    return float(np.mean(0.5 + 0.5 * np.sign(first[:, None] - second)))


def main() -> None:
    """Parse, draw, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--items", type=int, default=96)
    arguments = parser.parse_args()
    samples, predictions = drawn(arguments.split, arguments.items)
    steps = predictions.shape[1]
    own = {step: scores(samples, predictions[:, step - 1]) for step in (1, steps // 2, steps)}
    for step, found in own.items():
        print(f"own prediction at step {step} of {steps}: {found.mean():.2f}")
    other = scores(samples, np.roll(predictions[:, -1], AWAY, axis=0))
    print(f"another item's: {other.mean():.2f}; the own one is better in {np.mean(own[steps] > other):.2f}")
    print(f"edges everywhere: {scores(samples, np.ones_like(predictions[:, -1])).mean():.2f}")
    for name in ("sticker_category", "sticker_style"):
        judge = metric_named(name)
        judge.setup("cpu")
        right = np.array(judge.score(Batch(samples=samples)), dtype=float) == 1
        print(f"{name}: right above wrong in {above(own[steps][right], own[steps][~right]):.2f}")


if __name__ == "__main__":
    main()
