"""CLIP (Radford et al. 2021) through transformers: pictures and texts in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


@dataclass(kw_only=True)
class ClipScorer:
    """Unit vectors of CLIP's projections."""

    model: str = "openai/clip-vit-large-patch14"
    """Hub id or folder."""

    device: str = "cpu"
    """Where it runs."""

    longest: int = 672
    """The longest side of a picture that is decoded; crops of it are shrunk to CLIP's own size."""

    _processor: Any = field(default=None, init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The model; its device changes nothing but rounding."""
        return {"kind": "clip", "model": self.model}

    def load(self) -> None:
        """Load processor and network."""
        from transformers import CLIPModel, CLIPProcessor

        self._processor = CLIPProcessor.from_pretrained(self.model)
        network: Any = CLIPModel.from_pretrained(self.model)
        self._network = network.to(self.device).eval()

    @property
    def width(self) -> int:
        """D, the numbers of a vector."""
        return self._network.config.projection_dim

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit vectors (N, D) of RGB pictures."""
        inputs = self._processor.image_processor(list(images), return_tensors="pt").to(self.device)
        vision = self._network.vision_model(**inputs).pooler_output
        return F.normalize(self._network.visual_projection(vision), dim=-1).float().cpu().numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D); a text is cut at CLIP's 77 tokens."""
        inputs = self._processor.tokenizer(
            list(texts), padding=True, truncation=True, return_tensors="pt"
        ).to(self.device)
        states = self._network.text_model(**inputs).pooler_output
        return F.normalize(self._network.text_projection(states), dim=-1).float().cpu().numpy()
