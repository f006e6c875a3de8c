"""Who says whether a hole shows what was asked for: detectors and classifiers that see the hole alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.clip import OPENAI_L14, ClipFeatures, clip_identity, load_clip
from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.models.loading import loading_errors
from mtadiffusion.models.published import HubFolder

_GREY = (122, 116, 104)
"""CLIP's mean colour."""


class Recogniser(Protocol):
    """Finds a named object in a hole. An instance is picklable before `setup`."""

    def identity(self) -> Mapping[str, Any]:
        """All that decides its answers."""

    def setup(self, device: str) -> None:
        """Load the weights. Raises UserError where they cannot be had."""

    def finds(
        self, pictures: Sequence[np.ndarray], holes: Sequence[np.ndarray], labels: Sequence[str]
    ) -> list[bool]:
        """Whether each hole shows its label.

        Args:
            pictures: uint8 (H, W, 3), RGB.
            holes: bool (H, W), True = looked at; none is empty.
            labels: the names asked for.
        """


@dataclass(kw_only=True)
class GroundingDinoRecogniser:
    """Open vocabulary: GroundingDINO (Liu et al. 2023) is asked for the label in the hole's crop."""

    model: str = "IDEA-Research/grounding-dino-base"
    """Hub id or folder."""

    threshold: float = 0.3
    """The least score of a box that counts."""

    _network: Any = field(default=None, init=False, repr=False)
    _processor: Any = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The detector and its threshold."""
        return {"detector": self.model, "weights": self._folder().digest(), "threshold": self.threshold}

    def setup(self, device: str) -> None:
        """Load the detector. Raises UserError where it cannot be had."""
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        folder = self._folder().fetched()
        with loading_errors("hit.model", folder):
            self._processor = AutoProcessor.from_pretrained(folder)
            network: Any = GroundingDinoForObjectDetection.from_pretrained(folder)
        self._network = network.to(device).eval()

    @torch.inference_mode()
    def finds(
        self, pictures: Sequence[np.ndarray], holes: Sequence[np.ndarray], labels: Sequence[str]
    ) -> list[bool]:
        """See `Recogniser`: some box for the label reaches the threshold."""
        crops = [hole_crop(picture, hole) for picture, hole in zip(pictures, holes, strict=True)]
        texts = [f"{label.strip().lower()}." for label in labels]
        inputs = self._processor(images=crops, text=texts, padding=True, return_tensors="pt")
        logits = self._network(**inputs.to(self._network.device)).logits  # (B, boxes, tokens), -inf = padding
        return (logits.float().sigmoid().amax((1, 2)) > self.threshold).tolist()

    def _folder(self) -> HubFolder:
        files = ("*.json", "*.safetensors")
        return HubFolder(name=self.model, files=files, argument="hit.model", also=("vocab.txt",))


@dataclass(kw_only=True)
class ClipRecogniser:
    """Closed vocabulary: CLIP's zero-shot choice between the label and other names."""

    vocabulary: tuple[str, ...] = ()
    """The other names; the label itself need not be among them."""

    model: str = OPENAI_L14
    """Hub id or folder of a CLIP."""

    template: str = "a photo of a {label}"
    """How a name is put to CLIP."""

    _clip: ClipFeatures | None = field(default=None, init=False, repr=False)
    _names: tuple[str, ...] = field(default=(), init=False, repr=False)
    _vectors: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.vocabulary, str) or not self.vocabulary:
            remedy = "without other names to choose from, every hole shows its label"
            raise UserError("hit.vocabulary", "must be a list of names", self.vocabulary, remedy)

    def identity(self) -> Mapping[str, Any]:
        """The CLIP, the names and their template."""
        return {**clip_identity(self.model), "vocabulary": list(self.vocabulary), "template": self.template}

    def setup(self, device: str) -> None:
        """Load the CLIP and embed the names. Raises UserError where it cannot be had."""
        self._clip = load_clip(self.model, device, "hit.model")
        self._names = tuple(dict.fromkeys(name.strip().lower() for name in self.vocabulary))
        self._vectors = self._embedded(self._names)

    def finds(
        self, pictures: Sequence[np.ndarray], holes: Sequence[np.ndarray], labels: Sequence[str]
    ) -> list[bool]:
        """See `Recogniser`: no other name is nearer to the hole's crop than the label."""
        assert self._clip is not None, "setup comes first"
        crops = [hole_crop(picture, hole) for picture, hole in zip(pictures, holes, strict=True)]
        seen = self._clip.scorer.images(crops)
        names = [label.strip().lower() for label in labels]
        wanted = (seen * self._embedded(names)).sum(1)
        others = seen @ self._vectors.T  # type: ignore[union-attr]
        same = np.array([[name == other for other in self._names] for name in names])
        return (wanted > np.where(same, -np.inf, others).max(1)).tolist()

    def _embedded(self, names: Sequence[str]) -> np.ndarray:
        assert self._clip is not None
        return self._clip.scorer.texts([self.template.format(label=name) for name in names])


def hole_crop(picture: np.ndarray, hole: np.ndarray) -> Image.Image:
    """The box around a hole, with CLIP's mean colour where known pixels are."""
    x0, y0, x1, y1 = mask_box(hole)
    seen = np.where(hole[y0:y1, x0:x1, None], picture[y0:y1, x0:x1], np.array(_GREY, np.uint8))
    return Image.fromarray(seen)
