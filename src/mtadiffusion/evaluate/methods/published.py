"""Figures that others published, to be set beside measured ones and marked as published.

They hold for their own protocol and machine: rows of different protocols must not be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """What one publication says of one method on one group of one benchmark."""

    method: str
    """As in the registry where it is there, else as its paper calls it."""

    benchmark: str
    """`brushbench`, or `editbench-brushnet`, EditBench as BrushNet's authors processed it."""

    group: str
    """`inside`, `outside`, `all` where the benchmark has no groups, `unknown` if its source does not say."""

    blended: bool | None
    """Whether known pixels were put back before the metrics; None: not stated."""

    figures: Mapping[str, float]
    """By the metrics' names, as tables print them: ImageReward x10, HPS x100, VQAScore x100, LPIPS and MSE
    x1000. PSNR, MSE and LPIPS have BrushNet's form."""

    source: str
    """The publication."""

    protocol: str
    """How the figures came about."""

    note: str = ""
    """What a reader has to know before comparing."""


BRUSHNET_PAPER = "BrushNet, arXiv 2403.06976"
MTADIFFUSION_PAPER = "MTADiffusion (CVPR 2025), arXiv 2506.23482"
PREFERENCE_PAPER = "Follow-Your-Preference"

_SETTINGS = "BrushNet's settings: SD 1.5, UniPC, 50 steps, guidance 7.5, seed 1234"
_LONGER = "BrushNet's released checkpoint was trained longer than the paper's"
_MTA = {
    "source": MTADIFFUSION_PAPER,
    "protocol": "not stated; taken to be BrushNet's, inside masks",
    "note": "other figures quoted of it suggest that known pixels were put back",
}

_IR, _HPS, _AS, _CLIP, _VQA = "image_reward", "hps", "aesthetic", "clip_similarity", "vqa_score"
_PSNR, _MSE, _LPIPS = "psnr_brushnet", "mse_brushnet", "lpips_brushnet"

_Row = tuple[str, bool | None, tuple[float, ...]]
"""Method, whether it is blended, and its figures in the order of the table's columns."""


def _table(columns: Sequence[str], rows: Sequence[_Row], **about: str) -> tuple[PublishedRow, ...]:
    """The rows of one table."""
    return tuple(
        PublishedRow(method=method, blended=blended, figures=dict(zip(columns, values, strict=True)), **about)
        for method, blended, values in rows
    )


_ROWS = (
    *_table(
        (_IR, _HPS, _AS, _PSNR, _MSE, _LPIPS, _CLIP),
        (
            ("blended-latent", False, (9.78, 25.87, 6.17, 21.33, 9.76, 49.26, 26.15)),
            ("sd-inpainting", False, (11.72, 27.06, 6.50, 21.52, 13.87, 48.39, 26.17)),
            ("hd-painter", False, (11.68, 26.90, 6.42, 22.61, 9.95, 43.50, 26.37)),
            ("powerpaint", False, (11.46, 27.35, 6.24, 21.43, 32.73, 48.43, 26.48)),
            ("controlnet-inpaint", True, (11.21, 26.92, 6.39, 22.73, 24.58, 43.49, 26.22)),
            ("brushnet", False, (12.36, 27.40, 6.53, 21.65, 9.31, 48.28, 26.48)),
            ("brushnet", True, (12.64, 27.78, 6.51, 31.94, 0.80, 18.67, 26.39)),
        ),
        benchmark="brushbench",
        group="inside",
        source=BRUSHNET_PAPER,
        protocol=f"mean over the 600 images of BrushBench, inside masks; {_SETTINGS}",
        note=_LONGER,
    ),
    *_table(
        (_IR, _HPS, _PSNR, _MSE, _LPIPS, _CLIP),
        (("brushnet", True, (10.88, 28.09, 27.82, 2.25, 4.63, 27.22)),),
        benchmark="brushbench",
        group="outside",
        source=BRUSHNET_PAPER,
        protocol=f"mean over the 600 images of BrushBench, outside masks; {_SETTINGS}",
        note=f"{_LONGER}; one of the papers has LPIPS and MSE swapped",
    ),
    *_table(
        (_IR, _PSNR, _MSE, _LPIPS, _CLIP),
        (("brushnet", True, (4.46, 33.66, 0.63, 10.12, 28.87)),),
        benchmark="editbench-brushnet",
        group="all",
        source=BRUSHNET_PAPER,
        protocol=f"mean over the images of EditBench; {_SETTINGS}",
        note=_LONGER,
    ),
    *_table(
        (_IR, _PSNR, _CLIP),
        (("sd-inpainting", False, (1.86, 23.25, 28.00)),),
        benchmark="editbench-brushnet",
        group="all",
        source=BRUSHNET_PAPER,
        protocol=f"mean over the images of EditBench; {_SETTINGS}",
    ),
    *_table(
        (_IR, _CLIP, _VQA),
        (
            ("mtadiffusion", None, (12.69, 26.52, 68.97)),
            ("brushnet", None, (12.52, 26.32, 68.22)),
            ("sd-inpainting", None, (11.72, 26.17, 64.55)),
        ),
        benchmark="brushbench",
        group="inside",
        **_MTA,
    ),
    *_table(
        (_IR, _CLIP),
        (
            ("mtadiffusion", None, (4.82, 29.12)),
            ("brushnet", None, (4.46, 28.87)),
            ("sd-inpainting", None, (1.86, 28.00)),
        ),
        benchmark="editbench-brushnet",
        group="all",
        **_MTA,
    ),
    *_table(
        (_IR,),
        (
            ("brushnet", None, (12.72,)),
            ("brushnet, aligned to preferences", None, (13.32,)),
            ("flux-fill", None, (12.76,)),
            ("flux-fill, aligned to preferences", None, (13.86,)),
        ),
        benchmark="brushbench",
        group="unknown",
        source=PREFERENCE_PAPER,
        protocol="its own, with 10 steps for BrushNet",
        note="not to be compared with rows of other protocols",
    ),
)


def published(benchmark: str, group: str | None = None) -> tuple[PublishedRow, ...]:
    """What is published of a benchmark, or of one group of it; nothing of benchmarks that nobody else has.

    Args:
        benchmark: its name as the command line has it.
        group: as in its items; None for all of its groups.
    """
    return tuple(row for row in _ROWS if row.benchmark == benchmark and group in (None, row.group))
