"""The demonstration: held-out scenes filled by the backbone alone and with the branch, as a sheet and a page.

What the holes and prompts are is `problems`; nothing here judges the results.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from mtadiffusion.data.files import whole_file
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.images import save_png
from mtadiffusion.pages import data_url, page
from mtadiffusion.seeding import torch_generator
from mtadiffusion.stickers.problems import HoleProblem, hole_problem

WITH_BRANCH = "with the branch"
COLUMNS = ("input", "hole", "backbone alone", WITH_BRANCH, "original")
HOLE_GREY = 128

_TOGETHER = 4
_TILE, _GAP, _HEADING, _LINE = 192, 12, 34, 22
_INK, _SOFT, _PAPER = (29, 29, 31), (99, 99, 107), (246, 245, 241)


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One held-out hole and its two results."""

    problem: HoleProblem
    """The scene, its hole and the prompt."""

    backbone_alone: Image.Image
    """RGB, of the scene's size: the backbone with latent blending, without the branch."""

    with_branch: Image.Image
    """RGB, of the scene's size."""

    @property
    def pictures(self) -> dict[str, Image.Image]:
        """The row's pictures by their column's title."""
        scene, hole = self.problem.scene.record.image, self.problem.hole
        masked = np.where(hole[..., None], np.uint8(HOLE_GREY), scene)
        drawn = (
            Image.fromarray(masked),
            Image.fromarray(hole.astype(np.uint8) * 255).convert("RGB"),
            self.backbone_alone,
            self.with_branch,
            Image.fromarray(scene),
        )
        return dict(zip(COLUMNS, drawn, strict=True))

    @property
    def facts(self) -> str:
        """What a reader should know of the row, in one line."""
        problem = self.problem
        held_out = ", a combination of object, colour and style that training never showed"
        kind = problem.kind.replace("_", " ")
        return f"style around the hole: {problem.style}; hole: {kind}{held_out if problem.held_out else ''}"


@dataclass(frozen=True, kw_only=True)
class DemoFiles:
    """What `write_demo` wrote."""

    sheet: Path
    """The contact sheet, PNG."""

    page: Path
    """The HTML page, with its pictures inside."""


def demo_problems(split: str, count: int, seed: int, size: int) -> list[HoleProblem]:
    """The first holes of a held-out split."""
    return [hole_problem(split, index, seed=seed, size=size) for index in range(count)]


def draw_rows(
    pipeline: Any,
    problems: Sequence[HoleProblem],
    *,
    steps: int,
    guidances: tuple[float, float],
    seed: int,
) -> list[DemoRow]:
    """Both results of each hole, from the same noise.

    Args:
        pipeline: an `MTAInpaintPipeline`.
        problems: what to fill.
        steps: denoising steps.
        guidances: guidance scales of the backbone alone and of the branch.
        seed: names the noise's streams.
    """
    pipeline.set_progress_bar_config(disable=True)
    rows: list[DemoRow] = []
    with tqdm(total=2 * len(problems), desc="drawing", unit="image") as progress:
        for group in _groups(problems):
            drawn = []
            for branch_scale, guidance in zip((0.0, 1.0), guidances, strict=True):
                result = pipeline(
                    [problem.prompt for problem in group],
                    [Image.fromarray(problem.scene.record.image) for problem in group],
                    [problem.hole for problem in group],
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=[torch_generator(seed, "demo", problem.index) for problem in group],
                    branch_scale=branch_scale,
                )
                drawn.append(result.images)
                progress.update(len(group))
            rows += [
                DemoRow(problem=problem, backbone_alone=alone, with_branch=ours)
                for problem, alone, ours in zip(group, *drawn, strict=True)
            ]
    return rows


def write_demo(rows: Sequence[DemoRow], folder: Path, facts: str) -> DemoFiles:
    """Write `sheet.png` and `index.html` into `folder`, each all or nothing.

    Args:
        rows: at least one.
        folder: created where it is missing.
        facts: a line about the models and settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("--out", f"cannot be created ({error.strerror})", str(folder)) from error
    sheet = save_png(contact_sheet(rows), folder / "sheet.png")
    return DemoFiles(sheet=sheet, page=_write_page(rows, facts, folder / "index.html"))


def demo_page(rows: Sequence[DemoRow], facts: str) -> str:
    """A self-contained HTML page."""
    shown = [
        {
            "prompt": row.problem.prompt,
            "facts": row.facts,
            "pictures": {title: data_url(np.asarray(picture)) for title, picture in row.pictures.items()},
        }
        for row in rows
    ]
    return page("demo.html", rows=shown, columns=COLUMNS, ours=WITH_BRANCH, facts=facts)


def contact_sheet(rows: Sequence[DemoRow]) -> Image.Image:
    """All rows in one RGB picture: the prompt above its five tiles, whose pixels stay crisp."""
    width = len(COLUMNS) * (_TILE + _GAP) + _GAP
    row_height = _LINE + _TILE + _GAP
    sheet = Image.new("RGB", (width, _HEADING + len(rows) * row_height), _PAPER)
    pen, bold, plain = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(14)
    for column, title in enumerate(COLUMNS):
        pen.text((_left(column), _GAP), title, _INK, bold)
    for number, row in enumerate(rows):
        top = _HEADING + number * row_height
        pen.text((_GAP, top), _fitting(row.problem.prompt, plain, width - 2 * _GAP), _SOFT, plain)
        for column, picture in enumerate(row.pictures.values()):
            sheet.paste(_enlarged(picture), (_left(column), top + _LINE))
    return sheet


def _groups(problems: Sequence[HoleProblem]) -> Iterator[Sequence[HoleProblem]]:
    for first in range(0, len(problems), _TOGETHER):
        yield problems[first : first + _TOGETHER]


def _left(column: int) -> int:
    return _GAP + column * (_TILE + _GAP)


def _enlarged(picture: Image.Image) -> Image.Image:
    """A tile: enlarged by whole pixels where the picture is small, reduced smoothly where it is large."""
    small = max(picture.size) <= _TILE
    return picture.resize((_TILE, _TILE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _fitting(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    kept = bisect.bisect(range(len(text)), width, key=lambda length: font.getlength(text[:length] + "…")) - 1
    return text[: max(0, kept)] + "…"


def _write_page(rows: Sequence[DemoRow], facts: str, path: Path) -> Path:
    try:
        with whole_file(path) as file:
            file.write(demo_page(rows, facts).encode())
    except OSError as error:
        raise UserError("--out", f"cannot be written ({error.strerror})", str(path)) from error
    return path
