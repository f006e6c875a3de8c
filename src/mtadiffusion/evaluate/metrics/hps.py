"""Human Preference Score v2.1 (Wu et al. 2023, arXiv 2306.09341): a ViT-H CLIP tuned on people's choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtadiffusion.evaluate.metrics.clip import OPENAI_L14, ClipFeatures, shared_clip
from mtadiffusion.evaluate.metrics.metric import Batch, Definition
from mtadiffusion.models.open_clip import OpenClipScorer
from mtadiffusion.models.published import HubFolder

_FILE = "HPS_v2.1_compressed.pt"


@dataclass(kw_only=True)
class HumanPreference:
    """The cosine of result and prompt, without a scale."""

    weights: str = "xswu/HPSv2"
    """Hub id or folder that holds HPS_v2.1_compressed.pt."""

    tokenizer: str = OPENAI_L14
    """Hub id or folder of CLIP's tokenizer."""

    definition: Definition = field(
        default=Definition(
            name="hps",
            title="HPS v2.1",
            better="higher",
            bounds=(-1, 1),
            region="image",
            resize="224, bicubic, short side, centre crop",
            scale=100,
            source="cosine by HPS_v2.1_compressed.pt of xswu/HPSv2 (ViT-H-14)",
        ),
        init=False,
        repr=False,
    )
    _clip: ClipFeatures | None = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The checkpoint and the tokenizer."""
        return {"weights": self._checkpoint().digest(), "tokenizer": self._vocabulary().digest()}

    def setup(self, device: str) -> None:
        """Convert the checkpoint. Raises UserError where it or the tokenizer cannot be had."""
        file = str(self._checkpoint().fetched() / _FILE)
        words = self._vocabulary().fetched()
        self._clip = shared_clip(
            file,
            device,
            lambda: OpenClipScorer(checkpoint=file, model=str(words), device=device),
            "hps.weights",
        )

    def score(self, batch: Batch) -> list[float | None]:
        """In [-1, 1], for good pictures about 0.2 to 0.35."""
        assert self._clip is not None, "setup comes first"
        return [float(cosine) for cosine in self._clip.cosines(batch)]

    def _checkpoint(self) -> HubFolder:
        return HubFolder(name=self.weights, files=(_FILE,), argument="hps.weights")

    def _vocabulary(self) -> HubFolder:
        return HubFolder(name=self.tokenizer, files=("tokenizer*.json",), argument="hps.tokenizer")
