"""The judge: a small classifier of what lies in a hole, its art style and its colour.

It sees only the hole's pixels on neutral grey, never the scene around them, and no generator is trained
against it. `tools/train_judge.py` trains it; its weights are in `weights/judge`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.stickers.layers import strided_body

NONE = "none"
"""The category of a hole in which no object can be made out, and the colour of an object without a word."""

WEIGHTS = Path(__file__).parent / "weights" / "judge"
_CONFIG, _TENSORS = "config.json", "model.safetensors"
_GREY = 127.5
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """What the judge looks at and what it can answer."""

    labels: tuple[str, ...]
    """Categories; `none` comes after the last one."""

    styles: tuple[str, ...]
    """Art styles."""

    colours: tuple[str, ...]
    """Colour words; `none` comes after the last one."""

    side: int = 48
    """Side in pixels of the view that the network takes."""

    widths: tuple[int, ...] = (24, 48, 64, 96, 128, 160)
    """Channels of the convolutions."""

    strides: tuple[int, ...] = (2, 2, 1, 2, 1, 2)
    """Strides of the convolutions."""

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.strides) > 0:
            raise UserError("widths", "must be as many as strides", self.widths)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge makes out in one hole."""

    category: str
    """A label, or `none`."""

    style: str
    """An art style; without meaning where the category is `none`."""

    colour: str | None
    """A colour word, None where no colour dominates; without meaning where the category is `none`."""

    confidences: Mapping[str, float]
    """The probability of each of the three answers, by the names above."""


class Logits(NamedTuple):
    """The judge's raw answers."""

    category: Tensor
    """(B, labels + 1), the last one is `none`."""
    style: Tensor
    """(B, styles)."""
    colour: Tensor
    """(B, colours + 1), the last one is `none`."""


class Judge(nn.Module):
    """Strided convolutions, a mean over the view, three linear heads."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.body = strided_body(config.widths, config.strides)
        self.heads = nn.ModuleList(nn.Linear(config.widths[-1], count) for count in self._answers())

    def _answers(self) -> tuple[int, int, int]:
        return len(self.config.labels) + 1, len(self.config.styles), len(self.config.colours) + 1

    def forward(self, views: Tensor) -> Logits:
        """Logits of views (B, 3, side, side) in [-1, 1], grey (0) outside the hole."""
        features = self.body(views).mean(dim=(2, 3))  # (B, widths[-1])
        return Logits(*(head(features) for head in self.heads))

    @torch.no_grad()
    def verdicts(self, images: np.ndarray, holes: np.ndarray) -> list[Verdict]:
        """Judge what lies in holes.

        A view and its mirror image are looked at, since objects come in both directions.

        Args:
            images: uint8 (B, H, W, 3) RGB.
            holes: bool (B, H, W), True = what is judged; everywhere for a whole picture.
        """
        assert not self.training, "load_judge() gives a judge that is ready to judge"
        found: list[Verdict] = []
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            views = hole_views(images[part], holes[part], self.config.side).to(next(self.parameters()).device)
            pairs = zip(self(views), self(views.flip(-1)), strict=True)
            chances = [((one.softmax(-1) + other.softmax(-1)) / 2).cpu() for one, other in pairs]
            found += [self._verdict(*three) for three in zip(*chances, strict=True)]
        return found

    def _verdict(self, category: Tensor, style: Tensor, colour: Tensor) -> Verdict:
        answers = {"category": category, "style": style, "colour": colour}
        best = {name: int(chances.argmax()) for name, chances in answers.items()}
        return Verdict(
            category=(*self.config.labels, NONE)[best["category"]],
            style=self.config.styles[best["style"]],
            colour=(*self.config.colours, None)[best["colour"]],
            confidences={name: float(chances[best[name]]) for name, chances in answers.items()},
        )


def hole_views(images: np.ndarray, holes: np.ndarray, side: int) -> Tensor:
    """The hole's pixels on neutral grey, cropped to the square around the hole and resized.

    Args:
        images: uint8 (B, H, W, 3) RGB.
        holes: bool (B, H, W), True = seen. An empty hole gives a grey view.
        side: of the views.

    Returns:
        float (B, 3, side, side) in [-1, 1]; grey is 0.
    """
    if images.shape[:3] != holes.shape:
        raise UserError("holes", f"must have the shape {images.shape[:3]} of the images", holes.shape)
    return torch.stack(
        [_view(image, hole, side) for image, hole in zip(images, holes.astype(bool), strict=True)]
    )


def _view(image: np.ndarray, hole: np.ndarray, side: int) -> Tensor:
    if not hole.any():
        return torch.zeros(3, side, side)
    x0, y0, x1, y1 = mask_box(hole)
    height, width = y1 - y0, x1 - x0
    square = max(height, width)
    top, left = (square - height) // 2, (square - width) // 2
    seen = np.where(
        hole[y0:y1, x0:x1, None], image[y0:y1, x0:x1].astype(np.float32) / _GREY - 1, np.float32(0)
    )
    crop = np.zeros((square, square, 3), dtype=np.float32)
    crop[top : top + height, left : left + width] = seen
    planes = torch.from_numpy(crop).permute(2, 0, 1)[None]
    return F.interpolate(planes, size=(side, side), mode="bilinear", antialias=True)[0]


def save_judge(judge: Judge, folder: Path) -> None:
    """Write `config.json` and half-precision `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in judge.state_dict().items()
    }
    temporary = folder / f".{_TENSORS}"
    save_file(tensors, temporary)
    temporary.chmod(0o644)
    temporary.replace(folder / _TENSORS)
    (folder / _CONFIG).write_text(
        json.dumps(dataclasses.asdict(judge.config), indent=1) + "\n", encoding="utf-8"
    )


def load_judge(folder: Path | None = None) -> Judge:
    """The shipped judge, or that of a folder, in single precision and ready to judge.

    Raises:
        UserError: where the folder has no judge.
    """
    folder = WEIGHTS if folder is None else folder
    missing = [name for name in (_CONFIG, _TENSORS) if not (folder / name).is_file()]
    if missing:
        raise UserError("judge", f"has no {missing[0]}", str(folder), "train it with tools/train_judge.py")
    values: Mapping[str, Sequence[object]] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    judge = Judge(JudgeConfig(**arguments))  # type: ignore[arg-type]
    judge.load_state_dict(load_file(folder / _TENSORS))
    return judge.eval().requires_grad_(False)
