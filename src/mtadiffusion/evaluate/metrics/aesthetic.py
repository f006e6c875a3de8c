"""How beautiful people would find the result: LAION's linear layer on CLIP's vector, as BrushNet uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.clip import OPENAI_L14, ClipFeatures, clip_identity, load_clip
from mtadiffusion.evaluate.metrics.metric import Batch, Definition
from mtadiffusion.models.aesthetic_head import load_head
from mtadiffusion.models.published import WebFile

_URL = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"


@dataclass(kw_only=True)
class Aesthetic:
    """A linear layer on the unit image vector; about 1 to 10."""

    model: str = OPENAI_L14
    """Hub id or folder of a CLIP."""

    head: str | None = None
    """File of the linear layer; None: LAION's, fetched."""

    definition: Definition = field(
        default=Definition(
            name="aesthetic",
            title="Aesthetic",
            better="higher",
            bounds=(-math.inf, math.inf),
            region="image",
            resize="224, bicubic, short side, centre crop",
            source="LAION's sa_0_4_vit_l_14_linear.pth on the vectors of openai/clip-vit-large-patch14",
        ),
        init=False,
        repr=False,
    )
    _clip: ClipFeatures | None = field(default=None, init=False, repr=False)
    _weight: np.ndarray | None = field(default=None, init=False, repr=False)
    _bias: float = field(default=0.0, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The CLIP and the layer."""
        return {**clip_identity(self.model), "head": self._file().digest()}

    def setup(self, device: str) -> None:
        """Load the layer and the CLIP. Raises UserError where they cannot be had, or do not fit."""
        self._weight, self._bias = load_head(str(self._file().fetched()))
        self._clip = load_clip(self.model, device, "aesthetic.model")
        width = self._clip.scorer.width
        if len(self._weight) != width:
            rule = f"must be a layer for the {width} numbers of {self.model}"
            raise UserError("aesthetic.head", rule, len(self._weight))

    def score(self, batch: Batch) -> list[float | None]:
        """About 1 to 10."""
        assert self._clip is not None, "setup comes first"
        return [float(value) for value in self._clip.images(batch) @ self._weight + self._bias]

    def _file(self) -> WebFile:
        return WebFile(
            url=_URL, saved_as="sa_0_4_vit_l_14_linear.pth", path=self.head, argument="aesthetic.head"
        )
