"""The paper's segmenter, Segment Anything (Kirillov et al. 2023), through transformers, asked by boxes.

SAM-HQ (Ke et al. 2023) and SAM 2.1 (Ravi et al. 2024) are asked in the same way; the model's own
configuration says which it is. SAM 2.1's processor needs torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image


@dataclass(kw_only=True)
class Sam:
    """Of the three masks that SAM gives for a box, the one whose IoU it predicts to be best."""

    model: str = "facebook/sam-vit-huge"
    """Hub id or folder, e.g. `syscv-community/sam-hq-vit-huge` or `facebook/sam2.1-hiera-large`."""

    device: str = "cpu"
    """Where it runs."""

    longest: int = 1024
    """SAM's own working size."""

    _processor: Any = field(default=None, init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The model; its device changes nothing but rounding."""
        return {"kind": "sam", "model": self.model, "longest": self.longest}

    def load(self) -> None:
        """Load processor and network."""
        from transformers import AutoModelForMaskGeneration, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(self.model)
        network: Any = AutoModelForMaskGeneration.from_pretrained(self.model)
        self._network = network.to(self.device).eval()

    @torch.inference_mode()
    def segment(
        self, image: Image.Image, boxes_xyxy: Sequence[Sequence[float]], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool (N, H, W) at `size` (width, height), and predicted IoUs (N,), of boxes in `image`."""
        boxes = [[list(map(float, box)) for box in boxes_xyxy]]
        inputs = self._processor(images=image, input_boxes=boxes, return_tensors="pt")
        outputs = self._network(
            pixel_values=inputs["pixel_values"].to(self.device),
            input_boxes=inputs["input_boxes"].float().to(self.device),
        )
        quality = outputs.iou_scores[0].float().cpu()  # (N, 3)
        best = quality.argmax(1)
        chosen = outputs.pred_masks[0].float().cpu()[torch.arange(len(best)), best]  # (N, h, w)
        sizes = [[(size[1], size[0])]]
        if "reshaped_input_sizes" in inputs:  # SAM 2 does not pad its pictures
            sizes.append(inputs["reshaped_input_sizes"])
        (masks,) = self._processor.post_process_masks([chosen[:, None]], *sizes)
        return masks[:, 0].numpy(), quality.gather(1, best[:, None])[:, 0].numpy()
