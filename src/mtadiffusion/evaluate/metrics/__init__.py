"""Metrics of filled holes: adapters of published ones and our own for structure, style and seams.

Each is a name here, imported when asked for. `docs/metrics.md` lists their definitions.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.specification import typed

if TYPE_CHECKING:
    from mtadiffusion.evaluate.metrics.metric import Batch, Metric

_OWN = "mtadiffusion.evaluate.metrics"
_STICKERS = "mtadiffusion.stickers.metrics"

METRICS: Mapping[str, str] = {
    "image_reward": f"{_OWN}.image_reward:ImageReward",
    "hps": f"{_OWN}.hps:HumanPreference",
    "aesthetic": f"{_OWN}.aesthetic:Aesthetic",
    "psnr_brushnet": f"{_OWN}.pixels:psnr_brushnet",
    "mse_brushnet": f"{_OWN}.pixels:mse_brushnet",
    "lpips_brushnet": f"{_OWN}.lpips:lpips_brushnet",
    "clip_similarity": f"{_OWN}.clip_similarity:ClipSimilarity",
    "vqa_score": f"{_OWN}.vqa_score:VqaScore",
    "vqa_score_vlm": f"{_OWN}.vqa_score_vlm:VlmScore",
    "psnr": f"{_OWN}.pixels:psnr",
    "mse": f"{_OWN}.pixels:mse",
    "lpips": f"{_OWN}.lpips:lpips",
    "hit": f"{_OWN}.hit:hit",
    "edge_f1": f"{_OWN}.edges:edge_f1",
    "edge_f1_sobel": f"{_OWN}.edges:edge_f1_sobel",
    "edge_f1_predicted": f"{_OWN}.predicted_edges:edge_f1_predicted",
    "edge_density_gap": f"{_OWN}.edges:edge_density_gap",
    "sharpness_gap": f"{_OWN}.edges:sharpness_gap",
    "style_gram": f"{_OWN}.style:StyleGram",
    "colour_distance": f"{_OWN}.colour:colour_distance",
    "seam_delta_e": f"{_OWN}.seam:seam_delta_e",
    "sticker_category": f"{_STICKERS}:sticker_category",
    "sticker_style": f"{_STICKERS}:sticker_style",
    "sticker_colour": f"{_STICKERS}:sticker_colour",
}
"""By name, where what makes it lies: a class or function of its options."""

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "paper": (
        "image_reward",
        "hps",
        "aesthetic",
        "psnr_brushnet",
        "mse_brushnet",
        "lpips_brushnet",
        "clip_similarity",
        "vqa_score",
    ),
    "sticker": (
        "sticker_category",
        "sticker_style",
        "sticker_colour",
        "colour_distance",
        "edge_density_gap",
        "sharpness_gap",
        "seam_delta_e",
        "psnr",
    ),
}
"""What a family of benchmarks is scored by unless the user says otherwise; `sticker` needs no download."""


def metric_named(name: str, **options: Any) -> Metric:
    """A metric that is not set up yet.

    Args:
        name: a key of `METRICS`.
        options: fields of the metric, such as the hub id or folder of its model, or texts of them.

    Raises:
        UserError: no metric of this name, no such option of it, or a text of another type.
    """
    if name not in METRICS:
        raise UserError("--metrics", "names no known metric", name, nearest_name(name, METRICS))
    module, _, attribute = METRICS[name].partition(":")
    make = getattr(import_module(module), attribute)
    known = inspect.signature(make).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for option in options:
        if option not in known and not free:
            remedy = nearest_name(option, known) if known else "it has none"
            raise UserError(f"{name}.{option}", f"is no option of {name}", remedy=remedy)
    return make(**typed(make, options, f"{name}."))


def score_batch(metrics: Sequence[Metric], batch: Batch) -> dict[str, list[float | None]]:
    """The scores of a batch by every metric, by the metrics' names; what they share is computed once.

    Args:
        metrics: set up.
        batch: samples of any sizes.
    """
    return {one.definition.name: one.score(batch) for one in metrics}
