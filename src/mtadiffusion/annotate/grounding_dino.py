"""The paper's detector, GroundingDINO (Liu et al. 2023), through transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mtadiffusion.annotate.detect import Detection

_MARGIN = 8
"""Tokens of a prompt that are left free: its start and end, and safety."""


@dataclass(kw_only=True)
class GroundingDino:
    """Finds labels by a prompt "label. label."; a vocabulary that does not fit in one is asked in several."""

    model: str = "IDEA-Research/grounding-dino-base"
    """Hub id or folder."""

    device: str = "cpu"
    """Where it runs."""

    longest: int = 1333
    """The processor shrinks to this itself; nothing larger is decoded."""

    _processor: Any = field(default=None, init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The model; its device changes nothing but rounding."""
        return {"kind": "grounding-dino", "model": self.model, "longest": self.longest}

    def load(self) -> None:
        """Load processor and network."""
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        self._processor = AutoProcessor.from_pretrained(self.model)
        network: Any = GroundingDinoForObjectDetection.from_pretrained(self.model)
        self._network = network.to(self.device).eval()

    def detect(
        self, images: Sequence[Image.Image], labels: Sequence[Sequence[str]], min_score: float
    ) -> list[list[Detection]]:
        """For each image the boxes above `min_score`: x0, y0, x1, y1 in its pixels."""
        found: list[list[Detection]] = [[] for _ in images]
        asked = [list(self._prompts(names)) for names in labels]
        for turn in range(max(map(len, asked))):
            chosen = [i for i, prompts in enumerate(asked) if turn < len(prompts)]
            answers = self._ask([images[i] for i in chosen], [asked[i][turn] for i in chosen], min_score)
            for i, boxes in zip(chosen, answers, strict=True):
                found[i] += boxes
        return found

    def _prompts(self, labels: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The labels in portions, each short enough for one prompt."""
        room = self._network.config.max_text_len - _MARGIN
        portion: list[str] = []
        used = 0
        for label in (label.strip().lower() for label in labels):
            tokens = len(self._processor.tokenizer(f"{label}.", add_special_tokens=False).input_ids)
            if portion and used + tokens > room:
                yield tuple(portion)
                portion, used = [], 0
            portion.append(label)
            used += tokens
        yield tuple(portion)

    @torch.inference_mode()
    def _ask(
        self, images: Sequence[Image.Image], labels: Sequence[tuple[str, ...]], min_score: float
    ) -> list[list[Detection]]:
        texts = [" ".join(f"{label}." for label in names) for names in labels]
        inputs = self._processor(images=list(images), text=texts, padding=True, return_tensors="pt")
        outputs = self._network(**inputs.to(self.device))
        probabilities = outputs.logits.sigmoid().float().cpu()  # (B, queries, max_text_len)
        boxes = outputs.pred_boxes.float().cpu()  # (B, queries, 4), centre and size in [0, 1]
        return [
            self._boxes_of(probabilities[i], boxes[i], text, names, image.size, min_score)
            for i, (text, names, image) in enumerate(zip(texts, labels, images, strict=True))
        ]

    def _boxes_of(
        self,
        probabilities: Tensor,
        boxes: Tensor,
        text: str,
        labels: tuple[str, ...],
        size: tuple[int, int],
        min_score: float,
    ) -> list[Detection]:
        """A box shows the label whose tokens it is likeliest on average to mean; its score is their best."""
        tokens = self._tokens_of(text, labels)
        means = torch.stack([probabilities[:, t].mean(1) for t in tokens], dim=1)  # (queries, labels)
        best = torch.stack([probabilities[:, t].amax(1) for t in tokens], dim=1)
        chosen = means.argmax(1)
        scores = best.gather(1, chosen[:, None])[:, 0]
        found = []
        for query in (scores > min_score).nonzero()[:, 0].tolist():
            x, y, w, h = boxes[query].tolist()
            corners = (
                (x - w / 2) * size[0],
                (y - h / 2) * size[1],
                (x + w / 2) * size[0],
                (y + h / 2) * size[1],
            )
            label, score = labels[int(chosen[query])], float(scores[query])
            found.append(Detection(label=label, score=score, box_xyxy=corners))
        return found

    def _tokens_of(self, text: str, labels: tuple[str, ...]) -> list[list[int]]:
        """For each label the positions of its tokens in the prompt."""
        spans = self._processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        positions, start = [], 0
        for label in labels:
            end = start + len(label)
            positions.append([i for i, (a, b) in enumerate(spans) if a >= start and b <= end and b > a])
            start = end + len(". ")
        return positions
