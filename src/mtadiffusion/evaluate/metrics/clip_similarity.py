"""CLIP similarity: how well the whole result fits the prompt (Hessel et al. 2021, as torchmetrics has it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtadiffusion.evaluate.metrics.clip import OPENAI_L14, ClipFeatures, clip_identity, load_clip
from mtadiffusion.evaluate.metrics.metric import Batch, Definition


@dataclass(kw_only=True)
class ClipSimilarity:
    """max(100 cos, 0) of the result's and the prompt's vectors."""

    model: str = OPENAI_L14
    """Hub id or folder of a CLIP."""

    definition: Definition = field(
        default=Definition(
            name="clip_similarity",
            title="CLIP",
            better="higher",
            bounds=(0, 100),
            region="image",
            resize="224, bicubic, short side, centre crop",
            source="max(100 cos, 0) by openai/clip-vit-large-patch14; prompts are cut at 77 tokens",
        ),
        init=False,
        repr=False,
    )
    _clip: ClipFeatures | None = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The CLIP."""
        return clip_identity(self.model)

    def setup(self, device: str) -> None:
        """Load the CLIP. Raises UserError where it cannot be had."""
        self._clip = load_clip(self.model, device, "clip_similarity.model")

    def score(self, batch: Batch) -> list[float | None]:
        """In [0, 100]."""
        assert self._clip is not None, "setup comes first"
        return [max(100 * float(cosine), 0.0) for cosine in self._clip.cosines(batch)]
